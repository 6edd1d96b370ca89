"""The pipeline of any domain: a frozen classifier, the diffusion processes around it, and the strategies on top.

Reading and writing model packages is in `cdasr.coupled.package`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from cdasr.classifiers.items import choose_items
from cdasr.classifiers.logits import Logits
from cdasr.coupled.auto import AutoRule, compare
from cdasr.coupled.domain import Domain
from cdasr.coupled.models import CoupledRun, LogitsModel, SignalModel, strategy_steps, unpadded
from cdasr.coupled.out_of_domain import DomainCheck, measure
from cdasr.coupled.strategies import STRATEGIES, Strategy, check_strategies
from cdasr.diffusion import coupling
from cdasr.runtime.device import resolve_device


@dataclass
class Batch:
    """Signals (B, ...), padded to one length where `lengths` (B,) says how long each is; None: all are whole."""

    signals: Tensor
    lengths: Tensor | None = None

    def rows(self) -> list[Tensor]:
        """The items, each at its own length."""
        return [row.cpu() for row in unpadded(self.signals, self.lengths)]


@dataclass
class Outcome:
    """What a strategy returns for a batch.

    `noisy_logits`: C(y), where it was observed. `out_of_domain` (B,): whether each item looks unlike what the package
    was trained for; None where that is not known. `chosen` (B,): the strategy whose answer `auto` took. `answers`:
    those that `rover` lets vote, by strategy.
    """

    logits: Logits
    enhanced: Batch | None = None
    enhanced_logits: Logits | None = None
    nfe: dict[str, int] = field(default_factory=dict)
    out_of_domain: list[bool] | None = None
    noisy_logits: Logits | None = None
    chosen: list[str] | None = None
    answers: dict[str, Logits] | None = None

    @property
    def evaluations(self) -> dict[str, int]:
        """Evaluations of each network, 0 where there were none."""
        return {"signal": 0, "logits": 0, "classifier": 0, **self.nfe}


class CoupledPipeline:
    """A frozen classifier with its signal process and, for the coupled strategies, its logits process.

    Subclasses say how signals are batched, which classifier a package has, and what is made of an `Outcome`.
    """

    domain: ClassVar[Domain]
    model_class: ClassVar[type[SignalModel]]
    decoding: Mapping[str, object] = {}  # how logits are decoded, as plain data, where that is not greedily

    def __init__(self, classifier: nn.Module, signal: SignalModel, config: dict | None = None, device: str = "auto",
                 logits: LogitsModel | None = None):
        self.device = resolve_device(device)
        self.classifier, self.signal = classifier.to(self.device), signal.to(self.device).eval()
        self.logits = None if logits is None else logits.to(self.device).eval()
        if self.logits is not None:
            self.classifier = self.classifier.with_hidden_layers(self.logits.hidden_layers)
        self.config = config or {}

    def classifier_for(self, name: str) -> nn.Module:
        """The classifier for a strategy; where that has no logits process, its logits are only read."""
        reads = not STRATEGIES[name].needs_logits
        return self.classifier.kind.reader(self.classifier) if reads else self.classifier

    def with_models(self, signal: SignalModel, logits: LogitsModel | None) -> CoupledPipeline:
        """The same pipeline around other models."""
        return self._remade(signal, self.config, logits)

    def _remade(self, signal: SignalModel, config: dict, logits: LogitsModel | None) -> CoupledPipeline:
        return type(self)(self.classifier, signal, config, self.device, logits)

    def with_choices(self, steps: int | None = None, **choices) -> CoupledPipeline:
        """The same pipeline, sharing its models, with other choices of its package; this one stays as it is.

        `steps` of the signal process; `choices` replace parts of the config: `strategy`, `strategies` (options by name,
        which are added to those that are there), `observation_adding`, ...
        """
        config = {**self.config, **choices}
        if "strategies" in choices:
            config["strategies"] = {**self.config.get("strategies", {}), **choices["strategies"]}
        signal = self.signal if steps is None else self.signal.with_sampling(steps=steps)
        return self._remade(signal, config, self.logits)

    @property
    def strategies(self) -> list[str]:
        """The strategies that this package can run."""
        return [name for name, strategy in STRATEGIES.items() if self._can_run(strategy)]

    def _can_run(self, strategy: Strategy) -> bool:
        if strategy.needs_rule:
            rule = self.config.get(strategy.name)
            return rule is not None and self._can_run(STRATEGIES[rule["strategy"]])
        return (self.logits is not None or not strategy.needs_logits) and (self.signal.guided or not strategy.coupled)

    def check(self, names: Sequence[str], steps: int | None = None, samples: int = 1) -> None:
        """Raise ValueError for a strategy that does not exist or that this package cannot run, or a count below 1."""
        lacking = [name for name in names if name not in self.strategies]
        if lacking:
            check_strategies(lacking)
        for name, count in (("steps", steps), ("samples", samples)):
            if count is not None and count < 1:
                raise ValueError(f"the number of {name} must be at least 1, got {count}")
        if lacking:
            need = ("a rule fitted on development data," if STRATEGIES[lacking[0]].needs_rule
                    else "a logits process," if self.signal.guided
                    else "a logits process and a signal process that logits can guide,")
            raise ValueError(f"the strategy {lacking[0]!r} needs {need} which this package does not have; "
                             f"choose one of {', '.join(self.strategies)}")

    @property
    def default_strategy(self) -> str:
        """The strategy that the package was tuned for; `enhanced` where it names none."""
        return self.config.get("strategy", "enhanced")

    @property
    def oa_weight(self) -> float:
        """Share of the degraded signal in observation adding, as chosen on development data."""
        return float(self.config.get("observation_adding", {}).get("weight", 0.0))

    def mixed(self, batch: Batch, enhanced: Tensor) -> Tensor:
        """The mix (B, ...) of observation adding, of enhanced and degraded signals."""
        return torch.lerp(enhanced, batch.signals, self.oa_weight)

    @property
    def fused_weight(self) -> float:
        """Share of the degraded signal's log-posteriors in `fused`, as chosen on development data."""
        return float(self.config.get("fused", {}).get("weight", 0.5))

    @property
    def about(self) -> str:
        """What the package is for, in one line; empty where it does not say."""
        return ", ".join(f"{name} {value}" for name, value in self.config.get("about", {}).items())

    def surround(self, signal: Tensor) -> Tensor:
        """A signal as the processes take it: with context around it, where the package and the domain have some."""
        return signal

    def bare(self, batch: Batch) -> Batch:
        """A batch without the context of `surround`; the batch itself where there is none."""
        return batch

    def batch(self, signals: Sequence[Tensor]) -> Batch:
        """Signals (...) of their own lengths as a batch on the device."""
        padded, lengths = self.domain.collate(signals)
        return Batch(padded.to(self.device), None if lengths is None else lengths.to(self.device))

    @torch.inference_mode()
    def run(self, signals: Sequence[Tensor], strategy: str | None = None, steps: int | None = None, seed: int = 0,
            samples: int = 1, guidance: float | None = None) -> tuple[Outcome, Batch, str]:
        """The outcome for a batch in which each signal stands `samples` times in a row; that batch; and the strategy.

        The options default to the package's; `samples` > 1 are sampled stochastically, each with another seed. Batch
        and enhanced signals have the context of `surround`. The strategy `none` is the frozen classifier as it is, and
        has no context. Raises ValueError for an unknown strategy, for one that needs a logits process where the package
        has none, and for logits that are not finite.
        """
        strategy = strategy or self.default_strategy
        self.check([strategy], steps, samples)
        samples = 1 if strategy == "none" else samples
        if strategy != "none":
            signals = [self.surround(signal) for signal in signals]
        batch = self.batch([signal for signal in signals for _ in range(samples)])
        sampling = {"seed": [seed + sample for _ in signals for sample in range(samples)],
                    "method": "ancestral" if samples > 1 else None}
        if guidance is not None:
            sampling["guidance"] = guidance
        outcome = PLAIN.get(strategy, coupled(strategy))(self, batch, steps, sampling)
        if not bool(outcome.logits.values.isfinite().all()):
            raise ValueError(f"the strategy {strategy!r} gave logits that are not finite: the input, an option such as "
                             "the guidance, or the package's weights are out of any range")
        if not STRATEGIES[strategy].needs_rule:  # else it is that of the strategy among whose answers it has chosen
            outcome.out_of_domain = self._out_of_domain(outcome, batch, strategy)
        return outcome, batch, strategy

    def _out_of_domain(self, outcome: Outcome, batch: Batch, strategy: str) -> list[bool] | None:
        """By the package's rule for this kind of strategy; None where it has none, or where nothing was enhanced."""
        rule = self.config.get("out_of_domain", {}).get(
            "coupled" if STRATEGIES[strategy].needs_logits else "enhanced")
        if rule is None or outcome.enhanced is None:
            return None
        measured = measure(outcome.logits, outcome.enhanced_logits, batch.rows(), outcome.enhanced.rows())
        return (DomainCheck(**rule).score(measured) > 0).tolist()


