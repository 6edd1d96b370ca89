"""A batch of degraded speech as the coupling strategies take it: signal side, logits side, and C as `observe`."""

from __future__ import annotations

from torch import Tensor

from cdasr.classifiers.ctc import CTCRecogniser, Logits
from cdasr.diffusion.coupling import Observation, Side
from cdasr.networks.conditioning import align_frames
from cdasr.speech.logits_model import LogitsModel
from cdasr.speech.signal_model import Seed, SignalModel


class Sides:
    """Waveforms (B, T) of `lengths` (B,) samples, ready for a strategy of `cdasr.diffusion.coupling`.

    `steps`, `logits_steps` and `method` default to those of the models; `seed` sets all noise, for each item by itself;
    `guidance` is the weight of the logits in the signal process (0: not told at all, 1: as trained).
    Without a logits model only `enhanced` can be run. `observed` counts evaluations of the recogniser. `heard` is the
    first observation, to whose positions all others keep (a decoder's: to its hypothesis); it can be given.
    """

    def __init__(self, recogniser: CTCRecogniser, signal_model: SignalModel, logits_model: LogitsModel | None,
                 waves: Tensor, lengths: Tensor, steps: int | None = None, logits_steps: int | None = None,
                 seed: Seed = 0, method: str | None = None, guidance: float = 1.0,
                 heard: Logits | None = None):
        self.recogniser, self.signal_model, self.logits_model = recogniser, signal_model, logits_model
        self.waves, self.lengths = waves, lengths
        self.logits_options = {"steps": logits_steps, "seed": seed, "method": method}
        self.spectra = signal_model.analyse(waves, lengths)
        self.signal = signal_model.side(self.spectra, self.at_spectra, steps, seed, method, guidance)
        self.logits_side: Side | None = None
        self.observed, self.heard = 0, heard

    def logits(self, heard: Observation) -> Side:
        """The logits side that starts from C(y)."""
        self.logits_side = self.logits_model.side(heard, **self.logits_options)
        return self.logits_side

    def observe(self, x: Tensor) -> Observation:
        """C of a signal estimate, or of the waveforms themselves for y."""
        self.observed += 1
        heard = self.recogniser(self.waves if x is self.signal.y else self.synthesise(x), self.lengths,
                                **(self.heard.positions if self.heard else {}))
        self.heard = self.heard or heard
        return Observation(heard.values, heard) if self.logits_model is None else self.logits_model.observation(heard)

    def synthesise(self, x: Tensor) -> Tensor:
        """Waveforms (B, T) of a signal estimate."""
        return self.signal_model.synthesise(x, self.spectra)

    def at_spectra(self, logits: Tensor) -> Tensor:
        """Logits (B, M, V), interpolated at the frames of the spectra (B, N, V)."""
        return logits_at_spectra(logits, self.heard, self.recogniser, self.signal_model, self.spectra.y.shape[-1])

    @property
    def nfe(self) -> dict[str, int]:
        """Evaluations of each network so far."""
        return {"signal": self.signal.nfe, "logits": self.logits_side.nfe if self.logits_side else 0,
                "classifier": self.observed}


def strategy_steps(name: str, signal_model: SignalModel, logits_model: LogitsModel | None, steps: int | None = None,
                   logits_steps: int | None = None) -> tuple[int | None, int | None]:
    """Steps of the signal and of the logits process; `parallel` takes as many of each, by default the larger number."""
    if name != "parallel":
        return steps, logits_steps
    both = steps or logits_steps or max(signal_model.sampling["steps"], logits_model.sampling["steps"])
    return both, both


def logits_at_spectra(logits: Tensor, heard: Logits, recogniser: CTCRecogniser, signal_model: SignalModel,
                      frames: int) -> Tensor:
    """Logits (B, M, V) at the positions of the observation `heard`, at the first `frames` of the spectra, by time."""
    if heard.edges is None:
        times = recogniser.frame_times(logits.shape[1]).to(logits.device)
    else:
        times = (heard.edges[:, :-1] + heard.edges[:, 1:]) / 2
    new_times = signal_model.stft.frame_times(frames).to(logits.device)
    return align_frames(logits, heard.lengths, times, new_times)
