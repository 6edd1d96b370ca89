"""Answers of a decoder that came to nothing, and what replaces them: Whisper's temperature fallback.

Greedy decoding of noisy audio falls into repetition loops (Radford et al. 2023, section 4.5). An answer is doubtful
where its text compresses too well, where it was cut off at the most tokens that are allowed, or where its tokens are
too unlikely. It is then decoded again with tokens that are drawn, at higher and higher temperatures, until one is not
doubtful.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from cdasr.classifiers.items import merged, rows_of
from cdasr.classifiers.logits import TokenLogits

TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
MOST_COMPRESSION = 2.4  # bytes of the text for each byte of its zlib compression
LEAST_LOG_PROB = -1.0  # nats a token


def compression_ratio(text: str) -> float:
    """Bytes of a text for each byte of its zlib compression; repetition makes it large."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def quality(answer: TokenLogits) -> tuple[Tensor, Tensor]:
    """Whether each text repeats itself (B,), and the mean log-probability (B,) of its tokens."""
    ratios = torch.tensor([compression_ratio(text) for text in answer.texts()], device=answer.lengths.device)
    likelihood = answer.log_probs.sum(dim=1) / answer.lengths
    return (ratios > MOST_COMPRESSION) | answer.cut_off, likelihood


def doubtful(answer: TokenLogits) -> Tensor:
    """Which answers (B,) are to be decoded again."""
    repeats, likelihood = quality(answer)
    return repeats | (likelihood < LEAST_LOG_PROB)


def better_rows(old: TokenLogits, new: TokenLogits) -> Tensor:
    """Where the `new` attempt (B,) at the same items is better: it repeats itself less, or is more likely."""
    (old_repeats, old_likelihood), (new_repeats, new_likelihood) = quality(old), quality(new)
    return (old_repeats & ~new_repeats) | ((old_repeats == new_repeats) & (new_likelihood > old_likelihood))


def without_doubt(found: tuple[TokenLogits, list[TokenLogits]],
                  draw: Callable[[Tensor, float], tuple[TokenLogits, list[TokenLogits]]]
                  ) -> tuple[TokenLogits, list[TokenLogits]]:
    """The answers that were `found`, with what each version of the audio says; doubtful ones are decoded again.

    `draw` does so for some of the items (B',), at a temperature.
    """
    for temperature in TEMPERATURES:
        again = doubtful(found[0]).nonzero()[:, 0]
        if not len(again):
            break
        tried = draw(again, temperature)
        wins = better_rows(rows_of(found[0], again), tried[0])
        pairs = zip((found[0], *found[1]), (tried[0], *tried[1]))
        answer, *versions = [with_rows(before, again, after, wins) for before, after in pairs]
        found = answer, versions
    return found


def with_rows(answer: TokenLogits, rows: Tensor, new: TokenLogits, wins: Tensor) -> TokenLogits:
    """The answers (B,) with those of the items `rows` (B',) for which the `new` one (B',) `wins` (B',)."""
    choice, places = rows.new_zeros(2, len(answer.values))
    choice[rows], places[rows] = wins.long(), torch.arange(len(rows), device=rows.device)
    return merged([answer, rows_of(new, places)], choice.tolist())
