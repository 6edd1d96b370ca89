"""The space in which logits are diffused: centred in each frame, at unit variance over a model's training set.

Logits of different classifiers have different scales, and a constant added to all of a frame's logits means nothing:
softmax does not see it. Centring and scaling keep the order of a frame's logits, so decoding is the classifier's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogitsSpace:
    """z = (l - mean of l over the classes) / scale; `scale` is a statistic of one classifier."""

    scale: float

    def __post_init__(self):
        if not 0.0 < self.scale < float("inf"):
            raise ValueError(f"the scale of a logits space must be positive and finite, got {self.scale}")

    @classmethod
    def fit(cls, logits: Iterable[tuple[Tensor, Tensor | None]]) -> LogitsSpace:
        """From logits (B, M, V) with lengths (B,) in frames, or (B, V) with None, in any number of batches."""
        power, count = 0.0, 0
        for values, lengths in logits:
            centred = values.double() - values.double().mean(dim=-1, keepdim=True)
            if lengths is not None:
                centred = centred[torch.arange(values.shape[1], device=values.device) < lengths[:, None]]
            power, count = power + float(centred.square().sum()), count + centred.numel()
        if not power > 0.0:
            raise ValueError("a logits space needs logits that differ between classes; these are all equal or none")
        return cls((power / count) ** 0.5)

    def encode(self, logits: Tensor) -> Tensor:
        """Logits (..., V) to the space."""
        return (logits - logits.mean(dim=-1, keepdim=True)) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """The logits, up to the constant of a frame: the same posteriors and the same best class."""
        return z * self.scale

    def config(self) -> dict:
        return asdict(self)
