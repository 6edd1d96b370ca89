"""The rule of the strategy `auto` (`cdasr.coupled.auto`), fitted on development data of any domain.

    python -m cdasr.evaluation.auto_rule PACKAGE MANIFEST [--tolerance POINTS]

The development rows are degraded ones of all conditions that matter; their clean versions, where the manifest has them,
are one condition more. The rule goes into the package's `config.json`, with what it is expected to give.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from cdasr.coupled.auto import AutoRule, Compared, best_of, compare
from cdasr.coupled.bundled import find_package
from cdasr.coupled.domain import Domain, find_domain
from cdasr.coupled.out_of_domain import LinearRule, logistic_regression
from cdasr.coupled.pipeline import CoupledPipeline, candidates
from cdasr.coupled.recipe import load_recipe
from cdasr.coupled.strategies import STRATEGIES
from cdasr.evaluation.tuning import ITEMS, Rows, groups
from cdasr.runtime.atomic import write_json
from cdasr.runtime.provenance import record

TOLERANCE = 0.3  # points of error rate
FOLDS = 5
PENALTY = 1e-2  # of squared weights, beside a cross-entropy that is a mean over items
FEWEST = 5  # items on which an answer is better, and on which it is worse, for a rule


@dataclass(frozen=True)
class Development:
    """N items with the answers of each strategy: `errors` (N,) by strategy, what they are `counted` against (N,), how
    the answers compare, the `condition` of each item, and its `group`: items that are versions of one another.
    """

    compared: Compared
    errors: Mapping[str, Tensor]
    counted: Tensor
    conditions: Sequence[str]
    groups: Sequence[str]

    def taken(self, chosen: Sequence[str]) -> Tensor:
        """Errors (N,) where of each item the answer of the `chosen` strategy is taken."""
        return torch.stack([self.errors[name][item] for item, name in enumerate(chosen)])

    def sums(self, chosen: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Errors of each condition and what they are counted against; an item without anything to count is as one."""
        errors, counted = self.taken(chosen), self.counted.clamp_min(1)
        members = {name: [item for item, other in enumerate(self.conditions) if other == name]
                   for name in dict.fromkeys(self.conditions)}
        return {name: (int(errors[items].sum()), int(counted[items].sum())) for name, items in members.items()}

    def rates(self, chosen: Sequence[str]) -> dict[str, float]:
        """The error rate of each condition in per cent."""
        return {name: 100.0 * errors / counted for name, (errors, counted) in self.sums(chosen).items()}

    def allows(self, chosen: Sequence[str], tolerance: float) -> bool:
        """Whether no condition is worse than `none` by more than `tolerance` points, or by more than one error.

        A single error of a small condition is more than the tolerance and says nothing.
        """
        before = self.sums(["none"] * len(chosen))
        return all(errors - before[name][0] <= max(1.0, tolerance / 100.0 * counted)
                   for name, (errors, counted) in self.sums(chosen).items())


def add_auto(pipeline: CoupledPipeline, rows: Rows, tolerance: float = TOLERANCE, items: int = ITEMS,
             domain: Domain | None = None) -> CoupledPipeline:
    """The pipeline with a rule for `auto` in its config, fitted on development rows with their clean versions.

    It is one for the `answering_strategy`. The pipeline stays without a
    rule, which is said, where the answers differ too seldom. `domain`: how errors are counted; default: the pipeline's.
    """
    strategy = answering_strategy(pipeline)
    rule = fit_rule(gather(pipeline, rows, strategy, items, domain), strategy, tolerance)
    if not rule.rules:
        print(f"auto: none of the answers of {strategy} is often enough right where `none` is wrong, no rule is fitted")
        return pipeline
    for name, rates in rule.measured["expected"].items():
        print(f"auto, {name}: " + ", ".join(f"{system} {rate:.2f}" for system, rate in rates.items()))
    return pipeline.with_choices(auto=rule.config())


