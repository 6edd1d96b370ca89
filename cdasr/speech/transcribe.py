"""`cdasr enhance-transcribe`: recordings transcribed one by one, as text or JSON, with the enhanced audio beside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdasr.runtime.atomic import to_json
from cdasr.runtime.terminal import note, process_files
from cdasr.speech.audio import file_format, fit_length, resample, stored_subtype, write_audio
from cdasr.speech.inputs import unusable

if TYPE_CHECKING:
    from cdasr.speech.pipeline import Pipeline, Transcript


def transcribe_files(files: Sequence[Path], load: Callable[[], Pipeline], output_dir: Path | None = None,
                     as_json: bool = False, **options) -> int:
    """Print the transcript of each file and return the exit code; a file that cannot be used is named on stderr.

    `options` are those of `Pipeline.__call__`. Enhanced audio goes to `output_dir`, where one is given.
    """
    def transcribe(pipeline: Pipeline, path: Path, target: Path | None) -> Transcript:
        started = time.perf_counter()
        result = pipeline(path, **options)
        seconds = time.perf_counter() - started
        if as_json:
            print(transcript_json(path, result, seconds), flush=True)
        else:
            print(f"{path}: {result.text}" if len(files) > 1 else result.text, flush=True)
        if target and result.wave is not None:
            write_enhanced(target, path, result.wave.numpy(), pipeline.sample_rate)
        return result
    return process_files(files, unusable(files), output_dir, ".enhanced.wav", load, transcribe)


def transcript_json(path: Path, result: Transcript, seconds: float) -> str:
    """A transcript as a JSON object in one line; it took so many `seconds`."""
    return to_json({
        "file": str(path), "text": result.text, "text_enhanced": result.text_enhanced, "strategy": result.strategy,
        **({"chosen": result.chosen} if result.chosen else {}), "out_of_domain": result.out_of_domain,
        "duration": round(result.duration, 3), "rtf": round(seconds / result.duration, 4), "nfe": result.nfe,
        "words": [{**asdict(word), "start": round(word.start, 3), "end": round(word.end, 3),
                   "confidence": round(word.confidence, 4)} for word in result.words]})


def write_enhanced(target: Path, path: Path, wave: np.ndarray, model_rate: int) -> None:
    """Write the enhanced audio at the rate, the length and the kind of numbers of the file at `path`."""
    rate, samples = file_format(path)
    subtype = stored_subtype(path)
    gain = write_audio(target, fit_length(resample(wave, model_rate, rate), samples), rate, subtype)
    scaled = f", scaled by {20 * math.log10(gain):.1f} dB: it would have been clipped" if gain != 1.0 else ""
    note(f"wrote {target}{' in 32-bit float, as the input' if subtype == 'FLOAT' else scaled}")
