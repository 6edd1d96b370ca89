"""The formats that `read_manifest` (manifest.py) reads: CSV, TSV and JSON lines here, others in manifest_*.py.

A reader turns a file into `Entry`s, in the file's own words, and notes each fault with its file and line. Nothing is
executed and no audio is opened here.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cdasr.runtime.files import check_file, read_text
from cdasr.speech.manifest_lhotse import is_cut, read_cut

ALIASES = {  # ours: the names that others have for it, in lower case
    "ID": ("id", "utt_id", "utt", "utterance_id", "key"),
    "duration": ("duration", "length"),
    "wav": ("wav", "audio_filepath", "audio_path", "audio", "path", "file", "filename", "file_name"),
    "text": ("text", "wrd", "transcript", "transcription", "sentence", "words"),
    "spk_id": ("spk_id", "speaker", "speaker_id", "spk", "client_id"),
    "offset": ("offset",), "channel": ("channel",)}
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")  # in a folder of Hugging Face's datasets (audiofolder)


@dataclass
class Entry:
    """What a manifest says of one utterance: our columns where it has them, then its others; all of them text.

    `place` and `wav_place` are where it says so, `file: line N`. `wav` is None where the format left it out. `side`:
    `channel` is the side of a call, which in a file with one channel is that channel.
    """

    place: str
    fields: dict[str, str]
    wav_place: str
    side: bool = False


def read_entries(path: Path, faults: list[str]) -> list[Entry]:
    """The utterances of a CSV, TSV or JSON lines file; `faults` gets what cannot be used, as `file: line N: why`.

    Raises ValueError where the file as a whole cannot be read.
    """
    text = unpacked(path) if path.suffix.lower() == ".gz" else read_text(path, "manifest")
    json_names = (".jsonl", ".json", ".ndjson")
    if path.name.lower().removesuffix(".gz").endswith(json_names) or text.lstrip()[:1] == "{":
        return _json_lines(path, text, faults)
    return _table(path, text, faults)


def metadata_of(folder: Path) -> Path | None:
    """The list of a folder of Hugging Face's datasets; None where it has none."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def unpacked(path: Path) -> str:
    """The text of a file that gzip has packed. Raises ValueError for one that is none."""
    try:
        return gzip.decompress(check_file(path, "manifest").read_bytes()).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a text in UTF-8 that gzip has packed ({error})") from None


# -- CSV and TSV --------------------------------------------------------------------------------------------------


def _table(path: Path, text: str, faults: list[str]) -> list[Entry]:
    """RFC 4180 with commas or semicolons; with tabs quotes are plain characters, as in Common Voice's files."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    tabs = path.suffix.lower() == ".tsv" or first.count("\t") > max(first.count(","), first.count(";"))
    separator = "\t" if tabs else max(",;", key=first.count)
    style = {"quoting": csv.QUOTE_NONE, "quotechar": None} if tabs else {"skipinitialspace": ", " in first}
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, **style)
    header, entries, before = None, [], 0
    while True:
        try:
            fields = next(lines, None)
        except csv.Error as error:  # what follows cannot be told apart any more
            faults.append(f"{path}: line {before + 1}: {_quote_fault(error)}")
            return entries
        number, before = before + 1, lines.line_num
        if fields is None:
            return entries
        if not any(field.strip() for field in fields):
            continue  # a blank line, or one of separators alone
        if header is None:
            header = _header(path, number, fields)
        elif why := _row_fault(fields, header, tabs):
            faults.append(f"{path}: line {number}: {why}")
        else:
            place = f"{path}: line {number}"
            entries.append(Entry(place, _ours(dict(zip(header, fields))), place))


def _quote_fault(error: Exception) -> str:
    if "unexpected end of data" in str(error):
        return ('a quote (") is opened and not closed, which takes in all lines that follow; close it, or write "" for '
                "a quote within a quoted field")
    return (f'not CSV ({error}); a text with a comma or a quote stands in quotes, and a quote in it is doubled: '
            '"a ""b"""')


def _header(path: Path, number: int, fields: Sequence[str]) -> list[str]:
    """The names of the columns. Raises ValueError where one comes twice, or the audio or the text has none."""
    names = [field.strip() for field in fields]
    known = [name for name in names if name]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise ValueError(f"{path}: line {number}: the column {twice[0]!r} comes twice in the header")
    lower = {name.lower() for name in known}
    if missing := [ours for ours in ("wav", "text") if not lower & set(ALIASES[ours])]:
        looked = "; ".join(f"{ours}: {', '.join(ALIASES[ours])}" for ours in missing)
        raise ValueError(f"{path}: the manifest lacks the column(s) {', '.join(missing)} (looked for {looked}); its "
                         f"first line has {_short(', '.join(known))}")
    return names


def _row_fault(fields: Sequence[str], header: Sequence[str], tabs: bool) -> str | None:
    if any("\n" in field or "\r" in field for field in fields):
        return "a quoted field goes over the end of the line; a transcript is one line: close the quote"
    if len(fields) != len(header):  # also where empty ones are too many: a text may have been cut at its comma
        cure = ("a text must not hold a tab" if tabs else 'a text with a comma stands in quotes, "yes, please"')
        return f"{len(fields)} fields, not the header's number of fields, {len(header)}; {cure}"
    return None


# -- JSON lines ---------------------------------------------------------------------------------------------------


def _json_lines(path: Path, text: str, faults: list[str]) -> list[Entry]:
    entries = []
    for number, line in enumerate(text.split("\n"), start=1):  # splitlines cuts at U+2028 as well
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        try:
            row = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError) as error:  # JSONDecodeError, and numbers of thousands of digits
            faults.append(f"{place} is not JSON ({_short(str(error))}); one object a line is expected")
            continue
        if not isinstance(row, dict):
            faults.append(f"{place} is not a JSON object; one a line is expected")
            continue
        if is_cut(row):
            try:
                entries.append(Entry(place, read_cut(row), place))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                faults.append(f"{place}: {error if type(error) is ValueError else 'not a cut as lhotse writes it'}")
            continue
        fields = _ours({key: _text(value) for key, value in row.items()})
        odd = [key for key, value in row.items() if key.lower() in (*ALIASES["wav"], *ALIASES["text"])
               and not isinstance(value, str | None)]
        if odd:
            faults.append(f"{place}: {odd[0]} is no string; expected one")
        elif missing := [ours for ours in ("wav", "text") if ours not in fields]:
            faults.append(f"{place} has no {' and no '.join(missing)} (looked for "
                          f"{', '.join(ALIASES[missing[0]])}; it has {_short(', '.join(row))})")
        else:
            entries.append(Entry(place, fields, place))
    return entries


def _object(pairs: list[tuple]) -> dict:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _text(value) -> str | None:
    """A JSON value as text: strings as they are, null as None, anything else as JSON writes it."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- what both share ----------------------------------------------------------------------------------------------


def _ours(row: dict[str, str | None]) -> dict[str, str]:
    """A row with our names first, then all other columns as they are; None is left out."""
    row = {name: value for name, value in row.items() if name and value is not None}
    lower = {name.lower(): name for name in reversed(row)}
    taken = {}
    for ours, names in ALIASES.items():
        there = [lower[name] for name in names if name in lower]
        if there:
            taken[ours] = next((name for name in there if row[name].strip()), there[0])
    used = set(taken.values())
    return {ours: row[name] for ours, name in taken.items()} | {
        name: value for name, value in row.items() if name not in used and name not in taken}


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:200] + " ..."
