"""Results on disk: a file is written whole or not at all, and JSON is valid for every number."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """The path of a new file in the folder of `path`, with its suffix, that takes the place of `path` at the end.

    Makes the folder. Where the block raises, the new file is removed and `path` stays as it was; an OSError then names
    `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.stem[:40]}.{os.getpid()}.partial{path.suffix}")  # short: names have a limit
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        _remove(partial)


@contextmanager
def replacing_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A new folder beside `path` that becomes `path` at the end, or is removed where the block raises.

    Raises ValueError where `path` holds something: it is not thrown away.
    """
    path = Path(path)
    check_empty(path)
    partial = path.with_name(f".{path.name[:40]}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        yield partial
        os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_empty(folder: str | os.PathLike) -> None:
    """Raise ValueError for a folder that holds something."""
    if Path(folder).is_dir() and any(Path(folder).iterdir()):
        raise ValueError(f"{folder}: this folder is not empty; choose a new one")


def write_bytes(path: str | os.PathLike, data: bytes | memoryview) -> None:
    """Write `data` atomically."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write `text` in UTF-8 atomically; bytes of file names that are not UTF-8 become escapes."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | os.PathLike, data: object) -> None:
    """Write JSON atomically; numbers that JSON does not have (NaN, infinity) become null."""
    write_text(path, to_json(data, indent=2, ensure_ascii=False) + "\n")


def save_figure(figure, path: str | os.PathLike, dpi: int = 110) -> None:
    """Write a matplotlib figure atomically; the suffix decides on the format."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=dpi)


def to_json(data: object, **options) -> str:
    """`json.dumps`, with null for NaN and infinity, which other programs refuse to read."""
    try:
        return json.dumps(data, allow_nan=False, **options)
    except ValueError:
        return json.dumps(_finite(data), allow_nan=False, **options)


def file_key(path: str | os.PathLike) -> list:
    """Name, size in bytes and time of the last change in nanoseconds: what is made from `path` is reused while equal.

    A replaced file is noticed even where the new one is older. Of a file that is not there only the name is known.
    """
    try:
        found = os.stat(path)
    except OSError:
        return [Path(path).name]
    return [Path(path).name, found.st_size, found.st_mtime_ns]


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """16 hexadecimal digits that stand for `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def _finite(value):
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _remove(path: Path) -> None:
    with suppress(OSError):  # its folder is gone or cannot be written to: the first error says so
        path.unlink(missing_ok=True)
