"""Manifests: CSV files in SpeechBrain's sense, one utterance a row.

Columns: ID, duration (seconds), wav, text, spk_id; fixed noisy sets add clean_wav, noise, rir, snr (dB), condition
and seed. Audio paths are stored relative to the manifest's own folder, so that a corpus can be moved as a whole.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cdasr.runtime.atomic import replacing
from cdasr.speech.audio import fit_length, read_audio

REQUIRED = ("ID", "duration", "wav", "text")
PATHS = ("wav", "clean_wav")


def read_clean(row: Mapping[str, str], rate: int, samples: int) -> np.ndarray:
    """The clean waveform of a fixed noisy row, at `rate` Hz and cut or padded to the noisy one's `samples`."""
    return fit_length(read_audio(row["clean_wav"], rate)[0], samples)


def read_row(row: Mapping[str, str], rate: int) -> np.ndarray:
    """The waveform (samples,) of a row at `rate` Hz."""
    return read_audio(row["wav"], rate)[0]


def read_manifest(path: str | os.PathLike) -> list[dict[str, str]]:
    """Rows of a manifest, with audio paths made absolute.

    Raises ValueError when the file is missing, lacks a required column, repeats an ID or has no rows.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such manifest")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    if not rows:
        raise ValueError(f"{path}: the manifest has no utterances")
    missing = [column for column in REQUIRED if column not in rows[0]]
    if missing:
        raise ValueError(f"{path}: the manifest lacks the column(s) {', '.join(missing)}; expected at least "
                         f"{', '.join(REQUIRED)}")
    seen = set()
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise ValueError(f"{path}: line {number} does not have the header's number of fields")
        if row["ID"] in seen:
            raise ValueError(f"{path}: line {number} repeats the ID {row['ID']!r}; IDs must be unique")
        seen.add(row["ID"])
        for column in PATHS:
            if row.get(column):
                row[column] = str((path.parent / row[column]).absolute())
    return rows


def write_manifest(path: str | os.PathLike, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows (all with the first row's columns) atomically; audio paths become relative to the manifest."""
    path = Path(path)
    rows = [dict(row) for row in rows]
    if not rows:
        raise ValueError(f"{path}: refusing to write a manifest without utterances")
    for row in rows:
        for column in PATHS:
            if row.get(column):
                row[column] = os.path.relpath(row[column], path.parent)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
