"""Long recordings: every way through the pipeline cuts them at the same places and hears the same."""

import json

import numpy as np
import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.evaluation.store import read_decoded
from cdasr.speech.manifest import write_manifest
from cdasr.speech.segments import transcribe_recordings


@pytest.fixture(scope="module")
def pipeline(package_dir):
    return Pipeline.from_pretrained(package_dir, device="cpu")


@pytest.fixture
def long_wave(tone):
    wave = tone(41.0)
    wave[int(17.3 * 16_000):int(17.6 * 16_000)] = 0.0
    wave[int(30.1 * 16_000):int(30.5 * 16_000)] *= 0.01
    return wave


def test_many_recordings_are_transcribed_as_each_alone(pipeline, long_wave, tone, monkeypatch):
    waves, sizes, transcribe = [long_wave, tone(0.5), tone(0.9), long_wave[:25 * 16_000]], [], pipeline.transcribe
    alone = [pipeline(wave, strategy="enhanced") for wave in waves]
    monkeypatch.setattr(pipeline, "transcribe", lambda waves, **options: sizes.append(list(map(len, waves)))
                        or transcribe(waves, **options))
    together = transcribe_recordings(pipeline, list(map(torch.from_numpy, waves)), "enhanced", batch_seconds=30.0)
    assert max(max(size) for size in sizes) <= 20 * 16_000 and max(max(s) * len(s) for s in sizes) <= 30 * 16_000
    assert len(sizes) < sum(map(len, sizes)), "segments of several recordings share a batch"
    for one, other, wave in zip(alone, together, waves):
        assert (one.text, one.text_enhanced, one.nfe) == (other.text, other.text_enhanced, other.nfe)
        assert [word.word for word in one.words] == [word.word for word in other.words]
        assert len(other.wave) == len(wave) and other.duration == pytest.approx(len(wave) / 16_000)
        torch.testing.assert_close(one.wave, other.wave, atol=1e-4, rtol=0)
    assert [result.nfe["signal"] for result in together] == [6, 2, 2, 4]


@pytest.mark.parametrize("strategy", ["none", "enhanced", "parallel"])
@pytest.mark.parametrize("level", [1e-3, 1e-5, 1e-8])
def test_a_faint_recording_is_heard_as_a_louder_one(pipeline, tone, strategy, level):
    wave = torch.from_numpy(tone(0.6)) * 0.05
    loud, faint, silent = transcribe_recordings(pipeline, [wave, wave * level, 0 * wave], strategy)
    assert faint.text == loud.text
    if loud.wave is not None:
        torch.testing.assert_close(faint.wave / level, loud.wave, atol=2e-3, rtol=0)
        assert silent.wave.isfinite().all()


def test_evaluate_hears_what_enhance_transcribe_hears(package_dir, write_wav, long_wave, tmp_path, capsys):
    path = write_wav("long.wav", long_wave)
    write_manifest(tmp_path / "set.csv", [{"ID": "u", "duration": "41", "wav": path, "text": "one"}])
    options = ["--model", str(package_dir), "--device", "cpu"]
    assert main(["evaluate", "--manifest", str(tmp_path / "set.csv"), "--systems", "none,enhanced", "--output-dir",
                 str(tmp_path / "out"), *options]) == 0
    capsys.readouterr()
    for system in ("none", "enhanced"):
        command = ["enhance-transcribe", str(path), "--model", "digits", "--strategy", system, "--json"]
        assert main([*command, *options]) == 0
        heard, (entry,) = json.loads(capsys.readouterr().out), read_decoded(tmp_path / f"out/decode/{system}.jsonl")
        assert heard["text"] == entry["text"] and heard["nfe"] == entry["nfe"]
        assert [word["confidence"] for word in heard["words"]] == pytest.approx(entry["confidence"], abs=1e-3)


def test_a_recording_of_nothing_but_quiet_is_cut_all_the_same(pipeline):
    result = pipeline(np.full(50 * 16_000, 1e-4, np.float32), strategy="none")
    assert result.duration == pytest.approx(50.0) and result.nfe["classifier"] >= 3
