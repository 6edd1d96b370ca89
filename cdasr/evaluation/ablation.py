"""What each part of the coupling is worth: one strategy with parts taken away, or with the answer given (oracle)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from tqdm import tqdm

from cdasr.evaluation.statistics import bootstrap, interval
from cdasr.evaluation.tuning import Rows, batches_of
from cdasr.pipeline import Batch, Pipeline
from cdasr.speech.manifest import read_clean
from cdasr.speech.sides import Sides
from cdasr.speech.words import word_errors


@torch.inference_mode()
def ablate(pipeline: Pipeline, rows: Rows, strategy: str, steps: Sequence[int], guidance: Sequence[float]) -> dict:
    """Word error rates over `rows` (with `clean_wav`) of variants of one coupled strategy.

    Variants: as the package runs it; other numbers of `steps` for both processes; other `guidance` weights (0: the
    signal process is not told the logits); a logits process that does not see the enhanced signal; and the oracle, a
    signal process that is told C(x0).
    """
    batches = batches_of(rows, pipeline.sample_rate, pipeline.device)

    def run(**options):
        return lambda batch, group: [(result.text, result.text_enhanced, result.nfe)
                                     for result in pipeline.transcribe(batch.rows(), strategy, **options)]
    variants = {f"{strategy}, as the package runs it": run()}
    variants |= {f"{strategy}, {count} + {count} steps": run(steps=count) for count in steps}
    variants |= {"logits to signal: off" if weight == 0 else f"guidance {weight:g}": run(guidance=weight)
                 for weight in guidance}
    variants["signal to logits: off"] = lambda batch, group: _told(pipeline, batch, None)
    variants["oracle: signal told C(x0)"] = lambda batch, group: _told(pipeline, batch, _clean(pipeline, batch, group))
    found = []
    for name, variant in variants.items():
        results = [(row["text"], *result) for batch, group in tqdm(batches, desc=f"ablation: {name}")
                   for row, result in zip(group, variant(batch, group))]
        errors, words = np.array([word_errors(text, heard) for text, heard, *_ in results]).T
        enhanced = sum(word_errors(text, heard)[0] for text, _, heard, _ in results)
        found.append({"variant": name, "wer": 100.0 * float(errors.sum() / words.sum()),
                      "interval": interval(bootstrap([(errors[None], words)])[:, 0]),
                      "wer_enhanced": 100.0 * float(enhanced / words.sum()), "nfe": results[0][-1]})
    return {"strategy": strategy, "variants": found, "words": int(words.sum()), "utterances": len(rows)}


def _clean(pipeline: Pipeline, batch: Batch, group: Sequence[Mapping[str, str]]) -> Batch:
    """x0."""
    waves = [read_clean(row, pipeline.sample_rate, length) for row, length in zip(group, batch.lengths.tolist())]
    return Batch.of([torch.from_numpy(wave) for wave in waves], pipeline.device)


def _told(pipeline: Pipeline, batch: Batch, clean: Batch | None) -> list[tuple[str, str, dict[str, int]]]:
    """The signal process told one thing throughout: C of `clean`, or else the logits of `card`.

    With `clean` speech the answer is that of the logits process, given C of the resulting signal; else that of `card`.
    """
    sides = Sides(pipeline.recogniser, pipeline.signal, pipeline.logits, batch.waves, batch.lengths)
    heard = sides.observe(sides.signal.y)
    logits = sides.logits(heard)
    if clean is None:
        told = logits.sample(given=heard)
    else:
        known = pipeline.recogniser(clean.waves, clean.lengths, **heard.context.positions)
        told = pipeline.logits.observation(known).logits
    seen = sides.observe(sides.signal.sample(given=told))
    answer = told if clean is None else logits.sample(given=seen)
    return [(text, enhanced, sides.nfe) for text, enhanced in zip(
        pipeline.decode(pipeline.logits.decoded(answer, heard.context)), pipeline.decode(seen.context))]
