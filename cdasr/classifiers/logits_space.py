"""The space in which logits are diffused: centred in each frame, at unit variance over a model's training set.

Logits of different classifiers have different scales, and a constant added to all of a frame's logits means nothing:
softmax does not see it. Centring and scaling keep the order of a frame's logits, so decoding is the classifier's own.
Coordinates of logits (see `whisper_decoder.py`) have no such constant; they are centred at their mean over the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LogitsSpace:
    """z = (l - mean of l over the classes) / scale; `scale` is a statistic of one classifier.

    With an `origin` (V) it is that which is subtracted, and added again in decoding.
    """

    scale: float
    origin: Sequence[float] | None = None

    def __post_init__(self):
        if not 0.0 < self.scale < float("inf"):
            raise ValueError(f"the scale of a logits space must be positive and finite, got {self.scale}")

    @classmethod
    def fit(cls, logits: Iterable[tuple[Tensor, Tensor | None]], coordinates: bool = False) -> LogitsSpace:
        """From logits (B, M, V) with lengths (B,) in frames, or (B, V) with None, in any number of batches.

        `coordinates`: they are coordinates of logits, and get an origin.
        """
        power, total, frames = 0.0, 0.0, 0
        for values, lengths in logits:
            values = values.double() if coordinates else values.double() - values.double().mean(dim=-1, keepdim=True)
            if lengths is not None:
                values = values[torch.arange(values.shape[1], device=values.device) < lengths[:, None]]
            power, total, frames = power + float(values.square().sum()), total + values.sum(dim=0), frames + len(values)
        origin = total / max(frames, 1) if coordinates else torch.zeros(())
        power -= frames * float(torch.as_tensor(origin).square().sum())
        if not power > 1e-12 * frames:
            raise ValueError("a logits space needs logits that differ between classes; these are all equal or none")
        return cls((power / (frames * values.shape[-1])) ** 0.5, origin.tolist() if coordinates else None)

    def encode(self, logits: Tensor) -> Tensor:
        """Logits (..., V) to the space."""
        return (logits - self._origin(logits)) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """The logits, up to the constant of a frame: the same posteriors and the same best class."""
        return z * self.scale if self.origin is None else z * self.scale + self._origin(z)

    def config(self) -> dict:
        return {name: value for name, value in asdict(self).items() if value is not None}

    def _origin(self, logits: Tensor) -> Tensor:
        if self.origin is None:
            return logits.mean(dim=-1, keepdim=True)
        return torch.tensor(self.origin, dtype=logits.dtype, device=logits.device)
