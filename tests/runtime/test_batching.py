"""Batches of items of different sizes."""

import numpy as np

from cdasr.runtime.batching import batches_within


def test_batches_hold_all_items_in_order_within_the_limit():
    rng = np.random.default_rng(0)
    for limit in (1.0, 5.0, 20.0):
        sizes = rng.uniform(0.1, 6.0, 100)
        batches = list(batches_within(range(100), sizes, limit))
        assert [item for batch in batches for item in batch] == list(range(100))
        padded = [len(batch) * max(sizes[batch]) for batch in batches]
        assert all(size <= limit or len(batch) == 1 for size, batch in zip(padded, batches))
        following = [(len(batch) + 1) * max(sizes[[*batch, other[0]]]) for batch, other in zip(batches, batches[1:])]
        assert all(size > limit for size in following), "no batch could have taken one more"


def test_nothing_gives_no_batches():
    assert list(batches_within([], [], 1.0)) == []
