"""The signal model of speech: a diffusion process, its denoising network and the spectra they live in.

The space is a complex STFT with compressed amplitudes (Richter et al. 2023, section III-B). Speech spectra are
heavy-tailed; |c|^exponent with the phase kept makes them closer to Gaussian, and `scale` brings them to the noise level
of the diffusion processes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.logits import Logits
from cdasr.coupled.models import SignalModel
from cdasr.coupled.schema import Signal
from cdasr.diffusion.processes import make_process
from cdasr.networks import make_network
from cdasr.networks.layers import align_frames
from cdasr.networks.reflect_pad import reflect_pad
from cdasr.runtime.plain_data import checked

WINDOWS = {"hann": lambda window: window, "sqrthann": torch.sqrt}  # of the periodic Hann window
EDGES = ("zeros", "reflect")
LEVELS = {  # the gain of degraded waveforms (B, T) of some lengths before analysis
    "power": lambda waves, lengths: 0.1 / (waves.square().sum(dim=1) / lengths).sqrt().clamp_min(1e-6),  # RMS of 0.1
    "peak": lambda waves, lengths: 1.0 / waves.abs().amax(dim=1).clamp_min(1e-6),  # as the public SGMSE code has it
}


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
             else F.pad(y, (0, longest - y.shape[-1])))
        return y * mask[:, None, None], mask
