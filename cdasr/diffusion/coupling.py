"""The strategies: how a signal process and a logits process are sampled so that each guides the other.

A `ReverseProcess` is one process ready to be sampled. The classifier C enters as `observe(x) -> Observation`: what it
makes of a signal, as logits in the space that is diffused. The logits process starts from C(y), so it is given as a
function of that observation. The signal denoiser is given logits (or None), the logits denoiser an observation: C of
the latest signal estimate, or C(y) itself as long as there is none. No network and no classifier is evaluated twice on
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
from dataclasses import dataclass

from torch import Tensor

from cdasr.diffusion.samplers import ReverseProcess


@dataclass(frozen=True)
class Observation:
    """C of a signal: `logits` as they are diffused, and `context`, whatever else the logits denoiser looks at."""

    logits: Tensor
    context: object = None


@dataclass(frozen=True)
class Coupled:
    """What a strategy returns: the signal (None where none is estimated), the logits, and C of that signal."""

    signal: Tensor | None
    logits: Tensor
    observed: Observation


Observe = Callable[[Tensor], Observation]
LogitsProcess = Callable[[Observation], ReverseProcess]


def enhanced(signal: ReverseProcess, start_logits: LogitsProcess, observe: Observe) -> Coupled:
    """The signal process alone, then C once."""
    x = signal.sample(given=None)
    enhanced_obs = observe(x)
    return Coupled(x, enhanced_obs.logits, enhanced_obs)


def card(signal: ReverseProcess, start_logits: LogitsProcess, observe: Observe) -> Coupled:
    """The logits process alone, given C(y) (Han et al. 2022)."""
    noisy_obs = observe(signal.y)
    return Coupled(None, start_logits(noisy_obs).sample(given=noisy_obs), noisy_obs)


def cascade(signal: ReverseProcess, start_logits: LogitsProcess, observe: Observe) -> Coupled:
    """The signal process alone, then the logits process once, given C(y) and C(x_hat): all parts and no feedback."""
    noisy_obs = observe(signal.y)
    x = signal.sample(given=None)
    enhanced_obs = observe(x)
    return Coupled(x, start_logits(noisy_obs).sample(given=enhanced_obs), enhanced_obs)


def parallel(signal: ReverseProcess, start_logits: LogitsProcess, observe: Observe, switch: float = 0.6,
             first: str = "heard") -> Coupled:
    """One loop over both processes, which take as many steps; each moves given the other's latest estimate.

    The signal moves first, given C(y) (`first` "heard") or no logits ("none"). While x_hat0 is mostly noise, before
    the signal's time has come down to `switch`, the logits are given C(y).
    """
    observed = noisy_obs = observe(signal.y)
    logits = start_logits(noisy_obs)
    check_same_steps(signal, logits)
    x, l, l_hat = signal.begin(), logits.begin(), first_condition(first, noisy_obs)
    for (t, s), (u, v) in zip(signal.moves, logits.moves):
        x.move(t, s, given=l_hat)
        if s <= switch:
            observed = observe(x.estimate)
        l.move(u, v, given=observed)
        l_hat = l.estimate
    return Coupled(x.estimate, l_hat, observed)


def alternating(signal: ReverseProcess, start_logits: LogitsProcess, observe: Observe, rounds: int = 2,
                first: str = "heard") -> Coupled:
    """A whole signal trajectory given l_hat0, then a whole logits trajectory given C(x_hat0), `rounds` times.

    The `first` signal trajectory is given C(y) ("heard") or no logits ("none").
    """
    if rounds < 1:
        raise ValueError(f"alternating takes at least 1 round, got {rounds}")
    noisy_obs = observe(signal.y)
    logits, l_hat = start_logits(noisy_obs), first_condition(first, noisy_obs)
    for _ in range(rounds):
        x_hat = signal.sample(given=l_hat)
        enhanced_obs = observe(x_hat)
        l_hat = logits.sample(given=enhanced_obs)
    return Coupled(x_hat, l_hat, enhanced_obs)


def nested(signal: ReverseProcess, start_logits: LogitsProcess, observe: Observe, inner: int | None = None,
           first: str = "heard") -> Coupled:
    """One loop over the logits process; before each of its last `inner` steps (default: all) the signal is sampled.

    Each signal trajectory is given the current l_hat0 (the very `first` one C(y), or nothing), and C(x_hat0)
    conditions the logits step. It ends with a signal trajectory given the final logits.
    """
    observed = noisy_obs = observe(signal.y)
    logits, l_hat = start_logits(noisy_obs), first_condition(first, noisy_obs)
    l, steps = logits.begin(), len(logits.moves)
    for step, (u, v) in enumerate(logits.moves):
        if inner is None or steps - step <= inner:
            observed = observe(signal.sample(given=l_hat))
        l.move(u, v, given=observed)
        l_hat = l.estimate
    x_hat = signal.sample(given=l_hat)
    return Coupled(x_hat, l_hat, observe(x_hat))


STRATEGIES: dict[str, Callable[..., Coupled]] = {
    "enhanced": enhanced, "card": card, "cascade": cascade, "parallel": parallel, "alternating": alternating,
    "nested": nested}


def first_condition(name: str, noisy_obs: Observation) -> Tensor | None:
    """The logits that the first signal trajectory is given: C(y) for "heard", None for "none". Raises ValueError."""
    if name not in ("heard", "none"):
        raise ValueError(f"the first signal trajectory is given {name!r}; choose heard or none")
    return noisy_obs.logits if name == "heard" else None


def check_same_steps(signal: ReverseProcess, logits: ReverseProcess) -> None:
    """Raise ValueError for processes that cannot step together."""
    if len(signal.moves) != len(logits.moves):
        raise ValueError(f"parallel sides step together, but take {len(signal.moves)} and {len(logits.moves)} "
                         "steps: give both grids the same number of times")
