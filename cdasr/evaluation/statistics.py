"""How certain error rates are: bootstrap intervals and paired tests over items (Bisani & Ney 2004) and over speakers.

Where the bootstrap cannot vary, as without errors, intervals are Wilson's. Many tests together are corrected by Holm.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from statistics import NormalDist

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


def bootstrap_clusters(groups: Sequence[tuple[np.ndarray, np.ndarray]], clusters: Sequence[Sequence[Hashable]],
                       draws: int = DRAWS, seed: int = 0) -> np.ndarray | None:
    """As `bootstrap`, with clusters of items drawn in place of items; None where there is only one cluster.

    `clusters` says for each group of which cluster, such as speaker, its items (U,) are. All items of a cluster are
    drawn together, in every group: what is said of the items then holds for further speakers. A draw without items of
    a group leaves that group out.
    """
    names = {name: index for index, name in enumerate(dict.fromkeys(name for part in clusters for name in part))}
    if len(names) < 2:
        return None
    picks = np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))
    times = np.stack([np.bincount(row, minlength=len(names)) for row in picks]).astype(float)  # (draws, clusters)
    rates = []
    for (errors, words), part in zip(groups, clusters):
        member = np.zeros((len(part), len(names)))
        member[np.arange(len(part)), [names[name] for name in part]] = 1.0
        made, counted = times @ (np.atleast_2d(errors) @ member).T, times @ (np.asarray(words) @ member)
        rates.append(np.where(counted > 0, 100.0, np.nan)[:, None] * made / np.maximum(counted, 1)[:, None])
    there = np.isfinite(np.stack(rates)).any(axis=(0, 2))
    return np.nanmean(np.stack(rates)[:, there], axis=0)


def wilson(errors: float, counted: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval in per cent of `errors` among `counted`; of more errors than that, as of as many.

    It assumes independent words, so of words that stand together it is somewhat too narrow.
    """
    if counted <= 0:
        raise ValueError("nothing to count errors against, as in texts without words: no error rate is defined")
    z, share = NormalDist().inv_cdf((1 + level) / 2), min(errors / counted, 1.0)
    middle = (share + z * z / (2 * counted)) / (1 + z * z / counted)
    half = z / (1 + z * z / counted) * (share * (1 - share) / counted + z * z / (4 * counted**2)) ** 0.5
    return 100.0 * max(middle - half, 0.0) if errors else 0.0, 100.0 * min(middle + half, 1.0) if share < 1 else 100.0


def constant(rates: np.ndarray) -> bool:
    """Whether draws (draws,) do not differ, so that the bootstrap says nothing of how certain their rate is."""
    return bool(np.ptp(rates) < 1e-9)


def rate_interval(rates: np.ndarray, rate: float, counted: float) -> tuple[float, float]:
    """The interval of an error `rate` in per cent with draws (draws,); Wilson's among `counted` where they are equal.

    Without errors the bootstrap would say that there is no doubt.
    """
    return wilson(rate / 100 * counted, counted) if constant(rates) and rate <= 100.0 else interval(rates)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected for their number by Holm (1979), in the same order."""
    corrected, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = least
    return corrected


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
