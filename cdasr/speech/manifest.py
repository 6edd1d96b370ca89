"""Manifests: which recordings there are and what is said in them. One reader for every verb and recipe, one writer.

Read are CSV, TSV and JSON lines files, lhotse's cuts, folders of Hugging Face's datasets, and data directories of
Kaldi and ESPnet (manifest_formats.py, manifest_lhotse.py, manifest_kaldi.py). Written are CSV files, with audio paths
relative to the manifest's own folder, so that a corpus can be moved as a whole. Columns: ID, duration (seconds), wav,
text, spk_id. A row that is a stretch of its recording also has `offset` (seconds; then `duration` is the stretch's),
and one that is a single channel `channel`, counted from 0. Fixed noisy sets add clean_wav, noise, rir, snr (dB),
condition and seed; training sets may add noisy_wav, a noisy recording of the same utterance. Other columns come through
as they are.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cdasr.runtime.atomic import replacing
from cdasr.runtime.errors import Faults
from cdasr.speech.audio import AudioFormat, audio_format, fit_length, read_audio, write_audio
from cdasr.speech.manifest_formats import ALIASES, Entry, metadata_of, read_entries
from cdasr.speech.manifest_kaldi import kaldi_files, read_kaldi

PATHS = ("wav", "clean_wav", "noisy_wav")
TOLERANCE = 0.1  # seconds by which durations may disagree with the file
LISTED = 10  # faults that a message shows

Row = Mapping[str, str]


def read_manifest(path: str | os.PathLike, check_audio: bool = True, file_names: bool = False,
                  empty_text: bool = False) -> list[dict[str, str]]:
    """Rows of a manifest, `{ID, duration, wav, text, spk_id, ...}`, all with the same columns; audio paths absolute.

    What is not there is filled in: durations from the files, IDs from their names. `check_audio` reads the header of
    every file; leave it out where that was done before. `file_names`: IDs become file names. `empty_text`: a text may
    have no words. Raises ValueError for what cannot be used, before anything else is done: one line that names file,
    line and cure where it is one fault; else one line each of the first ten faults, and then how many more there are.
    """
    path, faults = _list_of(Path(path)), []
    folder = path if os.path.isdir(path) else path.parent
    entries = read_kaldi(path, faults) if folder == path else read_entries(path, faults)
    clips = folder / "clips" if (folder / "clips").is_dir() else None  # where Common Voice has its recordings
    formats: dict[str, AudioFormat | str] = {}
    seen: dict[str, str] = {}
    for entry in tqdm(entries, desc=f"check {path.name}", unit="utt", delay=1, leave=False):
        found = _field_faults(entry, folder, clips, file_names, empty_text)
        if not found and (check_audio or entry.side or not entry.fields.get("duration")):
            found = _audio_faults(entry, formats)
        found += _name(entry, seen)
        faults += found
    if faults:
        raise Faults(_listing(path, faults))
    if not entries:
        empty = "; the file is empty (0 bytes)" if folder != path and not os.path.getsize(path) else ""
        raise ValueError(f"{path}: the manifest has no utterances{empty}")
    columns = dict.fromkeys(("ID", "duration", "wav", "text", "spk_id"))
    for entry in entries:
        columns |= dict.fromkeys(entry.fields)
    return [{column: entry.fields.get(column, "") for column in columns} for entry in entries]


def write_manifest(path: str | os.PathLike, rows: Iterable[Mapping[str, object]]) -> None:
    """Write rows atomically, with the columns of all of them; audio paths become relative to the manifest.

    Raises ValueError where there are no rows, and for what a line of CSV in UTF-8 cannot hold.
    """
    path = Path(path)
    rows = [dict(row) for row in rows]
    if not rows:
        raise ValueError(f"{path}: refusing to write a manifest without utterances")
    columns = dict.fromkeys(column for row in rows for column in row)
    for row in rows:
        for column in PATHS:
            if row.get(column):
                row[column] = os.path.relpath(row[column], path.parent)
        for column, value in row.items():
            if fault := _odd_character(str(value)):
                raise ValueError(f"{path}: the {column} of {row.get('ID')!r} has {fault}; a manifest cannot hold it")
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def manifest_files(path: str | os.PathLike) -> list[Path]:
    """The files that a manifest is made of: itself, a folder's list, or the tables of a Kaldi data directory."""
    path = _list_of(Path(path))
    return kaldi_files(path) if os.path.isdir(path) else [path]


