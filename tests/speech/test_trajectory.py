"""The picture of a trajectory has every estimate of both processes, and says what it cannot show."""

import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.speech.trajectory import trace


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
