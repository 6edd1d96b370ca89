"""Batches of training items of similar duration.

Everything random about a batch follows from (seed, epoch), as everything about an item does from (seed, epoch, index):
a run that was interrupted and resumed sees exactly the data that the uninterrupted one would have seen, with any number
of loader workers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.data_utils import batch_pad_right
from torch.nn import functional as F
from torch.utils.data import Sampler

from cdasr.runtime.batching import batches_within


class Items(Protocol):
    """A data set of training items, drawn anew in each `epoch`; `rows` say ID, duration and truth of each."""

    rows: Sequence[Mapping]
    epoch: int

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict: ...


class DurationBatchSampler(Sampler[list[int]]):
    """Batches of at most `batch_seconds` of similar duration, shuffled anew in each epoch.

    `curriculum` maps the last epoch of a phase to the longest utterance of that phase, in seconds: CTC learns to
    align on short utterances first. `items` limits an epoch to so many utterances, drawn at random. Of several
    processes, each takes the batches of its `shard` (number, count), as many as any other one if `even`. With `rounded`
    durations count as `RoundedBatch` pads them, so that nearly all batches of one length are of one size.
    """

    def __init__(self, durations: Sequence[float], batch_seconds: float, seed: int,
                 curriculum: Mapping[int, float] | None = None, items: int | None = None, epoch: int = 1,
                 shard: tuple[int, int] = (0, 1), even: bool = True, rounded: bool = False):
        self.durations, self.rounded = np.asarray(durations, dtype=float), rounded
        self.padded = self.durations if not rounded else np.array([
            round_up(math.ceil(1000 * duration)) / 1000 for duration in durations])
        self.batch_seconds, self.seed = batch_seconds, seed
        self.curriculum, self.items, self.shard, self.even = dict(curriculum or {}), items, shard, even
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draw the batches of `epoch`, counted from 1."""
        rng = np.random.default_rng([self.seed, epoch])
        longest = next((limit for last, limit in sorted(self.curriculum.items()) if epoch <= last), np.inf)
        kept = np.flatnonzero(self.durations <= max(longest, self.durations.min()))
        if self.items is not None and self.items < len(kept):
            kept = rng.choice(kept, self.items, replace=False)
        jittered = self.durations[kept] * rng.uniform(0.9, 1.1, len(kept))
        order = kept[np.argsort(jittered)]
        self.batches = list(batches_within(order.tolist(), self.padded[order], self.batch_seconds))
        rng.shuffle(self.batches)
        number, count = self.shard
        if self.even and len(self.batches) < count:
            raise ValueError(f"{len(self.batches)} batches are too few for {count} processes; make batch_seconds "
                             "smaller")
        self.batches = self.batches[:len(self.batches) // count * count if self.even else None][number::count]

    def steps(self, epoch: int) -> int:
        """Number of batches of `epoch`."""
        return len(DurationBatchSampler(self.durations, self.batch_seconds, self.seed, self.curriculum, self.items,
                                        epoch, self.shard, self.even, self.rounded))

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class RoundedBatch(PaddedBatch):
    """A `PaddedBatch` whose lengths are rounded up (`round_up`), so that its shapes come again and again.

    For every new shape cuDNN plans each convolution anew.
    """

    def __init__(self, examples: Sequence[Mapping]):
        super().__init__(examples, padding_func=_pad_rounded)


def _pad_rounded(tensors: list[torch.Tensor], **options) -> tuple[torch.Tensor, torch.Tensor]:
    """As `batch_pad_right`: the padded tensors (B, L, ...), and their lengths relative to L."""
    data, lengths = batch_pad_right(tensors, **options)
    longest = data.shape[1]
    data = F.pad(data, (*(0, 0) * (data.ndim - 2), 0, round_up(longest) - longest), value=options.get("value", 0))
    return data, torch.as_tensor(lengths) * (longest / data.shape[1])


def round_up(length: int) -> int:
    """The next of eight lengths an octave: at most an eighth more."""
    step = 1 << max(0, (length - 1).bit_length() - 4)
    return -(-length // step) * step


def batch_limit(settings: Mapping) -> float:
    """Padded seconds in a batch, `batch_seconds`; or `batch_size`, where an item has no duration and counts as 1."""
    return settings["batch_seconds"] if "batch_seconds" in settings else settings["batch_size"]
