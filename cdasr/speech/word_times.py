"""Where words begin and end. A CTC recogniser only says at which frames it is sure of them; the sound says the rest.

CTC models put out a label at one or two frames somewhere in a word (often its beginning) and blanks elsewhere, because
their loss asks for no more. A forced alignment over the same logits finds the same frames: with a token for each word,
as in the digits package, no frame but the peak holds evidence of the word. So the words keep their peaks, which give
their order and place, and each is extended over the sound around its peak: up to the pause on each side, or, where
two words run together, to the quietest moment between their peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from cdasr.classifiers.logits import Word

BLOCK = 0.01  # seconds; the level is measured over three of them
ABOVE_FLOOR = 0.25  # of the way in dB from the noise floor to the loudest speech: what is louder is speech
DEEPEST = 35.0  # dB below the loudest speech: what is fainter never is
BRIDGE = 0.12  # seconds of quiet inside a word: the closure before a plosive
REACH = 1.0  # seconds that a word without a pause extends from its peak at most


def with_extents(words: Sequence[Word], wave: Tensor, rate: int) -> list[Word]:
    """The words with start and end where the sound (samples,) at `rate` Hz around their peaks begins and ends.

    In order and not overlapping. A word whose peak has no sound near it stays as it is.
    """
    block = round(BLOCK * rate)
    if not words or len(wave) < 10 * block:
        return list(words)
    level = levels(wave, block)
    speech = spoken(level)
    borders = _borders(words, level)
    return [_extended(word, speech, first, last) for word, (first, last) in zip(words, pairwise(borders))]


def levels(wave: Tensor, block: int) -> Tensor:
    """The level in dB of each block (N,) of `block` samples, smoothed over three."""
    power = wave[:len(wave) // block * block].view(-1, block).float().square().mean(dim=1)
    power = F.avg_pool1d(F.pad(power[None, None], (1, 1), mode="replicate"), 3, stride=1)[0, 0]
    return 10 * (power + 1e-12).log10()


def spoken(level: Tensor) -> Tensor:
    """Which blocks (N,) are louder than pauses; short gaps are filled."""
    floor, loud = torch.quantile(level, torch.tensor([0.05, 0.95])).tolist()
    speech = level > max(floor + ABOVE_FLOOR * (loud - floor), loud - DEEPEST)
    return _closed(speech, round(BRIDGE / BLOCK))


def _closed(speech: Tensor, widest: int) -> Tensor:
    """`speech` (N,) with gaps of at most `widest` blocks filled."""
    on = speech.nonzero()[:, 0].tolist()
    filled = speech.clone()
    for before, after in pairwise(on):
        if after - before - 1 <= widest:
            filled[before:after] = True
    return filled


def _borders(words: Sequence[Word], level: Tensor) -> list[int]:
    """The blocks at which one word's domain ends and the next one's begins: the quietest between their peaks."""
    borders = [0]
    for one, other in pairwise(words):
        first, last = (int((word.start + word.end) / 2 / BLOCK) for word in (one, other))
        between = level[first + 1:last]
        borders.append(max(first + 1 + int(between.argmin()) if len(between) else last, borders[-1]))
    return [*borders, len(level)]


def _extended(word: Word, speech: Tensor, first: int, last: int) -> Word:
    """A word over the stretch of `speech` blocks from `first` to `last` that is at, or nearest to, its peak."""
    peak, reach = int((word.start + word.end) / 2 / BLOCK), round(REACH / BLOCK)
    inside = speech[first:last].nonzero()[:, 0] + first
    if not len(inside):
        return word
    near = int(inside[(inside - peak).abs().argmin()])
    if abs(near - peak) > round(0.2 / BLOCK):
        return word
    begin = end = near
    while begin > max(first, near - reach) and speech[begin - 1]:
        begin -= 1
    while end + 1 < min(last, near + reach) and speech[end + 1]:
        end += 1
    return replace(word, start=begin * BLOCK, end=(end + 1) * BLOCK)
