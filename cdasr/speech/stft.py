"""The signal space of speech: a complex STFT with compressed amplitudes (Richter et al. 2023, section III-B).

Speech spectra are heavy-tailed; |c|^exponent with the phase kept makes them closer to Gaussian, and `scale` brings
them to the noise level of the diffusion processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cdasr.networks.reflect_pad import reflect_pad

WINDOWS = {"hann": lambda window: window, "sqrthann": torch.sqrt}  # of the periodic Hann window
EDGES = ("zeros", "reflect")


@dataclass(frozen=True)
class CompressedSTFT:
    """Waveforms (B, T) to spectra (B, 1, F, N) and back; `n_fft` and `hop` in samples at `sample_rate` Hz.

    `window`: hann or sqrthann. `edges`: how a waveform goes on beyond its ends. With "zeros" there is every frame that
    touches a sample; with "reflect" there are T // hop + 1, as torch.stft and the public SGMSE code have it.
    """

    sample_rate: int = 16_000
    n_fft: int = 510
    hop: int = 255
    exponent: float = 0.5
    scale: float = 0.3
    window: str = "hann"
    edges: str = "zeros"

    def __post_init__(self):
        for name, known in (("window", tuple(WINDOWS)), ("edges", EDGES)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} of the STFT; known: {', '.join(known)}")
        if not 0 < self.hop <= self.n_fft // 2:
            raise ValueError(f"hop {self.hop} must be positive and at most half of n_fft {self.n_fft}, or the "
                             "waveform cannot be put together again")

    @property
    def bins(self) -> int:
        """Number of frequencies F."""
        return self.n_fft // 2 + 1

    def analyse(self, waves: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Compressed spectra (B, 1, F, N) complex of waveforms (B, T); frame j is centred on sample j * hop.

        `lengths` (B,) in samples, by default T, matter with "reflect" only: with "zeros" the last samples do not depend
        on zeros that follow them.
        """
        half = self.n_fft // 2
        if self.edges == "zeros":
            waves = F.pad(waves, (half, 2 * half))
        else:
            lengths = torch.full((len(waves),), waves.shape[1], device=waves.device) if lengths is None else lengths
            waves = reflect_pad(waves, lengths, -half, waves.shape[1] + half)
        spectra = torch.stft(waves, self.n_fft, self.hop, window=self._window(waves), center=False, return_complex=True)
        return (self.scale * compress(spectra, self.exponent)).unsqueeze(1)

    def synthesise(self, spectra: Tensor, samples: int, lengths: Tensor | None = None) -> Tensor:
        """Waveforms (B, samples) of compressed spectra (B, 1, F, N): the inverse of `analyse`, for its `lengths`."""
        spectra = compress(spectra.squeeze(1) / self.scale, 1.0 / self.exponent)
        window = self._window(spectra)
        if lengths is None or self.edges == "zeros":
            return torch.istft(spectra, self.n_fft, self.hop, window=window, center=True, length=samples)
        # frames that an item does not have, and their windows, must not weigh on its last samples
        mask = torch.arange(spectra.shape[-1], device=spectra.device) < self.frame_lengths(lengths)[:, None]
        waves = torch.istft(spectra * mask[:, None], self.n_fft, self.hop, window=window, center=True, length=samples)
        own, all_ = (F.conv_transpose1d(frames[:, None].float(), window[None, None] ** 2, stride=self.hop)
                     [:, 0, self.n_fft // 2:][:, :samples] for frames in (mask, torch.ones_like(mask)))
        return waves * (all_ / own.clamp_min(1e-8))

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Number of frames of waveforms with `samples` (B,) samples."""
        beyond = self.n_fft // 2 if self.edges == "zeros" else 0
        return torch.div(samples + beyond, self.hop, rounding_mode="floor") + 1

    def frame_times(self, frames: int) -> Tensor:
        """Centres of the frames in seconds, `(frames,)`."""
        return torch.arange(frames) * self.hop / self.sample_rate

    def config(self) -> dict:
        return asdict(self)

    def _window(self, like: Tensor) -> Tensor:
        return WINDOWS[self.window](torch.hann_window(self.n_fft, device=like.device))


def compress(spectra: Tensor, exponent: float) -> Tensor:
    """|c|^exponent with the phase of c; 0 stays 0, and so does the gradient there."""
    magnitude = spectra.abs().clamp_min(1e-8)
    return spectra * magnitude ** (exponent - 1.0)
