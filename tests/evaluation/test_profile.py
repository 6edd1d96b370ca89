"""The profile of a pipeline: parts add up, calls are counted, and nothing stays hooked in."""

import json
import time

import numpy as np
import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.diffusion.samplers import Trajectory
from cdasr.evaluation.profile import OTHER, Stopwatch, profile


@pytest.fixture
def pipeline(package_dir):
    return Pipeline.from_pretrained(package_dir, device="cpu")


def hooked(pipeline):
    """Everything that a stopwatch could have left behind; transformers has hooks of its own."""
    modules = [module for part in (pipeline.signal, pipeline.logits, pipeline.classifier) if part is not None
               for module in part.modules()]
    functions = [found for module in modules for found in (
        *module._forward_pre_hooks.values(), *module._forward_hooks.values(), *vars(module).values())]
    return [found for found in functions if getattr(found, "__module__", "") == "cdasr.evaluation.profile"]


def test_a_stopwatch_counts_every_second_once():
    stopwatch = Stopwatch("cpu")
    started = time.perf_counter()
    with stopwatch:
        with stopwatch.part("outer"):
            time.sleep(0.05)
            for _ in range(2):
                with stopwatch.part("inner"):
                    time.sleep(0.03)
        time.sleep(0.02)
    parts, total = stopwatch.parts, time.perf_counter() - started
    assert 0.13 <= sum(part.seconds for part in parts.values()) <= total
    for name, seconds, calls in (("outer", 0.05, 1), ("inner", 0.06, 2), (OTHER, 0.02, 0)):
        assert seconds <= parts[name].seconds <= total - 0.13 + seconds and parts[name].calls == calls
        assert parts[name].memory is None or 0.01 < parts[name].memory < 100


def test_a_gpu_is_waited_for_and_its_memory_told(monkeypatch):
    waited, peaks = [], iter([1e9, 3e9, 2e9, 5e9, 1e9])
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: next(peaks))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    stopwatch = Stopwatch("cuda:1")
    with stopwatch, stopwatch.part("outer"), stopwatch.part("inner"):
        pass
    assert waited == ["cuda:1"] * 6, "at the start and at every change of parts"
    assert {name: part.memory for name, part in stopwatch.parts.items()} == {OTHER: 1.0, "outer": 5.0, "inner": 2.0}


def test_what_fails_inside_a_part_ends_it():
    stopwatch = Stopwatch("cpu")
    with pytest.raises(KeyError), stopwatch, stopwatch.part("broken"):
        raise KeyError
    assert stopwatch.running == [OTHER] and stopwatch.parts["broken"].calls == 1


@pytest.mark.parametrize("strategy", ["none", "enhanced", "parallel", "nested"])
def test_parts_add_up_and_calls_are_the_evaluations(pipeline, tone, strategy):
    before, wave = Trajectory.move, torch.from_numpy(tone(0.6))
    plain = pipeline(wave, strategy=strategy)
    seen = []
    found = profile(pipeline, lambda: seen.append(len(hooked(pipeline))) or wave, strategy, repeats=2)
    assert seen[0] == 0 < seen[1] == seen[2], "the first run is without"
    assert Trajectory.move is before and not hooked(pipeline), "taken out again"
    assert found["text"] == plain.text and found["nfe"] == plain.nfe and found["strategy"] == strategy
    parts = {line["part"]: line for line in found["parts"]}
    assert sum(line["seconds"] for line in found["parts"]) == pytest.approx(found["total"]["seconds"], rel=1e-6)
    assert sum(line["share"] for line in found["parts"]) == pytest.approx(1.0, rel=1e-6)
    calls = {name: parts[f"{name} network"]["calls"] if f"{name} network" in parts else 0
             for name in ("signal", "logits")}
    assert {**calls, "classifier": parts["classifier, encoder"]["calls"]} == plain.nfe
    assert {"reading the file", "decoding", "classifier, rest", OTHER} < parts.keys()
    assert ("analysis and synthesis" in parts and "sampler steps" in parts) == (strategy != "none")
    assert parts["decoding"]["rtf"] == pytest.approx(parts["decoding"]["seconds"] / found["duration"])


def test_encoder_and_decoder_of_whisper_are_told_apart(pipeline, tmp_path, tone):
    from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
    from tests.classifiers.whisper import make_whisper

    recogniser = WhisperDecoderRecogniser.from_pretrained(make_whisper(tmp_path / "whisper"), fallback=False)
    whisper, wave = Pipeline(recogniser, pipeline.signal, {}, "cpu"), torch.from_numpy(tone(0.6))
    parts = {line["part"]: line for line in profile(whisper, lambda: wave, "none", 1)["parts"]}
    assert parts["classifier, encoder"]["calls"] == 1 == parts["classifier, features"]["calls"]
    assert parts["classifier, decoder"]["calls"] >= len(whisper(wave, strategy="none").text.split())
    assert parts["decoding"]["seconds"] > 0 and not hooked(whisper)


def test_hooks_go_where_the_run_fails(pipeline):
    with pytest.raises(ValueError, match="shorter than one frame"):
        profile(pipeline, lambda: torch.zeros(10), "none")
    runs = iter([torch.zeros(8000), torch.zeros(10)])
    with pytest.raises(ValueError, match="shorter than one frame"):
        profile(pipeline, lambda: next(runs), "none")
    assert not hooked(pipeline)


def test_profile_from_the_command_line(package_dir, write_wav, tone, capsys):
    path = write_wav("a.wav", np.concatenate([tone(0.5), tone(0.3, 900)]))
    command = ["profile", str(path), "--model", str(package_dir), "--device", "cpu", "--strategy", "parallel",
               "--repeats", "1"]
    assert main(command) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].split() == ["part", "seconds", "share", "%", "calls", "RTF", "memory", "(GB)"]
    names = [line.split("  ")[0] for line in shown[2:shown.index("")]]
    assert names[-2:] == ["other", "total"]
    assert {"signal network", "logits network", "recogniser, encoder", "STFT and inverse", "decoding",
            "reading the file"} <= set(names)
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["file"] == str(path) and found["duration"] == 0.8 and found["load_seconds"] > 0
    assert {line["part"] for line in found["parts"]} == set(names[:-1]) and found["record"]["settings"][
        "strategy"] == "parallel"


def test_profile_of_what_is_no_audio_is_one_line(tmp_path, capsys):
    (tmp_path / "a.wav").write_text("x")
    for path in ("a.wav", "gone.wav"):
        assert main(["profile", str(tmp_path / path), "--model", "digits"]) == 2
        assert capsys.readouterr().err.count("\n") == 1
