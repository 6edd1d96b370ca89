"""Training data: utterances of a manifest, degraded or augmented on the fly, in batches of similar duration.

Everything random about an item follows from (seed, epoch, index), and about a batch from (seed, epoch): a run that
was interrupted and resumed sees exactly the data that the uninterrupted one would have seen, with any number of
loader workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.utils.data_utils import batch_pad_right
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from cdasr.speech.manifest import read_row


class Utterances(Dataset):
    """Rows of a manifest as items `{id, text, ...}` plus the tensors that `transform(wave, rng)` makes of the audio.

    `transform` gets mono float32 `(samples,)` at `rate` Hz and returns a dict of 1-D arrays. With `train=False` an
    item is the same in every epoch.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], rate: int, seed: int, train: bool,
                 transform: Callable[[np.ndarray, np.random.Generator], Mapping[str, np.ndarray]],
                 encode: Callable[[str], list[int]] | None = None):
        self.rows, self.rate, self.seed, self.train = list(rows), rate, seed, train
        self.transform, self.encode = transform, encode
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        rng = np.random.default_rng([self.seed, self.epoch if self.train else 0, index])
        wave = read_row(row, self.rate)
        item = {"id": row["ID"], "text": row["text"]}
        item.update((key, torch.from_numpy(value)) for key, value in self.transform(wave, rng).items())
        if self.encode is not None:
            item["tokens"] = torch.tensor(self.encode(row["text"]))
        return item


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
        self.batches = _fill(kept[np.argsort(jittered)], self.padded, self.batch_seconds)
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


def _fill(order: np.ndarray, durations: np.ndarray, batch_seconds: float) -> list[list[int]]:
    """Cut `order` into batches whose padded size (longest duration x items) stays within `batch_seconds`."""
    batches: list[list[int]] = [[]]
    longest = 0.0
    for index in order:
        longest = max(longest, durations[index])
        if batches[-1] and longest * (len(batches[-1]) + 1) > batch_seconds:
            batches.append([])
            longest = durations[index]
        batches[-1].append(int(index))
    return batches
