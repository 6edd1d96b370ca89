"""Choices that a model package stores, made on development data: signal steps, options of the strategies, and more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cdasr.classifiers.logits import Logits
from cdasr.coupled.domain import Domain
from cdasr.coupled.pipeline import Batch, CoupledPipeline, observe_both

Rows = Sequence[Mapping[str, object]]
Batches = Sequence[tuple[Batch, Rows]]  # with the rows of each, which hold the truth
ITEMS = 16  # in a batch


@torch.inference_mode()
def tune(pipeline: CoupledPipeline, rows: Rows, steps: Sequence[int], weights: Sequence[float] = (),
         items: int = ITEMS, domain: Domain | None = None, fused_weights: Sequence[float] = ()) -> dict:
    """Error rate in per cent by number of signal steps, and by weight of the degraded signal at the chosen number.

    `weights` are those of observation adding, `fused_weights` of `fused`, each empty for none.

    `domain`: how errors are counted; by default as the pipeline's does.
    Returns `{"steps": {n: rate}, "best_steps": n}`, with `weights` also `{"weights": {a: rate}, "best_weight": a}`, and
    with `fused_weights` the same as `fused` and `best_fused`. Among equals the fewest steps and the least weight win.
    """
    batches = batches_of(pipeline, rows, items)
    cleaned = {count: [pipeline.signal.enhance(batch.signals, batch.lengths, count)[0] for batch, _ in batches]
               for count in tqdm(steps, desc="choose steps")}
    by_steps = {count: classifier_rate(pipeline, batches, signals, domain) for count, signals in cleaned.items()}
    best_steps = min(by_steps, key=lambda count: (by_steps[count], count))
    found = {"steps": by_steps, "best_steps": best_steps}
    for name, best, rates in (
            ("weights", "best_weight", _adding_rates(pipeline, batches, cleaned[best_steps], weights, domain)),
            ("fused", "best_fused", _fused_rates(pipeline, batches, cleaned[best_steps], fused_weights, domain))):
        if rates:
            found |= {name: rates, best: min(rates, key=lambda weight: (rates[weight], weight))}
    return found


def _adding_rates(pipeline: CoupledPipeline, batches: Batches, cleaned: Sequence[Tensor], weights: Sequence[float],
                  domain: Domain | None) -> dict[float, float]:
    """Error rate in per cent of observation adding by weight."""
    return {weight: classifier_rate(pipeline, batches, [
        torch.lerp(signal, batch.signals, weight) for signal, (batch, _) in zip(cleaned, batches)], domain)
        for weight in tqdm(weights, desc="choose observation adding", disable=not weights)}


def _fused_rates(pipeline: CoupledPipeline, batches: Batches, cleaned: Sequence[Tensor], weights: Sequence[float],
                 domain: Domain | None) -> dict[float, float]:
    """Error rate in per cent of `fused` by weight; the classifier observes each signal once."""
    if not weights:
        return {}
    observed = [observe_both(pipeline.classifier, batch, signals) for signals, (batch, _) in zip(cleaned, batches)]
    return {weight: error_rate(pipeline, batches, (other.fused(noisy, weight) for noisy, other in observed), domain)
            for weight in tqdm(weights, desc="choose fused")}


def tune_strategies(pipeline: CoupledPipeline, rows: Rows, choices: Mapping[str, Mapping[str, Sequence]],
                    items: int = ITEMS, domain: Domain | None = None) -> tuple[CoupledPipeline, dict[str, list]]:
    """Error rate in per cent of each strategy with every combination of its `choices`, e.g. `{"parallel": {"steps":
    [2, 4]}}`.

    Returns the pipeline with the best combination of each strategy (among equals the first) in its `strategies`, of
    which the best is its default; and `{strategy: [{"options", <rate>}, ...]}`. `domain` as in `tune`.
    """
    batches, rate = batches_of(pipeline, rows, items), pipeline.domain.rate
    tried: dict[str, list] = {}
    for name, lists in choices.items():
        for values in tqdm(list(product(*lists.values())), desc=f"tune {name}"):
            options = dict(zip(lists, values))
            trial = pipeline.with_choices(strategies={name: options})
            answers = [trial.run(batch.rows(), name)[0].logits for batch, _ in batches]
            tried.setdefault(name, []).append(
                {"options": options, rate: error_rate(pipeline, batches, answers, domain)})
    best = {name: min(entries, key=lambda entry: entry[rate]) for name, entries in tried.items()}
    options = {name: entry["options"] for name, entry in best.items()}
    return pipeline.with_choices(strategies=options, strategy=min(best, key=lambda name: best[name][rate])), tried


@torch.inference_mode()
def classifier_alone(classifier: nn.Module, domain: Domain, rows: Rows, items: int = ITEMS) -> dict:
    """Error rate in per cent of the frozen classifier on rows: `{<rate>, <counted>, "utterances"}`."""
    device, counts = str(next(classifier.parameters()).device), []
    for group in groups(rows, items):
        signals, lengths = domain.collate([domain.evaluation.read_noisy(row, classifier) for row in group])
        logits = classifier(signals.to(device), None if lengths is None else lengths.to(device))
        counts += domain.errors(classifier, logits, [row[domain.truth] for row in group])
    errors, counted = map(sum, zip(*counts))
    return {domain.rate: 100.0 * errors / counted, domain.evaluation.counted: counted, "utterances": len(counts)}


def classifier_rate(pipeline: CoupledPipeline, batches: Batches, signals: Sequence[Tensor],
                    domain: Domain | None = None) -> float:
    """Error rate in per cent of the classifier alone on `signals`, one tensor a batch."""
    return error_rate(pipeline, batches, [pipeline.classifier(made, batch.lengths)
                                          for made, (batch, _) in zip(signals, batches)], domain)


def error_rate(pipeline: CoupledPipeline, batches: Batches, answers: Iterable[Logits],
               domain: Domain | None = None) -> float:
    """Error rate in per cent of the answers to each batch, counted as `domain` does, by default the pipeline's."""
    domain = domain or pipeline.domain
    counts = [domain.count(pipeline.classifier, logits, [row[domain.truth] for row in group])
              for logits, (_, group) in zip(answers, batches)]
    errors, counted = map(sum, zip(*counts))
    return 100.0 * errors / counted


def batches_of(pipeline: CoupledPipeline, rows: Rows, items: int = ITEMS) -> list[tuple[Batch, Rows]]:
    """Batches of `items` degraded signals of similar duration, with their rows."""
    read = pipeline.domain.evaluation.read_noisy
    return [(pipeline.batch([read(row, pipeline.classifier) for row in group]), group)
            for group in groups(rows, items)]


def groups(rows: Rows, items: int) -> list[Rows]:
    """Rows of similar duration, `items` at a time."""
    rows = sorted(rows, key=lambda row: float(row["duration"]))
    return [rows[start:start + items] for start in range(0, len(rows), items)]
