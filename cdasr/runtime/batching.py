"""Batches of items of different sizes, whose padded size is limited."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batches_within(items: Iterable[Item], sizes: Iterable[float], limit: float) -> Iterator[list[Item]]:
    """Consecutive items in batches of at most `limit`, the largest of their `sizes` times their number; or of one item.

    Items that are sorted by size waste the least padding.
    """
    batch: list[Item] = []
    longest = 0.0
    for item, size in zip(items, sizes):
        if batch and max(longest, size) * (len(batch) + 1) > limit:
            yield batch
            batch, longest = [], 0.0
        batch.append(item)
        longest = max(longest, size)
    if batch:
        yield batch
