"""The signal process of any domain: a diffusion process and its denoising network.

What a signal is, and how it becomes what is diffused, is the business of the subclasses: `cdasr.speech.signal_model`
and `cdasr.images.signal_model`. Their inputs are a batch of signals (B, ...) and its `lengths` (B,), None where every
item is whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Protocol

from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.noise import FrameNoise, Seed
from cdasr.diffusion.coupling import Side
from cdasr.diffusion.preconditioning import Prediction
from cdasr.diffusion.samplers import time_grid
from cdasr.runtime.device import autocast


class Analysis(Protocol):
    """A batch as it is diffused: the degraded `y` (B, ...), its valid frames `mask` (B, N) or None, and `lengths`."""

    y: Tensor
    mask: Tensor | None
    lengths: Tensor | None


class SignalProcess(nn.Module):
    """From degraded signals to enhanced ones, by sampling the reverse process with few steps.

    `config` is plain data, `{process, network, sampling, prediction, ...}`: `defaults` are those of its `sampling`;
    `prediction`, options of `Prediction`, says what the network estimates (default: x0). `precision` (bf16, fp16) is
    that of the network's evaluations, None for that of the surroundings.
    """

    defaults: ClassVar[dict]
    injection: ClassVar[dict] = {}  # further options of a network that gets channels for logits

    def __init__(self, network: nn.Module, process, config: dict):
        super().__init__()
        self.network, self.process, self.config = network, process, config
        self.prediction = Prediction(**config.get("prediction", {}))
        self.precision: str | None = None

    # -- for the subclasses -----------------------------------------------------------------------------------------

    @classmethod
    def from_config(cls, config: dict) -> SignalProcess:
        """Build from plain data, with random weights."""
        raise NotImplementedError

    def with_network(self, network: nn.Module) -> SignalProcess:
        """The same model around another network of the same shape."""
        raise NotImplementedError

    def analyse(self, signals: Tensor, lengths: Tensor | None) -> Analysis:
        """Degraded signals (B, ...) as they are diffused."""
        raise NotImplementedError

    def target(self, clean: Tensor, degraded: Analysis) -> Tensor:
        """The x0 of clean signals (B, ...) beside the degraded ones."""
        raise NotImplementedError

    def synthesise(self, x: Tensor, analysis: Analysis) -> Tensor:
        """Signals (B, ...) of an estimate `x`."""
        raise NotImplementedError

    def align(self, logits: Tensor, heard: Logits, analysis: Analysis, classifier: nn.Module) -> Tensor:
        """Logits (B, [M,] V) at the places where the network takes them; `heard` is C(y), which has their frames."""
        raise NotImplementedError

    # -- shared -----------------------------------------------------------------------------------------------------

    @property
    def sampling(self) -> dict:
        """Default `steps`, `method` and `spacing` of the time grid."""
        return {**self.defaults, **self.config.get("sampling", {})}

    def estimate(self, x_t: Tensor, t: Tensor, analysis: Analysis, logits: Tensor | None = None) -> Tensor:
        """D(x_t, t; y, logits) (B, ...); `logits` are aligned, zeros for none."""
        told = {} if logits is None else {"logits": logits}

        def network(x: Tensor, time: Tensor, y: Tensor) -> Tensor:
            with autocast(self.precision, x.device):
                return self.network(x, time, y, mask=analysis.mask, **told)
        return self.prediction.estimate(network, self.process, x_t, t, analysis.y)

    def side(self, analysis: Analysis, align: Callable[[Tensor], Tensor] | None = None, steps: int | None = None,
             seed: Seed = 0, method: str | None = None, guidance: float = 1.0) -> Side:
        """The process, ready to be sampled from the degraded signals.

        `align` brings logits that the strategy gives to where the network takes them, `guidance` is their weight.
        `seed` sets the noise of stochastic methods, for each item by itself; `method` replaces the model's own.
        """
        if not math.isfinite(guidance):
            raise ValueError(f"guidance {guidance}: expected a finite number, 0 for none, 1 as trained")
        sampling, y = self.sampling, analysis.y
        grid = time_grid(self.process, steps or sampling["steps"], spacing=sampling["spacing"]).to(y.device)
        frames = y.new_full((len(y),), y.shape[-1], dtype=int) if analysis.mask is None else analysis.mask.sum(dim=1)

        def denoiser(x_t: Tensor, t: Tensor, y: Tensor, given: Tensor | None) -> Tensor:
            return self.estimate(x_t, t, analysis, None if given is None else align(given))
        return Side(self.process, denoiser, y, grid, method or sampling["method"], FrameNoise(seed, frames),
                    guidance=guidance,
                    corrector={key: sampling[key] for key in ("snr", "corrector_steps") if key in sampling})

    def enhance(self, signals: Tensor, lengths: Tensor | None, steps: int | None = None, seed: Seed = 0,
                method: str | None = None) -> tuple[Tensor, int]:
        """Enhanced signals (B, ...), unguided by logits, and the number of network evaluations."""
        analysis = self.analyse(signals, lengths)
        side = self.side(analysis, steps=steps, seed=seed, method=method)
        return self.synthesise(side.sample(given=None), analysis), side.nfe

    def with_injection(self, tokens: int, condition: int) -> SignalProcess:
        """The model with `condition` channels for logits of `tokens`, which do nothing yet: the same outputs.

        A model that has such channels already keeps them.
        """
        network = self.config["network"]
        new = {} if network.get("tokens") else self.injection
        options = {"condition": condition, **new, **network, "tokens": tokens}
        model = type(self).from_config({**self.config, "network": options})
        model.network.load_state_dict(self.network.state_dict(), strict=False)
        return model
