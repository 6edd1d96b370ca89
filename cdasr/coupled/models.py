"""The two diffusion models of a package, of signals and of logits, and their coupled run over a batch.

Each model is a process with its denoising network. A `CoupledRun` has both ready to be sampled by a strategy.
What a signal is, and how it becomes what is diffused, is said by the subclasses of `SignalModel`, `SpectrogramModel`
(`cdasr.speech.signal_model`) and `ImageModel` (`cdasr.images.signal_model`). Their inputs are a batch of signals
(B, ...) and its `lengths` (B,), None where every item is whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits, LogitsSpace
from cdasr.coupled.schema import LogitsProcess
from cdasr.coupled.strategies import STRATEGIES
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.preconditioning import NetworkDenoiser, Preconditioning
from cdasr.diffusion.processes import Process, make_process
from cdasr.diffusion.samplers import FrameNoise, ReverseProcess, Seed, time_grid
from cdasr.networks import make_network
from cdasr.runtime.device import PRECISIONS
from cdasr.runtime.plain_data import checked


class Analysis(Protocol):
    """A batch as it is diffused: the degraded `y` (B, ...), its valid frames `mask` (B, N) or None, and `lengths`."""

    y: Tensor
    mask: Tensor | None
    lengths: Tensor | None


class DiffusionModel(nn.Module):
    """A diffusion process and its denoising network.

    `config` is plain data, `{process, network, sampling, ...}`; `defaults` are those of its `sampling`. `precision`
    (bf16, fp16) is that of the network's evaluations, None for that of the surroundings.
    """

    defaults: ClassVar[dict]

    def __init__(self, network: nn.Module, process: Process, config: dict, precision: str | None = None):
        super().__init__()
        self.network, self.process, self.config, self.precision = network, process, config, precision

    @classmethod
    def from_config(cls, config: dict) -> DiffusionModel:
        """Build from plain data, with random weights. Raises ValueError for anything else."""
        raise NotImplementedError

    def like(self, network: nn.Module, config: dict, precision: str | None) -> DiffusionModel:
        """A model of this kind with another network of the same shape, config or precision."""
        raise NotImplementedError

    def with_network(self, network: nn.Module) -> DiffusionModel:
        """The same model around another network of the same shape, in the surroundings' precision."""
        return self.like(network, self.config, None)

    def with_sampling(self, **options) -> DiffusionModel:
        """The same model, sharing the network, with other options of `sampling`, e.g. `steps`."""
        config = {**self.config, "sampling": {**self.config.get("sampling", {}), **options}}
        return self.like(self.network, config, self.precision).train(self.training)

    def optimised(self, precision: str | None, compile: bool = False, channels_last: bool = False) -> DiffusionModel:
        """The same model, sharing the network, which is evaluated in `precision` (fp32, bf16 or fp16).

        `compile`: torch.compile the network; `channels_last`: the memory layout of its convolutions.
        """
        if channels_last:
            self.network.to(memory_format=torch.channels_last)
        if compile:
            self.network.compile(dynamic=True)
        return self.like(self.network, self.config, precision).train(self.training)

    @property
    def sampling(self) -> dict:
        """Default `steps`, `method` and `spacing` of the time grid."""
        return {**self.defaults, **self.config.get("sampling", {})}

    def _reverse(self, denoiser: NetworkDenoiser, y: Tensor, steps: int | None, method: str | None, noise: FrameNoise,
                 **options) -> ReverseProcess:
        """The process from `y` over the model's own grid, with its own numbers where None is given."""
        own = self.sampling
        grid = time_grid(self.process, steps or own["steps"], own["spacing"]).to(y.device)
        return ReverseProcess(self.process, denoiser, y, grid, method or own["method"], noise, **options)


