"""A recogniser that is given waveforms at a higher rate than its own, as signal processes at 48 kHz make them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits


class ResampledRecogniser(nn.Module):
    """The `recogniser` behind a band-limited resampler: it takes waveforms at `sample_rate` Hz. All else is its own."""

    def __init__(self, recogniser: nn.Module, sample_rate: int):
        super().__init__()
        self.recogniser, self.sample_rate = recogniser, sample_rate

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("recogniser"), name)

    def with_hidden_layers(self, layers: Sequence[int]) -> ResampledRecogniser:
        return ResampledRecogniser(self.recogniser.with_hidden_layers(layers), self.sample_rate)

    def with_beams(self, beam_size: int, nbest: int = 1) -> ResampledRecogniser:
        return ResampledRecogniser(self.recogniser.with_beams(beam_size, nbest), self.sample_rate)

    def reader(self) -> ResampledRecogniser:
        return ResampledRecogniser(self.recogniser.reader(), self.sample_rate)

    def forward(self, waves: Tensor, lengths: Tensor, like: Logits | None = None) -> Logits:
        return self.recogniser(*self.resampled(waves, lengths), like=like)

    def excerpt_states(self, waves: Tensor) -> list[Tensor]:
        whole = torch.full((len(waves),), waves.shape[1], device=waves.device)
        return self.recogniser.excerpt_states(self.resampled(waves, whole)[0])

    def resampled(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Zero-padded waveforms (B, T) and their lengths (B,) at the recogniser's own rate."""
        from torchaudio.functional import resample

        own = self.recogniser.sample_rate
        lengths = torch.div(lengths * own + self.sample_rate - 1, self.sample_rate, rounding_mode="floor")
        waves = resample(waves, self.sample_rate, own)
        return waves * (torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]), lengths


def at_rate(recogniser: nn.Module, sample_rate: int) -> nn.Module:
    """The recogniser for waveforms at `sample_rate` Hz, which is its own rate or a higher one. Raises ValueError."""
    if isinstance(recogniser, ResampledRecogniser):
        recogniser = recogniser.recogniser
    if recogniser.sample_rate > sample_rate:
        raise ValueError(f"the recogniser takes {recogniser.sample_rate} Hz and the signal model {sample_rate} Hz; "
                         "train the signal model at the recogniser's rate")
    return recogniser if recogniser.sample_rate == sample_rate else ResampledRecogniser(recogniser, sample_rate)
