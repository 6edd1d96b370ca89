"""What the inputs of a stage are, as short texts that change where the inputs change (markers.py)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

TABLES = ("wav.scp", "segments", "text", "utt2spk", "spk2utt", "utt2dur", "reco2file_and_channel")  # of Kaldi
BY_CONTENT = 64 << 20  # bytes; of larger files size and time are taken


def describe(path: str | os.PathLike, exp_dir: Path) -> str:
    """A file's content, or size and time of a large one or of all files of a folder, as one short text.

    Of a Kaldi data directory the tables count, by their content; of other folders all but `exp_dir`.
    """
    path = Path(path)
    if path.is_file():
        status = path.stat()
        return (digest(path.read_bytes()) if status.st_size <= BY_CONTENT
                else f"{status.st_size} bytes, {status.st_mtime_ns}")
    if not path.is_dir():
        return "not there"
    if (path / "wav.scp").is_file():
        return digest(*(part for name in TABLES if (path / name).is_file()
                        for part in (name.encode(), (path / name).read_bytes())))
    return digest(*(f"{name} {size} {modified}\n".encode("utf-8", "surrogateescape")
                    for name, size, modified in sorted(_listing(path, exp_dir.absolute()))))


def describe_named(path: str | os.PathLike, named: Callable[[str], Iterable[str]]) -> str:
    """Size and time of the files that a list of files names: one may be replaced while the list stays the same."""
    from cdasr.runtime.atomic import file_key

    try:
        files = list(named(os.fspath(path)))
    except ValueError:
        return "not known"  # the stage says why
    return digest(*(f"{file_key(path)}\n".encode("utf-8", "surrogateescape") for path in files))


def digest(*parts: bytes) -> str:
    """24 hexadecimal digits that stand for `parts`."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:24]


def _listing(folder: Path, leave_out: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of all files below a folder, linked folders included, each folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(
            name for name in folders if (Path(place) / name).absolute() != leave_out)
        if real in seen:
            continue  # a link that leads back
        seen.add(real)
        for name in files:
            file = Path(place) / name
            try:
                status = file.stat()
            except OSError:
                continue  # a link that leads nowhere
            yield str(file.relative_to(folder)), status.st_size, status.st_mtime_ns
