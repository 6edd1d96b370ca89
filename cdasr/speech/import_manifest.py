"""Manifests as people have them: CSV, JSON lines, or a Kaldi data directory, read as rows of our own.

What is not there is filled in: durations from the files, IDs from their names. Nothing is executed: a Kaldi `wav.scp`
whose entries are commands is refused.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from cdasr.speech.audio import file_format, read_audio, write_audio

COLUMNS = {  # ours: the names that others have for it
    "ID": ("ID", "id", "utt_id", "utt", "utterance_id", "key"),
    "wav": ("wav", "audio_filepath", "audio_path", "audio", "path", "file", "filename"),
    "text": ("text", "wrd", "transcript", "transcription", "sentence", "words"),
    "duration": ("duration", "length"),
    "spk_id": ("spk_id", "speaker", "speaker_id", "spk", "client_id"),
    "condition": ("condition",), "clean_wav": ("clean_wav",)}


def read_foreign(path: str | os.PathLike, segments_dir: str | os.PathLike,
                 limit: int | None = None) -> list[dict[str, str]]:
    """Rows `ID, duration, wav, text, spk_id[, condition, clean_wav]` of a CSV or JSON lines file or a Kaldi directory.

    Audio paths are relative to the file's folder; the rows have them absolute. Stretches of longer recordings (Kaldi's
    `segments`) are written as FLAC into `segments_dir`, unless they are there. `limit`: only the first so many rows.
    Raises ValueError, naming the file and the line, for what cannot be used.
    """
    path = Path(path)
    if path.is_dir():
        rows = _kaldi(path, Path(segments_dir), limit)
    elif not path.is_file():
        raise ValueError(f"{path}: no such manifest (a CSV or JSON lines file, or a Kaldi data directory)")
    elif path.suffix.lower() in (".jsonl", ".json"):
        rows = _complete(path, islice(_json_lines(path), limit))
    else:
        rows = _complete(path, islice(_csv(path), limit))
    if not rows:
        raise ValueError(f"{path}: the manifest has no utterances")
    seen: set[str] = set()
    for row in rows:
        if row["ID"] in seen:
            raise ValueError(f"{path}: the ID {row['ID']!r} comes twice; IDs must be unique")
        seen.add(row["ID"])
    return rows


def _csv(path: Path) -> Iterator[tuple[int, Mapping]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            yield from enumerate(csv.DictReader(file, delimiter=separator, skipinitialspace=True), start=2)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV file in UTF-8 ({error})") from None


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping]]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: line {number} is not JSON ({error}); one object a line is expected") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is not a JSON object; one a line is expected")
        yield number, row


def _complete(path: Path, lines: Iterable[tuple[int, Mapping]]) -> list[dict[str, str]]:
    rows = []
    for number, line in tqdm(lines, desc=f"read {path.name}", unit="utt"):
        found = {ours: next((line[name] for name in names if line.get(name) not in (None, "")), None)
                 for ours, names in COLUMNS.items()}
        for column in ("wav", "text"):
            if not isinstance(found[column], str):
                raise ValueError(f"{path}: line {number} has no {column} (looked for {', '.join(COLUMNS[column])}; "
                                 f"it has {', '.join(map(str, line))})")
        for column in ("wav", "clean_wav"):
            if found[column]:
                found[column] = str((path.parent / found[column]).absolute())
        try:
            duration = float(found["duration"]) if found["duration"] else _seconds(found["wav"])
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from None
        row = {"ID": str(found["ID"] or Path(found["wav"]).stem), "duration": f"{duration:.4f}", "wav": found["wav"],
               "text": " ".join(found["text"].split()), "spk_id": str(found["spk_id"] or "")}
        rows.append(row | {key: str(found[key]) for key in ("condition", "clean_wav") if found[key]})
    return rows


def _seconds(wav: str | os.PathLike) -> float:
    rate, samples = file_format(wav)
    return samples / rate


# -- Kaldi --------------------------------------------------------------------------------------------------------


def _kaldi(folder: Path, segments_dir: Path, limit: int | None) -> list[dict[str, str]]:
    """`wav.scp`, `text` and, where they are there, `utt2spk` and `segments` (utterance, recording, start, end in s)."""
    files = _table(folder / "wav.scp")
    for recording, wav in files.items():
        if wav.rstrip().endswith("|"):
            raise ValueError(f"{folder / 'wav.scp'}: {recording} is the output of a command ({wav}); commands are not "
                             "run here. Write the audio to files, with Kaldi's wav-copy or ESPnet's format_wav_scp.sh")
    files = {recording: _locate(folder, wav) for recording, wav in files.items()}
    texts = _table(folder / "text")
    speakers = _table(folder / "utt2spk") if (folder / "utt2spk").is_file() else {}
    cuts = _table(folder / "segments") if (folder / "segments").is_file() else None
    rows = []
    for name, text in tqdm(list(texts.items())[:limit], desc=f"read {folder.name}", unit="utt"):
        if cuts is None:
            wav = _known(files, name, folder / "wav.scp")
            duration = _seconds(wav)
        else:
            wav, duration = _cut(_known(cuts, name, folder / "segments"), files, name, folder, segments_dir)
        rows.append({"ID": name, "duration": f"{duration:.4f}", "wav": str(wav), "text": " ".join(text.split()),
                     "spk_id": speakers.get(name, "")})
    return rows


def _locate(folder: Path, wav: str) -> Path:
    """A path of wav.scp: absolute, or relative to where Kaldi ran, or to the data directory."""
    return next((path.absolute() for path in (Path(wav), folder / wav) if path.is_file()), (folder / wav).absolute())


def _cut(entry: str, files: Mapping[str, Path], name: str, folder: Path, segments_dir: Path) -> tuple[Path, float]:
    """Write one stretch of a recording, unless it is there; its path and seconds."""
    try:
        recording, start, end = entry.split()
        start, end = float(start), float(end)
    except ValueError:
        raise ValueError(f"{folder / 'segments'}: {name} {entry}: expected <utterance> <recording> <start> "
                         "<end>") from None
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{folder / 'segments'}: the ID {name!r} cannot be a file name; rename the utterance")
    target = (segments_dir / f"{name}.flac").absolute()
    if not target.is_file():
        wave, rate = read_audio(_known(files, recording, folder / "wav.scp"))
        piece = wave[int(start * rate):int(end * rate) if end > 0 else None]  # Kaldi: -1 is the end of the recording
        if not len(piece):
            raise ValueError(f"{folder / 'segments'}: {name} ({start:g} to {end:g} s) is outside of {recording}, which "
                             f"lasts {len(wave) / rate:g} s")
        write_audio(target, piece, rate)
    return target, _seconds(target)


def _table(path: Path) -> dict[str, str]:
    """The lines `KEY VALUE` of a Kaldi table."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; a Kaldi data directory has wav.scp, text and utt2spk")
    table: dict[str, str] = {}
    for line in _lines(path):
        key, *value = line.split(maxsplit=1)[:2] if line.strip() else ("",)
        if key in table:
            raise ValueError(f"{path}: {key} comes twice")
        if key:
            table[key] = value[0].rstrip() if value else ""
    return table


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")  # splitlines cuts at U+2028 as well
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not text in UTF-8 ({error})") from None


def _known(table: Mapping, key: str, path: Path):
    if key not in table:
        raise ValueError(f"{path}: there is no {key}")
    return table[key]
