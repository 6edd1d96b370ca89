"""Continuation of signals beyond their ends by reflection, for batches of different lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def reflect_pad(x: Tensor, lengths: Tensor, start: int, stop: int) -> Tensor:
    """Positions `start` to `stop` - 1 of the last axis of x (B, ..., N), reflected at both ends of each item.

    The first `lengths` (B,) positions of an item are valid. As numpy's and torch's `reflect`, but as often as needed.
    """
    period = (2 * (lengths - 1)).clamp_min(1)[:, None]
    index = torch.arange(start, stop, device=x.device) % period
    index = torch.minimum(index, period - index)
    return x.gather(-1, index.view(len(x), *(1,) * (x.dim() - 2), -1).expand(*x.shape[:-1], -1))
