"""The picture of a trajectory has every estimate of both processes, and says what it cannot show."""

import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.speech.trajectory import plot_trajectory, rows_with_mass, trace


def test_every_estimate_is_traced_in_order(package_dir, tone):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    found, run = trace(pipeline, torch.from_numpy(tone(0.5)), "parallel", steps=3)
    assert [estimate.kind for estimate in found] == ["signal", "logits"] * 3
    times = [estimate.time for estimate in found if estimate.kind == "signal"]
    assert times[0] == pytest.approx(1.0) and times == sorted(times, reverse=True)
    assert run.nfe["signal"] == run.nfe["logits"] == 3
    waves = pipeline.transcribe([torch.from_numpy(tone(0.5))], "parallel", steps=3)[0].wave
    last = [estimate.value for estimate in found if estimate.kind == "signal"][-1]
    torch.testing.assert_close(run.synthesise(last[None, None])[0], waves, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="'card' has no signal and logits.*choose one of cascade"):
        trace(pipeline, torch.from_numpy(tone(0.5)), "card")


def test_the_options_that_the_package_stores_are_those_of_the_picture(package_dir, tone):
    pipeline, wave = Pipeline.from_pretrained(package_dir, device="cpu"), torch.from_numpy(tone(0.5))
    pipeline.config["strategies"] = {"alternating": {"steps": 2, "logits_steps": 3, "rounds": 3}}
    kinds = [estimate.kind for estimate in trace(pipeline, wave, "alternating")[0]]
    assert kinds == (["signal"] * 2 + ["logits"] * 3) * 3


def test_the_command_writes_a_picture(package_dir, tmp_path, write_wav, tone, capsys):
    target = tmp_path / "out" / "picture.png"
    assert main(["plot-trajectory", str(write_wav("a.wav", tone(0.5))), "--model", str(package_dir), "--device", "cpu",
                 "--output", str(target)]) == 0
    assert target.read_bytes()[:4] == b"\x89PNG" and str(target) in capsys.readouterr().out
    assert main(["plot-trajectory", str(write_wav("long.wav", tone(21.0))), "--model", str(package_dir), "--device",
                 "cpu", "--output", str(tmp_path / "no.png")]) == 2
    assert "at most 20 s" in capsys.readouterr().err and not (tmp_path / "no.png").exists()


def test_tokens_that_are_never_likely_have_no_row(package_dir, tone):
    found, run = trace(Pipeline.from_pretrained(package_dir, device="cpu"), torch.from_numpy(tone(0.5)), steps=2)
    run.noisy.classifier.blank = 0
    posteriors = torch.tensor([[0.9, 0.04, 0.06, 0.0], [0.5, 0.01, 0.01, 0.48]])
    assert rows_with_mass(run, posteriors) == [2, 3], "the blank, which is 0, is never shown"
    assert rows_with_mass(run, posteriors[:, :2]) == [1], "at least one row"


def test_words_are_written_at_their_times(package_dir, tmp_path, write_wav, tone, monkeypatch):
    from cdasr.classifiers.hypothesis import Word
    from cdasr.classifiers.logits import Logits

    words = [[Word("one", 0.05, 0.15, 0.9), Word("$x^2$", 0.3, 0.4, 0.9)]]
    monkeypatch.setattr(Logits, "words", lambda self: words)
    kept = []
    monkeypatch.setattr("matplotlib.pyplot.close", kept.append)
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    plot_trajectory(write_wav("a.wav", tone(0.5)), pipeline, tmp_path / "a.svg", steps=2)
    panels = [axis for part in kept[0].subfigs for axis in part.axes]
    written = [(text.get_text(), round(text.get_position()[0], 2)) for axis in panels for text in axis.texts]
    assert written == [("one", 0.1), ("$x^2$", 0.35)] * 3, "C(y) and two estimates"
    assert {axis.get_ylabel() for axis in panels} >= {"dB below the loudest", "probability"}
    titles = [axis.get_title() for axis in panels if axis.get_title()]
    assert titles == ["noisy signal y", "1. signal, t = 1.00", "3. signal, t = 0.50",
                      "logits C(y)", "2. logits, s = 1.00", "4. logits, s = 0.50"]
