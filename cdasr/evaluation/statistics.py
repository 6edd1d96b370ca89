"""How certain error rates are: bootstrap intervals and paired tests over items (Bisani & Ney 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

DRAWS = 10_000
CHUNK = 2_000_000  # random indices held at a time


def calibration_error(confidences: Sequence[float], right: Sequence[bool], bins: int = 10) -> float | None:
    """Expected calibration error (Guo et al. 2017): the mean distance of confidence and accuracy over equal bins.

    None without words.
    """
    confidences, right = np.asarray(confidences, float), np.asarray(right, float)
    if not len(confidences):
        return None
    place = np.minimum((confidences * bins).astype(int), bins - 1)
    gaps = np.bincount(place, confidences - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(confidences))


def most_confident(confidences: Sequence[Sequence[float]], share: float) -> np.ndarray:
    """Indices of the `share` of the items of which the least confident word is the most confident.

    An item without words has no confidence at all.
    """
    least = np.array([min(words, default=0.0) for words in confidences])
    return np.argsort(-least, kind="stable")[:int(np.ceil(share * len(least)))]


def error_rate(errors: Sequence[int], counted: Sequence[int]) -> float:
    """Error rate in per cent over items. Raises ValueError where nothing is counted, as without reference words."""
    if not np.sum(counted):
        raise ValueError("nothing to count errors against, as in texts without words: no error rate is defined")
    return 100.0 * float(np.sum(errors)) / float(np.sum(counted))


def bootstrap(groups: Sequence[tuple[np.ndarray, np.ndarray]], draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Resampled error rates `(draws, K)` in per cent, averaged over `groups` of items.

    A group is one condition: errors (K, U) of K systems on the same U items, and what they are counted against (U,),
    such as words. Items are drawn with replacement within their condition, alike for all systems, so that differences
    are paired.
    """
    rng = np.random.default_rng(seed)
    total = 0.0
    for errors, words in groups:
        errors, words = np.atleast_2d(np.asarray(errors, float)), np.asarray(words, float)
        rates, block = [], max(CHUNK // max(len(words), 1), 1)
        for start in range(0, draws, block):
            picks = rng.integers(len(words), size=(min(block, draws - start), len(words)))
            rates.append(100.0 * errors[:, picks].sum(axis=2) / np.maximum(words[picks].sum(axis=1), 1))
        total = total + np.concatenate(rates, axis=1).T
    return total / len(groups)


def interval(rates: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap draws (draws,)."""
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_p_value(rates: np.ndarray, first: int, second: int) -> float:
    """Two-sided p-value of the difference between two systems of `bootstrap` draws (draws, K).

    Twice the share of draws in which the difference has the less common sign; at least 1 / draws.
    """
    difference = rates[:, first] - rates[:, second]
    tail = min(np.mean(difference <= 0), np.mean(difference >= 0))
    return float(min(1.0, max(2.0 * tail, 1.0 / len(difference))))


def relative_interval(rates: np.ndarray, first: int, second: int, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of the change from system `second` to `first`, in per cent of the rate of `second`.

    None where some draw of `second` has no errors: the ratio has no bounds there.
    """
    base = rates[:, second]
    return interval(100.0 * (rates[:, first] - base) / base, level) if base.min() > 0 else None