# -- the strategies: (pipeline, batch, steps or None, sampling: {seed: one an item, method[, guidance]}) -> Outcome --


def none(pipeline: CoupledPipeline, batch: Batch, steps: int | None, sampling: Mapping) -> Outcome:
    """The frozen classifier alone: C(y)."""
    return Outcome(pipeline.classifier_for("none")(batch.signals, batch.lengths), nfe={"classifier": 1})


def observation_adding(pipeline: CoupledPipeline, batch: Batch, steps: int | None, sampling: Mapping) -> Outcome:
    """C on a mix of the enhanced and the degraded signal: C((1 - a) x_hat + a y) (Iwamoto et al. 2022)."""
    signals, nfe = pipeline.signal.enhance(batch.signals, batch.lengths, steps, sampling["seed"], sampling["method"])
    mixed = replace(batch, signals=pipeline.mixed(batch, signals))
    logits = pipeline.classifier_for("oa")(mixed.signals, mixed.lengths)
    return Outcome(logits, mixed, logits, {"signal": nfe, "classifier": 1})


def fused(pipeline: CoupledPipeline, batch: Batch, steps: int | None, sampling: Mapping) -> Outcome:
    """C on the degraded and on the enhanced signal, read together: a weighted mean of their log-posteriors."""
    signals, nfe = pipeline.signal.enhance(batch.signals, batch.lengths, steps, sampling["seed"], sampling["method"])
    noisy, enhanced = observe_both(pipeline.classifier_for("fused"), batch, signals)
    return Outcome(enhanced.fused(noisy, pipeline.fused_weight), replace(batch, signals=signals), enhanced.redecode(),
                   {"signal": nfe, "classifier": 2}, noisy_logits=noisy)


