"""Context around a recording: faint noise before and after it.

Networks that learned from utterances with pauses around them take the first and last sound of a tightly cut recording
for noise. A tenth of a second of faint noise on both sides gives them the pause. Digital silence would do mostly, but
a recogniser that never met digital silence in training can fail on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Context:
    """`seconds` of white noise on each side, `level` dB relative to the recording's RMS. 0 seconds: none.

    Raises ValueError for a negative or overlong duration, and for noise that is not fainter than the recording.
    """

    seconds: float = 0.0
    level: float = -40.0

    def __post_init__(self):
        if not 0.0 <= self.seconds <= 5.0:
            raise ValueError(f"context.seconds: expected 0 to 5 s on each side of a recording, got {self.seconds}")
        if not -120.0 <= self.level <= 0.0:
            raise ValueError(f"context.level: expected -120 to 0 dB relative to the recording, got {self.level}")

    def margin(self, rate: int) -> int:
        """Samples on each side at `rate` Hz."""
        return round(self.seconds * rate)

    def surround(self, wave: Tensor, rate: int) -> Tensor:
        """The waveform (samples,) with its context, (samples + 2 margins,); the noise is the same in every call."""
        margin = self.margin(rate)
        if not margin:
            return wave
        noise = torch.randn(2, margin, generator=torch.Generator().manual_seed(0), dtype=wave.dtype)
        before, after = noise * wave.square().mean().sqrt() * 10 ** (self.level / 20)
        return torch.cat([before, wave, after])
