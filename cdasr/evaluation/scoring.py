"""Scores of decoded entries: error rates with intervals and paired tests, calibration, quality and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cdasr.coupled.domain import Domain
from cdasr.evaluation.statistics import (
    bootstrap,
    bootstrap_clusters,
    calibration_error,
    constant,
    error_rate,
    interval,
    most_confident,
    paired_p_value,
    rate_interval,
    relative_interval,
)
from cdasr.runtime.plain_data import read_json

COVERAGE = 0.8  # share of the items that a system may answer where it leaves out those it is unsure of


def score(decoded: Mapping[str, Sequence[dict]], domain: Domain, conditions: Sequence[str] | None = None) -> dict:
    """Error rates by condition (in the order of `conditions`) and system, with 95 % bootstrap intervals.

    A system's p-values are those of its difference to every earlier system, paired by item; `difference` holds the
    interval of that difference in points, `relative` in per cent of the earlier system's rate. Where entries say of
    which speaker they are, `by_speaker` has interval, differences and p-values over speakers in place of items. An
    interval whose draws do not differ, as without errors, is Wilson's. `average` holds the same over the conditions
    that the domain averages. A system that did not decode a condition is not in its scores, nor is
    a condition that none did.
    """
    systems = list(decoded)
    conditions = conditions or list(dict.fromkeys(entry["condition"] for entry in decoded[systems[0]]))
    scored = {name: score_conditions(decoded, domain, [name]) for name in conditions}
    scores = {"systems": systems, "conditions": {name: found for name, found in scored.items() if found}}
    if averaged := domain.evaluation.average(conditions):
        scores["average"] = score_conditions(decoded, domain, averaged)
    return scores


def score_conditions(decoded: Mapping[str, Sequence[dict]], domain: Domain, conditions: Sequence[str]) -> dict:
    """The scores of each system averaged over `conditions`, each condition counting alike.

    Systems that lack one of the conditions are left out.
    """
    how, rate, counted = domain.evaluation, domain.rate, domain.evaluation.counted
    has = {system: {entry["condition"] for entry in entries} for system, entries in decoded.items()}
    systems = [system for system in decoded if has[system].issuperset(conditions)]
    if not systems:
        return {}
    groups = [{system: sorted((entry for entry in decoded[system] if entry["condition"] == condition),
                              key=lambda entry: entry["ID"]) for system in systems} for condition in conditions]
    counts = _counts(groups, systems, "errors", counted)
    rates, others = bootstrap(counts), _other_rates(groups, systems, domain)
    bounds = _intervals(rates, counts, [entry.get("runs", 1) for entry in groups[0][systems[0]]])
    speakers = _by_speaker(groups, systems, counts, how.cluster, bounds)
    scores = {}
    for index, system in enumerate(systems):
        entries, earlier = [entry for group in groups for entry in group[system]], range(index)
        scores[system] = {
            rate: _mean_rate(counts, index),
            "interval": bounds[index],
            "p_values": {systems[other]: paired_p_value(rates, index, other) for other in earlier},
            "difference": {systems[other]: _difference(rates, bounds, index, other) for other in earlier},
            "relative": {systems[other]: relative_interval(rates, index, other) for other in earlier},
            counted: int(sum(total.sum() for _, total in counts)), "utterances": len(entries),
            **{key: _mean([entry[key] for entry in entries if key in entry]) for key in _measured(entries, how)},
            **_confidence(entries, domain), **others[system], **speakers.get(system, {}),
            "nfe": {key: _mean([entry["nfe"][key] for entry in entries]) for key in entries[0]["nfe"]},
            "rtf": sum(entry["seconds"] for entry in entries) / sum(entry["duration"] for entry in entries)}
    return scores


def _counts(groups: Sequence[Mapping], systems: Sequence[str], errors: str,
            counted: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Errors (K, U) of the systems and what they are counted against (U,), in each group of items."""
    return [(np.array([[entry[errors] for entry in group[system]] for system in systems]),
             np.array([entry[counted] for entry in group[systems[0]]])) for group in groups]


def _intervals(rates: np.ndarray, counts: Sequence[tuple[np.ndarray, np.ndarray]],
               runs: Sequence[int]) -> list[tuple[float, float]]:
    """The interval of each system's draws (draws, K); Wilson's where they do not differ.

    Words that several training seeds decoded (`runs`) are counted once there: they are no further evidence.
    """
    total = sum(words.sum() for _, words in counts) / max(runs)
    return [rate_interval(draws, _mean_rate(counts, index), total) for index, draws in enumerate(rates.T)]


def _difference(rates: np.ndarray, bounds: Sequence[tuple[float, float]], first: int,
                second: int) -> tuple[float, float]:
    """The interval of the difference of two systems' draws in points.

    Where neither system's draws differ, it is Newcombe's (1998) of their Wilson intervals `bounds`.
    """
    one, other = rates[:, first], rates[:, second]
    if not (constant(one) and constant(other)):
        return interval(one - other)
    (low, high), (base_low, base_high), gap = bounds[first], bounds[second], one[0] - other[0]
    return (float(gap - np.hypot(one[0] - low, base_high - other[0])),
            float(gap + np.hypot(high - one[0], other[0] - base_low)))


