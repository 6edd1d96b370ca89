"""The strategies: how a signal process and a logits process are sampled so that each guides the other.

A *side* is one process ready to be sampled. The classifier C enters as `observe(x) -> Observation`: what it makes
of a signal, as logits in the space that is diffused. The logits side starts from C(y), so it is given as a function
of that observation. The signal denoiser is given logits (or None), the logits denoiser an observation: C of the
latest signal estimate, or C(y) itself as long as there is none. No network and no classifier is evaluated twice on
the same input, and each counts its evaluations.

When are these exact? Take l0 as a draw given x0 that y adds nothing to, and denoisers that draw from
p(x0 | x_t, l0, y) and p(l0 | l_s, x0, y) rather than return the mean. Then every move leaves the joint law of state
and estimates as it should be, on every grid: `cascade`; `alternating` and `nested` when their first signal trajectory
is given no logits; `parallel` when its first signal step is given no logits and every logits step a signal estimate.
Given C(y) first, `alternating` is a Gibbs sampler from another start: what is left of that start shrinks in every round
by the squared canonical correlations of x0 and l0. With posterior means in place of draws, as networks give them, means
are exact and the spread is too small. tests/diffusion/test_coupling.py tests each of these sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from cdasr.diffusion.processes import Process
from cdasr.diffusion.samplers import Denoiser, Noise, Trajectory


@dataclass(frozen=True)
class Observation:
    """C of a signal: `logits` as they are diffused, and `context`, whatever else the logits denoiser looks at."""

    logits: Tensor
    context: object = None


@dataclass
class Side:
    """A process with its denoiser, ready to be sampled from `y` over the decreasing times of `grid`.

    `method`, `noise`, `mask`, `guidance` and the `corrector`'s `snr` and `corrector_steps` as in `Trajectory`.
    """

    process: Process
    denoiser: Denoiser
    y: Tensor
    grid: Tensor
    method: str = "deterministic"
    noise: Noise | None = None
    mask: Tensor | None = None
    guidance: float = 1.0
    corrector: dict = field(default_factory=dict)
    trajectories: list[Trajectory] = field(default_factory=list, repr=False)

    @property
    def moves(self) -> list[tuple[float, float]]:
        """The steps (t, s) of the grid."""
        return list(pairwise(self.grid.tolist()))

    @property
    def nfe(self) -> int:
        """Network evaluations of all trajectories so far."""
        return sum(trajectory.nfe for trajectory in self.trajectories)

    def begin(self) -> Trajectory:
        """A new trajectory at the start of the grid."""
        self.trajectories.append(Trajectory(self.process, self.denoiser, self.y, self.method, self.noise, self.mask,
                                            guidance=self.guidance, **self.corrector))
        return self.trajectories[-1]

    def sample(self, given: object) -> Tensor:
        """The estimate at the end of one whole trajectory: its state, where the grid goes down to 0."""
        trajectory = self.begin()
        for t, s in self.moves:
            trajectory.move(t, s, given)
        return trajectory.x if s == 0.0 else trajectory.estimate


@dataclass(frozen=True)
class Coupled:
    """What a strategy returns: the signal (None where none is estimated), the logits, and C of that signal."""

    signal: Tensor | None
    logits: Tensor
    observed: Observation


Observe = Callable[[Tensor], Observation]
LogitsSide = Callable[[Observation], Side]


def enhanced(signal: Side, logits: LogitsSide, observe: Observe) -> Coupled:
    """The signal process alone, then C once."""
    x = signal.sample(given=None)
    seen = observe(x)
    return Coupled(x, seen.logits, seen)


def card(signal: Side, logits: LogitsSide, observe: Observe) -> Coupled:
    """The logits process alone, given C(y) (Han et al. 2022)."""
    heard = observe(signal.y)
    return Coupled(None, logits(heard).sample(given=heard), heard)


def cascade(signal: Side, logits: LogitsSide, observe: Observe) -> Coupled:
    """The signal process alone, then the logits process once, given C(y) and C(x_hat): all parts and no feedback."""
    heard = observe(signal.y)
    x = signal.sample(given=None)
    seen = observe(x)
    return Coupled(x, logits(heard).sample(given=seen), seen)


def parallel(signal: Side, logits: LogitsSide, observe: Observe, switch: float = 0.6, first: str = "heard") -> Coupled:
    """One loop over both processes, which take as many steps; each moves given the other's latest estimate.

    The signal moves first, given C(y) (`first` "heard") or no logits ("none"). While x_hat0 is mostly noise, before
    the signal's time has come down to `switch`, the logits are given C(y).
    """
    seen = heard = observe(signal.y)
    logits_side, given = logits(heard), _first(first, heard)
    if len(signal.moves) != len(logits_side.moves):
        raise ValueError(f"parallel sides step together, but take {len(signal.moves)} and {len(logits_side.moves)} "
                         "steps: give both grids the same number of times")
    x, l = signal.begin(), logits_side.begin()
    for (t, s), (u, v) in zip(signal.moves, logits_side.moves):
        x.move(t, s, given)
        if s <= switch:
            seen = observe(x.estimate)
        l.move(u, v, given=seen)
        given = l.estimate
    return Coupled(x.estimate, given, seen)


def alternating(signal: Side, logits: LogitsSide, observe: Observe, rounds: int = 2, first: str = "heard") -> Coupled:
    """A whole signal trajectory given l_hat0, then a whole logits trajectory given C(x_hat0), `rounds` times.

    The `first` signal trajectory is given C(y) ("heard") or no logits ("none").
    """
    if rounds < 1:
        raise ValueError(f"alternating takes at least 1 round, got {rounds}")
    heard = observe(signal.y)
    logits_side, l = logits(heard), _first(first, heard)
    for _ in range(rounds):
        x = signal.sample(given=l)
        seen = observe(x)
        l = logits_side.sample(given=seen)
    return Coupled(x, l, seen)


def nested(signal: Side, logits: LogitsSide, observe: Observe, inner: int | None = None,
           first: str = "heard") -> Coupled:
    """One loop over the logits process; before each of its last `inner` steps (default: all) the signal is sampled.

    Each signal trajectory is given the current l_hat0 (the very `first` one C(y), or nothing), and C(x_hat0)
    conditions the logits step. It ends with a signal trajectory given the final logits.
    """
    seen = heard = observe(signal.y)
    logits_side, given = logits(heard), _first(first, heard)
    l, moves = logits_side.begin(), logits_side.moves
    for left, (u, v) in zip(range(len(moves), 0, -1), moves):
        if inner is None or left <= inner:
            seen = observe(signal.sample(given))
        l.move(u, v, given=seen)
        given = l.estimate
    x = signal.sample(given)
    return Coupled(x, l.estimate, observe(x))


STRATEGIES: dict[str, Callable[..., Coupled]] = {
    "enhanced": enhanced, "card": card, "cascade": cascade, "parallel": parallel, "alternating": alternating,
    "nested": nested}


def _first(name: str, heard: Observation) -> Tensor | None:
    if name not in ("heard", "none"):
        raise ValueError(f"the first signal trajectory is given {name!r}; choose heard or none")
    return heard.logits if name == "heard" else None
