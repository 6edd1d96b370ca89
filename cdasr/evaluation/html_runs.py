"""What a report reads: output folders of `cdasr evaluate` and results folders of recipes. Nothing is written there."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cdasr.coupled.domain import DOMAINS, Domain, load_domain
from cdasr.evaluation.scoring import read_scores, score, score_conditions
from cdasr.evaluation.store import read_decoded
from cdasr.runtime.atomic import fingerprint

FEW = 500  # counted words or items of a condition below which a table proves little


@dataclass(frozen=True)
class Run:
    """A run called `name`: what its systems decoded, scored again in today's way, and the record of its scores."""

    name: str
    folder: Path
    domain: Domain
    decoded: Mapping[str, Sequence[dict]]
    conditions: Sequence[str]
    record: Mapping

    @cached_property
    def scores(self) -> dict:
        return score(self.decoded, self.domain, self.conditions)

    @cached_property
    def averaged(self) -> list[str]:
        """The conditions over which systems are compared: those that all decoded, without `clean` if there is more."""
        shared = [name for name, part in self.scores["conditions"].items() if set(part) == set(self.decoded)]
        chosen = self.domain.evaluation.average(shared) or [name for name in shared if name != "clean"]
        return chosen or shared

    @cached_property
    def average(self) -> dict:
        """The scores of all systems over `averaged`; empty where no condition was decoded by all."""
        return score_conditions(self.decoded, self.domain, self.averaged) if self.averaged else {}

    @property
    def best(self) -> str:
        """The system with the lowest error rate on average, else the first."""
        return min(self.average or list(self.decoded)[:1],
                   key=lambda name: self.average[name][self.domain.rate] if self.average else 0)

    @cached_property
    def warnings(self) -> list[str]:
        """What a reader must know before the numbers."""
        how, found = self.domain.evaluation, []
        if re.search(r"--size[= ]tiny\b", self.record["command"]) or any(
                re.search(r"(^|[-_])tiny$", part) for part in self.folder.resolve().parts[-3:]):
            found.append(f"{self.name}: a run of size tiny: it shows that the software runs; "
                         "its numbers prove nothing.")
        counts = {name: next(iter(part.values()))[how.counted] for name, part in self.scores["conditions"].items()}
        if few := {name: count for name, count in counts.items() if count < FEW}:
            name = min(few, key=few.get)
            found.append(f"{self.name}: few {how.counted} in {len(few)} of {len(counts)} conditions ({few[name]} in "
                         f"{name}; below {FEW} a table proves nothing by itself). Read intervals and p-values, not the "
                         "order of the systems.")
        return found


def find_runs(paths: Sequence[str | os.PathLike]) -> list[Run]:
    """The runs in folders, with names that differ. Raises ValueError for a folder without results."""
    folders = [_results(Path(path)) for path in paths]
    if twice := [folder for folder in folders if [other for other, _ in folders].count(folder[0]) > 1]:
        raise ValueError(f"{twice[0][0]} is given twice; name each run once")
    names = [_name(folder) for folder, _ in folders]
    names = [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)]
    return [_read(name, folder, domain) for name, (folder, domain) in zip(names, folders)]


def _results(path: Path) -> tuple[Path, Domain]:
    for name in DOMAINS:
        domain = load_domain(name)
        for folder in (path, path / "results"):
            if (folder / domain.evaluation.scores_file).is_file():
                return folder.resolve(), domain
    if (path / "evaluate.json").is_file():
        raise ValueError(f"{path}: the evaluation there is not finished; run the command that wrote it once more")
    raise ValueError(f"{path}: no results are there (wer.json or accuracy.json); give the --output-dir of cdasr "
                     "evaluate, or the results folder of a recipe")


def _name(folder: Path) -> str:
    return folder.parent.name if folder.name == "results" else folder.name


def _read(name: str, folder: Path, domain: Domain) -> Run:
    scores = read_scores(folder / domain.evaluation.scores_file, domain)
    decoded = {system: read_decoded(folder / "decode" / f"{system}.jsonl", mend=False) for system in scores["systems"]}
    decoded = _comparable({system: entries for system, entries in decoded.items() if entries})
    if not decoded:
        raise ValueError(f"{folder}: no decoded entries in decode/; run the evaluation again")
    there = {entry["condition"] for entries in decoded.values() for entry in entries}
    return Run(name, folder, domain, decoded, [part for part in scores["conditions"] if part in there],
               scores["record"])


def _comparable(decoded: Mapping[str, Sequence[dict]]) -> dict[str, list[dict]]:
    """The entries without conditions of which a system has only a part, as while it is still decoding."""
    items: dict[str, dict[str, set[str]]] = {}
    for system, entries in decoded.items():
        for entry in entries:
            items.setdefault(entry["condition"], {}).setdefault(system, set()).add(entry["ID"])
    full = {name: max(parts.values(), key=len) for name, parts in items.items()}
    kept = {system: [entry for entry in entries if items[entry["condition"]][system] == full[entry["condition"]]]
            for system, entries in decoded.items()}
    return {system: entries for system, entries in kept.items() if entries}


def find_manifest(run: Run, given: Sequence[Path]) -> Path | None:
    """The manifest that a run decoded, told by its fingerprint: among `given`, by its command, or beside its results.

    None where it is not found.
    """
    settings = run.record["settings"]
    wanted = settings.get("manifest_sha256")
    words = shlex.split(run.record["command"], posix=True) if _balanced(run.record["command"]) else []
    named = [Path(after) for word, after in zip(words, words[1:]) if word == "--manifest"]
    beside = [run.folder.parent / "data" / str(settings.get("manifest"))]
    for path in (*given, *named, *beside):
        if wanted and path.exists() and _fingerprint(run.domain, path) == wanted:
            return path
    return None


def _fingerprint(domain: Domain, path: Path) -> str | None:
    try:
        return fingerprint(part.read_bytes() for part in domain.evaluation.row_files(path))
    except (OSError, ValueError):
        return None


def _balanced(command: str) -> bool:
    try:
        return bool(shlex.split(command))
    except ValueError:
        return False
