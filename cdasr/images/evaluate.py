"""Evaluation of image systems: decode fixed degraded sets, count what is wrong, and say how sure the numbers are.

Storing and scoring are those of speech (`cdasr.evaluation`); here is what an entry says of a picture. The error rate
is top-1, in per cent; tables show accuracies.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from cdasr.evaluation.scoring import score, score_conditions
from cdasr.evaluation.store import append_decoded, claim, fingerprint, model_id, read_decoded
from cdasr.images.data import ImageSet
from cdasr.images.metrics import psnr, ssim
from cdasr.images.pipeline import Classification, ImagePipeline
from cdasr.images.report import NAMES, table
from cdasr.runtime.atomic import write_json, write_text
from cdasr.runtime.lock import locked
from cdasr.runtime.provenance import record

TOP = 5


def evaluate_images(sets: Mapping[str, ImageSet], clean: ImageSet, pipeline: ImagePipeline, systems: Sequence[str],
                    output_dir: str | os.PathLike, *, batch_size: int = 250, seed: int = 0,
                    others: Mapping[str, tuple[ImagePipeline, str]] | None = None, overwrite: bool = False) -> str:
    """Decode each condition of `sets`, the same images degraded in some way, with each system; return the table.

    `others` are systems of further packages, each a pipeline and its strategy. Writes `accuracy.json`, `table.txt` and
    `table.md`; an interrupted run goes on. Raises ValueError for an unknown system, or an `output_dir` that holds
    results of other settings, unless `overwrite` says to discard them.
    """
    others, output_dir = others or {}, Path(output_dir)
    pipeline.check([name for name in systems if name not in others])
    settings = {"images": fingerprint(part.images.numpy().tobytes() for part in sets.values()),
                "model": model_id(pipeline), "seed": seed,
                "others": {name: [model_id(other), strategy] for name, (other, strategy) in others.items()}}
    with locked(output_dir):
        claim(output_dir, settings, overwrite)
        for system in systems:
            decode(sets, clean, *others.get(system, (pipeline, system)), output_dir / "decode" / f"{system}.jsonl",
                   batch_size, seed)
        scores = score_images({system: read_decoded(output_dir / "decode" / f"{system}.jsonl") for system in systems},
                              list(sets))
        scores["record"] = record(**settings, systems=list(systems), batch_size=batch_size, device=pipeline.device,
                                  threads=torch.get_num_threads())
        write_json(output_dir / "accuracy.json", scores)
        for suffix, markdown in (("txt", False), ("md", True)):
            write_text(output_dir / f"table.{suffix}", table(scores, markdown) + "\n")
    return table(scores)


def decode(sets: Mapping[str, ImageSet], clean: ImageSet, pipeline: ImagePipeline, strategy: str, path: Path,
           batch_size: int, seed: int) -> None:
    """Append what `strategy` makes of every image that `path` does not hold yet."""
    done = {entry["ID"] for entry in read_decoded(path)}

    def batches() -> Iterator[tuple[str, list[int]]]:
        for condition, data in sets.items():
            waiting = [index for index in range(len(data)) if _name(condition, index) not in done]
            for start in range(0, len(waiting), batch_size):
                yield condition, waiting[start:start + batch_size]

    def entries(batch: tuple[str, list[int]]) -> Iterator[dict]:
        condition, index = batch
        pictures = sets[condition].images[index].float() / 255.0
        started = time.perf_counter()
        results = pipeline.classify(list(pictures), strategy, seed=seed, top=TOP)
        seconds = (time.perf_counter() - started) / len(index)
        for number, picture, result in zip(index, pictures, results):
            yield {"ID": _name(condition, number), "condition": condition, "seconds": round(seconds, 6),
                   **_entry(clean, number, picture, result)}
    append_decoded(path, batches(), entries, sum(map(len, sets.values())), "images")


def _entry(clean: ImageSet, number: int, picture: torch.Tensor, result: Classification) -> dict:
    label, known = clean.classes[int(clean.labels[number])], clean.images[number].float() / 255.0
    wrong = result.label != label
    entry = {"label": label, "answer": result.label, "answer_enhanced": result.label_enhanced, "errors": int(wrong),
             "errors_top5": int(label not in [name for name, _ in result.probabilities]), "images": 1, "duration": 1.0,
             "nfe": result.nfe, "confidence": [round(result.confidence, 4)], "correct": [not wrong]}
    if not torch.equal(picture, known):  # the ratio of a clean input is unbounded and would rule every average
        for suffix, image in (("_input", picture), ("", picture if result.image is None else result.image)):
            entry |= {f"psnr{suffix}": round(psnr(image, known), 3), f"ssim{suffix}": round(ssim(image, known), 4)}
    return entry


def _name(condition: str, index: int) -> str:
    return f"{condition}-{index:06d}"


def score_images(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str]) -> dict:
    """Top-1 errors by condition and system as `score` has them, and in `top5` those of the five best classes.

    `average` holds the same over all degraded conditions, each counting alike.
    """
    scores = score(decoded, conditions, **NAMES)
    degraded = [name for name in conditions if name != "clean"]
    scores["average"] = score_conditions(decoded, degraded, **NAMES)
    five = {system: [{**entry, "errors": entry["errors_top5"]} for entry in entries]
            for system, entries in decoded.items()}
    parts = [(degraded, scores["average"]), *(([name], scores["conditions"][name]) for name in conditions)]
    for names, scored in parts:
        for system, found in score_conditions(five, names, **NAMES).items():
            scored[system]["top5"] = {key: found[key] for key in ("error", "interval")}
    return scores
