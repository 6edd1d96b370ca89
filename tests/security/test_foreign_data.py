"""Whatever stands in a file of somebody else's, it loads or ends in one line, at once; and never with random weights.

The readers of foreign data are fuzzed: a package's config.json, recogniser.json, a recogniser's folder, the
hyper-parameters of SGMSE checkpoints, an image classifier's config.json.
"""

import copy
import json
import time

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cdasr import Pipeline
from cdasr.classifiers.image import ImageClassifier, make_model
from cdasr.classifiers.load import load_recogniser
from cdasr.cli import main
from cdasr.coupled.package import load_models
from cdasr.coupled.schema import ImageSignal, Package, Signal
from cdasr.recipe.hparams import load_hparams
from cdasr.runtime.plain_data import checked, read_json
from cdasr.runtime.weights import read_pickle, tensors_in
from cdasr.speech.sgmse import model_config
from cdasr.speech.signal_model import SpectrogramModel
from tests.classifiers.ctc_models import write_model
from tests.classifiers.whisper import make_whisper
from tests.images.conftest import CLASSES, CLASSIFIER
from tests.security.conftest import edit
from tests.speech.sgmse import V1, V2

ODD = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 2, 3, 7, 200_000, 10**9, 10**30, -10**30, 0.5, -0.5, 1e-300, 1e300,
                     float("nan"), float("inf"), "", "x", "nan", "../../x", "a\0b", "\ud800", "é" * 300, [], {}, [[]]]),
    st.lists(st.sampled_from([0, 1, -1, 10**9, None, "x", 0.5, []]), max_size=4),
    st.dictionaries(st.text(max_size=5), st.sampled_from([0, None, "x", []]), max_size=3))
