"""A batch of degraded signals as the coupling strategies take it: signal side, logits side, and C as `observe`."""

from __future__ import annotations

from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.logits_model import LogitsModel
from cdasr.coupled.noise import Seed
from cdasr.coupled.signal_model import SignalProcess
from cdasr.coupled.strategies import STRATEGIES
from cdasr.diffusion.coupling import Observation, Side


class Sides:
    """Degraded signals (B, ...) with their `lengths` (B,), ready for a strategy of `cdasr.diffusion.coupling`.

    `steps`, `logits_steps` and `method` default to those of the models; `seed` sets all noise, for each item by itself;
    `guidance` is the weight of the logits in the signal process (0: not told at all, 1: as trained).
    Without a logits model only `enhanced` can be run. `observed` counts evaluations of the classifier. `heard` is the
    first observation, to whose positions all others keep (a decoder's: to its hypothesis); it can be given.
    """

    def __init__(self, classifier: nn.Module, signal_model: SignalProcess, logits_model: LogitsModel | None,
                 degraded: Tensor, lengths: Tensor | None = None, steps: int | None = None,
                 logits_steps: int | None = None, seed: Seed = 0, method: str | None = None, guidance: float = 1.0,
                 heard: Logits | None = None):
        self.classifier, self.signal_model, self.logits_model = classifier, signal_model, logits_model
        self.degraded, self.lengths = degraded, lengths
        self.logits_options = {"steps": logits_steps, "seed": seed, "method": method}
        self.analysis = signal_model.analyse(degraded, lengths)
        self.signal = signal_model.side(self.analysis, self.align, steps, seed, method, guidance)
        self.logits_side: Side | None = None
        self.observed, self.heard = 0, heard

    def logits(self, heard: Observation) -> Side:
        """The logits side that starts from C(y)."""
        self.logits_side = self.logits_model.side(heard, **self.logits_options)
        return self.logits_side

    def observe(self, x: Tensor) -> Observation:
        """C of a signal estimate, or of the degraded signals themselves for y."""
        self.observed += 1
        heard = self.classifier(self.degraded if x is self.signal.y else self.synthesise(x), self.lengths,
                                **(self.heard.positions if self.heard else {}))
        self.heard = self.heard or heard
        return Observation(heard.values, heard) if self.logits_model is None else self.logits_model.observation(heard)

    def read(self, logits: Logits) -> Logits:
        """Logits as they are to be decoded: those at the positions of a hypothesis become those of their own."""
        return logits if logits.tokens is None else self.classifier.read(logits)

    def synthesise(self, x: Tensor) -> Tensor:
        """Signals (B, ...) of a signal estimate."""
        return self.signal_model.synthesise(x, self.analysis)

    def align(self, logits: Tensor) -> Tensor:
        """Logits where the signal network takes them."""
        return self.signal_model.align(logits, self.heard, self.analysis, self.classifier)

    @property
    def nfe(self) -> dict[str, int]:
        """Evaluations of each network so far."""
        return {"signal": self.signal.nfe, "logits": self.logits_side.nfe if self.logits_side else 0,
                "classifier": self.observed}


def strategy_steps(name: str, signal_model: SignalProcess, logits_model: LogitsModel | None, steps: int | None = None,
                   logits_steps: int | None = None) -> tuple[int | None, int | None]:
    """Steps of the signal and of the logits process; one with `same_steps` takes the larger by default."""
    if not STRATEGIES[name].same_steps:
        return steps, logits_steps
    both = steps or logits_steps or max(signal_model.sampling["steps"], logits_model.sampling["steps"])
    return both, both
