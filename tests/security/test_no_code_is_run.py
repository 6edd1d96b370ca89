"""A package, a recogniser's folder and a recipe are data: nothing in one of them can run or fetch code."""

import importlib.util
import json
import shutil

import pytest
import torch

from cdasr import Pipeline
from cdasr.classifiers.load import load_recogniser
from cdasr.cli import main
from tests.classifiers.whisper import make_whisper
from tests.images.conftest import CLASSES, CLASSIFIER
from tests.security.conftest import Code, edit

UNSAFE = [{"weights_only": False}, {"allow_all_kernels": True}, {"use_kernels": True}, {"trust_remote_code": True},
          {"attn_implementation": "org/kernel"}, {"attn_implementation": "kernels-community/flash-attn"},
          {"attn_implementation": {"": "org/kernel"}}, {"kernel_config": {"a": "b"}}, {"adapter_kwargs": {"a": 1}},
          {"quantization_config": {"quant_method": "gptq"}}, {"config": "elsewhere"}, {"gguf_file": "x.gguf"},
          {"key_mapping": {"a": "b"}}, {"device_map": "auto"}, {"state_dict": {}}, {"subfolder": "../.."},
          {"code_revision": "x"}, {"variant": "../../x"}, {"revision": "../../x"}, {"target_lang": "../../x"},
          {"use_safetensors": False}, {"ignore_mismatched_sizes": True}, {"proxies": {"http": "x"}}]
