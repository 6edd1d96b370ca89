"""Where words begin and end: the recogniser says in which order and roughly where, the sound says the rest.

A CTC model puts out a label in one or two frames somewhere in a word and blanks elsewhere, because its loss asks for no
more. The best path of its logits is the forced alignment of its own transcript (no path through other frames is more
likely), so an alignment finds the same frames again: with a token for each word, as in the digits package, nothing but
that peak says where the word is. Each word is therefore extended over the sound around its peaks: up to the pause on
each side or, where two words run together, up to the quietest moment between their peaks.

A decoder such as Whisper's attends to the audio without gaps, so that the pause between two words belongs to one of
them. Its boundaries move to the quietest moment near them, and its words lose the pauses at their ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from cdasr.classifiers.hypothesis import Word

BLOCK = 0.01  # seconds over which the level is measured
ABOVE_FLOOR = 0.2  # of the way in dB from the noise floor to the loudest speech: what is louder is speech
DEEPEST = 40.0  # dB below the loudest speech: what is fainter is no speech
CLOSURE = 0.2  # seconds of quiet within a word: before a plosive
NEAR = 0.2  # seconds between a word's peaks and the sound that can be its own
REACH = 0.8  # seconds that a word extends from its peaks at most
SLACK = 0.1  # seconds by which a boundary between the words of a decoder moves at most
SHORTEST = 0.02  # seconds that a word lasts at least


def sounding(words: Sequence[Word], wave: Tensor, rate: int, peaks: bool) -> list[Word]:
    """The words with start and end where the sound (samples,) at `rate` Hz of each begins and ends.

    `peaks`: their times are those of a few frames within each, and not of boundaries. The words stay in order; they do
    not overlap, last at least `SHORTEST` and lie within the recording. A word without sound near it keeps its times.
    """
    block, duration = round(BLOCK * rate), len(wave) / rate
    words = tidy(words, duration)
    if not words or len(wave) < 10 * block:
        return words
    level = levels(wave, block)
    speech, borders = spoken(level), (_between_peaks if peaks else _near_boundaries)(words, smooth(level))
    found = [_over_sound(word, speech[first:last], first, peaks) for word, (first, last)
             in zip(words, pairwise(borders))]
    return tidy(found, duration)


def tidy(words: Sequence[Word], duration: float) -> list[Word]:
    """The words in order, not overlapping, at least `SHORTEST` long and within `duration` seconds.

    A recording that is too short for that many words is shared among them.
    """
    shortest, found, before = min(SHORTEST, duration / max(len(words), 1)), [], 0.0
    for number, word in enumerate(words):
        latest = duration - shortest * (len(words) - number - 1)  # where it ends, so that those behind it have room
        start = min(max(word.start, before), latest - shortest)
        following = words[number + 1].start if number + 1 < len(words) else duration
        before = min(max(min(word.end, following), start + shortest), latest)
        found.append(replace(word, start=start, end=before))
    return found


def levels(wave: Tensor, block: int) -> Tensor:
    """The level in dB of each block (N,) of `block` samples."""
    power = wave[:len(wave) // block * block].view(-1, block).float().square().mean(dim=1)
    return 10 * (power + 1e-12).log10()


def smooth(level: Tensor) -> Tensor:
    """The level in dB over three blocks each, (N,)."""
    power = 10 ** (level / 10)
    return 10 * F.avg_pool1d(F.pad(power[None, None], (1, 1), mode="replicate"), 3, stride=1)[0, 0].log10()


def spoken(level: Tensor) -> Tensor:
    """Which blocks (N,) are louder than pauses."""
    floor, loud = torch.quantile(smooth(level), torch.tensor([0.05, 0.95])).tolist()
    return level > max(floor + ABOVE_FLOOR * (loud - floor), loud - DEEPEST)


def _between_peaks(words: Sequence[Word], level: Tensor) -> list[int]:
    """The blocks where each word's domain begins and the last one's ends: the quietest ones between their peaks."""
    borders = [0]
    for one, other in pairwise(words):
        borders.append(_quietest(level, max(_block(one.end) + 1, borders[-1]), _block(other.start)))
    return [*borders, len(level)]


def _near_boundaries(words: Sequence[Word], level: Tensor) -> list[int]:
    """The same near the boundaries of words that have them, within the halves of both words."""
    borders = [0]
    for one, other in pairwise(words):
        first = max((one.start + one.end) / 2, other.start - SLACK)
        last = min((other.start + other.end) / 2, other.start + SLACK)
        borders.append(_quietest(level, max(_block(first), borders[-1] + 1), _block(last) + 1))
    return [*borders, len(level)]


def _quietest(level: Tensor, first: int, last: int) -> int:
    """The quietest block of `level` (N,) from `first` up to `last`, without it; `first` where that is none."""
    between = level[first:last]
    return first + int(between.argmin()) if len(between) else min(first, len(level))


def _over_sound(word: Word, speech: Tensor, offset: int, peaks: bool) -> Word:
    """A word over what is loud in its domain: the blocks `speech` (N,), which begin at block `offset`.

    Of `peaks` the sound around them counts, across closures; else all from the first to the last.
    """
    blocks = (speech.nonzero()[:, 0] + offset).tolist()
    if not blocks:
        return word
    if not peaks:
        return replace(word, start=blocks[0] * BLOCK, end=(blocks[-1] + 1) * BLOCK)
    first, last = _block(word.start), max(_block(word.end - BLOCK / 2), _block(word.start))
    own = [block for block in blocks if first <= block <= last] or [
        min(blocks, key=lambda block: max(first - block, block - last))]
    begin, end = own[0], own[-1]
    if max(first - end, begin - last) > _block(NEAR):
        return word
    for block in reversed([block for block in blocks if own[0] - _block(REACH) <= block < own[0]]):
        if begin - block - 1 > _block(CLOSURE):
            break
        begin = block
    for block in [block for block in blocks if own[-1] < block <= own[-1] + _block(REACH)]:
        if block - end - 1 > _block(CLOSURE):
            break
        end = block
    return replace(word, start=begin * BLOCK, end=(end + 1) * BLOCK)


def _block(seconds: float) -> int:
    return int(seconds / BLOCK + 1e-6)
