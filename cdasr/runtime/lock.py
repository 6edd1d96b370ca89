"""One run in a folder at a time: a second one is refused at once, in one line."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cdasr.runtime.outputs import check_folder

LOCK = ".lock"


@contextmanager
def locked(folder: str | os.PathLike, what: str = "run") -> Iterator[None]:
    """Keep other runs out of `folder`, which is made, while the block runs; `what` runs, for the message.

    Raises ValueError where another run is in it, or where it cannot be written to.
    The lock is the system's: it ends with the process, however that ends, and a file that stays blocks nobody.
    """
    from filelock import FileLock, Timeout

    check_folder(folder)
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(folder) / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: another {what} is writing there; wait until it has ended, or choose another "
                         "folder") from None
    except (OSError, NotImplementedError) as error:  # some file systems have no locks: go on without
        if getattr(error, "errno", None) not in (None, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
    try:
        yield
    finally:
        lock.release()
