"""What SpeechBrain's `PaddedData` hold: the items of a training batch, padded to the longest."""

from __future__ import annotations

from torch import Tensor


def sample_lengths(padded) -> Tensor:
    """Lengths (B,) in samples or frames of a SpeechBrain `PaddedData`, which holds them relative to the longest."""
    data, relative = padded
    return (relative * data.shape[1]).round().long()


def unpad(padded) -> list[Tensor]:
    """The unpadded rows of a SpeechBrain `PaddedData`."""
    return [row[:length] for row, length in zip(padded.data, sample_lengths(padded))]
