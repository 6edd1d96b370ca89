"""One writer a folder: a second one is refused at once, in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def locked(folder: str | os.PathLike, what: str) -> Iterator[None]:
    """Hold `folder`, which is made where it is not there, for as long as the block runs.

    `what`: who holds it, for the message. The lock ends with the process, however that ends. Raises ValueError where
    another process holds the folder, or where it cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock", timeout=0)
        lock.acquire()
    except Timeout:
        raise ValueError(f"{folder}: another {what} is writing there; wait until it has ended, or choose another "
                         "folder") from None
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error.strerror or error})") from None
    try:
        yield
    finally:
        lock.release()
