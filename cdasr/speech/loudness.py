"""Loudness of a recording as ITU-R BS.1770-4 defines it: by which EARS-WHAM and WHAM! mix speech and noise.

The filters are those of pyloudnorm (Steinmetz & Reiss 2021), audio EQ cookbook biquads, so that mixtures that were made
with it can be made again, sample for sample.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

BLOCK = 0.4  # seconds
STEP = 0.25  # of a block
QUIETEST = -70.0  # LUFS; quieter blocks do not count
OFFSET = -0.691  # dB


def integrated_loudness(wave: np.ndarray, rate: int) -> float:
    """Integrated loudness of `(samples,)` at `rate` Hz in LUFS, minus infinity for silence.

    Raises ValueError for what is shorter than a block of 0.4 s.
    """
    if len(wave) < BLOCK * rate:
        raise ValueError(f"loudness needs {BLOCK} s, got {len(wave) / rate:.3f} s")
    weighted = np.asarray(wave, dtype=np.float64)
    for b, a in (_shelf(rate), _high_pass(rate)):
        weighted = lfilter(b, a, weighted)
    blocks = int(np.round((len(wave) / rate - BLOCK) / (BLOCK * STEP))) + 1
    bounds = [(int(BLOCK * (j * STEP) * rate), int(BLOCK * (j * STEP + 1) * rate)) for j in range(blocks)]
    power = np.array([np.sum(np.square(weighted[low:high])) for low, high in bounds]) / (BLOCK * rate)
    with np.errstate(divide="ignore"):
        levels = OFFSET + 10.0 * np.log10(power)
        loud = power[levels >= QUIETEST]
        if not len(loud):
            return -np.inf
        threshold = OFFSET + 10.0 * np.log10(np.mean(loud)) - 10.0
        return float(OFFSET + 10.0 * np.log10(np.mean(power[(levels > threshold) & (levels > QUIETEST)])))


def _shelf(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The head: 4 dB more above 1500 Hz."""
    gain, omega = 10 ** (4.0 / 40.0), 2.0 * np.pi * 1500.0 / rate
    cosine, alpha = np.cos(omega), np.sin(omega) / np.sqrt(2.0)
    more, less, slope = gain + 1, gain - 1, 2 * np.sqrt(gain) * alpha
    b = gain * np.array([more + less * cosine + slope, -2 * (less + more * cosine), more + less * cosine - slope])
    a = np.array([more - less * cosine + slope, 2 * (less - more * cosine), more - less * cosine - slope])
    return b / a[0], a / a[0]


def _high_pass(rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The ear: less below 38 Hz."""
    omega = 2.0 * np.pi * 38.0 / rate
    cosine, alpha = np.cos(omega), np.sin(omega)
    b, a = np.array([(1 + cosine) / 2, -(1 + cosine), (1 + cosine) / 2]), np.array([1 + alpha, -2 * cosine, 1 - alpha])
    return b / a[0], a / a[0]
