"""Recognisers by name: from the hub's cache, by reference in model packages, and one line where there is none."""

import json
import shutil
import time

import pytest
import torch

from cdasr import Pipeline
from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.load import load_recogniser, save_recogniser
from cdasr.classifiers.model_type import model_type
from cdasr.cli import main

WAYS_OUT = "give a local folder that save_pretrained wrote, a name that is in the hub's cache, or another name"


@pytest.fixture
def cached(recogniser_dir, tmp_path):
    """Options with a hub's cache that holds the recogniser as `org/tiny`."""
    repository = tmp_path / "cache" / "models--org--tiny"
    shutil.copytree(recogniser_dir, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    return {"cache_dir": str(tmp_path / "cache")}


def test_a_name_is_found_in_the_cache_without_a_network(cached, recogniser_dir):
    recogniser = load_recogniser("org/tiny", dtype="float64", **cached)
    assert recogniser.source == {"name": "org/tiny", "options": {"dtype": "float64"}} and recogniser.by_reference
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    torch.testing.assert_close(recogniser(wave, length).values, load_recogniser(recogniser_dir)(wave, length).values,
                               atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name, reason", [
    ("facebook/wav2vec2-of-tomorrow", "no such folder, nothing in the hub's cache, and HF_HUB_OFFLINE is set; "),
    ("/no/such/folder", "no such folder, and not a name that the hub could have; ")])
def test_a_name_that_is_nowhere_is_one_line_at_once(name, reason):
    started = time.perf_counter()
    for load in (load_recogniser, CTCRecogniser.from_pretrained):
        with pytest.raises(ValueError) as error:
            load(name)
        assert str(error.value) == f"{name}: {reason}{WAYS_OUT}"
    assert time.perf_counter() - started < 5.0


def test_a_hub_that_cannot_be_reached_is_asked_once(cached, monkeypatch):
    import huggingface_hub

    asked = []

    def unplugged(url, **options):
        asked.append(url)
        raise ConnectionResetError("Name or service not known")
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unplugged)
    assert load_recogniser("org/tiny", **cached).source["name"] == "org/tiny" and len(asked) == 1
    with pytest.raises(ValueError, match=r"nothing in the hub's cache, and the hub cannot be reached \(Connection"):
        load_recogniser("org/other", **cached)
    assert len(asked) == 2


def test_a_torn_model_is_one_line(recogniser_dir, tmp_path):
    shutil.copytree(recogniser_dir, tmp_path / "torn")
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="no CTC recogniser could be loaded") as error:
        load_recogniser(tmp_path / "torn")
    assert "\n" not in str(error.value)


def test_a_package_names_a_recogniser_of_the_hub_and_copies_others(cached, package_dir, recogniser_dir, tmp_path, tone):
    package = Pipeline.from_pretrained(package_dir, "cpu")
    named = Pipeline(load_recogniser("org/tiny", dtype="float32", **cached), package.signal, device="cpu")
    named.save_pretrained(tmp_path / "named")
    written = tmp_path / "named" / "recogniser" / "recogniser.json"
    assert [path.name for path in written.parent.iterdir()] == ["recogniser.json"]
    assert json.loads(written.read_text()) == {"name": "org/tiny", "options": {"dtype": "float32"}}
    again = Pipeline.from_pretrained(tmp_path / "named", "cpu", dtype="float64", **cached)
    assert again.recogniser.model.dtype == torch.float64 and again(tone(0.5)).text == named(tone(0.5)).text
    again.save_pretrained(tmp_path / "named-again")
    assert not (tmp_path / "named-again" / "recogniser" / "model.safetensors").exists()

    again.save_pretrained(tmp_path / "named", by_reference=False)
    assert not written.exists() and (written.parent / "model.safetensors").is_file()
    local = Pipeline(load_recogniser(recogniser_dir), package.signal, device="cpu")
    local.save_pretrained(tmp_path / "local")
    assert (tmp_path / "local" / "recogniser" / "model.safetensors").is_file()
    with pytest.raises(ValueError, match="cannot be stored as a reference"):
        save_recogniser(CTCRecogniser.from_pretrained(recogniser_dir), tmp_path / "own", by_reference=True)


def test_a_recogniser_that_has_moved(package_dir, recogniser_dir, tmp_path, tone, write_wav, capsys):
    moved, folder = tmp_path / "moved", tmp_path / "here"
    shutil.copytree(recogniser_dir, folder)
    package = Pipeline.from_pretrained(package_dir, "cpu")
    Pipeline(load_recogniser(folder), package.signal, device="cpu").save_pretrained(tmp_path / "package",
                                                                                    by_reference=True)
    folder.rename(moved)
    command = ["enhance-transcribe", str(write_wav("a.wav", tone(0.5))), "--model", str(tmp_path / "package"),
               "--device", "cpu"]
    capsys.readouterr()
    assert main(command) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1 and f"recogniser.json refers to {folder}: no such folder" in complaint
    assert main([*command, "--recogniser", str(moved), "--recogniser-dtype", "bfloat16",
                 "--attn-implementation", "eager"]) == 0


def test_a_recogniser_of_other_classes_is_refused(package_dir, tmp_path):
    from tests.classifiers.test_models import write_model

    other = write_model(tmp_path / "other", "wav2vec2-group", vocabulary={"<pad>": 0, "<unk>": 1, "|": 2})
    with pytest.raises(ValueError, match="was trained for a recogniser with logits of 14 classes; .*other has 9"):
        Pipeline.from_pretrained(package_dir, "cpu", recogniser=other)


