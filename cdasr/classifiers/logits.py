"""What every frozen classifier returns."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Logits:
    """What a classifier says of a batch: `values` (B, M, V), `lengths` (B,) in frames, `hidden` (B, M, H).

    Of pictures there is one vector each: `values` (B, V), `lengths` None, `hidden` (B, H).
    Where the M positions are not frames but the tokens of a hypothesis (a decoder's), they also say when each begins
    and the last one ends, `edges` (B, M + 1) in seconds; the hypothesis with its prefix, `tokens` (B, P + M); and the
    `audio` (B, S, d) of `samples` (B,) samples as it was encoded.
    """

    values: Tensor
    lengths: Tensor | None
    hidden: Tensor | None = None
    edges: Tensor | None = None
    tokens: Tensor | None = None
    audio: Tensor | None = None
    samples: Tensor | None = None

    @property
    def positions(self) -> dict:
        """Arguments with which the classifier observes other versions of these signals at the same positions."""
        return {} if self.tokens is None else {"like": self}


def frame_mask(logits: Logits) -> Tensor | None:
    """Valid frames (B, M) of a batch of logits; None where there are no frames."""
    if logits.lengths is None:
        return None
    return torch.arange(logits.values.shape[1], device=logits.values.device) < logits.lengths[:, None]
