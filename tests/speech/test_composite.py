"""Composite measures: closed forms, their parts against plain definitions, and values of the public implementation."""

import numpy as np
import pytest
from scipy.linalg import solve_toeplitz

from cdasr.speech import composite as parts
from cdasr.speech.composite import composite, frames

LLR, WSS, SSNR = 1.8556745625177655, 6.988864680859272, 10.032184412807617  # of `vowels`, by pysepm 0.1


def vowels(seconds=2.0):
    """A clean and a noisy signal `(samples,)` at 16 kHz: gliding harmonics below 4 kHz with a slow envelope."""
    time, rng = np.arange(int(seconds * 16_000)) / 16_000, np.random.default_rng(0)
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 1.5 * time)) / 16_000
    clean = sum(np.sin(number * phase) / (1 + (number - 5) ** 2 / 9) for number in range(1, 30))
    clean = 0.05 * clean * (1.1 + np.sin(2 * np.pi * 3 * time)) + 0.001 * rng.standard_normal(len(time))
    return clean, 0.8 * clean + 0.01 * rng.standard_normal(len(time))


def test_parts_have_the_values_of_the_public_implementation():
    clean, noisy = vowels()
    framed = frames(noisy), frames(clean)
    assert parts.log_likelihood_ratio(*framed) == pytest.approx(LLR, rel=1e-9)
    assert parts.weighted_slopes(*framed) == pytest.approx(WSS, rel=1e-9)
    assert parts.segmental_snr(*framed) == pytest.approx(SSNR, rel=1e-9)
    found = composite(noisy, clean, pesq=2.5)
    assert found["csig"] == pytest.approx(3.093 - 1.029 * LLR + 0.603 * 2.5 - 0.009 * WSS)
    assert found["cbak"] == pytest.approx(1.634 + 0.478 * 2.5 - 0.007 * WSS + 0.063 * SSNR)
    assert found["covl"] == pytest.approx(1.594 + 0.805 * 2.5 - 0.512 * LLR - 0.007 * WSS)


def test_closed_forms():
    clean, _ = vowels(0.5)
    assert composite(clean, clean, pesq=4.64) == {"csig": 5.0, "cbak": 5.0, "covl": 5.0, "ssnr": 35.0}
    louder = frames(1.5 * clean), frames(clean)
    assert parts.log_likelihood_ratio(*louder) == pytest.approx(0.0, abs=1e-9), "blind to the level"
    assert parts.weighted_slopes(*louder) == pytest.approx(0.0, abs=1e-9)
    assert parts.segmental_snr(*louder) == pytest.approx(-20 * np.log10(0.5))
    assert composite(np.random.default_rng(1).standard_normal(8000), clean, pesq=1.0)["csig"] == 1.0, "not below 1"


def test_parts_are_what_they_are_defined_to_be():
    clean, _ = vowels(0.5)
    lags = parts.autocorrelation(frames(clean))
    for found, lag in zip(parts.prediction_filter(lags), lags):
        assert found[1:] == pytest.approx(-solve_toeplitz(lag[:-1], lag[1:]), abs=1e-6)
        matrix = lag[np.abs(np.subtract.outer(range(17), range(17)))]
        assert parts.quadratic(found[None], lag[None])[0] == pytest.approx(found @ matrix @ found)
    levels = np.array([[3.0, 1.0, 2.0, 5.0, 4.0, 4.0]])  # falls, rises, rises, falls, is level
    assert parts.near_peaks(levels).tolist() == [[3.0, 2.0, 2.0, 5.0, 5.0]]
    assert parts.lowest_mean(np.array([1.0] * 19 + [100.0])) == 1.0
    assert len(frames(np.zeros(480 + 3 * 120))) == 3


def test_digital_silence_and_wrong_use():
    clean, noisy = vowels(0.5)
    quiet = clean.copy()
    quiet[2000:5000] = 0.0
    for pair in ((noisy, quiet), (quiet, clean), (0 * clean, clean), (clean, 0 * clean)):
        assert all(np.isfinite(list(composite(*pair, pesq=2.0).values())))
    for pair in ((clean[:-1], clean), (clean[:599], clean[:599])):
        with pytest.raises(ValueError, match="two signals of one length, 600 samples or more; got"):
            composite(*pair, pesq=2.0)
