"""Images as items for the shared trainers: varied or degraded anew in each epoch, or degraded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from cdasr.images.data import ImageSet


class Pictures(Dataset):
    """Items `{id, label, ...}` and what `transform(image, rng)` makes of an image (C, H, W) in [0, 1].

    An item's randomness follows from (seed, epoch, index); with `train=False` it is the same in every epoch. `rows`
    stand for a manifest: every image counts as one, in place of a duration.
    """

    def __init__(self, data: ImageSet, transform: Callable[[Tensor, np.random.Generator], dict[str, Tensor]],
                 seed: int = 0, train: bool = True):
        self.data, self.transform, self.seed, self.train = data, transform, seed, train
        self.rows = [{"ID": f"{index:06d}", "duration": 1.0, "label": label, "index": index}
                     for index, label in enumerate(data.labels.tolist())]
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng([self.seed, self.epoch if self.train else 0, index])
        row = self.rows[index]
        return {"id": row["ID"], "label": row["label"], **self.transform(self.data.images[index].float() / 255.0, rng)}


def degraded_pictures(data: ImageSet, degrade: Callable, seed: int) -> Pictures:
    """Items `{noisy, clean}`, degraded on the fly by `degrade(clean, rng) -> degraded, clean`."""
    return Pictures(data, lambda image, rng: dict(zip(("noisy", "clean"), degrade(image, rng))), seed)


class FixedPictures(Pictures):
    """Items `{noisy, clean}` of a set that was degraded once."""

    def __init__(self, degraded: ImageSet, clean: ImageSet):
        super().__init__(degraded, lambda image, rng: {"noisy": image}, train=False)
        self.clean = clean

    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), "clean": self.clean.images[index].float() / 255.0}
