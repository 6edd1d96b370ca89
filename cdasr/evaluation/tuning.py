"""Choices that a model package stores, made on development data: signal steps and the observation-adding weight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.logits import Logits
from cdasr.coupled import pipeline as joint
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.speech.manifest import read_row
from cdasr.speech.pipeline import Batch, Pipeline
from cdasr.speech.words import word_errors

Rows = Sequence[Mapping[str, str]]
Batches = Sequence[tuple[joint.Batch, Rows]]  # with the rows of each, which hold the truth


@torch.inference_mode()
def tune(pipeline: Pipeline, rows: Rows, steps: Sequence[int], weights: Sequence[float]) -> dict:
    """WER in per cent by number of steps, and by weight of the degraded waveform at the chosen number of steps.

    Returns `{"steps": {n: wer}, "weights": {a: wer}, "best_steps": n, "best_weight": a}`; among equals the cheapest
    (fewest steps, smallest weight) wins.
    """
    batches = batches_of(rows, pipeline.sample_rate, pipeline.device)
    by_steps, cleaned = tune_steps(pipeline, batches, steps)
    best_steps = min(by_steps, key=lambda count: (by_steps[count], count))
    by_weight = {}
    for weight in tqdm(weights, desc="choose observation adding"):
        mixed = [torch.lerp(wave, batch.waves, weight) for wave, (batch, _) in zip(cleaned[best_steps], batches)]
        by_weight[weight] = classifier_rate(pipeline, batches, mixed)
    best_weight = min(by_weight, key=lambda weight: (by_weight[weight], weight))
    return {"steps": by_steps, "weights": by_weight, "best_steps": best_steps, "best_weight": best_weight}


@torch.inference_mode()
def tune_steps(pipeline: CoupledPipeline, batches: Batches,
               steps: Sequence[int]) -> tuple[dict[int, float], dict[int, list[Tensor]]]:
    """Error rates in per cent of the classifier after so many signal steps, and what they made of each batch."""
    cleaned = {count: [pipeline.signal.enhance(batch.signals, batch.lengths, count)[0] for batch, _ in batches]
               for count in tqdm(steps, desc="choose steps")}
    return {count: classifier_rate(pipeline, batches, signals) for count, signals in cleaned.items()}, cleaned


def tune_strategies(pipeline: Pipeline, rows: Rows,
                    choices: Mapping[str, Mapping[str, Sequence]]) -> tuple[Pipeline, dict[str, list]]:
    """`tune_options` on a noisy manifest."""
    return tune_options(pipeline, batches_of(rows, pipeline.sample_rate, pipeline.device), choices)


def tune_options(pipeline: CoupledPipeline, batches: Batches,
                 choices: Mapping[str, Mapping[str, Sequence]]) -> tuple[CoupledPipeline, dict[str, list]]:
    """Error rate in per cent of each strategy with every combination of its `choices`, e.g. `{"parallel": {"steps":
    [2, 4]}}`.

    Returns the pipeline with the best combination of each strategy (among equals the first) in its `strategies`, of
    which the best is its default; and `{strategy: [{"options", <rate>}, ...]}`.
    """
    rate = pipeline.domain.rate
    tried: dict[str, list] = {}
    for name, lists in choices.items():
        for values in tqdm(list(product(*lists.values())), desc=f"tune {name}"):
            options = dict(zip(lists, values))
            trial = pipeline.with_choices(strategies={name: options})
            answers = [trial.run(batch.rows(), name)[0].logits for batch, _ in batches]
            tried.setdefault(name, []).append({"options": options, rate: error_rate(pipeline, batches, answers)})
    best = {name: min(entries, key=lambda entry: entry[rate]) for name, entries in tried.items()}
    options = {name: entry["options"] for name, entry in best.items()}
    return pipeline.with_choices(strategies=options, strategy=min(best, key=lambda name: best[name][rate])), tried


def classifier_rate(pipeline: CoupledPipeline, batches: Batches, signals: Sequence[Tensor]) -> float:
    """Error rate in per cent of the classifier alone on `signals`, one tensor a batch."""
    return error_rate(pipeline, batches, [pipeline.classifier(made, batch.lengths)
                                          for made, (batch, _) in zip(signals, batches)])


def error_rate(pipeline: CoupledPipeline, batches: Batches, answers: Iterable[Logits]) -> float:
    """Error rate in per cent of the answers to each batch."""
    counts = [pipeline.domain.count(pipeline.classifier, logits, [row[pipeline.domain.truth] for row in group])
              for logits, (_, group) in zip(answers, batches)]
    errors, counted = map(sum, zip(*counts))
    return 100.0 * errors / counted


def recogniser_wer(recogniser: CTCRecogniser, rows: Rows) -> dict:
    """Word error rate in per cent of the recogniser alone: `{"wer", "words", "utterances"}`."""
    batches = batches_of(rows, recogniser.sample_rate, str(next(recogniser.parameters()).device))
    return _wer(recogniser, batches, [batch.waves for batch, _ in batches])


def batches_of(rows: Rows, rate: int, device: str, items: int = 16) -> list[tuple[Batch, Rows]]:
    """Batches of `items` recordings of similar duration, with their rows."""
    rows = sorted(rows, key=lambda row: float(row["duration"]))
    groups = [rows[start:start + items] for start in range(0, len(rows), items)]
    return [(Batch.of([torch.from_numpy(read_row(row, rate)) for row in group], device),
             group) for group in groups]


def _wer(recogniser: Callable, batches: Sequence[tuple[Batch, Rows]], waves: Sequence[Tensor]) -> dict:
    counts = []
    for (batch, group), wave in zip(batches, waves):
        logits = recogniser(wave, batch.lengths)
        counts += [word_errors(row["text"], heard)
                   for row, heard in zip(group, recogniser.decode(logits.values, logits.lengths))]
    errors, words = map(sum, zip(*counts))
    return {"wer": 100.0 * errors / words, "words": words, "utterances": len(counts)}
