"""Data directories of Kaldi and ESPnet as `read_manifest` reads them: tables of `KEY VALUE` lines.

See kaldi-asr.org/doc/data_prep.html. Read are `wav.scp` and `text`; where they are there also `utt2spk`, `segments`
(utterance, recording, start, end in seconds, and perhaps a channel) and `reco2file_and_channel` (recording, file, side
A or B). Nothing is executed: an entry of `wav.scp` that is a command is refused, and so is one in an archive.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from cdasr.runtime.files import read_text
from cdasr.speech.manifest_formats import Entry

TABLES = ("wav.scp", "text", "utt2spk", "segments", "reco2file_and_channel")
CHANNELS = {"0": "0", "1": "1"}  # of segments
SIDES = {"A": "0", "B": "1", "1": "0", "2": "1"}  # of reco2file_and_channel, where numbers count from 1
Table = dict[str, tuple[str, str]]  # key: (place, value)


def kaldi_files(folder: Path) -> list[Path]:
    """The tables of a Kaldi data directory that are there."""
    return [folder / name for name in TABLES if (folder / name).is_file()]


def read_kaldi(folder: Path, faults: list[str]) -> list[Entry]:
    """The utterances of a directory; `faults` gets what cannot be used, as `file: line N: why`.

    Raises ValueError where a table cannot be read.
    """
    if not (folder / "wav.scp").exists():
        raise ValueError(f"{folder}: is a folder, and no Kaldi data directory (it has no wav.scp) nor one of Hugging "
                         "Face's datasets (metadata.csv); give a CSV, TSV or JSON lines file, or one of these")
    files, texts = (_table(folder / name, faults) for name in ("wav.scp", "text"))
    speakers, cuts, sides = (_table(path, faults) if (path := folder / name).is_file() else None
                             for name in ("utt2spk", "segments", "reco2file_and_channel"))
    for recording, (place, wav) in files.items():
        if why := _refusal(wav):
            faults.append(f"{place}: {recording} {why}")
    entries, used = [], set()
    for name, (place, text) in texts.items():
        try:
            entry, recording = _entry(folder, name, place, files, cuts, sides)
        except ValueError as error:
            faults.append(str(error))
            continue
        used.add(recording)
        if entry is None:  # refused
            continue
        entry.place = place
        entry.fields |= {"ID": name, "text": text}
        if speakers is not None:
            if name not in speakers:
                faults.append(f"{folder / 'utt2spk'}: there is no {name}, which {place} has")
            entry.fields["spk_id"] = speakers.get(name, ("", ""))[1]
        entries.append(entry)
    for name, (place, _) in (files if cuts is None else cuts).items():
        if name not in (used if cuts is None else texts):
            faults.append(f"{place}: {name} has no text; add it to {folder / 'text'} or leave it out here")
    return entries


def _entry(folder: Path, name: str, asked: str, files: Table, cuts: Table | None,
           sides: Table | None) -> tuple[Entry | None, str]:
    """The audio of an utterance that `asked` names, and its recording; None where that is refused.

    Raises ValueError, with the place, for what is not there or malformed.
    """
    recording, fields, cut_place = name, {}, None
    if cuts is not None:
        cut_place, value = _known(cuts, name, folder / "segments", asked)
        recording, fields = _cut(cut_place, name, value)
    side = (sides or {}).get(recording) or (sides or {}).get(name)
    if side:
        file, letter = (*side[1].split(maxsplit=1), "", "")[:2]
        recording = recording if recording in files else file
        if letter.upper() not in SIDES:
            raise ValueError(f"{side[0]}: the side of {name} is {letter!r}; expected A or B")
        fields["channel"] = SIDES[letter.upper()]
    wav_place, wav = _known(files, recording, folder / "wav.scp", cut_place or asked)
    if _refusal(wav):
        return None, recording
    return Entry("", {**fields, "wav": _locate(folder, wav)}, cut_place or wav_place, side=side is not None), recording


def _cut(place: str, name: str, value: str) -> tuple[str, dict[str, str]]:
    """A line of segments: the recording, and our offset, duration and perhaps channel."""
    words = value.split()
    try:
        recording, start, end = words[0], float(words[1]), float(words[2])
    except (ValueError, IndexError):
        start, end = math.nan, math.nan
    if len(words) not in (3, 4) or not math.isfinite(start) or not math.isfinite(end):
        raise ValueError(f"{place}: {name} {value}: expected <utterance> <recording> <start> <end>, in seconds")
    if not (start >= 0 and (end > start or end == -1)):  # Kaldi: -1 is the end of the recording
        raise ValueError(f"{place}: {name} is from {start:g} to {end:g} s; expected 0 <= start < end")
    fields = {"offset": f"{start:.10g}", "duration": "" if end == -1 else f"{end - start:.10g}"}
    if len(words) == 4:
        if words[3] not in CHANNELS:
            raise ValueError(f"{place}: the channel of {name} is {words[3]}; expected 0 or 1")
        fields["channel"] = CHANNELS[words[3]]
    return recording, fields


def _refusal(wav: str) -> str | None:
    """Why an entry of wav.scp cannot be used, if it is no file."""
    if wav.endswith("|") or wav.startswith("|"):
        return (f"is the output of a command ({wav}); commands are not run here. Write the audio to files, with "
                "Kaldi's wav-copy or ESPnet's format_wav_scp.sh")
    if re.search(r"\.(ark|h5|hdf5):\w+$", wav):
        return (f"is in an archive ({wav}); write the audio to files, with ESPnet's format_wav_scp.sh --audio-format "
                "flac")
    return None


def _locate(folder: Path, wav: str) -> str:
    """A path of wav.scp: absolute, or relative to where Kaldi ran, or to the data directory or a folder above it.

    ESPnet writes paths relative to its recipe's folder, which is above `dump/raw/<set>`.
    """
    for path in (Path(wav), *(place / wav for place in (folder, *folder.absolute().parents))):
        try:
            if path.is_file():
                return str(path.absolute())
        except (OSError, ValueError):  # too long, or with a zero byte: the check says so
            break
    return wav


def _table(path: Path, faults: list[str]) -> Table:
    """The lines `KEY VALUE` of a Kaldi table, each with its place."""
    table: Table = {}
    text = read_text(path, "file; a Kaldi data directory has wav.scp, text and utt2spk")
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines cuts at U+2028 as well
        key, *value = line.split(maxsplit=1) if line.strip() else ("",)
        if key in table:
            faults.append(f"{path}: line {number}: repeats the ID {key!r}; IDs must be unique")
        elif key:
            table[key] = f"{path}: line {number}", value[0].rstrip() if value else ""
    return table


def _known(table: Table, key: str, path: Path, asked: str) -> tuple[str, str]:
    if key not in table:
        raise ValueError(f"{path}: there is no {key}, which {asked} has")
    return table[key]
