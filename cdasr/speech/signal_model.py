"""The signal process of speech: a diffusion process, its denoising network and the spectra they live in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdasr.device import autocast
from cdasr.diffusion.coupling import Side
from cdasr.diffusion.prediction import Prediction
from cdasr.diffusion.processes import make_process
from cdasr.diffusion.samplers import time_grid
from cdasr.networks import make_network
from cdasr.networks.mirror import mirrored
from cdasr.speech.stft import CompressedSTFT

SAMPLING = {"steps": 3, "method": "deterministic", "spacing": "uniform"}
Seed = int | Sequence[int]  # for all items of a batch, or for each
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


class SignalModel(nn.Module):
    """Degraded waveforms (B, T) to enhanced ones, by sampling the reverse process from y with few steps.

    Of `config`, beside `sampling`: `prediction`, options of `Prediction`, says what the network estimates; `level`
    (power or peak), what the input is scaled by; `padding` {multiple, mode: reflect or zeros} fills spectra up to a
    multiple of so many frames. Published checkpoints need these; the defaults are: x0, power, none.
    `precision` (bf16, fp16) is that of the network's evaluations, None for that of the surroundings.
    """

    def __init__(self, network: nn.Module, process, stft: CompressedSTFT, config: dict):
        super().__init__()
        self.network, self.process, self.stft, self.config = network, process, stft, config
        self.prediction = Prediction(**config.get("prediction", {}))
        self.level, self.padding = config.get("level", "power"), config.get("padding", {})
        self.precision: str | None = None
        if self.level not in LEVELS:
            raise ValueError(f"level {self.level!r} of the signal model; known: {', '.join(LEVELS)}")

    @classmethod
    def from_config(cls, config: dict) -> SignalModel:
        """Build from plain data `{stft, process, network, sampling, ...}`, with random weights."""
        stft = CompressedSTFT(**config["stft"])
        network = make_network({"bins": stft.bins, **config["network"]})
        return cls(network, make_process(config["process"]), stft, config)

    @property
    def sample_rate(self) -> int:
        return self.stft.sample_rate

    @property
    def sampling(self) -> dict:
        """Default `steps`, `method` and `spacing` of the time grid."""
        return {**SAMPLING, **self.config.get("sampling", {})}

    def analyse(self, waves: Tensor, lengths: Tensor) -> Spectra:
        """Bring zero-padded `waves` (B, T) with `lengths` (B,) samples to a common level and into spectra."""
        return Spectra(**self._spectra(waves, lengths, LEVELS[self.level](waves, lengths)))

    def clean_spectra(self, waves: Tensor, degraded: Spectra) -> Tensor:
        """Spectra of the clean `waves` (B, T) at the degraded ones' gain: the training target x0."""
        return self._spectra(waves, degraded.lengths, degraded.gain)["y"]

    def synthesise(self, x: Tensor, spectra: Spectra) -> Tensor:
        """Waveforms (B, T) of an estimate `x`, at the level of the input and zero beyond each length."""
        waves = self.stft.synthesise(x, spectra.samples, spectra.lengths) / spectra.gain[:, None]
        return waves * (torch.arange(waves.shape[1], device=waves.device) < spectra.lengths[:, None])

    def estimate(self, x_t: Tensor, t: Tensor, spectra: Spectra, logits: Tensor | None = None) -> Tensor:
        """D(x_t, t; y, logits) (B, 1, F, N); `logits` (B, N, V) are at the frames of the spectra, zeros for none."""
        told = {} if logits is None else {"logits": logits}

        def network(x: Tensor, time: Tensor, y: Tensor) -> Tensor:
            with autocast(self.precision, x.device):
                return self.network(x, time, y, mask=spectra.mask, **told)
        return self.prediction.estimate(network, self.process, x_t, t, spectra.y)

    def side(self, spectra: Spectra, align: Callable[[Tensor], Tensor] | None = None, steps: int | None = None,
             seed: Seed = 0, method: str | None = None, guidance: float = 1.0) -> Side:
        """The process, ready to be sampled from the degraded spectra.

        `align` brings logits that the strategy gives to the frames of the spectra, `guidance` is their weight. `seed`
        sets the noise of stochastic sampling methods, for each item by itself; `method` replaces the model's own.
        """
        sampling = self.sampling
        grid = time_grid(self.process, steps or sampling["steps"], spacing=sampling["spacing"]).to(spectra.y.device)
        noise = FrameNoise(seed, spectra.mask.sum(dim=1))

        def denoiser(x_t: Tensor, t: Tensor, y: Tensor, given: Tensor | None) -> Tensor:
            return self.estimate(x_t, t, spectra, None if given is None else align(given))
        return Side(self.process, denoiser, spectra.y, grid, method or sampling["method"], noise,
                    guidance=guidance,
                    corrector={key: sampling[key] for key in ("snr", "corrector_steps") if key in sampling})

    def enhance(self, waves: Tensor, lengths: Tensor, steps: int | None = None, seed: Seed = 0,
                method: str | None = None) -> tuple[Tensor, int]:
        """Enhanced waveforms (B, T), unguided by logits, and the number of network evaluations."""
        spectra = self.analyse(waves, lengths)
        side = self.side(spectra, steps=steps, seed=seed, method=method)
        return self.synthesise(side.sample(given=None), spectra), side.nfe

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
        y = (mirrored(y, frames, 0, longest) if self.padding["mode"] == "reflect"
             else torch.nn.functional.pad(y, (0, longest - y.shape[-1])))
        return y * mask[:, None, None], mask


class FrameNoise:
    """Standard noise, real or complex as the state is, that depends on neither batching nor padding.

    Every item has its own generator, seeded alike or with its own seed, and draws for its own `frames` (B,) only, along
    `axis` of the batch.
    """

    def __init__(self, seed: Seed, frames: Tensor, axis: int = -1):
        self.frames, self.axis = frames.tolist(), axis
        seeds = [seed] * len(self.frames) if isinstance(seed, int) else seed
        self.generators = [torch.Generator().manual_seed(item) for item in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        noise = torch.zeros(like.shape, dtype=like.dtype).movedim(self.axis, -1)
        for row, frames, generator in zip(noise, self.frames, self.generators):
            row[..., :frames] = torch.randn(*row.shape[:-1], frames, dtype=like.dtype, generator=generator)
        return noise.movedim(-1, self.axis).to(like.device)
