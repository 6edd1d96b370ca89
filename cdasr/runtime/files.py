"""What a path is, said before anything is read from it, and plain text that must be UTF-8."""

from __future__ import annotations

import os
import stat
from pathlib import Path

KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
         stat.S_IFSOCK: "a socket"}


def check_file(path: str | os.PathLike, what: str = "file") -> Path:
    """`path`, if it is a regular file that may be read. Raises ValueError that says what it is instead.

    `what` was expected, e.g. "manifest". A pipe is no file: what is read here is read again, and in other processes.
    """
    if not os.fspath(path):  # Path("") is "." already
        raise ValueError(f"the path is empty; a {what} is expected")
    path = Path(path)
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        link = f" (a link to {os.readlink(path)}, which is not there)" if path.is_symlink() else ""
        raise ValueError(f"{path}: no such {what}{link}") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ValueError(f"{str(path)!r} cannot be a {what} ({getattr(error, 'strerror', None) or error})") from None
    if kind != stat.S_IFREG:
        empty = " (or the path is empty)" if path == Path() else ""
        raise ValueError(f"{path}: is {KINDS.get(kind, 'no regular file')}, not a {what}{empty}"
                         + ("; write it to a file first" if kind == stat.S_IFIFO else ""))
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: may not be read (permission denied)")
    return path


def check_not_empty(path: str | os.PathLike) -> None:
    """Raise ValueError for a file of 0 bytes, which is seldom what its owner takes it for."""
    if not os.path.getsize(path):
        raise ValueError(f"{path}: the file is empty (0 bytes)")


def read_text(path: str | os.PathLike, what: str = "file") -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises ValueError that names the file and the line."""
    try:
        data = check_file(path, what).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}: line {line} is not text in UTF-8; save the file as UTF-8") from None