class SignalModel(DiffusionModel):
    """From degraded signals to enhanced ones, by sampling the reverse process with few steps.

    `prediction` in `config`, options of `Preconditioning`, says what the network estimates (default: x0).
    """

    injection: ClassVar[dict] = {}  # further options of a network that gets channels for logits
    guided: ClassVar[bool] = True  # whether logits can guide it, as the coupled strategies do

    def __init__(self, network: nn.Module, process: Process | None, config: dict, precision: str | None = None):
        super().__init__(network, process, config, precision)
        self.preconditioning = Preconditioning(**config.get("prediction", {}))

    def analyse(self, signals: Tensor, lengths: Tensor | None) -> Analysis:
        """Degraded signals (B, ...) as they are diffused."""
        raise NotImplementedError

    def target(self, clean: Tensor, degraded: Analysis) -> Tensor:
        """The x0 of clean signals (B, ...) beside the degraded ones."""
        raise NotImplementedError

    def synthesise(self, x: Tensor, analysis: Analysis) -> Tensor:
        """Signals (B, ...) of an estimate `x`."""
        raise NotImplementedError

    def align(self, values: Tensor, noisy: Logits, analysis: Analysis) -> Tensor:
        """Logits `values` (B, [M,] V) where the network takes them; `noisy` is C(y), which has their positions."""
        raise NotImplementedError

    def denoiser(self, analysis: Analysis, align: Callable[[Tensor], Tensor] | None = None) -> NetworkDenoiser:
        """D(x_t, t; y, logits) -> x0_hat (B, ...) for this batch.

        `align` brings logits to where the network takes them; without it they are there already.
        """
        def condition(logits: Tensor | None) -> dict:
            return {"mask": analysis.mask,
                    "logits": logits if logits is None or align is None else align(logits)}
        return NetworkDenoiser(self.network, self.process, self.preconditioning, condition,
                               PRECISIONS.get(self.precision))

    def estimate(self, x_t: Tensor, t: Tensor, analysis: Analysis, logits: Tensor | None = None) -> Tensor:
        """One x0_hat (B, ...) at the state x_t and times t (B,), for training; `logits` are aligned already."""
        return self.denoiser(analysis)(x_t, t, analysis.y, logits)

    def reverse(self, analysis: Analysis, align: Callable[[Tensor], Tensor] | None = None, steps: int | None = None,
                seed: Seed = 0, method: str | None = None, guidance: float = 1.0) -> ReverseProcess:
        """The process, ready to be sampled from the degraded signals.

        `align` brings logits that the strategy gives to where the network takes them, `guidance` is their weight.
        `seed` sets the noise of stochastic methods, for each item by itself; `method` replaces the model's own.
        """
        if not math.isfinite(guidance):
            raise ValueError(f"guidance {guidance}: expected a finite number, 0 for none, 1 as trained")
        y, mask = analysis.y, analysis.mask
        frames = y.new_full((len(y),), y.shape[-1], dtype=int) if mask is None else mask.sum(dim=1)
        corrector = {key: self.sampling[key] for key in ("snr", "corrector_steps") if key in self.sampling}
        return self._reverse(self.denoiser(analysis, align), y, steps, method, FrameNoise(seed, frames),
                             guidance=guidance, corrector=corrector)

    def enhance(self, signals: Tensor, lengths: Tensor | None, steps: int | None = None, seed: Seed = 0,
                method: str | None = None) -> tuple[Tensor, int]:
        """Enhanced signals (B, ...), unguided by logits, and the number of network evaluations."""
        analysis = self.analyse(signals, lengths)
        process = self.reverse(analysis, steps=steps, seed=seed, method=method)
        return self.synthesise(process.sample(given=None), analysis), process.nfe

    def with_injection(self, tokens: int, condition: int) -> SignalModel:
        """The model with `condition` channels for logits of `tokens`, which do nothing yet: the same outputs.

        A model that has such channels already keeps them.
        """
        network = self.config["network"]
        new = {} if network.get("tokens") else self.injection
        options = {"condition": condition, **new, **network, "tokens": tokens}
        model = type(self).from_config({**self.config, "network": options})
        model.network.load_state_dict(self.network.state_dict(), strict=False)
        return model


