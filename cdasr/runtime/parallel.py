"""Independent work on many items, spread over processes.

`speechbrain.utils.parallel.parallel_map` keeps the order and shows progress, too. It is not used here, because it takes
seconds to import (it comes with torch, which `cdasr simulate` does without), and because it pickles the function with
every chunk of items: the function of `simulate` holds all its noise files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tqdm import tqdm


def processes_of(count: int) -> int:
    """How many processes a recipe's option stands for: `count`, or one for each core where that is 0."""
    return count or os.cpu_count() or 1


def ordered_map(function: Callable, items: Sequence, processes: int, desc: str) -> Iterator:
    """`function(item)` of each item, in their order, with a progress bar; results must not depend on what came before.

    With more than one of `processes`, `function`, items and results are pickled, and an error ends all of them.
    """
    if processes <= 1 or len(items) < 2:
        yield from map(function, tqdm(items, desc=desc))
        return
    chunk = max(1, min(16, len(items) // (4 * processes)))
    with ProcessPoolExecutor(min(processes, len(items)), initializer=_take, initargs=(function,)) as pool:
        yield from tqdm(pool.map(_call, items, chunksize=chunk), total=len(items), desc=desc)


def _take(function: Callable) -> None:
    """Keep what a process is to do: pickled once, not with every item."""
    global _function
    _function = function


def _call(item):
    return _function(item)
