"""`cdasr enhance-transcribe --compare`: what every strategy of a package hears in one recording, side by side."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdasr.runtime.terminal import complain
from cdasr.speech.formats import jsonl
from cdasr.speech.inputs import Source, stdin_as_file
from cdasr.speech.transcribe import Progress, told

if TYPE_CHECKING:
    from cdasr.classifiers.hypothesis import Word
    from cdasr.speech.pipeline import Pipeline
    from cdasr.speech.transcript import Transcript


def compare(sources: Sequence[Source], faults: dict[Path, str], load: Callable[[], Pipeline], as_json: bool = False,
            **options) -> int:
    """Print what each strategy of the package hears in one recording, as a table or a JSON line each.

    Raises ValueError for more than one recording. `options` are those of `Pipeline.__call__` but the strategy.
    """
    if len(sources) != 1:
        raise ValueError(f"--compare takes one recording, got {len(sources)}")
    for fault in faults.values():
        complain(fault)
    if faults:
        return 2

    with stdin_as_file(sources) as (usable, fault):
        if fault is not None:
            complain(fault)
            return 2
        (source,), pipeline = usable, load()
        try:
            wave, rows, names = source.read(pipeline.sample_rate), [], pipeline.strategies
            with Progress(len(names), "strategy") as progress:
                for strategy, result, seconds in side_by_side(pipeline, wave, names, **options):
                    if as_json:
                        with progress.aside():
                            sys.stdout.write(jsonl(source.name, result, seconds))
                    progress.add()
                    rows.append([strategy, result.text, f"{mean_confidence(result.words):.2f}",
                                 f"{seconds / result.duration:.3f}"])
        except ValueError as error:
            raise ValueError(told(source, error)) from None
    if not as_json:
        from cdasr.evaluation.report import render

        print(render([["system", "words", "confidence", "RTF"], *rows], markdown=False))
    return 0


def side_by_side(pipeline: Pipeline, wave: np.ndarray, strategies: Sequence[str],
                 **options) -> Iterator[tuple[str, Transcript, float]]:
    """What each strategy hears in samples (samples,) at the pipeline's rate, and the seconds that it took."""
    for strategy in strategies:
        started = time.perf_counter()
        result = pipeline(wave, strategy=strategy, **options)
        yield strategy, result, time.perf_counter() - started


def mean_confidence(words: Sequence[Word]) -> float:
    """The mean confidence of words; 0 where there are none."""
    return sum(word.confidence for word in words) / max(len(words), 1)