class LogitsModel(DiffusionModel):
    """From what the classifier makes of the degraded and of the enhanced signal to the logits of the clean one."""

    defaults = {"steps": 4, "method": "deterministic", "spacing": "uniform"}

    def __init__(self, network: nn.Module, process: Process, space: LogitsSpace, config: dict,
                 precision: str | None = None):
        super().__init__(network, process, config, precision)
        self.space = space

    @classmethod
    def from_config(cls, config: dict) -> LogitsModel:
        """Build from plain data `{process, network, space, sampling, hidden_layers}`, with random weights.

        Raises ValueError for anything else.
        """
        checked(LogitsProcess, config, "logits process")
        return cls(make_network(config["network"]), make_process(config["process"]), LogitsSpace(**config["space"]),
                   config)

    def like(self, network: nn.Module, config: dict, precision: str | None) -> LogitsModel:
        return LogitsModel(network, self.process, self.space, config, precision)

    @property
    def tokens(self) -> int:
        """Size V of the logits."""
        return self.config["network"]["tokens"]

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Layers of the classifier whose hidden states the network is given."""
        return tuple(self.config.get("hidden_layers", (-1,)))

    @property
    def framewise(self) -> bool:
        """Whether each position is estimated by itself."""
        return getattr(self.network, "framewise", False)

    def observation(self, logits: Logits) -> Observation:
        """`observation` in the model's space."""
        return observation(logits, self.space)

    def denoiser(self, noisy_obs: Observation) -> NetworkDenoiser:
        """D(l_s, s; C(y), C(x_hat0)) -> l_hat0 (B, [M,] V) for this batch; it is given C(x_hat0), or C(y) again."""
        noisy, mask = noisy_obs.context, noisy_obs.context.mask

        def condition(enhanced_obs: Observation) -> dict:
            return {"enhanced": enhanced_obs.logits, "noisy_hidden": noisy.hidden,
                    "enhanced_hidden": enhanced_obs.context.hidden, "mask": mask}
        return NetworkDenoiser(self.network, self.process, condition=condition, dtype=PRECISIONS.get(self.precision))

    def estimate(self, l_s: Tensor, s: Tensor, noisy_obs: Observation, enhanced_obs: Observation) -> Tensor:
        """One l_hat0 (B, [M,] V) at the state l_s and times s (B,), for training."""
        return self.denoiser(noisy_obs)(l_s, s, noisy_obs.logits, enhanced_obs)

    def reverse(self, noisy_obs: Observation, steps: int | None = None, seed: Seed = 0, method: str | None = None
                ) -> ReverseProcess:
        """The process, ready to be sampled from C(y); `seed` and `method` as in `SignalModel.reverse`."""
        y, mask = noisy_obs.logits, noisy_obs.context.mask
        frames = y.new_full((len(y),), y.shape[1], dtype=int) if mask is None else mask.sum(dim=1)
        return self._reverse(self.denoiser(noisy_obs), y, steps, method, FrameNoise(seed, frames, axis=1),
                             mask=None if mask is None else mask[..., None])

    def decoded(self, l_hat: Tensor, like: Logits) -> Logits:
        """An estimate in the space as logits that the classifier decodes."""
        return like.with_values(self.space.decode(l_hat))


def observation(logits: Logits, space: LogitsSpace) -> Observation:
    """Logits of the classifier, brought into the space and zero beyond their lengths; they go along as context."""
    values, mask = space.encode(logits.values), logits.mask
    return Observation(values if mask is None else values * mask[..., None], context=logits)


