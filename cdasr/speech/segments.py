"""Recordings as they are processed: context around them, batches of them, long ones cut and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from cdasr.runtime.batching import batches_within

if TYPE_CHECKING:
    from cdasr.speech.pipeline import Pipeline, Transcript

BATCH_SECONDS = 20.0
QUIET = 10 ** (-50 / 20)  # RMS below which a recording is amplified to it


def transcribe_recordings(pipeline: Pipeline, waves: Sequence[Tensor], strategy: str | None = None,
                          steps: int | None = None, seed: int = 0, samples: int = 1, guidance: float | None = None,
                          batch_seconds: float = BATCH_SECONDS) -> list[Transcript]:
    """Transcribe recordings (samples,) of any length at the pipeline's rate; the options are `Pipeline.transcribe`'s.

    Every verb comes this way, so that all hear the same. Long recordings are cut, segments of similar length run in
    batches of at most `batch_seconds`, padding included, and what belongs to one recording is joined again.
    Very quiet ones are amplified first: recognisers add a small constant to the variance, or to the energies, by which
    they normalise, and hear nothing where the recording is fainter than that.
    """
    gains = [_gain(wave) for wave in waves]
    pieces = [split_long(wave * gain if gain != 1.0 else wave, pipeline.sample_rate)
              for wave, gain in zip(waves, gains)]
    order = sorted(((number, place) for number, parts in enumerate(pieces) for place in range(len(parts))),
                   key=lambda at: len(pieces[at[0]][at[1]]))
    found: dict[tuple[int, int], Transcript] = {}
    for batch in batches_within(order, [len(pieces[number][place]) for number, place in order],
                                batch_seconds * pipeline.sample_rate):
        results = pipeline.transcribe([pieces[number][place] for number, place in batch], strategy=strategy,
                                      steps=steps, seed=seed, samples=samples, guidance=guidance)
        found |= dict(zip(batch, results))
    joined = [join([found[number, place] for place in range(len(parts))]) for number, parts in enumerate(pieces)]
    return [result if gain == 1.0 or result.wave is None else replace(result, wave=result.wave / gain)
            for result, gain in zip(joined, gains)]


def _gain(wave: Tensor) -> float:
    """What a recording (samples,) is multiplied with: 1 unless its RMS is below QUIET and it is not silent."""
    level = float(wave.double().square().mean().sqrt()) if len(wave) else 0.0
    return QUIET / level if 1e-12 < level < QUIET else 1.0


def join(parts: Sequence[Transcript]) -> Transcript:
    """One transcript of the consecutive segments of a recording."""
    if len(parts) == 1:
        return parts[0]
    enhanced = parts[0].wave is not None
    starts = [0.0, *accumulate(part.duration for part in parts)]
    words = [replace(word, start=start + word.start, end=start + word.end)
             for part, start in zip(parts, starts) for word in part.words]
    return replace(
        parts[0], text=" ".join(part.text for part in parts if part.text), words=words,
        duration=sum(part.duration for part in parts),
        nfe={key: sum(part.nfe[key] for part in parts) for key in parts[0].nfe}, out_of_domain=_mostly(parts),
        nbest=[], chosen="+".join(dict.fromkeys(part.chosen for part in parts)) if parts[0].chosen else None,
        text_enhanced=" ".join(part.text_enhanced for part in parts if part.text_enhanced) if enhanced else None,
        wave=torch.cat([part.wave for part in parts]) if enhanced else None)


def _mostly(parts: Sequence[Transcript]) -> bool | None:
    """Whether more than half of the time is out of domain; None where that is not known."""
    if any(part.out_of_domain is None for part in parts):
        return None
    return sum(part.duration if part.out_of_domain else -part.duration for part in parts) > 0


def split_long(wave: Tensor, rate: int, longest: float = 20.0, search: float = 5.0) -> list[Tensor]:
    """Cut `wave` (samples,) into segments of at most `longest` seconds.

    Each cut falls on the quietest 20 ms within the last `search` seconds of its segment, so that words stay whole
    where there is a pause. Concatenating the segments gives `wave` back.
    """
    block, segments = rate // 50, []
    while len(wave) > longest * rate:
        start = int((longest - search) * rate)
        window = wave[start:int(longest * rate)]
        energy = window[:len(window) // block * block].view(-1, block).square().sum(dim=1)
        cut = start + int(torch.argmin(energy)) * block + block // 2
        segments.append(wave[:cut])
        wave = wave[cut:]
    return [*segments, wave]


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
