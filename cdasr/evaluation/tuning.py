"""Choices that a model package stores, made on development data: signal steps and the observation-adding weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.pipeline import Batch, Pipeline
from cdasr.speech.audio import read_audio
from cdasr.speech.words import word_errors

Rows = Sequence[Mapping[str, str]]


@torch.inference_mode()
def tune(pipeline: Pipeline, rows: Rows, steps: Sequence[int], weights: Sequence[float]) -> dict:
    """WER in per cent by number of steps, and by weight of the degraded waveform at the chosen number of steps.

    Returns `{"steps": {n: wer}, "weights": {a: wer}, "best_steps": n, "best_weight": a}`; among equals the cheapest
    (fewest steps, smallest weight) wins.
    """
    batches = batches_of(rows, pipeline.sample_rate, pipeline.device)
    cleaned = {count: [pipeline.signal.enhance(batch.waves, batch.lengths, count)[0] for batch, _ in batches]
               for count in tqdm(steps, desc="choose steps")}
    by_steps = {count: _wer(pipeline.recogniser, batches, waves)["wer"] for count, waves in cleaned.items()}
    best_steps = min(by_steps, key=lambda count: (by_steps[count], count))
    by_weight = {}
    for weight in tqdm(weights, desc="choose observation adding"):
        mixed = [torch.lerp(wave, batch.waves, weight) for wave, (batch, _) in zip(cleaned[best_steps], batches)]
        by_weight[weight] = _wer(pipeline.recogniser, batches, mixed)["wer"]
    best_weight = min(by_weight, key=lambda weight: (by_weight[weight], weight))
    return {"steps": by_steps, "weights": by_weight, "best_steps": best_steps, "best_weight": best_weight}


@torch.inference_mode()
def tune_strategies(pipeline: Pipeline, rows: Rows, choices: Mapping[str, Mapping[str, Sequence]]) -> dict[str, list]:
    """WER in per cent of each strategy with every combination of its `choices`, e.g. `{"parallel": {"steps": [2, 4]}}`.

    The best combination of each strategy (among equals the first) goes into the package's `strategies`, and the best
    of those strategies becomes its default. Returns `{strategy: [{"options", "wer"}, ...]}`.
    """
    batches = batches_of(rows, pipeline.sample_rate, pipeline.device)
    stored = pipeline.config.setdefault("strategies", {})
    tried: dict[str, list] = {}
    for name, lists in choices.items():
        for values in tqdm(list(product(*lists.values())), desc=f"tune {name}"):
            stored[name] = dict(zip(lists, values))
            tried.setdefault(name, []).append({"options": stored[name], "wer": _strategy_wer(pipeline, batches, name)})
        stored[name] = min(tried[name], key=lambda entry: entry["wer"])["options"]
    pipeline.config["strategy"] = min(tried, key=lambda name: min(entry["wer"] for entry in tried[name]))
    return tried


def _strategy_wer(pipeline: Pipeline, batches: Sequence[tuple[Batch, Rows]], strategy: str) -> float:
    counts = [word_errors(row["text"], result.text) for batch, group in batches
              for row, result in zip(group, pipeline.transcribe(batch.rows(), strategy))]
    errors, words = map(sum, zip(*counts))
    return 100.0 * errors / words


def recogniser_wer(recogniser: CTCRecogniser, rows: Rows) -> dict:
    """Word error rate in per cent of the recogniser alone: `{"wer", "words", "utterances"}`."""
    batches = batches_of(rows, recogniser.sample_rate, str(next(recogniser.parameters()).device))
    return _wer(recogniser, batches, [batch.waves for batch, _ in batches])


def batches_of(rows: Rows, rate: int, device: str, items: int = 16) -> list[tuple[Batch, Rows]]:
    """Batches of `items` recordings of similar duration, with their rows."""
    rows = sorted(rows, key=lambda row: float(row["duration"]))
    groups = [rows[start:start + items] for start in range(0, len(rows), items)]
    return [(Batch.of([torch.from_numpy(read_audio(row["wav"], rate)[0]) for row in group], device),
             group) for group in groups]


def _wer(recogniser: Callable, batches: Sequence[tuple[Batch, Rows]], waves: Sequence[Tensor]) -> dict:
    counts = []
    for (batch, group), wave in zip(batches, waves):
        logits = recogniser(wave, batch.lengths)
        counts += [word_errors(row["text"], heard)
                   for row, heard in zip(group, recogniser.decode(logits.values, logits.lengths))]
    errors, words = map(sum, zip(*counts))
    return {"wer": 100.0 * errors / words, "words": words, "utterances": len(counts)}