def answering_strategy(pipeline: CoupledPipeline) -> str:
    """The strategy whose answers a rule chooses among: the package's own, or `fused` where that gives none."""
    own = pipeline.default_strategy
    if STRATEGIES[own].needs_rule:
        return pipeline.config[own]["strategy"]
    return own if STRATEGIES[own].needs_signal and own != "oa" else "fused"


# -- what is fitted on -----------------------------------------------------------------------------------------------


@torch.inference_mode()
def gather(pipeline: CoupledPipeline, rows: Rows, strategy: str, items: int = ITEMS,
           domain: Domain | None = None) -> Development:
    """The answers to all rows, and to the clean version of each item; errors are those of the `domain`."""
    domain, found = domain or pipeline.domain, []
    for group in tqdm(groups(with_clean(pipeline, rows), items), desc="answers for auto"):
        batch = pipeline.batch([pipeline.surround(row["signal"]) for row in group])
        outcome, answers = candidates(pipeline, batch, strategy, None, {"seed": [0] * len(group), "method": None})
        counts = {name: domain.errors(pipeline.classifier, logits, [row[domain.truth] for row in group])
                  for name, logits in answers.items()}
        compared = compare(answers, batch.rows(), outcome.enhanced.rows(), outcome.out_of_domain)
        found.append((compared, counts, group))
    names = found[0][0].differs
    compared = Compared(*({name: torch.cat([getattr(part, of)[name] for part, _, _ in found]) for name in names}
                          for of in ("scores", "differs")), torch.cat([part.strange for part, _, _ in found]))
    counts = {name: torch.tensor([pair for _, part, _ in found for pair in part[name]]) for name in found[0][1]}
    every = [row for _, _, group in found for row in group]
    return Development(compared, {name: pairs[:, 0] for name, pairs in counts.items()}, counts["none"][:, 1],
                       [row["condition"] for row in every], [row["group"] for row in every])


def with_clean(pipeline: CoupledPipeline, rows: Rows) -> list[dict]:
    """Rows with their signals; the clean version of each item is one more, of the condition `clean`."""
    how, made, seen = pipeline.domain.evaluation, [], set()
    for row in rows:
        row = {**row, "condition": row.get("condition") or "degraded"}
        row |= {"signal": how.read_noisy(row, pipeline.classifier), "group": how.item(row)}
        clean = how.read_clean(row, pipeline.classifier, row["signal"])
        made.append(row)
        if row["condition"] != "clean" and clean is not None and row["group"] not in seen:
            made.append({**row, "condition": "clean", "signal": clean})
        seen.add(row["group"])
    return made


# -- the fit ---------------------------------------------------------------------------------------------------------


def fit_rule(found: Development, strategy: str, tolerance: float = TOLERANCE) -> AutoRule:
    """The rules of all answers, with the margin that gives the fewest errors among those that no condition forbids.

    The margin is chosen by scores that were cross-validated: of each group by rules that were fitted on other groups.
    A condition forbids a margin where it is worse than `none` by more than `tolerance` points and one error.
    """
    names = [name for name in found.compared.scores if name != "none"]
    every = torch.ones(len(found.groups), dtype=torch.bool)
    rules = {name: rule for name in names if (rule := fit_answer(found, name, every)) is not None}
    odds = {name: _cross_validated(found, name) for name in rules}
    margin, chosen = _margin(found, odds, tolerance)
    alone = {name: [name] * len(found.groups) for name in ("none", *names)}
    rates = {name: found.rates(choice) for name, choice in {**alone, "auto": chosen}.items()}
    expected = {condition: {name: round(rate[condition], 3) for name, rate in rates.items()}
                for condition in rates["none"]}
    items = {condition: list(found.conditions).count(condition) for condition in expected}
    moved = {name: LinearRule(rule.mean, rule.scale, rule.weights, rule.bias - margin) for name, rule in rules.items()}
    return AutoRule(strategy, moved if any(name != "none" for name in chosen) else {}, {
        "tolerance": tolerance, "margin": round(margin, 4), "items": items, "expected": expected})