def _list_of(path: Path) -> Path:
    """The list of a folder of Hugging Face's datasets; any other path is itself."""
    return (metadata_of(path) if os.path.isdir(path) and not (path / "wav.scp").exists() else None) or path


# -- the audio of a row -------------------------------------------------------------------------------------------


def read_row(row: Row, rate: int | None = None) -> np.ndarray:
    """The waveform `(samples,)` of a row at `rate` Hz: its stretch, its channel. Raises ValueError as `read_audio`."""
    start, stop, channel = row_stretch(row)
    return read_audio(row["wav"], rate, channel, start, stop)[0]


def read_clean(row: Row, rate: int, samples: int) -> np.ndarray:
    """The clean waveform of a noisy row, at `rate` Hz and cut or padded to the noisy one's `samples`.

    A clean recording is aligned with the noisy one, so that a stretch is the same of both.
    """
    start, stop, channel = row_stretch(row)
    if channel is not None and audio_format(row["clean_wav"]).channels == 1:
        channel = None
    return fit_length(read_audio(row["clean_wav"], rate, channel, start, stop)[0], samples)


def is_stretch(row: Row) -> bool:
    """Whether a row is a part or a channel of its file."""
    return row_stretch(row) != (0.0, None, None)


def row_key(row: Row) -> str:
    """16 hexadecimal digits that stand for a row's audio: path, size and time of the file, stretch and channel."""
    status = os.stat(row["wav"])
    about = (os.path.abspath(row["wav"]), status.st_size, status.st_mtime_ns, *row_stretch(row))
    return hashlib.sha256(repr(about).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def write_stretch(row: Row, folder: str | os.PathLike) -> Path:
    """A row's stretch as a file of its own in `folder`, named by what it was cut from, so that it is never a stale one.

    Raises ValueError as `read_audio` does.
    """
    target = Path(folder) / f"{row['ID']}-{row_key(row)}.flac"
    if not target.is_file():
        write_audio(target, read_row(row), audio_format(row["wav"]).rate)
    return target


def row_stretch(row: Row) -> tuple[float, float | None, int | None]:
    """Start and end in seconds, None for the file's end, and the channel, None for all."""
    start, channel = (None if row.get(column) in (None, "") else row[column] for column in ("offset", "channel"))
    return (float(start or 0), None if start is None else float(start) + float(row["duration"]),
            None if channel is None else int(channel))


# -- checks -------------------------------------------------------------------------------------------------------


def _field_faults(entry: Entry, folder: Path, clips: Path | None, file_names: bool, empty_text: bool) -> list[str]:
    """Bring the fields of an entry into our form; what cannot be used is returned.

    Paths are relative to `folder`, or to `clips` where they are there and not in `folder`.
    """
    fields, place, faults = entry.fields, entry.place, []
    fields["text"] = " ".join(fields["text"].split())
    fields["spk_id"] = fields.get("spk_id", "").strip()
    for column in (*ALIASES, "clean_wav", "condition"):
        if fault := _odd_character(fields.get(column, "")):
            faults.append(f"{place}: the {column} {fields[column][:80]!r} has {fault}")
    if not fields["text"] and not empty_text:
        faults.append(f"{place}: there is no text; write what is said, or leave the line out")
    for column in ("duration", "offset", "channel"):
        value = fields.get(column, "").strip()
        if value and (why := _number_fault(column, value)):
            faults.append(f"{place}: {why}")
        if value or column == "duration":
            fields[column] = value
        else:
            fields.pop(column, None)
    if not fields["wav"].strip():
        faults.append(f"{place}: there is no wav; give the path of the audio file")
    for column in PATHS:
        if fields.get(column):
            place_of = clips if clips and _only_in(clips, folder, fields[column]) else folder
            fields[column] = str((place_of / fields[column]).absolute())
    if not faults and "ID" not in fields:
        fields["ID"] = _name_of(fields)
    name = fields["ID"] = fields.get("ID", "").strip()
    if not faults and not name:
        faults.append(f"{place}: the ID is empty; give each utterance its own")
    elif file_names and (why := _name_fault(name)):
        faults.append(f"{place}: the ID {name[:80]!r} cannot be a file name ({why}); rename the utterance")
    if not faults and fields["duration"]:
        fields["duration"] = _seconds(float(fields["duration"]))
    return faults


def _only_in(clips: Path, folder: Path, name: str) -> bool:
    try:
        return not (folder / name).is_file() and (clips / name).is_file()
    except (OSError, ValueError):  # too long, or with a zero byte: the check says so
        return False


def _odd_character(value: str) -> str | None:
    if not value.isprintable() and any(unicodedata.category(char) in ("Cc", "Cs") and char != "\t" for char in value):
        return "a line end, a control character, or half of a character; write it as one line of UTF-8"
    return None


def _number_fault(column: str, value: str) -> str | None:
    if column == "channel":
        return None if value.isascii() and value.isdecimal() and len(value) < 5 else (
            f"the channel is {value[:80]!r}; expected a channel's number, counted from 0")
    try:
        number = math.nan if "_" in value else float(value)
    except ValueError:
        number = math.nan
    if math.isfinite(number) and (number > 0 if column == "duration" else number >= 0):
        return None
    return f"the {column} is {value[:80]!r}; expected {'' if column == 'offset' else 'positive '}seconds, such as 2.5"


def _name_of(fields: Row) -> str:
    """An ID for an utterance without one: the file's name and, of a stretch, where it begins in milliseconds."""
    name = Path(fields["wav"]).stem
    if fields.get("offset"):
        name += f"-{1000 * float(fields['offset']):.0f}"
    return name + (f"-ch{fields['channel']}" if fields.get("channel") else "")


def _name_fault(name: str) -> str | None:
    if "/" in name or "\\" in name:
        return "it holds a path separator"
    if name.startswith("."):
        return "it begins with a dot"
    return "it is longer than 200 bytes" if len(name.encode("utf-8", "replace")) > 200 else None


def _name(entry: Entry, seen: dict[str, str]) -> list[str]:
    name = entry.fields["ID"]
    if name and name in seen:
        return [f"{entry.place} repeats the ID {name[:80]!r} of {seen[name].rsplit(': ', 1)[-1]}; IDs must be unique"]
    seen[name] = entry.place
    return []


def _audio_faults(entry: Entry, formats: dict[str, AudioFormat | str]) -> list[str]:
    """Check an entry against the headers of its files, and fill in its duration; what does not fit is returned."""
    fields, place, faults = entry.fields, entry.wav_place, []
    found = _format(fields["wav"], formats)
    if isinstance(found, str):
        return [f"{place}: {found}"]
    if entry.side and found.channels == 1:
        fields.pop("channel")
    if int(fields.get("channel", 0)) >= found.channels:
        faults.append(f"{place}: there is no channel {fields['channel']} in {fields['wav']}, which has "
                      f"{found.channels}, counted from 0")
    offset, lasts = float(fields.get("offset", 0)), f"{fields['wav']}, which lasts {found.seconds:g} s"
    duration = float(fields["duration"] or found.seconds - offset)
    if not found.samples:
        faults.append(f"{place}: {fields['wav']}: the file has no samples")
    elif "offset" not in fields and abs(duration - found.seconds) > TOLERANCE:
        faults.append(f"{place}: the duration is {duration:g} s, and the row is all of {lasts}; correct it, or give an "
                      "offset (0 for the beginning) where a stretch is meant")
    elif offset >= found.seconds or offset + duration > found.seconds + TOLERANCE:
        faults.append(f"{place}: {offset:g} to {offset + max(duration, 0):g} s is outside of {lasts}")
    fields["duration"] = fields["duration"] or _seconds(duration)
    if fields.get("clean_wav"):
        clean = _format(fields["clean_wav"], formats)
        if isinstance(clean, str):
            faults.append(f"{place}: {clean}")
        elif offset and clean.seconds < offset + duration - TOLERANCE:
            faults.append(f"{place}: {offset:g} to {offset + duration:g} s is outside of {fields['clean_wav']}, which "
                          f"lasts {clean.seconds:g} s; a clean recording is aligned with the noisy one")
    return faults


def _format(wav: str, formats: dict[str, AudioFormat | str]) -> AudioFormat | str:
    """The header of a file, or what is wrong with it."""
    if wav not in formats:
        try:
            formats[wav] = audio_format(wav)
        except ValueError as error:
            formats[wav] = str(error)
    return formats[wav]


def _seconds(duration: float) -> str:
    return f"{max(duration, 0.0001):.4f}"


def _listing(path: Path, faults: Sequence[str]) -> list[str]:
    """The lines of a message for some faults: the first ten, and how many more there are."""
    more = len(faults) - LISTED
    return [*faults[:LISTED], *([f"{path}: {more} more faults, {len(faults)} in all"] if more > 0 else [])]
