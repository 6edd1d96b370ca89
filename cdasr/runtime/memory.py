"""How the process gets its memory."""

from __future__ import annotations

import ctypes
import os
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_BLOCK = 32 * 2**20  # bytes; what glibc takes at most
PRIMITIVES = 128  # more than a network has of different shapes


def keep_freed_memory() -> None:
    """Have the C library keep freed memory for the next tensor, in place of giving it back to the system each time.

    The system hands out memory page by page and fills it with zeros; for the tensors of a network on a CPU that can
    take half of the time (docs/performance.md). Blocks above 32 MiB are given back all the same, since keeping those
    too broke the memory into ever more pieces: choose batches whose tensors are smaller. Does nothing where the C
    library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_BLOCK)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def keep_few_primitives() -> None:
    """Have oneDNN, which computes convolutions on CPUs, keep fewer compiled primitives, unless the user says how many.

    It compiles one for each shape and keeps 1,024 of them, about half a megabyte each. The segments of a long recording
    all have other lengths, so that memory grows with each of them, for nothing. To be called before torch is imported.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(PRIMITIVES))
