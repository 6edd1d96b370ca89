"""An evaluation in parts, which processes or machines decode side by side, and how the parts become one.

A shard takes every n-th of the batches that one run makes: what a batch is padded to can change the last digits of an
answer. Merged, the entries are those of one run, but for the seconds that they took.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path

from cdasr.coupled.evaluation import Row
from cdasr.evaluation.store import read_decoded, write_decoded
from cdasr.runtime.batching import batches_within
from cdasr.runtime.torchrun import process_of

FOLDER = "shards"  # in the output folder of an evaluation
Shard = tuple[int, int]  # number, from 1 on, and how many there are


def parse_shard(text: str) -> Shard:
    """`2/8` as (2, 8). Raises ValueError for what is none."""
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"shard {text!r}: expected number/count such as 1/4; torchrun chooses by itself")
    number, of = map(int, parts)
    if not 1 <= number <= of:
        raise ValueError(f"shard {number}/{of}: the number must be from 1 to the count")
    return number, of


def own_shard(needed: bool = False) -> Shard | None:
    """The shard of this process of torchrun; None where it has not started several.

    Raises ValueError where it is `needed` and torchrun has started nothing.
    """
    found = process_of()
    if needed and "RANK" not in os.environ:
        raise ValueError("shard auto: RANK is not set; start it with torchrun, or say --shard i/n")
    return None if found is None else (found[0] + 1, found[1])


def shard_folder(output_dir: Path, shard: Shard) -> Path:
    """Where a shard writes."""
    return output_dir / FOLDER / f"{shard[0]}of{shard[1]}"


def batches(rows: Sequence[Row], done: Set[str], batch_seconds: float, shard: Shard | None = None
            ) -> Iterator[list[Row]]:
    """Batches of the rows that are not `done`, sorted by duration; only those of `shard`, where one is given.

    Batches of which nothing is done are those of a run from the start. Rows of the others form batches of their own.
    """
    rows = sorted(rows, key=_duration)
    whole = list(batches_within(rows, map(_duration, rows), batch_seconds))
    number, of = shard or (1, 1)
    mine = whole[number - 1::of]
    yield from (batch for batch in mine if not any(row["ID"] in done for row in batch))
    rest = [row for batch in mine if any(other["ID"] in done for other in batch) for row in batch
            if row["ID"] not in done]
    yield from batches_within(rest, map(_duration, rest), batch_seconds)


def _duration(row: Row) -> float:
    return float(row["duration"])


def merge_shards(output_dir: Path, settings: Mapping, wanted: Mapping[str, Sequence[Row]], overwrite: bool) -> int:
    """Put what shards decoded into the files of `output_dir`, in the order of one run; returns how many entries.

    What is there already stays. Shards of other settings are removed with `overwrite`, else ValueError is raised.
    """
    taken, found = 0, []
    for folder in sorted((output_dir / FOLDER).glob("*of*")):
        if _settings(folder) == json.loads(json.dumps(settings)):
            found.append(folder)
        elif overwrite:
            shutil.rmtree(folder)
        else:
            raise ValueError(f"{folder} holds a shard of other settings; remove it, or discard it with --overwrite")
    for system, rows in wanted.items() if found else ():
        path = output_dir / "decode" / f"{system}.jsonl"
        there = {entry["ID"]: entry for entry in read_decoded(path)}
        added = {entry["ID"]: entry for folder in found for entry in read_decoded(
            folder / "decode" / f"{system}.jsonl", mend=False) if entry["ID"] not in there}
        if not added:
            continue
        places = {row["ID"]: place for place, row in enumerate(sorted(rows, key=_duration))}
        merged = sorted({**added, **there}.values(), key=lambda entry: places.get(entry["ID"], len(places)))
        write_decoded(path, merged)
        taken += len(added)
    return taken


def _settings(folder: Path) -> object:
    try:
        return json.loads((folder / "evaluate.json").read_bytes())
    except (OSError, ValueError):
        return None
