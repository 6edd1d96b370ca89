"""Scores of decoded entries: error rates with intervals and paired tests, calibration, quality and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cdasr.evaluation.statistics import (
    bootstrap,
    calibration_error,
    interval,
    paired_p_value,
    relative_interval,
    surest,
    wer,
)


def score(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str] | None = None, **names) -> dict:
    """Error rates by condition (in the order of `conditions`) and system, with 95 % bootstrap intervals.

    A system's p-values are those of its difference to every earlier system, paired by item; `difference` holds the
    interval of that difference in points, `relative` in per cent of the earlier system's rate. `names` as in
    `score_conditions`. A system that did not decode a condition is not in its scores, nor is a condition that none did.
    """
    systems = list(decoded)
    conditions = conditions or list(dict.fromkeys(entry["condition"] for entry in decoded[systems[0]]))
    scored = {name: score_conditions(decoded, [name], **names) for name in conditions}
    return {"systems": systems, "conditions": {name: scores for name, scores in scored.items() if scores}}


def score_conditions(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str], rate: str = "wer",
                     counted: str = "words", means: Sequence[str] = ("si_sdr_input", "si_sdr")) -> dict:
    """The scores of each system averaged over `conditions`, each condition counting alike.

    Entries hold `errors` out of so many `counted`; their error rate is called `rate`; `means` are averaged. Systems
    that lack one of the conditions are left out.
    """
    has = {system: {entry["condition"] for entry in entries} for system, entries in decoded.items()}
    systems = [system for system in decoded if has[system].issuperset(conditions)]
    if not systems:
        return {}
    groups = [{system: sorted((entry for entry in decoded[system] if entry["condition"] == condition),
                              key=lambda entry: entry["ID"]) for system in systems} for condition in conditions]
    counts = [(np.array([[entry["errors"] for entry in group[system]] for system in systems]),
               np.array([entry[counted] for entry in group[systems[0]]])) for group in groups]
    rates = bootstrap(counts)
    scores = {}
    for index, system in enumerate(systems):
        entries, earlier = [entry for group in groups for entry in group[system]], range(index)
        scores[system] = {
            rate: float(np.mean([wer(errors[index], total) for errors, total in counts])),
            "interval": interval(rates[:, index]),
            "p_values": {systems[other]: paired_p_value(rates, index, other) for other in earlier},
            "difference": {systems[other]: interval(rates[:, index] - rates[:, other]) for other in earlier},
            "relative": {systems[other]: relative_interval(rates, index, other) for other in earlier},
            counted: int(sum(total.sum() for _, total in counts)), "utterances": len(entries),
            **{key: _mean([entry[key] for entry in entries if key in entry]) for key in means},
            **_confidence(entries, rate, counted),
            "nfe": {key: _mean([entry["nfe"][key] for entry in entries]) for key in entries[0]["nfe"]},
            "rtf": sum(entry["seconds"] for entry in entries) / sum(entry["duration"] for entry in entries)}
    return scores


def score_by_clean_answer(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str]) -> dict[str, dict]:
    """`score_conditions` of the utterances that the system `none` gets right when they are clean, and of the others.

    IDs are `<utterance>_<condition>`, as `cdasr simulate` makes them. Parts without utterances are left out.
    """
    right = {entry["ID"].removesuffix("_clean"): entry["errors"] == 0
             for entry in decoded.get("none", ()) if entry["condition"] == "clean"}
    parts = {}
    for title, wanted in (("right on clean speech", True), ("wrong on clean speech", False)):
        kept = {system: [entry for entry in entries if entry["condition"] in conditions
                         and right.get(entry["ID"].removesuffix(f"_{entry['condition']}")) is wanted]
                for system, entries in decoded.items()}
        if scores := score_conditions(kept, conditions):
            parts[title] = scores
    return parts


def pooled(runs: Sequence[Mapping[str, Sequence[dict]]], counted: str = "words") -> dict[str, list[dict]]:
    """What several training seeds made of the same items, as one entry an item: `errors` and `counted` are sums.

    Scored, they give error rates over all runs, and intervals and p-values over the items, each drawn with all of its
    runs. Systems and items that a run lacks are left out; what else an entry holds is the first run's.
    """
    entries = {}
    for system in (name for name in runs[0] if all(name in run for run in runs)):
        found = [{entry["ID"]: entry for entry in run[system]} for run in runs]
        entries[system] = [{**entry, **{key: sum(run[name][key] for run in found) for key in ("errors", counted)}}
                           for name, entry in found[0].items() if all(name in run for run in found)]
    return entries


def _confidence(entries: Sequence[Mapping], rate: str, counted: str) -> dict[str, float | None]:
    """Calibration of the confidences, and the error rate of the surest 80 % of the items."""
    kept = [entries[index] for index in surest([entry["confidence"] for entry in entries])]
    total = sum(entry[counted] for entry in kept)
    return {"calibration_error": calibration_error([value for entry in entries for value in entry["confidence"]],
                                                   [right for entry in entries for right in entry["correct"]]),
            f"{rate}_surest": 100.0 * sum(entry["errors"] for entry in kept) / total if total else None}


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None
