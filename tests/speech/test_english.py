"""The bundled package `english`: what it holds, without its recogniser, with another Whisper."""

import pytest
import torch

from cdasr.classifiers.load import load_recogniser
from cdasr.cli import main
from cdasr.coupled.models import LogitsModel
from cdasr.coupled.package import load_models, without_logits
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.signal_model import SpectrogramModel
from tests.classifiers.whisper import make_whisper
from tests.conftest import TINY_LOGITS, TINY_SIGNAL


def test_its_processes_load_and_do_something():
    folder, config, signal, logits = load_models("english", "speech", SpectrogramModel)
    assert logits.framewise and logits.tokens == 384 and signal.guided and config["strategy"] == "rover"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 15e6
    waves = 0.1 * torch.randn(1, 16_000)
    enhanced, evaluations = signal.enhance(waves, torch.tensor([16_000]))
    assert evaluations == 1 and float((enhanced - waves).abs().mean()) > 1e-3


def test_without_its_recogniser_one_line_says_how_to_get_it(tone, write_wav, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", "/nowhere")
    assert main(["enhance-transcribe", str(write_wav("a.wav", tone(0.5)))]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert "openai/whisper-tiny.en" in told.err and "--recogniser DIR; --model digits" in told.err


def test_with_another_whisper_it_works_as_with_its_own(tone, tmp_path):
    pipeline = Pipeline.from_pretrained("english", "cpu", recogniser=make_whisper(tmp_path))
    assert pipeline.strategies == ["none", "enhanced", "oa", "fused", "auto", "rover"]
    assert pipeline.default_strategy == "rover"
    wave = torch.from_numpy(tone(0.5))
    found = {name: pipeline.transcribe([wave], name)[0] for name in pipeline.strategies}
    assert found["auto"].text in {found[name].text for name in ("none", "enhanced", "fused")}
    assert [result.nfe["classifier"] for result in found.values()] == [1, 1, 1, 2, 2, 3]
    with pytest.raises(ValueError, match="'cascade' needs a logits process"):
        pipeline.transcribe([wave], "cascade")


def test_a_logits_process_of_another_recogniser_is_left_out_where_the_package_says_so(tone, tmp_path, capsys):
    torch.manual_seed(0)
    own = Pipeline(load_recogniser(make_whisper(tmp_path / "own")), SpectrogramModel.from_config(TINY_SIGNAL),
                   {"strategy": "cascade", "other_recognisers": True}, "cpu",
                   LogitsModel.from_config({**TINY_LOGITS, "network": {**TINY_LOGITS["network"], "tokens": 32}}))
    own.save_pretrained(tmp_path / "package")
    other = make_whisper(tmp_path / "other", width=16)
    pipeline = Pipeline.from_pretrained(tmp_path / "package", "cpu", recogniser=other)
    assert pipeline.strategies == ["none", "enhanced", "oa", "fused"] and pipeline.default_strategy == "fused"
    assert "logits of 32 classes" in capsys.readouterr().err
    assert pipeline(tone(0.5)).strategy == "fused"


def test_what_is_kept_without_a_logits_process():
    rule = {"strategy": "fused", "rules": {"fused": {}, "enhanced": {}}}
    config = {"strategy": "cascade", "auto": rule, "strategies": {"cascade": {}}, "logits": {}, "about": {}}
    kept = without_logits(config)
    assert kept == {"strategy": "fused", "auto": rule, "about": {}}
    kept = without_logits({"strategy": "auto", "auto": {"strategy": "cascade", "rules": {}}})
    assert kept == {"strategy": "fused"}
