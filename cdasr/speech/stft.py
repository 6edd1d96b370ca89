"""The signal space of speech: a complex STFT with compressed amplitudes (Richter et al. 2023, section III-B).

Speech spectra are heavy-tailed; |c|^exponent with the phase kept makes them closer to Gaussian, and `scale` brings
them to the noise level of the diffusion processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CompressedSTFT:
    """Waveforms (B, T) to spectra (B, 1, F, N) and back; `n_fft` and `hop` in samples at `sample_rate` Hz."""

    sample_rate: int = 16_000
    n_fft: int = 510
    hop: int = 255
    exponent: float = 0.5
    scale: float = 0.3

    def __post_init__(self):
        if not 0 < self.hop <= self.n_fft // 2:
            raise ValueError(f"hop {self.hop} must be positive and at most half of n_fft {self.n_fft}, or the "
                             "waveform cannot be put together again")

    @property
    def bins(self) -> int:
        """Number of frequencies F."""
        return self.n_fft // 2 + 1

    def analyse(self, waves: Tensor) -> Tensor:
        """Compressed spectra (B, 1, F, N) complex of waveforms (B, T); frame j is centred on sample j * hop.

        Every frame that touches a sample is there, so that the last samples do not depend on what follows them.
        """
        waves = torch.nn.functional.pad(waves, (0, self.n_fft // 2))
        spectra = torch.stft(waves, self.n_fft, self.hop, window=self._window(waves), center=True,
                             pad_mode="constant", return_complex=True)
        return (self.scale * compress(spectra, self.exponent)).unsqueeze(1)

    def synthesise(self, spectra: Tensor, samples: int) -> Tensor:
        """Waveforms (B, samples) of compressed spectra (B, 1, F, N): the inverse of `analyse`."""
        spectra = compress(spectra.squeeze(1) / self.scale, 1.0 / self.exponent)
        return torch.istft(spectra, self.n_fft, self.hop, window=self._window(spectra), center=True, length=samples)

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with `samples` (B,) samples."""
        return torch.div(samples + self.n_fft // 2, self.hop, rounding_mode="floor") + 1

    def frame_times(self, frames: int) -> Tensor:
        """Centres of the frames in seconds, `(frames,)`."""
        return torch.arange(frames) * self.hop / self.sample_rate

    def config(self) -> dict:
        return asdict(self)

    def _window(self, like: Tensor) -> Tensor:
        return torch.hann_window(self.n_fft, device=like.device)


def compress(spectra: Tensor, exponent: float) -> Tensor:
    """|c|^exponent with the phase of c; 0 stays 0, and so does the gradient there."""
    magnitude = spectra.abs().clamp_min(1e-8)
    return spectra * magnitude ** (exponent - 1.0)
