"""Degradations: the exact SNR, alignment, levels and reproducibility."""

import numpy as np
import pytest

from cdasr.speech.degrade import TrainingDegrader, degrade, mix_at_snr, reverberate
from cdasr.speech.noise import NoiseSource
from cdasr.speech.noise_families import rms
from cdasr.speech.rooms import RoomSource

COLOURED = NoiseSource(families=["coloured"], warp=False)


def decibels(ratio: float) -> float:
    return 20 * np.log10(ratio)


@pytest.mark.parametrize("snr", [-10, 0, 7.5, 40])
def test_mixtures_have_the_snr_asked_for(snr, tone):
    speech = tone(1.0)
    noise = 17 * np.random.default_rng(0).standard_normal(len(speech)).astype(np.float32)
    noisy = mix_at_snr(speech, noise, snr)
    assert noisy.dtype == np.float32
    assert decibels(rms(speech) / rms(noisy.astype(np.float64) - speech)) == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize("speech, noise, message", [
    (np.zeros(10), np.ones(10), "speech is silent"), (np.ones(10), np.zeros(10), "noise is silent"),
    (np.ones(10), np.ones(9), "10 samples and noise 9")])
def test_impossible_mixtures_are_refused(speech, noise, message):
    with pytest.raises(ValueError, match=message):
        mix_at_snr(speech.astype(np.float32), noise.astype(np.float32), 0)


def test_reverberation_keeps_length_level_and_dry_speech(tone):
    dry = tone(0.5)
    assert np.allclose(reverberate(dry, np.ones(1, np.float32)), dry, atol=1e-6)
    wet = reverberate(dry, np.array([1.0, 0, 0, 0.6, -0.3], np.float32))
    assert wet.shape == dry.shape and wet.dtype == np.float32
    assert rms(wet) == pytest.approx(rms(dry), rel=1e-5)


def test_degrade_scales_both_signals_where_it_would_clip(tone):
    clean = 4 * tone(0.5)
    result = degrade(clean, np.random.default_rng(0), COLOURED, snr_db=-5)
    assert 0.98 < np.abs(result.noisy).max() <= 0.9901 and result.gain < 1
    assert np.allclose(result.clean, result.gain * clean)
    snr = decibels(rms(result.clean) / rms(result.noisy - result.clean))
    assert snr == pytest.approx(-5, abs=0.01)
    quiet = degrade(0.01 * clean, np.random.default_rng(0), COLOURED, snr_db=-5)
    assert quiet.gain == 1 and np.array_equal(quiet.clean, np.float32(0.01) * clean)


def test_degrade_reports_what_it_did(tone):
    rooms = RoomSource(simulated=1)
    clean = tone(0.3)
    both = degrade(clean, np.random.default_rng(0), COLOURED, rooms, 5)
    assert (both.noise_name, both.rir_name, both.snr) == ("coloured", "room0000", 5)
    reverb = degrade(clean, np.random.default_rng(0), room_source=rooms)
    assert (reverb.noise_name, reverb.rir_name, reverb.snr) == ("", "room0000", None)
    assert np.array_equal(degrade(clean, np.random.default_rng(0)).noisy, clean)
    with pytest.raises(ValueError, match="go together"):
        degrade(clean, np.random.default_rng(0), COLOURED)


def test_training_degrader_varies_and_repeats(tone):
    clean = tone(0.3)
    degrader = TrainingDegrader(COLOURED, RoomSource(simulated=1), snr_range=(0, 10), reverb_prob=0.0,
                                clean_prob=0.2)
    snrs, levels, unchanged = [], [], 0
    for seed in range(120):
        noisy, target = degrader(clean, np.random.default_rng(seed))
        again, _ = degrader(clean, np.random.default_rng(seed))
        assert np.array_equal(noisy, again)
        assert noisy.dtype == target.dtype == np.float32 and noisy.shape == target.shape == clean.shape
        assert np.corrcoef(target, clean)[0, 1] == pytest.approx(1.0, abs=1e-5)
        levels.append(decibels(rms(target)))
        if np.array_equal(noisy, target):
            unchanged += 1
        else:
            snrs.append(decibels(rms(target) / rms(noisy - target)))
    assert 10 < unchanged < 40
    assert -0.01 < min(snrs) < 1 and 9 < max(snrs) < 10.01
    assert min(levels) < -32 and max(levels) > -18


def test_training_degrader_uses_rooms(tone):
    clean = tone(0.3)
    degrader = TrainingDegrader(COLOURED, RoomSource(simulated=1), snr_range=(60, 60), reverb_prob=1.0,
                                clean_prob=0.0)
    noisy, target = degrader(clean, np.random.default_rng(0))
    assert rms(noisy - target) > 0.05 * rms(target)


def test_training_speech_is_played_at_other_speeds_and_through_other_microphones(tone):
    clean = tone(0.3, 400) + 0.5 * tone(0.3, 1600)
    degrader = TrainingDegrader(COLOURED, reverb_prob=0.0, clean_prob=1.0, speed_range=(0.8, 1.25), channel_db=6.0)
    speeds, balances = [], []
    for seed in range(40):
        noisy, target = degrader(clean, np.random.default_rng(seed))
        assert np.array_equal(noisy, target) and noisy.dtype == np.float32
        spectrum = np.abs(np.fft.rfft(target))
        hertz = np.fft.rfftfreq(len(target), 1 / 16_000)
        low, high = (int(np.argmax(spectrum * band)) for band in (hertz < 900, hertz >= 900))
        speeds.append(hertz[low] / 400)
        assert len(clean) / len(target) == pytest.approx(speeds[-1], rel=0.03), "the pitch rises with the speed"
        balances.append(decibels(spectrum[high] / spectrum[low]))
    assert min(speeds) < 0.9 and max(speeds) > 1.12
    assert np.std(balances) > 3, "the microphone's gain differs between the two tones"


def test_pauses_are_cut_off_for_a_share():
    from cdasr.speech.degrade import without_pauses

    rng = np.random.default_rng(0)
    word = 0.1 * np.sin(np.arange(4000) / 4.0).astype(np.float32)
    speech = np.concatenate([np.zeros(3000, np.float32), word, np.zeros(5000, np.float32)])
    speech += 1e-4 * rng.standard_normal(len(speech)).astype(np.float32)
    assert len(word) <= len(without_pauses(speech, 16_000)) <= len(word) + 2 * 160
    degrader = TrainingDegrader(COLOURED, snr_range=(60, 60), reverb_prob=0.0, clean_prob=1.0, tight_prob=0.5)
    lengths = {len(degrader(speech, np.random.default_rng(seed))[0]) for seed in range(20)}
    assert len(speech) in lengths
    assert min(lengths) < 5000
