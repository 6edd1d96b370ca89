"""Training data of speech: utterances of a manifest, degraded or augmented on the fly.

Everything random about an item follows from (seed, epoch, index): a run that was interrupted and resumed sees exactly
the data that the uninterrupted one would have seen, with any number of loader workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from cdasr.speech.audio import fit_length
from cdasr.speech.manifest import read_clean, read_row


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


def noisy_and_clean(degrade: Callable) -> Callable[[np.ndarray, np.random.Generator], dict[str, np.ndarray]]:
    """`degrade(clean, rng) -> noisy, clean` as a transform of `Utterances`."""
    return lambda wave, rng: dict(zip(("noisy", "clean"), degrade(wave, rng)))


class PairedUtterances(Utterances):
    """Items `{id, text, noisy, clean}`: degraded by `transform`, or, with `pair_prob`, as the corpus has them.

    A row with a `noisy_wav` is such a pair: the same utterance with noise, aligned with `wav`.
    """

    def __init__(self, rows, rate: int, seed: int, transform, pair_prob: float):
        super().__init__(rows, rate, seed, True, transform)
        self.pair_prob = pair_prob

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        rng = np.random.default_rng([self.seed, self.epoch, index, 1])  # not the stream of `transform`
        if not row.get("noisy_wav") or rng.random() >= self.pair_prob:
            return super().__getitem__(index)
        noisy = read_row({**row, "wav": row["noisy_wav"]}, self.rate)
        return {"id": row["ID"], "text": row["text"], "noisy": torch.from_numpy(noisy),
                "clean": torch.from_numpy(fit_length(read_row(row, self.rate), len(noisy)))}


class FixedPairs(Utterances):
    """Items `{id, text, noisy, clean}` of a fixed noisy manifest; rows without a clean reference are left out.

    Raises ValueError where no row has one.
    """

    def __init__(self, rows, rate: int):
        pairs = [row for row in rows if row.get("clean_wav")]
        if not pairs:
            raise ValueError(f"none of the {len(rows)} rows of the noisy validation set has a clean_wav; training is "
                             "validated on pairs of noisy and clean speech, add some")
        super().__init__(pairs, rate, seed=0, train=False, transform=lambda wave, rng: {"noisy": wave})

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return {**item, "clean": torch.from_numpy(read_clean(self.rows[index], self.rate, len(item["noisy"])))}
