"""When the tokens of a Whisper decoder are spoken, from what its cross-attention looks at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def boundaries(attention: Tensor, lengths: Tensor, durations: Tensor, window: float, median_width: int | None
               ) -> Tensor:
    """Boundaries (B, L + 1) in seconds of token positions, from what `attention` (B, heads, L, S) sees of a `window`.

    `warped_boundaries` with a `median_width`, `centred_boundaries` without; the window, all S frames, is in seconds.
    """
    step = window / attention.shape[-1]
    frames = (durations / step).floor().long().clamp(1, attention.shape[-1])
    if median_width is None:
        return centred_boundaries(attention, lengths, frames, durations, step)
    return warped_boundaries(attention, lengths, frames, durations, step, median_width)


def warped_boundaries(attention: Tensor, lengths: Tensor, frames: Tensor, durations: Tensor, step: float,
                      median_width: int) -> Tensor:
    """Boundaries (B, L + 1) in seconds of token positions, by dynamic time warping over alignment heads.

    As Whisper's own word timestamps: `attention` (B, heads, L, S) of the queries that predict each token, over
    encoder frames of `step` seconds; `lengths` (B,) positions and `frames` (B,) encoder frames are valid. A position
    begins where the path reaches it and ends where the next one begins, the last one at `durations` (B,) in seconds.
    """
    from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

    boundaries = durations.float()[:, None].repeat(1, attention.shape[2] + 1)
    for item, (positions, seen) in enumerate(zip(lengths.tolist(), frames.tolist())):
        weights = attention[item, :, :positions, :seen].float()
        spread = weights.std(dim=-2, keepdim=True, unbiased=False)
        weights = torch.nan_to_num((weights - weights.mean(dim=-2, keepdim=True)) / spread)
        matrix = _median_filter(weights[None], median_width)[0].mean(dim=0)
        places, columns = _dynamic_time_warping(-matrix.double().cpu().numpy())
        starts = columns[np.diff(places, prepend=-1) > 0] * step
        boundaries[item, :positions] = torch.as_tensor(starts, dtype=boundaries.dtype, device=boundaries.device)
    return boundaries.minimum(durations[:, None])


def centred_boundaries(attention: Tensor, lengths: Tensor, frames: Tensor, durations: Tensor, step: float) -> Tensor:
    """Boundaries (B, L + 1) as `warped_boundaries`, for a model whose alignment heads are not known.

    The centre of mass of the mean over all heads places each position, never before the one in front of it; boundaries
    lie half-way between.
    """
    columns = torch.arange(attention.shape[-1], device=attention.device)
    mass = attention.float().mean(dim=1) * (columns < frames[:, None])[:, None]
    centres = (mass * (columns + 0.5)).sum(dim=-1) * step / mass.sum(dim=-1).clamp_min(1e-9)
    centres = centres.cummax(dim=1).values
    boundaries = durations.float()[:, None].repeat(1, attention.shape[2] + 1)
    boundaries[:, 0] = 0.0
    boundaries[:, 1:-1] = (centres[:, :-1] + centres[:, 1:]) / 2
    beyond = torch.arange(boundaries.shape[1], device=boundaries.device) >= lengths[:, None]
    return torch.where(beyond, durations[:, None], boundaries).minimum(durations[:, None])