STORED = [*UNSAFE, {"token": "secret"}, {"cache_dir": "/tmp/x"}]
FIELDS = [{"auto_map": {"AutoModelForCTC": "modeling.Model"}}, {"attn_implementation": "org/kernel"},
          {"_attn_implementation": "org/kernel"}, {"experts_implementation": "org/kernel"},
          {"fusion_config": {"a": {}}}, {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
          {"transformers_weights": "../../x.safetensors"}, {"configuration_files": ["config.9.0.0.json"]},
          {"custom_generate": "org/code"}, {"use_kernels": True}, {"per_layer_config": {"0": {}}}]


def poison(folder, marker):
    """Weights as a pickle that makes the file `marker`, in place of safetensors."""
    (folder / "model.safetensors").unlink()
    torch.save({"a": Code(marker)}, folder / "pytorch_model.bin")
    edit(folder / "config.json", dtype=None)


@pytest.mark.parametrize("options", [{"weights_only": False}, {}], ids=["as found", "without the option"])
def test_the_unsafe_package(package, tmp_path, write_wav, tone, capsys, options):
    marker, sender = tmp_path / "ran", tmp_path / "weights"
    (package / "recogniser").rename(sender)
    poison(sender, marker)
    (package / "recogniser").mkdir()
    (package / "recogniser" / "recogniser.json").write_text(json.dumps({"name": str(sender), "options": options}))
    assert main(["enhance-transcribe", str(write_wav("a.wav", tone(0.4))), "--model", str(package), "--device", "cpu"]
                ) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and ("weights_only" in error if options else "convert it" in error), error
    assert not marker.exists()


@pytest.mark.parametrize("options", STORED, ids=str)
def test_options_are_an_allow_list_whoever_names_them(folder, tmp_path, refused, options):
    name = "is not allowed here; allowed: dtype, " if set(options) - {
        "attn_implementation", "trust_remote_code", "variant", "revision", "target_lang"} else next(iter(options))
    if options in UNSAFE:
        refused(lambda: load_recogniser(folder, **options), name)
    reference = tmp_path / "named"
    reference.mkdir()
    (reference / "recogniser.json").write_text(json.dumps({"name": str(folder), "options": options}))
    refused(lambda: load_recogniser(reference), "recogniser.json: ", name)
    head = tmp_path / "head"
    head.mkdir()
    (head / "config.json").write_text(json.dumps({
        "model_type": "whisper-ctc", "encoder": {"name": str(folder), "options": options},
        "head": {"layers": 2, "width": 8, "tokens": 5}}))
    refused(lambda: load_recogniser(head), name)


def test_a_recipe_and_the_command_line_have_the_same_list(folder, package, write_wav, tone, capsys, refused):
    from cdasr.classifiers.options import checked_options
    from cdasr.classifiers.whisper_loading import load_encoder

    refused(lambda: load_encoder(folder, weights_only=False), "'weights_only' is not allowed")
    refused(lambda: checked_options([]), "expected names with values")
    assert main(["enhance-transcribe", str(write_wav("a.wav", tone(0.4))), "--model", str(package), "--device", "cpu",
                 "--attn-implementation", "org/kernel"]) == 2
    assert "attn_implementation: input should be 'eager', 'sdpa'" in capsys.readouterr().err
    if importlib.util.find_spec("flash_attn") is None:  # transformers would fetch a kernel in its place
        refused(lambda: load_recogniser(folder, attn_implementation="flash_attention_2"), "flash-attn is not installed")


@pytest.mark.parametrize("field", FIELDS, ids=str)
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_fields_that_lead_to_code_are_refused(folder, refused, field, name):
    edit(folder / name, **field)
    refused(lambda: load_recogniser(folder), f"{name}: {next(iter(field))} is refused")


def test_a_folder_of_whisper_is_data_too(tmp_path, refused):
    whisper, marker = make_whisper(tmp_path / "whisper"), tmp_path / "ran"
    code = whisper / "custom_generate"
    code.mkdir()
    (code / "generate.py").write_text(f"open({str(marker)!r}, 'w')\ndef generate(*a, **k): raise SystemExit\n")
    load_recogniser(whisper)
    assert not marker.exists()
    edit(whisper / "generation_config.json", custom_generate="org/code")
    refused(lambda: load_recogniser(whisper), "generation_config.json: custom_generate is refused")
    edit(whisper / "generation_config.json", custom_generate=None)
    poison(whisper, marker)
    refused(lambda: load_recogniser(whisper), "pytorch_model.bin: no weights that can be read safely", "convert it")
    assert not marker.exists()


def test_code_and_classes_beside_the_weights_are_not_looked_at(folder, tmp_path, refused):
    marker = tmp_path / "ran"
    (folder / "modeling.py").write_text(f"open({str(marker)!r}, 'w')\n")
    edit(folder / "processor_config.json", processor_class="modeling.Processor")
    load_recogniser(folder)
    edit(folder / "tokenizer_config.json", tokenizer_class="modeling.Tokenizer")
    refused(lambda: load_recogniser(folder), "its tokenizer is no Wav2Vec2CTCTokenizer, but a modeling.Tokenizer")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/other"}))
    edit(folder / "tokenizer_config.json", tokenizer_class="Wav2Vec2CTCTokenizer")
    refused(lambda: load_recogniser(folder), "adapter_config.json: PEFT's adapters are not loaded")
    assert not marker.exists()


def test_names_in_a_package_stay_inside_it(package, refused):
    for name in ("../asr", "recogniser/../../asr", str(package / "recogniser"), "", "other", "a\0b", ["recogniser"], 7):
        edit(package / "config.json", recogniser=name)
        refused(lambda: Pipeline.from_pretrained(package, "cpu"), "not a usable cdasr model package")
    outside = package.parent / "outside.safetensors"
    (package / "recogniser" / "model.safetensors").rename(outside)
    (package / "recogniser" / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../../outside.safetensors"}}))
    edit(package / "config.json", recogniser="recogniser")
    refused(lambda: Pipeline.from_pretrained(package, "cpu"), "names no safetensors files of this folder")
    (package / "recogniser" / "model.safetensors").symlink_to(outside)  # what a link leads to is data as well
    Pipeline.from_pretrained(package, "cpu")


@pytest.mark.parametrize("length", [1, 2, 5])
def test_references_in_a_circle_end_in_one_line(tmp_path, refused, length):
    for index in range(length):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / "recogniser.json").write_text(
            json.dumps({"name": str(tmp_path / str((index + 1) % length)), "options": {}}))
    refused(lambda: load_recogniser(tmp_path / "0"), "in a circle")


def test_a_chain_of_references_has_an_end(folder, tmp_path, refused):
    chain = [folder, *(tmp_path / str(index) for index in range(12))]
    for before, after in zip(chain, chain[1:]):
        after.mkdir()
        (after / "recogniser.json").write_text(json.dumps({"name": str(before)}))
    load_recogniser(chain[3])
    refused(lambda: load_recogniser(chain[-1]), "yet another reference")


def test_what_the_hub_gives_is_files_of_data(folder, monkeypatch, tmp_path):
    import huggingface_hub

    asked = []

    def download(name, allow_patterns=None, **options):
        asked.append(allow_patterns)
        return str(folder)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr("cdasr.classifiers.hub._unreachable", lambda name, place: None)
    load_recogniser("org/tiny")
    assert len(asked) == 1 and not any(pattern.endswith((".bin", ".py", ".pt")) for pattern in asked[0])
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="no weights in it"):
        load_recogniser("org/tiny")
    assert len(asked) == 3 and "pytorch_model.bin" in asked[2] and not any(name.endswith(".py") for name in asked[2])


@pytest.mark.parametrize("architecture", [
    "timm/hf-hub:org/model", "timm/local-dir:/tmp/x", "fasterrcnn_resnet50_fpn", {"name": "resnet18", "weights": "x"},
    {"name": "timm/resnet18", "checkpoint_path": "x.pth"}, {"name": "timm/resnet18", "pretrained_cfg": {"url": "x"}},
    {"name": "fcn_resnet50", "weights_backbone": "DEFAULT"}, {"name": "../x"}, {"name": None}, {}, 7], ids=str)
def test_an_image_classifier_fetches_and_names_nothing(tmp_path, refused, architecture):
    from cdasr.classifiers.image import ImageClassifier, make_model

    saved = tmp_path / "classifier"
    ImageClassifier(make_model(CLASSIFIER["architecture"], len(CLASSES)), CLASSIFIER).save_pretrained(saved)
    edit(saved / "config.json", architecture=architecture)
    refused(lambda: ImageClassifier.from_pretrained(saved), "architecture")
    shutil.rmtree(saved)
