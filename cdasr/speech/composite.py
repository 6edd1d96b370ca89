"""The composite measures of enhanced speech: CSIG, CBAK and COVL (Hu and Loizou 2008), with segmental SNR.

Hu and Loizou, "Evaluation of Objective Quality Measures for Speech Enhancement", IEEE TASLP 16(1), 2008: linear
regressions from objective measures to the ratings of listeners (ITU-T P.835), each from 1 to 5. The three measures
beside PESQ follow Loizou, "Speech Enhancement: Theory and Practice", chapter 11. What the authors' program does beyond
the equations is followed and marked, since the published tables come from it. As in these tables, PESQ is the
wide-band one.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from cdasr.speech.metrics import PESQ_RATE

FRAME, HOP = 480, 120  # samples at 16 kHz: 30 ms, a quarter of it
N_FFT = 1024
WINDOW = np.hanning(FRAME + 2)[1:-1]
ORDER = 16  # of the linear prediction
KEPT = 0.95  # share of the frames that are averaged: those with the lowest distances
SEGMENT_LIMITS = (-10.0, 35.0)  # dB
CENTRES = np.array([  # Hz, of 25 critical bands (Loizou, table 11.1)
    50.0, 120.0, 190.0, 260.0, 330.0, 400.0, 470.0, 540.0, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30,
    1288.72, 1442.54, 1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63])
WIDTHS = np.array([  # Hz
    70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 70.0, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423, 153.823,
    168.154, 183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136])
K_MAX, K_LOCAL_MAX = 20.0, 1.0  # of the weights (Klatt 1982)
FLOOR = 1e-10  # of the power in a band
TINY = np.finfo(np.float64).eps


def composite(estimate: np.ndarray, reference: np.ndarray, pesq: float) -> dict[str, float]:
    """`csig` (the speech), `cbak` (the background), `covl` (overall), 1 to 5, and `ssnr` in dB.

    `estimate`, `reference`: (samples,) at 16 kHz; `pesq`: their wide-band PESQ. Raises ValueError for signals of
    different lengths and for less than 40 ms.
    """
    if estimate.shape != reference.shape or len(reference) < FRAME + HOP:
        raise ValueError(f"composite measures need two signals of one length, {FRAME + HOP} samples or more; got "
                         f"{estimate.shape} and {reference.shape}")
    enhanced, clean = (frames(np.asarray(wave, np.float64)) for wave in (estimate, reference))
    llr, wss = log_likelihood_ratio(enhanced, clean), weighted_slopes(enhanced, clean)
    ssnr = segmental_snr(enhanced, clean)
    ratings = {"csig": 3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss,
               "cbak": 1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * ssnr,
               "covl": 1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss}
    return {**{name: float(np.clip(value, 1.0, 5.0)) for name, value in ratings.items()}, "ssnr": ssnr}


def frames(wave: np.ndarray) -> np.ndarray:
    """Windowed frames `(frames, FRAME)`; the last whole one is left out, as the authors' program does."""
    return sliding_window_view(wave, FRAME)[::HOP][:(len(wave) - FRAME) // HOP] * WINDOW


def segmental_snr(enhanced: np.ndarray, clean: np.ndarray) -> float:
    """The mean over frames of their SNR in dB, each within SEGMENT_LIMITS."""
    signal, noise = np.square(clean).sum(-1), np.square(clean - enhanced).sum(-1)
    return float(np.clip(10.0 * np.log10(signal / (noise + TINY) + TINY), *SEGMENT_LIMITS).mean())


def log_likelihood_ratio(enhanced: np.ndarray, clean: np.ndarray) -> float:
    """How much worse the enhanced frames' linear prediction fits the clean frames than their own: log of the errors.

    As in the authors' program: digital silence becomes a tiny constant, and a frame's distance has no upper limit here.
    A ratio that is not positive, by rounding in such frames, counts as 1000.
    """
    clean, enhanced = clean + TINY * WINDOW, enhanced + TINY * WINDOW
    lags = autocorrelation(clean)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        worse, own = (quadratic(prediction_filter(found), lags) for found in (autocorrelation(enhanced), lags))
        ratios = worse / own
    return lowest_mean(np.log(np.where((ratios > 0) & np.isfinite(ratios), ratios, 1000.0)))


def autocorrelation(windowed: np.ndarray) -> np.ndarray:
    """Lags 0 to ORDER: `(frames, ORDER + 1)`."""
    return np.stack([(windowed[:, :FRAME - lag] * windowed[:, lag:]).sum(-1) for lag in range(ORDER + 1)], axis=-1)


def prediction_filter(lags: np.ndarray) -> np.ndarray:
    """The filters of the prediction error, `(frames, ORDER + 1)` with 1 first, by the Levinson-Durbin recursion."""
    found, error = np.ones((len(lags), 1)), lags[:, 0]
    for order in range(1, ORDER + 1):
        reflection = -(found * lags[:, order:0:-1]).sum(-1) / error
        longer = np.pad(found, ((0, 0), (0, 1)))
        found = longer + reflection[:, None] * longer[:, ::-1]
        error = error * (1.0 - reflection**2)
    return found


def quadratic(filters: np.ndarray, lags: np.ndarray) -> np.ndarray:
    """`a R a` of each frame, R the Toeplitz matrix of its lags: `(frames,)`."""
    places = np.abs(np.subtract.outer(np.arange(ORDER + 1), np.arange(ORDER + 1)))
    return np.einsum("fi,fij,fj->f", filters, lags[:, places], filters)


def weighted_slopes(enhanced: np.ndarray, clean: np.ndarray) -> float:
    """The weighted distance of the slopes of critical-band spectra (Klatt 1982), in dB squared."""
    bands = [band_levels(windowed) for windowed in (clean, enhanced)]
    weights = sum(slope_weights(levels) for levels in bands)
    distance = np.square(np.diff(bands[0], axis=-1) - np.diff(bands[1], axis=-1))
    return lowest_mean((weights * distance).sum(-1) / weights.sum(-1))


def band_levels(windowed: np.ndarray) -> np.ndarray:
    """The power in each critical band in dB: `(frames, 25)`. The bands are Gaussians, cut off at -30 dB."""
    bins = np.arange(N_FFT // 2)
    centres, widths = (part[:, None] * N_FFT / PESQ_RATE for part in (CENTRES, WIDTHS))
    bands = np.exp(-11.0 * np.square((bins - np.floor(centres)) / widths)) * WIDTHS[0] / WIDTHS[:, None]
    bands[bands <= np.exp(-30.0 / (2.0 * 2.303))] = 0.0
    power = np.square(np.abs(np.fft.rfft(windowed, N_FFT)))[:, :-1]
    return 10.0 * np.log10(np.maximum(power @ bands.T, FLOOR))


def slope_weights(levels: np.ndarray) -> np.ndarray:
    """How much each slope counts, `(frames, 24)`: much near the highest peak of the spectrum and near any peak."""
    below, nearest, highest = levels[:, :-1], near_peaks(levels), levels.max(-1, keepdims=True)
    return K_MAX / (K_MAX + highest - below) * K_LOCAL_MAX / (K_LOCAL_MAX + nearest - below)


def near_peaks(levels: np.ndarray) -> np.ndarray:
    """The level of the peak that each slope belongs to, `(frames, 24)`: the next above if it rises, else below.

    Where the slope rises, the authors' program takes the band before the peak.
    """
    rises, bands = np.diff(levels, axis=-1) > 0, levels.shape[-1] - 1
    above, below = np.empty(rises.shape, int), np.empty(rises.shape, int)
    place = np.full(len(levels), bands)
    for band in reversed(range(bands)):  # the first slope from here on that does not rise
        above[:, band] = place = np.where(rises[:, band], place, band)
    place = np.full(len(levels), -1)
    for band in range(bands):  # the last slope up to here that rises
        below[:, band] = place = np.where(rises[:, band], band, place)
    return np.take_along_axis(levels, np.where(rises, above - 1, below + 1), axis=-1)


def lowest_mean(distances: np.ndarray) -> float:
    """The mean of the lowest KEPT of `(frames,)`."""
    return float(np.sort(distances)[:int(len(distances) * KEPT + 0.5)].mean())