def fit_answer(found: Development, name: str, members: Tensor, fewest: int = FEWEST) -> LinearRule | None:
    """The odds that an answer has fewer errors than `none`, from the `members` (N,) on which their errors differ.

    An item counts as much as the errors that it is about. None where there are not the `fewest` of either kind.
    """
    gain = (found.errors["none"] - found.errors[name]).double()
    used = members & found.compared.differs[name] & (gain != 0)
    better = gain[used] > 0
    if min(int(better.sum()), int((~better).sum())) < fewest:
        return None
    weights = gain[used].abs()
    return logistic_regression(found.compared.scores[name][used], better, weights / weights.sum(), PENALTY)


def _cross_validated(found: Development, name: str) -> Tensor:
    """The odds (N,) of an answer, of each group by a rule that was fitted on the other folds; -inf where none was."""
    place = {group: number % FOLDS for number, group in enumerate(sorted(set(found.groups)))}
    folds = torch.tensor([place[group] for group in found.groups])
    odds = torch.full((len(folds),), -torch.inf, dtype=torch.float64)
    for fold in range(FOLDS):
        rule, inside = fit_answer(found, name, folds != fold, 2), folds == fold
        if rule is not None:
            odds[inside] = found.compared.odds(name, rule)[inside]
    return odds


def _margin(found: Development, odds: Mapping[str, Tensor], tolerance: float) -> tuple[float, list[str]]:
    """The margin of fewest errors, and what is chosen with it; none of the answers where every margin is forbidden."""
    best = (sum(found.errors["none"].tolist()), torch.inf, ["none"] * len(found.groups))
    known = torch.cat([torch.zeros(1, dtype=torch.float64), *odds.values()])
    known = known[known.isfinite() & (known >= 0)].unique()
    for margin in known[:: max(1, len(known) // 100)].tolist():
        chosen = best_of(odds, len(found.groups), margin)
        errors = float(found.taken(chosen).sum())
        if errors < best[0] and found.allows(chosen, tolerance):
            best = (errors, margin, chosen)
    return best[1:]


def fit_in_place(parser: argparse.ArgumentParser, key: str, add: Callable[..., CoupledPipeline],
                 arguments: Sequence[str] | None) -> int:
    """Fit the rule `key` of a package as a command line says, and write it into the package.

    `add(pipeline, rows, tolerance, options)` gives the pipeline with the rule. Returns 0, or 2 with one line for
    unusable input.
    """
    parser.add_argument("package", help="folder of the package, which is changed")
    parser.add_argument("manifest", help="development rows")
    parser.add_argument("--recogniser", metavar="NAME_OR_DIR", help="where the package's frozen recogniser is, if not "
                        "where the package says")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="points of error rate by which a condition "
                        "may be worse than none; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        path, domain = find_package(options.package) / "config.json", find_domain(options.package)
        if domain.evaluation.read_rows is None:
            raise ValueError(f"{options.package}: rows of {domain.name} are not read from a file; see tuning.{key} of "
                             "its recipe")
        given = {"recogniser": options.recogniser} if options.recogniser else {}
        pipeline = load_recipe(domain.name).pipeline().from_pretrained(options.package, device="auto", **given)
        fitted = add(pipeline, domain.evaluation.read_rows(options.manifest), options.tolerance, options)
        if fitted is pipeline:
            raise ValueError(f"{options.manifest}: too few rows on which the answers differ, or too many on which "
                             "they are worse; the package stays as it was")
        config = json.loads(path.read_text(encoding="utf-8"))
        measured = {**fitted.config[key]["measured"], "record": record(tolerance=options.tolerance)}
        write_json(path, {**config, key: {**fitted.config[key], "measured": measured}})
    except ValueError as error:
        print(f"cdasr: {error}", file=sys.stderr)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the rule of a package as the command line says. Returns 0, or 2 with one line for unusable input."""
    parser = argparse.ArgumentParser(prog="python -m cdasr.evaluation.auto_rule", description=__doc__.splitlines()[0])
    return fit_in_place(parser, "auto", lambda pipeline, rows, tolerance, options: add_auto(pipeline, rows, tolerance),
                        arguments)


if __name__ == "__main__":
    sys.exit(main())
