"""The run of a strategy over a batch: both processes ready to be sampled, and the classifier C as `observe`."""

from __future__ import annotations

from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.models import LogitsModel, SignalModel
from cdasr.coupled.strategies import STRATEGIES
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.samplers import ReverseProcess, Seed


class CoupledRun:
    """Degraded signals (B, ...) with their `lengths` (B,), ready for a strategy of `cdasr.diffusion.coupling`.

    `steps`, `logits_steps` and `method` default to those of the models; `seed` sets all noise, for each item by itself;
    `guidance` is the weight of the logits in the signal process (0: no logits at all, 1: as trained). Without a logits
    model only `enhanced` can be run. `observed` counts evaluations of the classifier. `noisy` is the first observation,
    C(y), to whose positions all others keep (a decoder's: to its hypothesis); it can be given.
    """

    def __init__(self, classifier: nn.Module, signal_model: SignalModel, logits_model: LogitsModel | None,
                 degraded: Tensor, lengths: Tensor | None = None, steps: int | None = None,
                 logits_steps: int | None = None, seed: Seed = 0, method: str | None = None, guidance: float = 1.0,
                 noisy: Logits | None = None):
        self.classifier, self.signal_model, self.logits_model = classifier, signal_model, logits_model
        self.degraded, self.lengths = degraded, lengths
        self.logits_options = {"steps": logits_steps, "seed": seed, "method": method}
        self.analysis = signal_model.analyse(degraded, lengths)
        self.signal = signal_model.reverse(self.analysis, self.align, steps, seed, method, guidance)
        self.logits: ReverseProcess | None = None
        self.observed, self.noisy = 0, noisy

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