def observe_both(classifier: nn.Module, batch: Batch, others: Tensor) -> tuple[Logits, Logits]:
    """C of the degraded `batch`, and of other versions of its signals (B, ...) at the same positions."""
    noisy = classifier(batch.signals, batch.lengths)
    return noisy, classifier(others, batch.lengths, like=noisy)


def stored_options(pipeline: CoupledPipeline, name: str, steps: int | None) -> tuple[tuple, float, dict]:
    """What a package stores for a coupled strategy: signal and logits steps, guidance, and the strategy's own options.

    `steps`, where given, replaces both numbers of steps.
    """
    options = dict(pipeline.config.get("strategies", {}).get(name, {}))
    own = [options.pop(key, None) for key in ("steps", "logits_steps")]
    counts = strategy_steps(name, pipeline.signal, pipeline.logits, *([steps, steps] if steps else own))
    return counts, options.pop("guidance", 1.0), options


def coupled(name: str) -> Callable[[CoupledPipeline, Batch, int | None, Mapping], Outcome]:
    """A strategy that couples processes, with the steps and options that the package stores for it."""
    def strategy(pipeline: CoupledPipeline, batch: Batch, steps: int | None, sampling: Mapping) -> Outcome:
        counts, guidance, options = stored_options(pipeline, name, steps)
        run = CoupledRun(pipeline.classifier_for(name), pipeline.signal, pipeline.logits, batch.signals, batch.lengths,
                         *counts, **{"guidance": guidance, **sampling})
        result = coupling_function(name)(run.signal, run.start_logits, run.observe, **options)
        observed, reads = result.observed.context, STRATEGIES[name].needs_logits
        enhanced = None if result.signal is None else replace(batch, signals=run.synthesise(result.signal))
        heard = None if enhanced is None else observed.redecode()
        return Outcome(run.answer(result.logits, observed) if reads else heard, enhanced, heard, run.nfe,
                       noisy_logits=run.noisy if reads else None)  # `enhanced` observes no y
    return strategy


