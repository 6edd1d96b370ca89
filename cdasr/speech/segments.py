"""Recordings as they are processed: context around them, batches of them, long ones cut and put together again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cdasr.runtime.batching import batches_within
from cdasr.speech.joining import Part, join
from cdasr.speech.transcript import Transcript
from cdasr.speech.word_times import BLOCK, levels, spoken

BATCH_SECONDS = 20.0
QUIET = 10 ** (-50 / 20)  # RMS below which a recording is amplified to it
LONGEST = 20.0  # seconds of a segment
SHORTEST = 1.0  # seconds that the last segment has at least
REACHES = (5.0, 10.0, 15.0)  # seconds before the longest end of a segment in which a pause is looked for
PAUSES = (0.3, 0.15)  # seconds of quiet that are a pause; the second ones, where there are none of the first
OVERLAP = 3.0  # seconds that two segments share where there was no pause
STEADY = 6.0  # dB between pauses and speech, at least


class Transcriber(Protocol):
    """What transcribes a batch of segments, with `nbest` hypotheses of each; `Pipeline` does."""

    sample_rate: int  # Hz
    nbest: int

    def transcribe(self, waves: Sequence[Tensor], strategy: str | None = None, steps: int | None = None, seed: int = 0,
                   samples: int = 1, guidance: float | None = None) -> list[Transcript]:
        """Transcribe a batch of waveforms (samples,) at `sample_rate`."""


def transcribe_recordings(pipeline: Transcriber, waves: Sequence[Tensor], strategy: str | None = None,
                          steps: int | None = None, seed: int = 0, samples: int = 1, guidance: float | None = None,
                          batch_seconds: float = BATCH_SECONDS) -> list[Transcript]:
    """Transcribe recordings (samples,) of any length at the pipeline's rate; the options are `Pipeline.transcribe`'s.

    Every verb comes this way, so that all hear the same. Long recordings are cut, segments of similar length run in
    batches of at most `batch_seconds`, padding included, and what belongs to one recording is joined again.
    Very quiet ones are amplified first: recognisers add a small constant to the variance, or to the energies, by which
    they normalise, and hear nothing where the recording is fainter than that.
    """
    gains = [gain_of(level_of(wave)) for wave in waves]
    cut = [list(segments([wave * gain if gain != 1.0 else wave], pipeline.sample_rate))
           for wave, gain in zip(waves, gains)]
    order = sorted(((number, place) for number, parts in enumerate(cut) for place in range(len(parts))),
                   key=lambda at: len(cut[at[0]][at[1]].wave))
    found: dict[tuple[int, int], Transcript] = {}
    for batch in batches_within(order, [len(cut[number][place].wave) for number, place in order],
                                batch_seconds * pipeline.sample_rate):
        results = pipeline.transcribe([cut[number][place].wave for number, place in batch], strategy=strategy,
                                      steps=steps, seed=seed, samples=samples, guidance=guidance)
        found |= dict(zip(batch, results))
    joined = [found[number, 0] if len(parts) == 1 else  # as `join` would have it
              join([Part(part.start, found[number, place]) for place, part in enumerate(parts)], pipeline.sample_rate,
                   nbest=pipeline.nbest) for number, parts in enumerate(cut)]
    return [result if gain == 1.0 or result.wave is None else replace(result, wave=result.wave / gain)
            for result, gain in zip(joined, gains)]


def transcribe_blocks(pipeline: Transcriber, blocks: Iterable[np.ndarray], level: float,
                      keep: Callable[[np.ndarray], None] | None, batch_seconds: float, **options) -> Transcript:
    """What `transcribe_recordings` makes of one recording that comes in blocks (samples,) and has an RMS of `level`.

    No more is held than one batch. The enhanced waveform goes to `keep` in pieces, if to anywhere.
    """
    gain = gain_of(level)
    whole = (torch.from_numpy(block) * gain if gain != 1.0 else torch.from_numpy(block) for block in blocks)
    cut, sizes = tee(segments(whole, pipeline.sample_rate))
    batches = batches_within(cut, (len(part.wave) for part in sizes), batch_seconds * pipeline.sample_rate)
    parts = (Part(part.start, found) for batch in batches for part, found in
             zip(batch, pipeline.transcribe([part.wave for part in batch], **options)))
    return join(parts, pipeline.sample_rate, lambda wave: keep and keep((wave / gain).numpy()), pipeline.nbest)


def level_of(wave: Tensor) -> float:
    """The RMS of a waveform (samples,)."""
    return float(wave.double().square().mean().sqrt()) if len(wave) else 0.0


def gain_of(level: float) -> float:
    """What a recording of the RMS `level` is multiplied with: 1 unless it is below QUIET and not silent."""
    return QUIET / level if 1e-12 < level < QUIET else 1.0


@dataclass(frozen=True)
class Segment:
    """A stretch `wave` (samples,) of a recording, which begins there at sample `start`."""

    start: int
    wave: Tensor


def segments(blocks: Iterable[Tensor], rate: int) -> Iterator[Segment]:
    """A recording at `rate` Hz, in consecutive blocks (samples,), as segments of at most `LONGEST` seconds.

    A segment ends in the middle of the longest pause of its last seconds, and the next one begins there. Where there
    is none within reach, the next one begins `OVERLAP` seconds earlier: a word at the cut is whole in one of them.
    What a segment is does not depend on the blocks.
    """
    blocks, start, held = iter(blocks), 0, torch.empty(0)
    longest, ahead = round(LONGEST * rate), round((LONGEST + SHORTEST) * rate)
    while True:
        waiting = [held]
        while sum(map(len, waiting)) < ahead and (block := next(blocks, None)) is not None:
            waiting.append(block)
        held = torch.cat(waiting) if len(waiting) > 1 else held
        if len(held) <= longest:
            yield Segment(start, held)
            return
        stop = pause(held[:min(longest, len(held) - round(SHORTEST * rate))], rate)
        following = longest - round(OVERLAP * rate) if stop is None else stop
        yield Segment(start, held[:stop or longest])
        start, held = start + following, held[following:]


def pause(wave: Tensor, rate: int) -> int | None:
    """The sample in the middle of the longest pause near the end of `wave` (samples,); None where there is none.

    The level of 50 ms tells pauses, so that noise does not interrupt them.
    """
    level = levels(wave, round(BLOCK * rate))
    level = 10 * torch.nn.functional.avg_pool1d(10 ** (level / 10)[None, None], 5, 1, 2, count_include_pad=False)[
        0, 0].log10()
    runs = _runs(~spoken(level)) if float(level.quantile(0.95) - level.min()) > STEADY else []
    for least in PAUSES:
        for reach in REACHES:
            near = [run for run in runs if (run[1] - run[0]) * BLOCK >= least
                    and sum(run) / 2 * BLOCK >= len(wave) / rate - reach]
            if near:
                first, last = max(near, key=lambda run: run[1] - run[0])
                return round((first + last) / 2 * BLOCK * rate)
    return None


def _runs(flags: Tensor) -> list[tuple[int, int]]:
    """Where consecutive true `flags` (N,) begin and end."""
    changes = torch.cat([flags.new_zeros(1), flags, flags.new_zeros(1)]).int().diff().nonzero()[:, 0].tolist()
    return list(zip(changes[::2], changes[1::2]))


def collate_waves(waves: Sequence[np.ndarray | Tensor]) -> tuple[Tensor, Tensor]:
    """Zero-padded waveforms (B, T) and their lengths (B,) in samples."""
    waves = [torch.as_tensor(wave) for wave in waves]
    return pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves])


@dataclass(frozen=True)
class Context:
    """Faint white noise around a recording: `seconds` on each side, `level` dB relative to its RMS. 0 seconds: none.

    Networks that learned from utterances with pauses around them take the first and last sound of a tightly cut
    recording for noise. A tenth of a second of faint noise on both sides gives them the pause. Digital silence would do
    mostly, but a recogniser that never met digital silence in training can fail on it.
    Raises ValueError for a negative or overlong duration, and for noise that is not fainter than the recording.
    """

    seconds: float = 0.0
    level: float = -40.0

    def __post_init__(self):
        if not 0.0 <= self.seconds <= 5.0:
            raise ValueError(f"context.seconds: expected 0 to 5 s on each side of a recording, got {self.seconds}")
        if not -120.0 <= self.level <= 0.0:
            raise ValueError(f"context.level: expected -120 to 0 dB relative to the recording, got {self.level}")

    def margin(self, rate: int) -> int:
        """Samples on each side at `rate` Hz."""
        return round(self.seconds * rate)

    def surround(self, wave: Tensor, rate: int) -> Tensor:
        """The waveform (samples,) with its context, (samples + 2 margins,); the noise is the same in every call."""
        margin = self.margin(rate)
        if not margin:
            return wave
        noise = torch.randn(2, margin, generator=torch.Generator().manual_seed(0), dtype=wave.dtype)
        before, after = noise * wave.square().mean().sqrt() * 10 ** (self.level / 20)
        return torch.cat([before, wave, after])
