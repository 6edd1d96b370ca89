"""The items of a batch of logits: some of them, or of several answers to the same batch one for each item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import torch
from torch import Tensor

from cdasr.classifiers.logits import Logits

AT_ONCE = 8  # items whose logits over a whole vocabulary are in memory together

def rows_of(answer: Logits, rows: Tensor) -> Logits:
    """The items `rows` (B',) of a batch."""
    return replace(answer, **{name: _rows(values, rows.tolist()) for name, values in _parts(answer).items()
                              if values is not None})


def choose_items(answers: Sequence[Logits], choice: Sequence[int]) -> Logits:
    """`merged`, of answers as they are read, and without their hidden states."""
    return merged([replace(answer.settled(), hidden=None) for answer in answers], choice)


def merged(answers: Sequence[Logits], choice: Sequence[int]) -> Logits:
    """For each item (B,) that of the answer with the chosen index; the answers are of one kind and one classifier.

    Answers with fewer positions are filled up behind their lengths, with ends of text where these are tokens. What one
    of the answers does not have is left out.
    """
    end = getattr(answers[0].classifier, "ends", [0])[0]
    found = {}
    for name in _parts(answers[0]):
        parts = [getattr(answer, name) for answer in answers]
        if any(part is None for part in parts):
            found[name] = None
            continue
        rows = [parts[index][item] for item, index in enumerate(choice)]
        if isinstance(parts[0], Tensor):
            if rows[0].dim():
                most = max(part.shape[1] for part in parts)
                rows = [_filled(row, most, name, end) for row in rows]
            rows = torch.stack(rows)
        found[name] = rows
    return replace(answers[0], **found)


def _filled(row: Tensor, most: int, name: str, end: int) -> Tensor:
    """A row (M, ...) with `most` positions."""
    if name == "boundaries":  # nothing more is said: all that follows is where the last token ends
        more = row[-1:].expand(most - len(row))
    else:
        more = row.new_full((most - len(row), *row.shape[1:]), 0 if row.is_floating_point() else end)
    return torch.cat([row, more])


def _rows(values: Tensor | list, rows: list[int]) -> Tensor | list:
    return values[rows] if isinstance(values, Tensor) else [values[row] for row in rows]


def _parts(answer: Logits) -> dict[str, Tensor | list | None]:
    """What there is for each item of a batch, by the name of its field."""
    return {one.name: getattr(answer, one.name) for one in fields(answer) if one.name != "classifier"}
