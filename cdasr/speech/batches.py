"""Batches of recordings: zero-padded to the longest, and taken apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def collate_waves(waves: Sequence[np.ndarray | Tensor]) -> tuple[Tensor, Tensor]:
    """Zero-padded waveforms (B, T) and their lengths (B,) in samples."""
    waves = [torch.as_tensor(wave) for wave in waves]
    return pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves])


def sample_lengths(padded) -> Tensor:
    """Lengths (B,) in samples or frames of a SpeechBrain `PaddedData`, which holds them relative to the longest."""
    data, relative = padded
    return (relative * data.shape[1]).round().long()


def unpad(padded) -> list[Tensor]:
    """The unpadded rows of a SpeechBrain `PaddedData`."""
    return [row[:length] for row, length in zip(padded.data, sample_lengths(padded))]