FUZZ = settings(max_examples=40, deadline=None, derandomize=True, database=None,
                suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def places(data, before=()):
    """The paths to all values in nested data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in pairs:
        yield (*before, key)
        yield from places(value, (*before, key))


def mutated(data, place, odd, how):
    """A copy with one value replaced, taken out, or a key added beside it."""
    made = copy.deepcopy(data)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    if how == "drop":
        del inner[place[-1]]
    elif how == "add" and isinstance(inner, dict):
        inner["odd"] = odd
    else:
        inner[place[-1]] = odd
    return made


def mutations(data):
    return st.tuples(st.sampled_from(list(places(data))), ODD, st.sampled_from(["set", "set", "set", "drop", "add"]))


def loads_or_says_why(load, seconds=8.0):
    """Whether it loads; if not, it raises ValueError in one line, in good time."""
    started = time.process_time()
    try:
        load()
        loaded = True
    except ValueError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 2500, str(error)
        str(error).encode()
        loaded = False
    assert time.process_time() - started < seconds
    return loaded


@FUZZ
@given(data=st.data())
def test_a_package(package_dir, tmp_path, data):
    config = json.loads((package_dir / "config.json").read_text())
    folder = tmp_path / "package"
    folder.mkdir(exist_ok=True)
    for name in ("signal.safetensors", "logits.safetensors"):
        if not (folder / name).exists():
            (folder / name).symlink_to(package_dir / name)
    (folder / "config.json").write_text(json.dumps(mutated(config, *data.draw(mutations(config)))))
    loads_or_says_why(lambda: load_models(folder, "speech", SpectrogramModel))


@settings(FUZZ, max_examples=50)
@given(data=st.data())
def test_a_recogniser(recogniser_dir, tmp_path, data):
    names = ("config.json", "vocab.json", "tokenizer_config.json", "processor_config.json")
    name = data.draw(st.sampled_from([*names, "config.json"]))
    folder = tmp_path / "asr"
    folder.mkdir(exist_ok=True)
    for path in recogniser_dir.iterdir():
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path)
    found = json.loads((recogniser_dir / name).read_text())
    (folder / name).unlink()
    (folder / name).write_text(json.dumps(mutated(found, *data.draw(mutations(found)))))
    loads_or_says_why(lambda: load_recogniser(folder))


@pytest.fixture(scope="module")
def whisper_dir(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"))


@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_whisper(whisper_dir, tmp_path, data):
    name = data.draw(st.sampled_from(["config.json", "generation_config.json", "processor_config.json"]))
    folder = tmp_path / "whisper"
    folder.mkdir(exist_ok=True)
    for path in whisper_dir.iterdir():
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).symlink_to(path)
    found = json.loads((whisper_dir / name).read_text())
    (folder / name).unlink()
    (folder / name).write_text(json.dumps(mutated(found, *data.draw(mutations(found)))))
    loads_or_says_why(lambda: load_recogniser(folder))


@FUZZ
@given(stored=st.one_of(ODD, st.fixed_dictionaries({"name": ODD, "options": ODD}),
                        st.fixed_dictionaries({"name": st.just("org/none"), "options": st.dictionaries(
                            st.sampled_from(["dtype", "attn_implementation", "language", "task", "revision", "x"]),
                            ODD)})))
def test_a_reference(tmp_path, stored):
    (tmp_path / "recogniser.json").write_text(json.dumps(stored))
    assert not loads_or_says_why(lambda: load_recogniser(tmp_path))


@settings(FUZZ, max_examples=150)
@given(data=st.data())
def test_hyper_parameters_of_sgmse(data):
    known = data.draw(st.sampled_from([V1, V2]))
    known = {key: list(value) if isinstance(value, tuple) else value for key, value in known.items()}
    place, odd, how = data.draw(mutations(known))
    if isinstance(odd, int) and abs(odd) > 64:  # sizes are compared with the weights elsewhere
        odd = -odd if place[0] in ("nf", "ch_mult") else odd
    changed = mutated(known, place, data.draw(st.sampled_from([odd, torch.zeros(3), object()])), how)
    loads_or_says_why(lambda: checked(Signal, model_config({**changed, 7: "a key that is no name"})))


@FUZZ
@given(data=st.data())
def test_an_image_classifier(tmp_path, data):
    saved = tmp_path / "classifier"
    if not saved.exists():
        ImageClassifier(make_model(CLASSIFIER["architecture"], len(CLASSES)), CLASSIFIER).save_pretrained(saved)
    (saved / "config.json").write_text(json.dumps(mutated(CLASSIFIER, *data.draw(mutations(CLASSIFIER)))))
    loads_or_says_why(lambda: ImageClassifier.from_pretrained(saved))


@FUZZ
@given(text=st.one_of(st.binary(max_size=40), st.text(max_size=40).map(lambda text: text.encode("utf-8", "replace")),
                      st.sampled_from([b"[" * 100_000, b'{"a": NaN}', b'{"a": 1e999}', b"9" * 5000, b"\xff\xfe{}"])))
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    loads_or_says_why(lambda: read_json(tmp_path / "config.json"))


# -- sizes and weights ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part, change", [
    ("signal", {"blocks": 200_000}), ("signal", {"blocks": 1000}), ("signal", {"dim": 65_536}),
    ("signal", {"heads": 3}), ("signal", {"tokens": 10**6}), ("signal", {"strides": [3, 4]}),
    ("logits", {"tokens": 10**9}), ("logits", {"hidden": 2_000_000, "dim": 65_536}), ("logits", {"blocks": 1024}),
    ("signal", {"blocks": 3})])
def test_sizes_are_compared_with_the_weights_before_a_network_is_built(package, refused, part, change):
    config = json.loads((package / "config.json").read_text())
    config[part]["network"].update(change)
    (package / "config.json").write_text(json.dumps(config))
    started = time.process_time()
    refused(lambda: Pipeline.from_pretrained(package, "cpu"), "not a usable cdasr model package")
    assert time.process_time() - started < 5.0


@pytest.mark.parametrize("change", [
    {"num_hidden_layers": 10**9}, {"num_hidden_layers": 5000}, {"vocab_size": 10**9}, {"hidden_size": 10**7},
    {"intermediate_size": 9_999_999}, {"conv_dim": [10**6] * 5}, {"num_hidden_layers": 3}, {"num_hidden_layers": 1},
    {"vocab_size": 15}, {"num_attention_heads": 0}, {"conv_stride": [10, 0, 2, 2, 2]}, {"conv_stride": [4000] * 5}],
    ids=str)
def test_sizes_of_a_recogniser(folder, refused, change):
    edit(folder / "config.json", **change)
    started = time.process_time()
    refused(lambda: load_recogniser(folder), "no CTC recogniser could be loaded")
    assert time.process_time() - started < 5.0


def test_a_recogniser_without_some_weights_is_refused_by_their_names(folder, refused):
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if ".encoder.layers.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    missing = sorted(set(weights) - set(kept))
    refused(lambda: load_recogniser(folder), *missing[:3], f"and {len(missing) - 3} more in its weights")
    name = missing[0]
    save_file({**weights, name: torch.zeros(5)}, folder / "model.safetensors", metadata={"format": "pt"})
    refused(lambda: load_recogniser(folder), "other shapes", f"{name} (5,), expected {tuple(weights[name].shape)}")
    more = {key.replace(".layers.1.", ".layers.2."): value for key, value in weights.items() if ".layers.1." in key}
    save_file({**weights, **{key: value.clone() for key, value in more.items()}}, folder / "model.safetensors",
              metadata={"format": "pt"})
    refused(lambda: load_recogniser(folder), "more layers than its configuration", "layers.2.")
    without = {name: value for name, value in weights.items() if not name.endswith("masked_spec_embed")}
    assert len(without) < len(weights), "only training masks: published checkpoints lack it"
    save_file(without, folder / "model.safetensors", metadata={"format": "pt"})
    load_recogniser(folder)


@pytest.mark.parametrize("name", ["wav2vec2-group", "mms", "hubert-batch-norm", "wavlm", "data2vec", "sew"])
def test_each_weight_of_a_model_is_needed(tmp_path, refused, name):
    folder = write_model(tmp_path / name, name)
    weights = load_file(folder / "model.safetensors")
    gone = [key for key in weights if "layers.1" in key][-1]
    save_file({key: value for key, value in weights.items() if key != gone}, folder / "model.safetensors",
              metadata={"format": "pt"})
    refused(lambda: load_recogniser(folder), gone.split(".parametrizations")[0])


def test_whisper_without_some_weights(tmp_path, refused):
    from cdasr.classifiers.whisper_loading import load_encoder

    folder = make_whisper(tmp_path / "whisper")
    weights = load_file(folder / "model.safetensors")
    for gone, loaders in (("model.encoder.layers.1.fc1.weight", (load_recogniser, load_encoder)),
                          ("model.decoder.layers.0.fc1.bias", (load_recogniser,)),
                          ("proj_out.weight", (load_recogniser,))):
        save_file({name: value for name, value in weights.items() if name != gone}, folder / "model.safetensors",
                  metadata={"format": "pt"})
        for load in loaders:
            refused(lambda load=load: load(folder), gone.removeprefix("model.encoder." if load is load_encoder else ""))


def test_numbers_that_are_none(package, folder, tmp_path, refused):
    for target, name, load in ((package, "signal", lambda: Pipeline.from_pretrained(package, "cpu")),
                               (package, "logits", lambda: Pipeline.from_pretrained(package, "cpu")),
                               (folder, "model", lambda: load_recogniser(folder))):
        path = target / f"{name}.safetensors"
        good = path.read_bytes()
        weights = load_file(path)
        key = sorted(weights)[-1]
        for bad in (float("nan"), float("inf")):
            weights[key].view(-1)[0] = bad
            save_file(weights, path, metadata={"format": "pt"})
            refused(load, f"{name}.safetensors: {key} holds NaN or infinite numbers")
        path.write_bytes(good)
    saved = tmp_path / "classifier"
    model = make_model(CLASSIFIER["architecture"], len(CLASSES))
    with torch.no_grad():
        model.fc.bias[0] = float("nan")
    ImageClassifier(model, CLASSIFIER).save_pretrained(saved)
    refused(lambda: ImageClassifier.from_pretrained(saved), "fc.bias holds NaN")


def test_guidance_is_a_number(package, write_wav, tone, capsys):
    wav = str(write_wav("a.wav", tone(0.4)))
    for value in ("nan", "inf"):
        assert main(["enhance-transcribe", wav, "--model", str(package), "--strategy", "parallel", "--device", "cpu",
                     "--guidance", value]) == 2
        assert "not a finite number" in capsys.readouterr().err
        with pytest.raises(ValueError, match="expected a finite number"):
            Pipeline.from_pretrained(package, "cpu")(wav, "parallel", guidance=float(value))


@pytest.mark.parametrize("change, words", [
    ({"pad_token": "[PAD]"}, "pad_token '[PAD]' is not in its vocabulary"),
    ({"word_delimiter_token": "#"}, "word_delimiter_token '#' is not in its vocabulary"), ({"pad_token": 7}, "")])
def test_a_blank_or_a_delimiter_that_is_not_in_the_vocabulary(folder, refused, change, words):
    edit(folder / "tokenizer_config.json", **change)
    refused(lambda: load_recogniser(folder), words)


def test_a_stored_view_cannot_claim_what_is_not_there(tmp_path, refused):
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "a.bin")
    refused(lambda: tensors_in(read_pickle(tmp_path / "a.bin"), tmp_path / "a.bin"), "more than is stored")


def test_a_checkpoint_of_sgmse_is_compared_with_its_settings(tmp_path, refused):
    from cdasr.speech.sgmse import load_sgmse

    path = tmp_path / "a.ckpt"
    for changes in ({"nf": 60_000}, {"num_res_blocks": 64}, {"nf": 1}, {"ch_mult": [1] * 12, "image_size": 64}):
        state = {"dnn.output_layer.weight": torch.zeros(2, 4, 1, 1)}
        torch.save({"state_dict": state, "hyper_parameters": {**V2, **changes}, "ema": {"shadow_params": [0.0]}}, path)
        started = time.process_time()
        refused(lambda: load_sgmse(path, ema=False), str(path))
        refused(lambda: load_sgmse(path), str(path))
        assert time.process_time() - started < 5.0
    for hyper in ({}, {1: 2}, {"backbone": ["ncsnpp"], "sde": None}, {**V2, "theta": "1.5"}, {**V2, "fir": object}):
        torch.save({"state_dict": {"dnn.a": torch.zeros(1)}, "hyper_parameters": {}}, path)
        refused(lambda hyper=hyper: model_config(hyper))


# -- what is well-formed still loads ----------------------------------------------------------------------------------


def test_packages_of_earlier_versions_and_all_recipes_fit_the_schema():
    from pathlib import Path

    root = Path(__file__).parents[2]
    for path in root.glob("cdasr/bundled/*/config.json"):
        checked(Package, read_json(path))
    load_models("digits", "speech", SpectrogramModel)
    for path in root.glob("recipes/*/hparams/default.yaml"):
        model = load_hparams([path])["signal_model"]
        checked(Signal if "stft" in model else ImageSignal, model)
