"""Choices that a model package stores, made on development data: signal steps and the observation-adding weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tqdm import tqdm

from cdasr.evaluation.statistics import word_errors
from cdasr.pipeline import Batch, Pipeline
from cdasr.speech.audio import read_audio


@torch.inference_mode()
def tune(pipeline: Pipeline, rows: Sequence[Mapping[str, str]], steps: Sequence[int], weights: Sequence[float],
         batch_items: int = 16) -> dict:
    """WER in per cent by number of steps, and by weight at the best number of steps.

    Returns `{"steps": {n: wer}, "weights": {a: wer}, "best_steps": n, "best_weight": a}`; among equals the cheapest
    (fewest steps, smallest weight) wins.
    """
    batches = _batches(pipeline, rows, batch_items)
    by_steps = {count: _wer(pipeline, batches, [_enhance(pipeline, batch, count) for batch, _ in batches])
                for count in tqdm(steps, desc="choose steps")}
    best_steps = min(by_steps, key=lambda count: (by_steps[count], count))
    cleaned = [_enhance(pipeline, batch, best_steps) for batch, _ in batches]
    by_weight = {weight: _wer(pipeline, batches, [torch.lerp(wave, batch.waves, weight)
                                                  for wave, (batch, _) in zip(cleaned, batches)])
                 for weight in tqdm(weights, desc="choose observation adding")}
    best_weight = min(by_weight, key=lambda weight: (by_weight[weight], weight))
    return {"steps": by_steps, "weights": by_weight, "best_steps": best_steps, "best_weight": best_weight}


def _batches(pipeline: Pipeline, rows, items: int) -> list[tuple[Batch, list[str]]]:
    rows = sorted(rows, key=lambda row: float(row["duration"]))
    groups = [rows[start:start + items] for start in range(0, len(rows), items)]
    return [(Batch.of([torch.from_numpy(read_audio(row["wav"], pipeline.sample_rate)[0]) for row in group],
                      pipeline.device), [row["text"] for row in group]) for group in groups]


def _enhance(pipeline: Pipeline, batch: Batch, steps: int) -> torch.Tensor:
    return pipeline.signal.enhance(batch.waves, batch.lengths, steps)[0]


def _wer(pipeline: Pipeline, batches, waves) -> float:
    errors = words = 0
    for (batch, texts), wave in zip(batches, waves):
        heard = pipeline.decode(pipeline.recogniser(wave, batch.lengths))
        for text, hypothesis in zip(texts, heard):
            wrong, count = word_errors(text, hypothesis)
            errors, words = errors + wrong, words + count
    return 100.0 * errors / words
