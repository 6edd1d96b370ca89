"""What is to be known of each strategy: command line, checks, tuning, tables and plots read this registry.

This file loads neither torch nor pydantic, so that `cdasr --help` can read it. How a strategy runs is in
`cdasr/diffusion/coupling.py` (those that move a process) and `cdasr/coupled/pipeline.py`, under the same name. A
strategy of your own is one entry, with its function: `STRATEGIES["mine"] = Strategy("mine", "...", function=mine)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """An option that a package can store for a strategy: of type `kind`, from `least` to `most`; None if `optional`."""

    name: str
    about: str
    kind: type
    least: float | None = None
    most: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class Strategy:
    """A strategy by its `name`; `about` says in half a line what it does.

    `needs_signal`, `needs_logits`: which process it runs. `coupled`: each process guides the other. `baseline`: reports
    compare the coupled ones with it. `same_steps`: both processes take as many steps. `needs_rule`: it runs another
    strategy and chooses among the answers by a rule that the package stores under its name. `options`: its own, beside
    `COMMON`. `function`: as those of `cdasr/diffusion/coupling.py`; None for the one of this name.
    """

    name: str
    about: str
    needs_signal: bool = True
    needs_logits: bool = True
    coupled: bool = False
    baseline: bool = False
    same_steps: bool = False
    needs_rule: bool = False
    options: tuple[Option, ...] = ()
    function: Callable | None = None


COMMON = (
    Option("steps", "steps of the signal process; default: the model's", int, 1, 10_000, optional=True),
    Option("logits_steps", "steps of the logits process; default: the model's", int, 1, 10_000, optional=True),
    Option("guidance", "weight of the logits in the signal process, 0 for none", float, -1000.0, 1000.0))
FIRST = Option("first", "what the first signal step or trajectory is given: C(y), or none", str)

STRATEGIES: dict[str, Strategy] = {strategy.name: strategy for strategy in (
    Strategy("none", "the frozen recogniser or classifier alone", needs_signal=False, needs_logits=False),
    Strategy("enhanced", "enhance the signal, then recognise it", needs_logits=False, baseline=True),
    Strategy("oa", "recognise a mix of enhanced and degraded signal (observation adding)", needs_logits=False),
    Strategy("fused", "recognise both signals and average their log-posteriors", needs_logits=False),
    Strategy("card", "refine the logits alone, the signal stays degraded", needs_signal=False, baseline=True),
    Strategy("cascade", "enhance the signal, then refine the logits of it", baseline=True),
    Strategy("parallel", "signal and logits take their steps in turn, each guides the other", coupled=True,
             same_steps=True, options=(
                 Option("switch", "signal time from which the logits are given C of the signal estimate", float, 0.0,
                        1.0), FIRST)),
    Strategy("alternating", "the whole signal, then all logits, several rounds", coupled=True, options=(
        Option("rounds", "signal and logits trajectories", int, 1, 1000), FIRST)),
    Strategy("nested", "enhance the signal again before each of the last steps of the logits", coupled=True, options=(
        Option("inner", "logits steps before which the signal is sampled; default: all", int, 0, 10_000,
               optional=True), FIRST)),
    Strategy("auto", "the best of several answers, that of none where in doubt", needs_logits=False, needs_rule=True),
    Strategy("rover", "a vote of several answers on each word", needs_logits=False, needs_rule=True),
)}


def needs_logits(name: str) -> bool:
    """Whether a system runs a logits process; one that is no strategy of its own (a control) does not."""
    return name in STRATEGIES and STRATEGIES[name].needs_logits


def answers_of(name: str) -> list[str]:
    """The strategies whose answers are at hand when a strategy was run; `fused` needs both signals observed."""
    return list(dict.fromkeys(("none", "enhanced", *(() if name == "enhanced" else ("fused",)), name)))


def with_both_processes() -> list[str]:
    """The strategies that run a signal and a logits process."""
    return [name for name, strategy in STRATEGIES.items() if strategy.needs_signal and strategy.needs_logits]


def options_of(name: str) -> tuple[Option, ...]:
    """The options that a package can store for a strategy; of an unknown one, those that all have."""
    return (*COMMON, *(STRATEGIES[name].options if name in STRATEGIES else ()))


def check_strategies(names: Sequence[str]) -> None:
    """Raise ValueError for a strategy that does not exist."""
    if unknown := [name for name in names if name not in STRATEGIES]:
        raise ValueError(f"unknown strategy {', '.join(map(repr, unknown))}; known: {', '.join(STRATEGIES)}")
