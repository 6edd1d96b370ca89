"""What a frozen classifier has to offer, so that every strategy, training stage and evaluation can use it.

Nobody outside this folder asks what sort of model stands behind it: what depends on that belongs to the kind of its
logits (`logits.py`). tests/coupled/test_toy_recogniser.py is a whole recogniser in twenty lines. All of them are
`torch.nn.Module`s with frozen weights, through which gradients pass to the signals.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from cdasr.classifiers.hypothesis import Word
from cdasr.classifiers.logits import Logits


class Classifier(Protocol):
    """A frozen classifier of signals (B, ...)."""

    kind: ClassVar[type[Logits]]
    """The kind of its logits: `CTCLogits`, `TokenLogits` or `ClassLogits`. `CTCLogits` ask for `blank`, the class that
    says nothing, and a beam search for `alphabet` and `span_seconds` as well; `TokenLogits` for `redecode`, `best`,
    `logits` and `reader`, as `WhisperDecoderRecogniser` has them."""

    logits_size: int
    """Numbers V in one vector of logits: the classes, or the coordinates of a decoder's."""

    hidden_size: int
    """Numbers H in one hidden state."""

    hidden_layers: tuple[int, ...]
    """The layers whose hidden states it hands out, side by side, counted as transformers counts `hidden_states`."""

    def with_hidden_layers(self, layers: Sequence[int]) -> Classifier:
        """The same classifier, sharing its model, with other `hidden_layers`. Raises ValueError where it lacks one."""

    def forward(self, signals: Tensor, lengths: Tensor | None, like: Logits | None = None) -> Logits:
        """C of zero-padded `signals` (B, ...) with `lengths` (B,), None where all are whole; none is run twice.

        `like`: an earlier observation of the same items, to whose positions this one keeps. Frames follow from the
        lengths, so only a kind with a hypothesis looks at it. Raises ValueError for signals it cannot take.
        """

    def decode(self, values: Tensor, lengths: Tensor | None) -> list[str]:
        """The text, or the name of the class, that each of the logits `values` (B, [M,] V) stands for."""

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write a folder from which it can be loaded again."""


class Recogniser(Classifier, Protocol):
    """A frozen recogniser of waveforms (B, T) with `lengths` (B,) samples."""

    sample_rate: int
    """In Hz."""

    tokens: list[str]
    """What each class of the posterior stands for."""

    def frame_times(self, frames: int) -> Tensor:
        """Centres of the logit frames in seconds, (frames,). Not asked of a kind that has times of its own."""

    def words(self, values: Tensor, lengths: Tensor, *boundaries: Tensor) -> list[list[Word]]:
        """The words of `decode` with their times and confidences; `boundaries` (B, M + 1) s of `TokenLogits`."""
