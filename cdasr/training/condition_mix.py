"""The logits that condition a signal network in training: as uncertain, and as wrong, as those in sampling."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cdasr.training.logits import drawn


def pick(given: Mapping[str, Tensor], shares: Mapping[str, float], generator: torch.Generator) -> Tensor:
    """One of the `given` logits (B, ...) for each item, drawn by the `shares` of their names."""
    weights = torch.tensor([shares[name] for name in given], device=generator.device)
    picks = torch.multinomial(weights, len(next(iter(given.values()))), replacement=True, generator=generator)
    return torch.stack(list(given.values()))[picks, torch.arange(len(picks), device=picks.device)]


def swap_spans(logits: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Logits (batch, frames, vocabulary) in which a `share` of the items hold a span of the next item's.

    The span is up to half of the frames; of logits (batch, classes) the whole item. From such logits the signal
    network learns to weigh its condition against the degraded signal.
    """
    swapped = drawn(share, logits, generator)
    if logits.ndim > 2:
        start, length = torch.rand(2, len(logits), 1, generator=generator, device=logits.device)
        place = torch.linspace(0.0, 1.0, logits.shape[1], device=logits.device)
        swapped = swapped[:, None] & (place >= start) & (place < start + 0.5 * length)
    return torch.where(swapped[..., None], logits.roll(1, dims=0), logits)
