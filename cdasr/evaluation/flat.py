"""What an evaluation found as two flat files, for pandas, spreadsheets and databases.

`utterances.jsonl` has a line for each system and item, `scores.csv` one for each condition and system. Both are written
again with every scoring; an interrupted run continues from `decode/` (`store.py`), not from these.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

from cdasr.coupled.domain import Domain
from cdasr.coupled.evaluation import Row
from cdasr.evaluation.scoring import at_coverage
from cdasr.runtime.atomic import to_json, write_bytes, write_text

UTTERANCES, SCORES = "utterances.jsonl", "scores.csv"
SETTINGS = ("model", "seed", "steps", "samples", "guidance")  # of a run, that every line repeats


def write_flat(output_dir: Path, decoded: Mapping[str, Sequence[Mapping]], scores: Mapping, rows: Sequence[Row],
               domain: Domain, settings: Mapping) -> None:
    """Write both files to `output_dir`. `decoded`: entries by system, of which those of `rows` are taken."""
    lines = (to_json(line, ensure_ascii=False) + "\n"
             for line in utterances(decoded, rows, domain, settings, output_dir))
    write_bytes(output_dir / UTTERANCES, b"".join(line.encode("utf-8", "backslashreplace") for line in lines))
    table, file = list(score_lines(scores, domain)), io.StringIO()
    columns = dict.fromkeys(column for line in table for column in line)
    writer = csv.DictWriter(file, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    write_text(output_dir / SCORES, file.getvalue())


def utterances(decoded: Mapping[str, Sequence[Mapping]], rows: Sequence[Row], domain: Domain, settings: Mapping,
               folder: Path) -> Iterator[dict]:
    """A line for each system and item: its row, its entry, the rates of its own, and the run's settings.

    Evaluations have a key each (`nfe_signal`); rates are in per cent, None where nothing is counted. Paths of a row's
    files are relative to `folder`.
    """
    how, known = domain.evaluation, {row["ID"]: row for row in rows}
    about = {row_id: how.about_row(row, folder) for row_id, row in known.items()}
    run = {name: settings[name] for name in SETTINGS if name in settings}
    for system, entries in decoded.items():
        for entry in entries:
            if entry["ID"] not in known:
                continue
            rates = {domain.rate: _rate(entry, "errors", how.counted), **{
                name: _rate(entry, other.errors, other.counted) for name, other in how.other_rates.items()
                if other.interval and other.errors in entry}}
            confidence = entry["confidence"]
            which = {"system": system, "ID": entry["ID"], "item": how.item(entry), "condition": entry["condition"]}
            own = _without(entry, ("ID", "condition", "nfe", "source"))
            yield {**which, **_without(about[entry["ID"]], which), **own, **rates,
                   "mean_confidence": sum(confidence) / len(confidence) if confidence else None,
                   "rtf": entry["seconds"] / entry["duration"],
                   **{f"nfe_{name}": count for name, count in entry["nfe"].items()}, **run}


def score_lines(scores: Mapping, domain: Domain) -> Iterator[dict]:
    """A line for each condition and system: rates with the bounds of their intervals, quality, evaluations, speed."""
    how = domain.evaluation
    for condition, part in scores["conditions"].items():
        for system, entry in part.items():
            low, high = entry["interval"]
            line = {"condition": condition, "system": system, how.counted: entry[how.counted],
                    how.unit: entry["utterances"], domain.rate: entry[domain.rate], f"{domain.rate}_low": low,
                    f"{domain.rate}_high": high}
            for name in (name for name in how.other_rates if name in entry):
                line[name] = entry[name]["rate"]
                if bounds := entry[name].get("interval"):
                    line |= {f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
            line |= {f"{name}{suffix}": entry.get(f"{name}{suffix}") for name in how.qualities
                     for suffix in ("_input", "") if f"{name}{suffix}" in entry}
            yield {**line, "calibration_error": entry["calibration_error"], at_coverage(domain): entry[
                at_coverage(domain)], **{f"nfe_{name}": count for name, count in entry["nfe"].items()},
                "rtf": entry["rtf"]}


def _rate(entry: Mapping, errors: str, counted: str) -> float | None:
    return 100.0 * entry[errors] / entry[counted] if entry[counted] else None


def _without(entry: Mapping, keys: Collection[str]) -> dict:
    return {key: value for key, value in entry.items() if key not in keys}
