"""The signal process of speech: a diffusion process, its denoising network and the spectra they live in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdasr.diffusion.processes import make_process
from cdasr.diffusion.samplers import sample, time_grid
from cdasr.networks import make_network
from cdasr.speech.stft import CompressedSTFT

SAMPLING = {"steps": 3, "method": "deterministic", "spacing": "uniform"}
LEVEL = 0.1  # RMS that degraded waveforms are brought to before analysis


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


class SignalModel(nn.Module):
    """Degraded waveforms (B, T) to enhanced ones, by sampling the reverse process from y with few steps.

    `sampling` holds the default `steps`, `method` and `spacing` of the time grid.
    """

    def __init__(self, network: nn.Module, process, stft: CompressedSTFT, config: dict):
        super().__init__()
        self.network, self.process, self.stft, self.config = network, process, stft, config

    @classmethod
    def from_config(cls, config: dict) -> SignalModel:
        """Build from plain data `{stft, process, network, sampling}`, with random weights."""
        stft = CompressedSTFT(**config["stft"])
        network = make_network({"bins": stft.bins, **config["network"]})
        return cls(network, make_process(config["process"]), stft, config)

    @property
    def sample_rate(self) -> int:
        return self.stft.sample_rate

    def analyse(self, waves: Tensor, lengths: Tensor) -> Spectra:
        """Bring zero-padded `waves` (B, T) with `lengths` (B,) samples to a common level and into spectra."""
        power = waves.square().sum(dim=1) / lengths
        gain = LEVEL / power.sqrt().clamp_min(1e-6)
        return Spectra(**self._spectra(waves, lengths, gain))

    def clean_spectra(self, waves: Tensor, degraded: Spectra) -> Tensor:
        """Spectra of the clean `waves` (B, T) at the degraded ones' gain: the training target x0."""
        return self._spectra(waves, degraded.lengths, degraded.gain)["y"]

    def synthesise(self, x: Tensor, spectra: Spectra) -> Tensor:
        """Waveforms (B, T) of an estimate `x`, at the level of the input and zero beyond each length."""
        waves = self.stft.synthesise(x, spectra.samples) / spectra.gain[:, None]
        return waves * (torch.arange(waves.shape[1], device=waves.device) < spectra.lengths[:, None])

    def denoiser(self, spectra: Spectra):
        """D(x_t, t, y, condition) -> x0_hat over this batch, as the samplers call it."""
        return lambda x_t, t, y, condition=None: self.network(x_t, t, y, mask=spectra.mask)

    def enhance(self, waves: Tensor, lengths: Tensor, steps: int | None = None, seed: int = 0) -> tuple[Tensor, int]:
        """Enhanced waveforms (B, T) and the number of network evaluations.

        `seed` sets the noise of stochastic sampling methods, for each waveform by itself.
        """
        sampling = {**SAMPLING, **self.config.get("sampling", {})}
        spectra = self.analyse(waves, lengths)
        grid = time_grid(self.process, steps or sampling["steps"], spacing=sampling["spacing"]).to(waves.device)
        result = sample(self.process, self.denoiser(spectra), spectra.y, grid, method=sampling["method"],
                        noise=FrameNoise(seed, spectra.mask.sum(dim=1)))
        return self.synthesise(result.estimate, spectra), result.nfe

    def _spectra(self, waves: Tensor, lengths: Tensor, gain: Tensor) -> dict:
        y = self.stft.analyse(waves * gain[:, None])
        mask = torch.arange(y.shape[-1], device=y.device) < self.stft.frame_lengths(lengths)[:, None]
        return {"y": y * mask[:, None, None], "mask": mask, "gain": gain, "lengths": lengths}


class FrameNoise:
    """Standard complex noise for batches of spectra that depends on neither batching nor padding.

    Every item has its own generator, seeded alike, and draws for its own `frames` (B,) only.
    """

    def __init__(self, seed: int, frames: Tensor):
        self.frames = frames.tolist()
        self.generators = [torch.Generator().manual_seed(seed) for _ in self.frames]

    def __call__(self, like: Tensor) -> Tensor:
        noise = torch.zeros(like.shape, dtype=like.dtype)
        for row, frames, generator in zip(noise, self.frames, self.generators):
            row[..., :frames] = torch.randn(*row.shape[:-1], frames, dtype=like.dtype, generator=generator)
        return noise.to(like.device)
