"""Noise: unit RMS whatever the length, reproducible, recordings as they are or warped."""

import pickle

import numpy as np
import pytest

from cdasr.speech.noise import NoiseSource, cut, find_audio, shorten_silence
from cdasr.speech.noise_families import FAMILIES, make_periodic, rms

RATE = 16_000


@pytest.fixture
def speech(write_wav, tone):
    """Paths of two utterances, one of them short."""
    return [write_wav("speech/long.wav", tone(0.9, 300)), write_wav("speech/short.wav", tone(0.05, 500))]


@pytest.fixture
def recordings(write_wav, tone):
    """A folder with two noise files of different formats and rates."""
    write_wav("noise/a.wav", tone(0.7, 200))
    return write_wav("noise/sub/b.flac", tone(1.2, 900, 44_100), 44_100).parent.parent


@pytest.mark.parametrize("warp", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_families_have_unit_rms_at_every_length(family, warp, speech):
    source = NoiseSource(families=[family], speech=speech, warp=warp)
    for samples in (1, 10, 333, 12_001):
        for seed in range(15):
            noise, name = source.draw(np.random.default_rng(seed), samples)
            assert noise.shape == (samples,) and noise.dtype == np.float32
            assert np.isfinite(noise).all() and rms(noise) == pytest.approx(1.0, abs=1e-4)
            assert set(name.split("+")) == {family}


@pytest.mark.parametrize("warp", [False, True])
def test_draws_follow_from_the_generator_alone(warp, recordings, speech):
    settings = {"files": find_audio(recordings), "families": list(FAMILIES), "speech": speech, "warp": warp}
    first, second = NoiseSource(**settings), NoiseSource(**settings)
    second.draw(np.random.default_rng(99), 4000)  # neither caching nor earlier draws matter
    second = pickle.loads(pickle.dumps(second))  # as data loader workers get it
    names = set()
    for seed in range(40):
        noise, name = first.draw(np.random.default_rng(seed), 4000)
        again, same = second.draw(np.random.default_rng(seed), 4000)
        assert name == same and np.array_equal(noise, again)
        names.update(name.split("+"))
    assert {"a.wav", "b.flac"} < names and len(names) > 5
    other, _ = first.draw(np.random.default_rng(41), 4000)
    assert not np.array_equal(noise, other)


def test_plain_draws_are_stretches_of_the_recording(write_wav):
    wave = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    wave = 0.1 * (wave - wave.mean())
    source = NoiseSource(files=[write_wav("noise.wav", wave)], warp=False)
    noise, name = source.draw(np.random.default_rng(3), 2000)
    assert name == "noise.wav"
    matches = [np.corrcoef(noise, wave[start:start + 2000])[0, 1] for start in range(0, RATE - 2000)]
    assert max(matches) > 0.999


def test_short_recordings_are_looped_without_seams():
    time = np.arange(4000) / RATE
    looped = make_periodic(np.sin(2 * np.pi * 101 * time).astype(np.float32), fade=800)
    noise = cut(np.random.default_rng(0), looped, 20_000)
    assert np.abs(np.diff(noise)).max() < 2 * np.abs(np.diff(noise[:1000])).max()
    assert rms(noise) == pytest.approx(1.0, abs=1e-4)


def test_digital_silence_is_shortened():
    bark = np.random.default_rng(0).standard_normal(RATE // 2).astype(np.float32)
    padded = np.concatenate([np.zeros(RATE), bark, np.zeros(4 * RATE)]).astype(np.float32)
    short = shorten_silence(padded, RATE)
    assert len(short) == pytest.approx(1.1 * RATE, abs=10)
    assert np.count_nonzero(short) == len(bark)
    assert np.array_equal(shorten_silence(bark, RATE), bark)


def test_no_draw_falls_into_silence(write_wav):
    click = np.zeros(2 * RATE, np.float32)
    click[:40] = 0.5
    source = NoiseSource(files=[write_wav("click.wav", click)], warp=False)
    for seed in range(30):
        noise, _ = source.draw(np.random.default_rng(seed), 100)
        assert rms(noise) == pytest.approx(1.0, abs=1e-4) and np.abs(noise).max() < 3


def test_families_are_many_different_noises(speech):
    def spectrum(seed):
        noise, _ = source.draw(np.random.default_rng(seed), RATE)
        bands = np.add.reduceat(np.abs(np.fft.rfft(noise)) ** 2, np.geomspace(50, 7000, 12).astype(int))
        return np.log10(bands / bands.sum() + 1e-6)

    for family in FAMILIES:
        source = NoiseSource(families=[family], speech=speech, warp=True)
        assert np.std([spectrum(seed) for seed in range(12)], axis=0).mean() > 0.2, family


def test_unusable_input_is_named(tmp_path, write_wav, speech):
    with pytest.raises(ValueError, match="needs noise files"):
        NoiseSource()
    with pytest.raises(ValueError, match="thunder.*coloured"):
        NoiseSource(families=["thunder"])
    with pytest.raises(ValueError, match="babble.*speech files"):
        NoiseSource(families=["babble"])
    with pytest.raises(ValueError, match="no such folder"):
        find_audio(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no audio there"):
        find_audio(tmp_path / "empty")
    silent = NoiseSource(files=[write_wav("silent.wav", np.zeros(800, np.float32))])
    with pytest.raises(ValueError, match=r"silent\.wav.*digital silence"):
        silent.draw(np.random.default_rng(0), 800)