class CoupledRun:
    """Degraded signals (B, ...) with their `lengths` (B,), ready for a strategy of `cdasr.diffusion.coupling`.

    `steps`, `logits_steps` and `method` default to those of the models; `seed` sets all noise, for each item by itself;
    `guidance` is the weight of the logits in the signal process (0: no logits at all, 1: as trained). Without a logits
    model only `enhanced` can be run. `observed` counts evaluations of the classifier. `noisy` is the first observation,
    C(y), to whose positions all others keep (a decoder's: to its hypothesis).
    """

    def __init__(self, classifier: nn.Module, signal_model: SignalModel, logits_model: LogitsModel | None,
                 degraded: Tensor, lengths: Tensor | None = None, steps: int | None = None,
                 logits_steps: int | None = None, seed: Seed = 0, method: str | None = None, guidance: float = 1.0):
        self.classifier, self.signal_model, self.logits_model = classifier, signal_model, logits_model
        self.degraded, self.lengths = degraded, lengths
        self.logits_options = {"steps": logits_steps, "seed": seed, "method": method}
        self.analysis = signal_model.analyse(degraded, lengths)
        self.signal = signal_model.reverse(self.analysis, self.align, steps, seed, method, guidance)
        self.logits: ReverseProcess | None = None
        self.observed, self.noisy = 0, None

    def start_logits(self, noisy_obs: Observation) -> ReverseProcess:
        """The logits process, which starts from C(y)."""
        self.logits = self.logits_model.reverse(noisy_obs, **self.logits_options)
        return self.logits

    def observe(self, x: Tensor) -> Observation:
        """C of a signal estimate (B, ...), or of the degraded signals themselves for y."""
        self.observed += 1
        signals = self.degraded if x is self.signal.y else self.synthesise(x)
        found = self.classifier(signals, self.lengths, like=self.noisy)
        self.noisy = self.noisy or found
        return Observation(found.values, found) if self.logits_model is None else self.logits_model.observation(found)

    def answer(self, l_hat: Tensor, enhanced: Logits) -> Logits:
        """The logits that are decoded; `enhanced` is C of the last signal estimate.

        Where the logits belong to a hypothesis and the network sees each position by itself, the answer is read token
        by token: the logits process is sampled at each, given C(y) and C(x_hat) under the prefix that has been read.
        """
        if not (enhanced.has_hypothesis and self.logits_model.framewise):
            return self.logits_model.decoded(l_hat, enhanced).redecode()
        heard = [self.noisy] if enhanced is self.noisy else [self.noisy, enhanced]
        return self.classifier.lockstep(heard, self._next_logits)[0]

    def _next_logits(self, values: list[Tensor], hidden: list[Tensor], step: int) -> Tensor:
        """Logits (B, V) of one more token, of those of each version; `step` sets the noise apart."""
        one = torch.ones(len(values[0]), dtype=torch.long, device=values[0].device)
        noisy_obs, *others = [self.logits_model.observation(self.classifier.kind(
            value[:, None], one, state[:, None], self.classifier)) for value, state in zip(values, hidden)]
        seed = self.logits_options["seed"]
        options = {**self.logits_options, "seed": [item + 1_000_003 * step for item in seed]
                   if isinstance(seed, list) else seed + 1_000_003 * step}
        process = self.logits_model.reverse(noisy_obs, **options)
        return self.logits_model.space.decode(process.sample(others[0] if others else noisy_obs))[:, 0]

    def synthesise(self, x: Tensor) -> Tensor:
        """Signals (B, ...) of a signal estimate."""
        return self.signal_model.synthesise(x, self.analysis)

    def align(self, logits: Tensor) -> Tensor:
        """Logits (B, [M,] V) where the signal network takes them."""
        return self.signal_model.align(logits, self.noisy, self.analysis)

    @property
    def nfe(self) -> dict[str, int]:
        """Evaluations of each network so far."""
        return {"signal": self.signal.nfe, "logits": self.logits.nfe if self.logits else 0,
                "classifier": self.observed}


def strategy_steps(name: str, signal_model: SignalModel, logits_model: LogitsModel | None, steps: int | None = None,
                   logits_steps: int | None = None) -> tuple[int | None, int | None]:
    """Steps of the signal and of the logits process; one with `same_steps` takes the larger by default."""
    if not STRATEGIES[name].same_steps:
        return steps, logits_steps
    both = steps or logits_steps or max(signal_model.sampling["steps"], logits_model.sampling["steps"])
    return both, both


def unpadded(signals: Tensor, lengths: Tensor | None) -> list[Tensor]:
    """The items of a batch (B, ...), each at its own length."""
    return list(signals) if lengths is None else [item[:length] for item, length in zip(signals, lengths.tolist())]