def _by_speaker(groups: Sequence[Mapping], systems: Sequence[str], counts: Sequence[tuple[np.ndarray, np.ndarray]],
                cluster: str, bounds: Sequence[tuple[float, float]]) -> dict[str, dict]:
    """`by_speaker` of each system, named after the key of entries; empty where not all entries have a speaker.

    Where the draws of a system do not differ, its interval is that of its items, `bounds`.
    """
    names = [[entry.get(cluster) for entry in group[systems[0]]] for group in groups]
    if not cluster or not all(name for part in names for name in part):
        return {}
    if (rates := bootstrap_clusters(counts, names)) is None:
        return {}
    found = [own if constant(draws) else interval(draws) for draws, own in zip(rates.T, bounds)]
    return {system: {f"by_{cluster}": {
        "count": len({name for part in names for name in part}), "interval": found[index],
        "p_values": {systems[other]: paired_p_value(rates, index, other) for other in range(index)},
        "difference": {systems[other]: _difference(rates, found, index, other) for other in range(index)},
    }} for index, system in enumerate(systems)}


def _mean_rate(counts: Sequence[tuple[np.ndarray, np.ndarray]], index: int) -> float:
    return float(np.mean([error_rate(errors[index], total) for errors, total in counts]))


def _other_rates(groups: Sequence[Mapping], systems: Sequence[str], domain: Domain) -> dict[str, dict]:
    """The domain's further error rates of each system; those that entries of earlier versions lack are left out."""
    found: dict[str, dict] = {system: {} for system in systems}
    for name, other in domain.evaluation.other_rates.items():
        if not all(other.errors in entry for group in groups for system in systems for entry in group[system]):
            continue
        counts = _counts(groups, systems, other.errors, other.counted)
        rates = bootstrap(counts) if other.interval else None
        bounds = None if rates is None else _intervals(rates, counts, [1])
        for index, system in enumerate(systems):
            found[system][name] = {"rate": _mean_rate(counts, index)}
            if bounds is not None:
                found[system][name]["interval"] = bounds[index]
    return found


def _measured(entries: Sequence[Mapping], how) -> list[str]:
    """The keys of quality: the domain's default ones, and those that an entry holds."""
    names = [name for name in how.qualities if name in how.measured or any(name in entry for entry in entries)]
    return [f"{name}{suffix}" for name in names for suffix in ("_input", "")]


def score_by_clean_answer(decoded: Mapping[str, Sequence[dict]], domain: Domain,
                          conditions: Sequence[str]) -> dict[str, dict]:
    """`score_conditions` of the items that the system `none` gets right when they are clean, and of the others.

    Parts without items are left out.
    """
    item = domain.evaluation.item
    right = {item(entry): entry["errors"] == 0 for entry in decoded.get("none", ()) if entry["condition"] == "clean"}
    parts = {}
    for title, wanted in (("right when clean", True), ("wrong when clean", False)):
        kept = {system: [entry for entry in entries if entry["condition"] in conditions
                         and right.get(item(entry)) is wanted] for system, entries in decoded.items()}
        if scores := score_conditions(kept, domain, conditions):
            parts[title] = scores
    return parts


def pooled(runs: Sequence[Mapping[str, Sequence[dict]]], domain: Domain) -> dict[str, list[dict]]:
    """What several training seeds made of the same items, as one entry an item: errors and counts are sums.

    Scored, they give error rates over all runs, and intervals and p-values over the items, each drawn with all of its
    runs. Systems and items that a run lacks are left out; what else an entry holds is the first run's.
    """
    entries, summed = {}, ("errors", domain.evaluation.counted)
    for system in (name for name in runs[0] if all(name in run for run in runs)):
        found = [{entry["ID"]: entry for entry in run[system]} for run in runs]
        entries[system] = [{**entry, "runs": len(runs), **{key: sum(run[name][key] for run in found) for key in summed}}
                           for name, entry in found[0].items() if all(name in run for run in found)]
    return entries


def read_scores(path: Path, domain: Domain) -> dict:
    """Scores that `evaluate` wrote, also in an earlier version, with today's names."""
    scores = read_json(Path(path), called=path, keys=("conditions", "systems", "record"))
    parts = [*scores["conditions"].values(), scores.get("average", {})]
    for entry in (entry for part in parts for entry in part.values()):
        if (old := f"{domain.rate}_surest") in entry:
            entry[at_coverage(domain)] = entry.pop(old)
        for name in domain.evaluation.other_rates:
            if domain.rate in entry.get(name, {}):
                entry[name]["rate"] = entry[name].pop(domain.rate)
    return scores


def at_coverage(domain: Domain) -> str:
    """What the error rate of the most confident items is called: `wer_at_80_coverage`."""
    return f"{domain.rate}_at_{100 * COVERAGE:.0f}_coverage"


def _confidence(entries: Sequence[Mapping], domain: Domain) -> dict[str, float | None]:
    """Calibration of the confidences, and the error rate of the items that the system is most confident of."""
    kept = [entries[index] for index in most_confident([entry["confidence"] for entry in entries], COVERAGE)]
    total = sum(entry[domain.evaluation.counted] for entry in kept)
    return {"calibration_error": calibration_error([value for entry in entries for value in entry["confidence"]],
                                                   [right for entry in entries for right in entry["correct"]]),
            at_coverage(domain): 100.0 * sum(entry["errors"] for entry in kept) / total if total else None}


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None
