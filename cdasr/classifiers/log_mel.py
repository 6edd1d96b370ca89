"""Whisper's log-mel spectrogram (Radford et al. 2023, section 2.2), batched and differentiable.

The same numbers as transformers' `WhisperFeatureExtractor`, which works on NumPy arrays and so stops gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LogMel(nn.Module):
    """Waveforms (B, T) to features (B, mels, frames) with the settings of a `WhisperFeatureExtractor`."""

    def __init__(self, extractor):
        super().__init__()
        self.sample_rate: int = extractor.sampling_rate
        self.n_fft: int = extractor.n_fft
        self.hop: int = extractor.hop_length
        self.window_samples: int = extractor.n_samples  # of Whisper's own window: 30 s
        filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)  # (bins, mels)
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, waves: Tensor, lengths: Tensor, window: int | None = None) -> Tensor:
        """Features of `waves` (B, T) with `lengths` (B,) samples, filled up with silence to the encoder's window.

        `window`: another number of samples to fill up to. Samples beyond an item's length are taken as zero. Raises
        ValueError for audio longer than the window.
        """
        window = window or self.window_samples
        if int(lengths.max()) > window:
            raise ValueError(f"audio of {int(lengths.max()) / self.sample_rate:.1f} s is longer than the recogniser's "
                             f"window of {window / self.sample_rate:.0f} s; cut it into shorter segments")
        valid = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        waves = torch.where(valid, waves.float(), 0.0)[:, :window]
        return self.features(F.pad(waves, (0, window - waves.shape[1])))

    def features(self, waves: Tensor) -> Tensor:
        """Features (B, mels, T // hop) of `waves` (B, T) as they are, with no silence put behind them."""
        spectra = torch.stft(waves, self.n_fft, self.hop, window=self.window.float(), return_complex=True)[..., :-1]
        power = torch.view_as_real(spectra).square().sum(dim=-1)
        levels = (self.filters.float() @ power).clamp_min(1e-10).log10()
        return (torch.maximum(levels, levels.amax(dim=(1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
