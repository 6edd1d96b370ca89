"""The signal process of speech: a diffusion process, its denoising network and the spectra they live in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.models import SignalModel
from cdasr.coupled.schema import Signal
from cdasr.diffusion.processes import make_process
from cdasr.networks import make_network
from cdasr.networks.layers import align_frames
from cdasr.networks.reflect_pad import reflect_pad
from cdasr.runtime.plain_data import checked
from cdasr.speech.stft import EDGES, CompressedSTFT

LEVELS = {  # the gain of degraded waveforms (B, T) of some lengths before analysis
    "power": lambda waves, lengths: 0.1 / (waves.square().sum(dim=1) / lengths).sqrt().clamp_min(1e-6),  # RMS of 0.1
    "peak": lambda waves, lengths: 1.0 / waves.abs().amax(dim=1).clamp_min(1e-6),  # as the public SGMSE code has it
}


@dataclass
class Spectra:
    """Degraded spectra `y` (B, 1, F, N) of a batch, their valid frames `mask` (B, N), and what undoes the analysis."""

    y: Tensor
    mask: Tensor
    gain: Tensor
    lengths: Tensor

    @property
    def samples(self) -> int:
        return int(self.lengths.max())


class SpectrogramModel(SignalModel):
    """Degraded waveforms (B, T) with `lengths` (B,) samples to enhanced ones, in few steps from y.

    Of `config`, beside what all processes have: `level` (power or peak) is what the input is scaled by; `padding`
    {multiple, mode: reflect or zeros} fills spectra up to a multiple of so many frames. Published checkpoints need
    these; the defaults are: power, none.
    """

    defaults = {"steps": 3, "method": "deterministic", "spacing": "uniform"}
    injection = {"centred": True}

    def __init__(self, network: nn.Module, process, stft: CompressedSTFT, config: dict, precision: str | None = None):
        super().__init__(network, process, config, precision)
        self.stft, self.level, self.padding = stft, config.get("level", "power"), config.get("padding", {})
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r} of the signal model; known: {', '.join(LEVELS)}")
        if self.padding and (set(self.padding) != {"multiple", "mode"} or self.padding["mode"] not in EDGES):
            raise ValueError(f"padding {self.padding} of the signal model: give multiple, and mode "
                             f"{' or '.join(EDGES)}")

    @classmethod
    def from_config(cls, config: dict) -> SpectrogramModel:
        """Build from plain data `{stft, process, network, sampling, ...}`, with random weights. Raises ValueError."""
        checked(Signal, config, "signal process")
        stft = CompressedSTFT(**config["stft"])
        network = make_network({"bins": stft.bins, **config["network"]})
        return cls(network, make_process(config["process"]), stft, config)

    def like(self, network: nn.Module, config: dict, precision: str | None) -> SpectrogramModel:
        return SpectrogramModel(network, self.process, self.stft, config, precision)

    @property
    def sample_rate(self) -> int:
        return self.stft.sample_rate

    def analyse(self, waves: Tensor, lengths: Tensor) -> Spectra:
        """Bring zero-padded `waves` (B, T) with `lengths` (B,) samples to a common level and into spectra."""
        return Spectra(**self._spectra(waves, lengths, LEVELS[self.level](waves, lengths)))

    def target(self, waves: Tensor, degraded: Spectra) -> Tensor:
        """Spectra of the clean `waves` (B, T) at the degraded ones' gain: the training target x0."""
        return self._spectra(waves, degraded.lengths, degraded.gain)["y"]

    def synthesise(self, x: Tensor, spectra: Spectra) -> Tensor:
        """Waveforms (B, T) of an estimate `x`, at the level of the input and zero beyond each length."""
        waves = self.stft.synthesise(x, spectra.samples, spectra.lengths) / spectra.gain[:, None]
        return waves * (torch.arange(waves.shape[1], device=waves.device) < spectra.lengths[:, None])

    def align(self, values: Tensor, noisy: Logits, spectra: Spectra) -> Tensor:
        """Logits (B, M, V) at the positions of C(y), interpolated by time at the frames of the spectra (B, N, V)."""
        new_times = self.stft.frame_times(spectra.y.shape[-1]).to(values.device)
        return align_frames(values, noisy.lengths, noisy.times(), new_times)

    def _spectra(self, waves: Tensor, lengths: Tensor, gain: Tensor) -> dict:
        y = self.stft.analyse(waves * gain[:, None], lengths)
        frames = self.stft.frame_lengths(lengths)
        mask = torch.arange(y.shape[-1], device=y.device) < frames[:, None]
        y = y * mask[:, None, None]
        if self.padding:
            y, mask = self._padded(y, frames)
        return {"y": y, "mask": mask, "gain": gain, "lengths": lengths}

    def _padded(self, y: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Spectra (B, 1, F, N) and mask (B, N), each item filled up to its multiple of frames."""
        multiple = self.padding["multiple"]
        filled = torch.div(frames + multiple - 1, multiple, rounding_mode="floor") * multiple
        longest = int(filled.max())
        mask = torch.arange(longest, device=y.device) < filled[:, None]
        y = (reflect_pad(y, frames, 0, longest) if self.padding["mode"] == "reflect"
             else torch.nn.functional.pad(y, (0, longest - y.shape[-1])))
        return y * mask[:, None, None], mask
