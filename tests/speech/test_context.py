import json

import numpy as np
import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.speech.audio import resample, write_audio
from cdasr.speech.segments import Context
from cdasr.speech.synthesis import speak

RATE = 16_000


@pytest.fixture(scope="module")
def digits():
    return Pipeline.from_pretrained("digits", device="cpu")


def tight(text: str) -> torch.Tensor:
    """A word that begins with the first sample and ends with the last one."""
    wave, rate = speak(text, "en-us+m3")
    return torch.from_numpy(0.1 * resample(wave, rate, RATE) / np.abs(wave).max())


def test_noise_lies_on_both_sides_at_its_level():
    wave = torch.sin(torch.arange(RATE) / 5.0)
    around = Context(0.25, -40.0).surround(wave, RATE)
    assert torch.equal(around[4000:-4000], wave)
    for side in (around[:4000], around[-4000:]):
        level = 10 * torch.log10(side.square().mean() / wave.square().mean())
        assert level == pytest.approx(-40.0, abs=0.3)
    assert torch.equal(around, Context(0.25, -40.0).surround(wave, RATE)), "the same in every call"


def test_none_and_silence():
    wave = torch.randn(100)
    assert Context().surround(wave, RATE) is wave
    assert not Context(0.1).surround(torch.zeros(100), RATE).any()


@pytest.mark.parametrize("options", [{"seconds": -1.0}, {"seconds": 60.0}, {"level": 3.0}, {"seconds": float("nan")}])
def test_bad_values_are_named(options):
    with pytest.raises(ValueError, match=f"context.{next(iter(options))}"):
        Context(**options)


def test_times_and_audio_are_those_of_the_recording(digits):
    wave = tight("seven")
    result = digits(wave, strategy="parallel")
    assert result.duration == pytest.approx(len(wave) / RATE)
    assert len(result.wave) == len(wave)
    assert all(0.0 <= word.start <= word.end <= result.duration for word in result.words)


def test_tightly_cut_words_are_heard(digits):
    """Without context the same words come out empty; `none` is the recogniser as it is."""
    words = ("one", "three", "six", "seven", "nine")
    waves = [tight(word) for word in words]
    for strategy in ("enhanced", "cascade", "parallel"):
        assert [result.text for result in digits.transcribe(waves, strategy)] == list(words), strategy
    bare = Pipeline(digits.recogniser, digits.signal, {**digits.config, "context": {}}, "cpu", digits.logits)
    assert sum(result.text == word for word, result in zip(words, bare.transcribe(waves, "parallel"))) < 3
    assert [r.text for r in digits.transcribe(waves, "none")] == [r.text for r in bare.transcribe(waves, "none")]


def test_command_line_says_what_the_package_is_for_and_what_is_foreign(tmp_path, capsys):
    noise = (0.05 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    write_audio(tmp_path / "noise.wav", noise, RATE)
    pause = np.zeros(RATE // 10, np.float32)
    spoken = np.concatenate([part for word in ("seven", "one", "four") for part in (pause, tight(word).numpy())])
    write_audio(tmp_path / "digits.wav", spoken, RATE)
    files = [str(tmp_path / "noise.wav"), str(tmp_path / "digits.wav")]
    assert main(["enhance-transcribe", *files, "--model", "digits", "--json"]) == 0
    out, err = capsys.readouterr()
    flags = [json.loads(line)["out_of_domain"] for line in out.splitlines()]
    assert flags == [True, False]
    assert err.count("package digits: task speech recognition, language English") == 1
    assert "noise.wav: unlike what the package was trained for" in err
    assert "digits.wav: unlike" not in err