def candidates(pipeline: CoupledPipeline, batch: Batch, name: str, steps: int | None, sampling: Mapping,
               wanted: Sequence[str] | None = None) -> tuple[Outcome, dict[str, Logits]]:
    """The outcome of the strategy `name`, and the answers at hand then, by strategy; `none` is always among them.

    `none` is the frozen classifier as it is, without context. Where there is context, or where the strategy does not
    observe y, that takes one more evaluation of the classifier, which is counted. `fused` is read where it is `wanted`,
    by default wherever both signals were observed. `oa` is read where it is `wanted`, with one more evaluation.
    """
    outcome, bare = PLAIN.get(name, coupled(name))(pipeline, batch, steps, sampling), pipeline.bare(batch)
    outcome.out_of_domain = pipeline._out_of_domain(outcome, batch, name)
    classifier, alone = pipeline.classifier_for(name), outcome.noisy_logits
    if alone is None or bare is not batch:
        alone = classifier(bare.signals, bare.lengths)
        outcome.nfe["classifier"] += 1
    answers = {"none": alone, "enhanced": outcome.enhanced_logits, name: outcome.logits}
    if outcome.noisy_logits is not None and "fused" not in answers and (wanted is None or "fused" in wanted):
        answers["fused"] = outcome.enhanced_logits.fused(outcome.noisy_logits, pipeline.fused_weight)
    if "oa" in (wanted or ()):
        answers["oa"] = classifier(pipeline.mixed(batch, outcome.enhanced.signals), batch.lengths)
        outcome.nfe["classifier"] += 1
    return outcome, answers


def auto(pipeline: CoupledPipeline, batch: Batch, steps: int | None, sampling: Mapping) -> Outcome:
    """For each item the best of several answers, by the package's rule (`cdasr.coupled.auto`)."""
    rule = AutoRule.from_config(pipeline.config["auto"])
    outcome, answers = candidates(pipeline, batch, rule.strategy, steps, sampling, list(rule.rules))
    names = list(answers)
    chosen = rule.choose(compare(answers, batch.rows(), outcome.enhanced.rows(), outcome.out_of_domain))
    return replace(outcome, logits=choose_items(list(answers.values()), [names.index(name) for name in chosen]),
                   chosen=chosen)


def rover(pipeline: CoupledPipeline, batch: Batch, steps: int | None, sampling: Mapping) -> Outcome:
    """Several answers, which the domain's pipeline lets vote on each word (`cdasr.coupled.voting`)."""
    rule = pipeline.config["rover"]
    outcome, answers = candidates(pipeline, batch, rule["strategy"], steps, sampling, rule["answers"])
    return replace(outcome, answers={name: answers[name] for name in rule["answers"]})


def coupling_function(name: str) -> Callable[..., coupling.Coupled]:
    """The function of a strategy: that of its entry in the registry, or the one of its name in `coupling.py`."""
    return STRATEGIES[name].function or coupling.STRATEGIES[name]


PLAIN = {"none": none, "oa": observation_adding, "fused": fused, "auto": auto, "rover": rover}  # not in `coupling.py`


def grouped(drawn: Sequence, items: int) -> list[Sequence]:
    """The samples of each of so many items, which stand in a row."""
    samples = len(drawn) // max(items, 1)
    return [drawn[start:start + samples] for start in range(0, len(drawn), samples)]