def test_packages_can_share_a_recogniser_that_is_loaded(package_dir, tone):
    first = Pipeline.from_pretrained(package_dir, "cpu")
    second = Pipeline.from_pretrained(package_dir, "cpu", recogniser=first.recogniser)
    assert second.recogniser is first.recogniser and second(tone(0.5)).text == first(tone(0.5)).text


def test_the_controls_of_a_recipe_share_what_is_frozen(package_dir, tmp_path):
    from cdasr.recipe.stages import control_systems
    from cdasr.speech.recipe import RECIPE

    first = Pipeline.from_pretrained(package_dir, "cpu")
    for stage in ("matched", "retrained"):
        shutil.copytree(package_dir, tmp_path / stage / "package")
    systems = control_systems(tmp_path, first, RECIPE)
    assert {name: strategy for name, (_, strategy) in systems.items()} == {
        "enhanced_matched": "enhanced", "oa_matched": "oa", "retrained": "none"}
    assert systems["enhanced_matched"][0] is systems["oa_matched"][0]
    assert systems["enhanced_matched"][0].recogniser is first.recogniser
    assert systems["retrained"][0].recogniser is not first.recogniser
    assert control_systems(tmp_path / "none", first, RECIPE) == {}
    shutil.copytree(package_dir, tmp_path / "logits" / "package")
    assert control_systems(tmp_path, first, RECIPE).keys() == systems.keys(), "before stage 5 it is the package itself"
    shutil.copytree(package_dir, tmp_path / "coupled" / "package")
    assert control_systems(tmp_path, first, RECIPE)["cascade_pretrained"][1] == "cascade"


@pytest.mark.parametrize("fits", ["as they are", "in half precision", "another name"])
def test_weights_that_fit_are_filled_in_as_transformers_does(recogniser_dir, tmp_path, monkeypatch, fits):
    from safetensors.torch import load_file, save_file
    from transformers import Wav2Vec2ForCTC

    folder = tmp_path / "model"
    shutil.copytree(recogniser_dir, folder)
    weights = load_file(folder / "model.safetensors")
    if fits == "in half precision":
        weights = {name: tensor.half() for name, tensor in weights.items()}
    elif fits == "another name":  # as transformers before 5 wrote it
        weights = {name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"): tensor for name, tensor in weights.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    known, loads = Wav2Vec2ForCTC.from_pretrained(folder, dtype="float32"), []
    monkeypatch.setattr(Wav2Vec2ForCTC, "from_pretrained",
                        lambda *given, load=Wav2Vec2ForCTC.from_pretrained, **options: loads.append(given) or load(
                            *given, **options))
    model = load_recogniser(folder).model
    assert len(loads) == (fits == "another name") and not model.training
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    other = {**dict(known.named_parameters()), **dict(known.named_buffers())}
    assert list(own) == list(other) and all(torch.equal(own[name], other[name]) for name in own)
    assert all(tensor.dtype == torch.float32 for tensor in own.values())
    assert model.config.to_dict() == known.config.to_dict() and model.name_or_path == known.name_or_path
    load_recogniser(folder).save_pretrained(folder)  # into the file that was read
    torch.testing.assert_close(load_recogniser(folder).model.state_dict(), known.state_dict())


def test_tied_weights_are_filled_in_and_stay_tied(tmp_path, monkeypatch):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from cdasr.classifiers.pretrained import load_model

    torch.manual_seed(0)
    config = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "vocab_size": 60,
              "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 20,
              "max_source_positions": 100, "pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1,
              "decoder_start_token_id": 2}
    known = WhisperForConditionalGeneration(WhisperConfig(**config)).eval()
    known.save_pretrained(tmp_path)
    monkeypatch.setattr(WhisperForConditionalGeneration, "from_pretrained", lambda *_, **__: pytest.fail("called"))
    model = load_model(WhisperForConditionalGeneration, WhisperConfig(**config), tmp_path, {},
                       generation_config=known.generation_config)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    features, tokens = torch.randn(1, 20, 200), torch.tensor([[2, 5, 7]])
    logits = [each(features, decoder_input_ids=tokens).logits for each in (model, known)]
    assert torch.equal(*logits)


def test_what_type_of_model_it_is_without_loading_it(tmp_path, cached, recogniser_dir, whisper_dir, monkeypatch):
    def refers(folder, name, **more):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "recogniser.json").write_text(json.dumps({"name": str(name), **more}))
        return tmp_path / folder
    assert model_type(recogniser_dir) == "wav2vec2" and model_type(whisper_dir) == "whisper"
    assert model_type(refers("twice", refers("once", whisper_dir))) == "whisper"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cached["cache_dir"])
    assert model_type(refers("hub", "org/tiny", options={"revision": "main"})) == "wav2vec2"
    nowhere = (refers("circle", tmp_path / "circle"), refers("odd", "org/tiny", options={"revision": "../../etc"}),
               refers("gone", "org/none"), tmp_path / "none", "no such name")
    assert [model_type(place) for place in nowhere] == [None] * 5


def test_a_file_is_no_recogniser(tmp_path):
    (tmp_path / "model.bin").touch()
    with pytest.raises(ValueError, match="model.bin: is a file; give the folder of a model"):
        load_recogniser(tmp_path / "model.bin")
