"""Answers of a decoder that came to nothing, and what replaces them: Whisper's temperature fallback.

Greedy decoding of noisy audio falls into repetition loops (Radford et al. 2023, section 4.5). An answer is doubtful
where its text compresses too well, where it was cut off at the most tokens that are allowed, or where its tokens are
too unlikely. It is then decoded again with tokens that are drawn, at higher and higher temperatures, until one is not
doubtful.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

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


def rows_of(answer: TokenLogits, rows: Tensor) -> TokenLogits:
    """Some items of a batch."""
    return replace(answer, **{name: values[rows] for name in TENSORS if (values := getattr(answer, name)) is not None})


def with_rows(answer: TokenLogits, rows: Tensor, new: TokenLogits) -> TokenLogits:
    """The answers with the items `rows` replaced by those of `new`; the shorter ones are filled up."""
    end = answer.classifier.ends[0]
    longest = max(answer.values.shape[1], new.values.shape[1])
    changed = {}
    for name, fill in TENSORS.items():
        if (before := getattr(answer, name)) is None:
            continue
        after = getattr(new, name)
        if fill is not None:
            before, after = (_filled(part, longest - source.values.shape[1], end if fill == "end" else fill)
                             for part, source in ((before, answer), (after, new)))
        changed[name] = before.index_copy(0, rows, after)
    return replace(answer, **changed)


TENSORS = {"values": 0.0, "lengths": None, "hidden": 0.0, "boundaries": "last", "tokens": "end", "audio": None,
           "samples": None, "read": "end", "log_probs": 0.0}  # fields of TokenLogits: what positions without token hold


def _filled(values: Tensor, count: int, fill: float | str) -> Tensor:
    """`values` (B, L, ...) with `count` more positions that hold `fill`, or what the last one holds."""
    if not count:
        return values
    if fill == "last":
        return torch.cat([values, values[:, -1:].expand(-1, count)], dim=1)
    return F.pad(values, (*(0, 0) * (values.dim() - 2), 0, count), value=fill)
