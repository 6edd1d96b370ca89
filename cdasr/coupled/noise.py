"""Noise that depends on neither batching nor padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Seed = int | Sequence[int]  # for all items of a batch, or for each


class FrameNoise:
    """Standard noise, real or complex as the state is, that depends on neither batching nor padding.

    Every item has its own generator, seeded alike or with its own seed, and draws for its own `frames` (B,) only, along
    `axis` of the batch.
    """

    def __init__(self, seed: Seed, frames: Tensor, axis: int = -1):
        self.frames, self.axis = frames.tolist(), axis
        seeds = [seed] * len(self.frames) if isinstance(seed, int) else seed
        self.generators = [torch.Generator().manual_seed(item) for item in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        noise = torch.zeros(like.shape, dtype=like.dtype).movedim(self.axis, -1)
        for row, frames, generator in zip(noise, self.frames, self.generators):
            row[..., :frames] = torch.randn(*row.shape[:-1], frames, dtype=like.dtype, generator=generator)
        return noise.movedim(-1, self.axis).to(like.device)
