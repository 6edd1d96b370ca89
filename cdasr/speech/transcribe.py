"""`cdasr enhance-transcribe`: recordings transcribed in batches, as text, JSON, subtitles, with the enhanced audio.

Short recordings share batches. Of long ones no more than a batch is in memory, and their enhanced audio is on disk.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdasr.runtime.errors import explain
from cdasr.runtime.terminal import complain, naming, note, printable
from cdasr.speech.audio import file_format, fit_length, resample, stored_subtype, write_audio
from cdasr.speech.audio_blocks import (
    Spool,
    fit_blocks,
    read_blocks,
    resample_blocks,
    spooled,
    survey,
    write_blocks,
)
from cdasr.speech.inputs import STDIN, Source, readable, stdin_as_file
from cdasr.speech.outputs import Outputs

if TYPE_CHECKING:
    from cdasr.speech.pipeline import Pipeline
    from cdasr.speech.transcript import Transcript

AHEAD = 8  # batches that are read and sorted by length together
MOST_AHEAD = 64  # recordings
SECONDS_BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} s [{elapsed}<{remaining}]"


@dataclass
class Done:
    """What became of a recording: its transcript and the seconds that it took, or what is wrong.

    `audio`: the enhanced waveform of a long recording, as long as this is in hand.
    """

    source: Source
    result: Transcript | None = None
    seconds: float = 0.0
    fault: Exception | None = None
    audio: Spool | None = None


def transcribe_files(sources: Sequence[Source], faults: dict[Path, str], load: Callable[[], Pipeline],
                     outputs: Outputs, batch_seconds: float | None = None, workers: int = 2, **options) -> int:
    """Print and write the transcript of each recording, in their order; return the exit code.

    `faults` says what is wrong with some of them, by name; one that cannot be used is named on stderr and the others
    are done. `batch_seconds`: audio in a batch, None for what suits the device. `workers` threads read files ahead.
    `options` are those of `Pipeline.__call__`.
    """
    outputs.check(sources, faults)
    for name, fault in faults.items():
        complain(naming(fault, name))
    usable = [source for source in sources if source.name not in faults]
    left = [source for source in usable if not outputs.finished(source)]
    if len(left) < len(usable):
        note(f"cdasr: {len(usable) - len(left)} of {len(usable)} recordings are finished already")
    if not left:
        return 2 if faults else 0
    with stdin_as_file(left) as (left, fault):
        if fault is not None:
            complain(fault)
        if not left:
            return 2
        pipeline, failed = load(), bool(faults or fault)
        pipeline.check([options.get("strategy") or pipeline.default_strategy])
        with Progress(len(left)) as progress:
            for done in transcripts(pipeline, left, batch_seconds or suits(pipeline.device), workers, options,
                                    outputs.audio):
                failed |= not _finish(done, outputs, pipeline, progress, alone=len(sources) == 1)
    return 2 if failed else 0


def transcripts(pipeline: Pipeline, sources: Sequence[Source], batch_seconds: float, workers: int,
                options: dict, audio: Mapping[Path, Path] | None = None) -> Iterator[Done]:
    """What became of each of the `sources`, in their order; some are read ahead and sorted by length into batches.

    `audio`: where enhanced audio is wanted, by the name of the recording.
    """
    with ThreadPoolExecutor(workers) as pool:
        for window, long in _windows(sources, batch_seconds):
            if long:
                yield from _in_pieces(pipeline, window[0], batch_seconds, options, (audio or {}).get(window[0].name))
                continue
            reading = [pool.submit(_read, source, pipeline.sample_rate) for source in window]
            found = dict(zip(window, (future.result() for future in reading)))
            waves = {source: wave for source, wave in found.items() if not isinstance(wave, Exception)}
            done = {source: Done(source, fault=fault) for source, fault in found.items() if source not in waves}
            for batch in _by_length(waves, batch_seconds * pipeline.sample_rate):
                done |= {one.source: one for one in _run(pipeline, {source: waves[source] for source in batch},
                                                         batch_seconds, options)}
                while window and window[0] in done:  # as early as their order allows
                    yield done[window.pop(0)]
            yield from (done[source] for source in window)


def suits(device: str) -> float:
    """Seconds of audio in a batch: on a CPU larger ones gain nothing, on a GPU they fill it."""
    return 20.0 if str(device).startswith("cpu") else 160.0


def _windows(sources: Sequence[Source], batch_seconds: float) -> Iterator[tuple[list[Source], bool]]:
    """Consecutive sources of so much audio as is read at once; a long one alone, and whether it is one."""
    window, seconds, alone = [], 0.0, False
    for source in sources:
        duration, long = _measured(source, batch_seconds)
        if window and (seconds + duration > AHEAD * batch_seconds or len(window) == MOST_AHEAD or long or alone):
            yield window, alone
            window, seconds = [], 0.0
        window.append(source)
        seconds, alone = seconds + duration, long
    if window:
        yield window, alone


def _measured(source: Source, unknown: float = 0.0) -> tuple[float, bool]:
    """Duration in s, `unknown` where only decoding would tell, and whether it is long."""
    try:
        found = source.format()
        rate, samples = found or (1, unknown)
        return samples / rate, source.long(found)
    except (ValueError, OSError):  # it has changed since it was checked; told when it is read
        return 0.0, False


def _in_pieces(pipeline: Pipeline, source: Source, batch_seconds: float, options: dict,
               target: Path | None) -> Iterator[Done]:
    """What became of a long recording; its enhanced audio is kept beside the `target` until that is written."""
    from cdasr.speech.segments import transcribe_blocks

    started = time.perf_counter()
    with ExitStack() as stack:
        try:
            spool = stack.enter_context(spooled(target.parent)) if target else None
            with readable(source.path) as path:
                seen = survey(path, source.channel, source.start, source.stop)
                blocks = read_blocks(path, pipeline.sample_rate, seen.channel, source.start, source.stop)
                blocks = _seconds_bar(source, blocks, pipeline.sample_rate)
                result = transcribe_blocks(pipeline, blocks, seen.level, spool and spool.add, batch_seconds, **options)
            done = Done(source, result, time.perf_counter() - started, audio=spool)
        except Exception as error:  # told in its turn
            done = Done(source, fault=error)
        yield done


def _seconds_bar(source: Source, blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """The blocks of a long recording, with a bar on stderr of the seconds that are done, where it is a terminal."""
    from tqdm import tqdm

    samples = 0
    with tqdm(total=round(_measured(source)[0]) or None, file=sys.stderr, dynamic_ncols=True, leave=False,
              disable=not sys.stderr.isatty(), bar_format=SECONDS_BAR) as bar:
        for block in blocks:
            yield block
            samples += len(block)
            bar.update(round(samples / rate) - bar.n)


def _read(source: Source, rate: int) -> np.ndarray | Exception:
    try:
        return source.read(rate)
    except Exception as error:  # told in its turn
        return error


def _by_length(waves: dict[Source, np.ndarray], limit: float) -> Iterator[list[Source]]:
    from cdasr.runtime.batching import batches_within

    order = sorted(waves, key=lambda source: len(waves[source]))
    return batches_within(order, [len(waves[source]) for source in order], limit)


def _run(pipeline: Pipeline, waves: dict[Source, np.ndarray], batch_seconds: float, options: dict) -> list[Done]:
    """A batch of recordings; where one of them makes it fail, each alone."""
    started = time.perf_counter()
    try:
        results = ([pipeline(wave, **options) for wave in waves.values()] if len(waves) == 1 else
                   _together(pipeline, list(waves.values()), batch_seconds, options))
    except Exception as error:
        if len(waves) > 1 and explain(error) is not None:
            return [done for source, wave in waves.items()
                    for done in _run(pipeline, {source: wave}, batch_seconds, options)]
        return [Done(source, fault=error) for source in waves]
    each = (time.perf_counter() - started) / sum(map(len, waves.values()))
    return [Done(source, result, each * len(waves[source])) for source, result in zip(waves, results)]


def _together(pipeline: Pipeline, waves: Sequence[np.ndarray], batch_seconds: float, options: dict) -> list[Transcript]:
    import torch

    from cdasr.speech.segments import transcribe_recordings

    return transcribe_recordings(pipeline, list(map(torch.from_numpy, waves)), batch_seconds=batch_seconds, **options)


def _finish(done: Done, outputs: Outputs, pipeline: Pipeline, progress: Progress, alone: bool) -> bool:
    """Print and write a transcript; whether all went well. Raises what only a developer can mend."""
    name, result = done.source.name, done.result
    try:
        if done.fault is not None:
            raise done.fault
        with progress.aside():
            sys.stdout.write(outputs.shown(name, result, done.seconds, alone))
            sys.stdout.flush()
            outputs.write(name, result, done.seconds)
            if (target := outputs.audio.get(name)) and result.text_enhanced is not None:
                write_enhanced(target, done.source, done.audio or result.wave.numpy(), pipeline.sample_rate)
            if result.out_of_domain:
                note(f"cdasr: {printable(name)}: unlike what the package was trained for; its answer means little")
        return True
    except BrokenPipeError:
        raise
    except Exception as error:
        if (message := told(done.source, error)) is None:
            raise
        with progress.aside():
            complain(message)
        return False
    finally:
        progress.add()


def told(source: Source, error: Exception) -> str | None:
    """What to tell of an error with a recording, by its name; None for a fault of the code."""
    if (message := explain(error)) is None:
        return None
    if source.name == STDIN:
        message = message.replace(str(source.path), str(STDIN))
    message, name = naming(message, source.name), printable(source.name)
    return message if message.startswith(name) else f"{name}: {message}"


def write_enhanced(target: Path, source: Source, wave: np.ndarray | Spool, model_rate: int) -> None:
    """Write the enhanced audio at the rate, the length and the kind of numbers of the recording."""
    with readable(source.path) as path:
        (rate, _), subtype = file_format(path), stored_subtype(path)
        samples = (source.format() or file_format(path))[1]
    if isinstance(wave, Spool):
        gain = write_blocks(target, lambda: fit_blocks(resample_blocks(wave, model_rate, rate), samples), rate, subtype)
    else:
        gain = write_audio(target, fit_length(resample(wave, model_rate, rate), samples), rate, subtype)
    scaled = f", scaled by {20 * math.log10(gain):.1f} dB: it would have been clipped" if gain != 1.0 else ""
    note(f"wrote {printable(target)}{' in 32-bit float, as the input' if subtype == 'FLOAT' else scaled}")


class Progress:
    """A bar on stderr, of recordings or another `unit`; none where stderr is no terminal or there is one of them."""

    def __init__(self, count: int, unit: str = "file"):
        self.count, self.unit = count, unit

    def __enter__(self) -> Progress:
        from tqdm import tqdm

        self.bar = tqdm(total=self.count, unit=self.unit, file=sys.stderr, dynamic_ncols=True, leave=False,
                        disable=self.count < 2 or not sys.stderr.isatty())
        return self

    def __exit__(self, *error) -> None:
        self.bar.close()

    def aside(self):
        """A block in which lines are printed: the bar is taken away and drawn again below them."""
        return self.bar.external_write_mode(file=sys.stdout)

    def add(self) -> None:
        """One more is done."""
        self.bar.update()
