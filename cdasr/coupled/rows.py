"""Parts of the rows of a data set."""

from __future__ import annotations

import random
from collections.abc import Sequence


def take_evenly(rows: Sequence, count: int) -> list:
    """`count` of the rows, evenly spread over their order; all of them where `count` is 0 or too large."""
    if not 0 < count < len(rows):
        return list(rows)
    return [rows[place * len(rows) // count] for place in range(count)]


def sample_rows(rows: Sequence, count: int, seed: int) -> list:
    """`count` of the rows, drawn at random, in their order: a fixed stride could meet the same speaker each time."""
    return [rows[place] for place in sorted(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))]
