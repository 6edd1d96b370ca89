"""What a person can mend, in one line: the faults of input, disk and memory; what is left is a fault of the code."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence

SHOWN = 20
CAUSES = {
    errno.ENOSPC: "the disk is full; free some space and run again",
    errno.EDQUOT: "your share of the disk is used up; free some space and run again",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.EACCES: "no permission; change it or choose another place",
    errno.EPERM: "no permission; change it or choose another place",
    errno.ENAMETOOLONG: "the name is too long; shorten it",
    errno.ENOTDIR: "a part of this path is a file and not a folder",
    errno.EISDIR: "a folder; expected a file",
    errno.ENOENT: "no such file or folder",
}
MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


class Faults(ValueError):
    """Several faults of one input, each a line; at most `SHOWN` of them are told."""

    def __init__(self, faults: Sequence[str]):
        faults = [" ".join(fault.split()) for fault in faults]
        left = len(faults) - SHOWN
        super().__init__("\n".join(faults[:SHOWN] + ([f"and {left} more"] if left > 0 else [])))


def explain(error: BaseException) -> str | None:
    """What to tell the user of `error`: a line, of several faults one each; None for what only a developer can mend."""
    if type(error) in (ValueError, Faults):  # of several faults a line each
        return "\n".join(" ".join(line.split()) for line in str(error).splitlines() if line.strip()) or "ValueError"
    text = " ".join(str(error).split())
    if isinstance(error, re.error):
        return f"{error.pattern!r} is not a regular expression ({error.msg})"
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(map(text.lower().count, MEMORY))):
        return "not enough memory; take shorter recordings, fewer --samples or a smaller --batch-seconds"
    if isinstance(error, OSError) and error.errno is not None:
        cause = CAUSES.get(error.errno, error.strerror)
        return f"{error.filename}: {cause}" if error.filename is not None else cause
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("cdasr"):
        return (f"the Python package {error.name} is missing; install it (the extras [images], [demo] and [metrics] of "
                "cdasr have what is optional)")
    if isinstance(error, (ValueError, OSError)) or type(error).__module__.startswith("soundfile"):
        return text or type(error).__name__
    return None
