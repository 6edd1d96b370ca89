"""Long recordings: cut at quiet places into segments that fit in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def split_long(wave: Tensor, rate: int, longest: float = 20.0, search: float = 5.0) -> list[Tensor]:
    """Cut `wave` (samples,) into segments of at most `longest` seconds.

    Each cut falls on the quietest 20 ms within the last `search` seconds of its segment, so that words stay whole
    where there is a pause. Concatenating the segments gives `wave` back.
    """
    block, segments = rate // 50, []
    while len(wave) > longest * rate:
        start = int((longest - search) * rate)
        window = wave[start:int(longest * rate)]
        energy = window[:len(window) // block * block].view(-1, block).square().sum(dim=1)
        cut = start + int(torch.argmin(energy)) * block + block // 2
        segments.append(wave[:cut])
        wave = wave[cut:]
    return [*segments, wave]
