"""What the shared training and evaluation need to be told about a domain: how to batch, judge and weigh it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits, LogitsSpace
from cdasr.coupled.evaluation import Evaluation
from cdasr.coupled.models import Analysis
from cdasr.diffusion.coupling import Observation


@dataclass(frozen=True)
class Domain:
    """Speech or images, as functions.

    - `name`: what a package's config calls it.
    - `truth`: the column of a manifest, and the field of a training item, with the right answer.
    - `rate`: what the error rate in per cent is called (word error rate: `wer`).
    - `errors(classifier, logits, truths)`: errors and what they are counted against, for each item.
    - `collate(signals)`: signals of one batch to a tensor (B, ...) and their lengths (B,), None where all are whole.
    - `lengths(padded)`: the same lengths from a SpeechBrain `PaddedData`.
    - `signal_loss(x0_hat, x0, analysis, hparams)` and `logits_loss(l_hat, clean, space, classifier, hparams)`.
    - `excerpt_loss(classifier, estimate, clean, lengths, hparams, generator)`: how far the classifier's hidden states
      of an excerpt of the estimated signals (B, ...) are from those of the clean ones; None: there is no such loss.
    - `quality`: the name of a measure of the enhanced signal, and `(enhanced, clean) -> decibels` of one item.
    - `evaluation`: how rows are read and scored, and how results are worded (`cdasr.coupled.evaluation`).
    - `scored_as(hparams)`: the domain with errors counted as a recipe says; None: they are counted in one way.
    """

    name: str
    truth: str
    rate: str
    errors: Callable[[nn.Module, Logits, Sequence], list[tuple[int, int]]]
    collate: Callable[[Sequence[np.ndarray | Tensor]], tuple[Tensor, Tensor | None]]
    lengths: Callable[[object], Tensor | None]
    signal_loss: Callable[[Tensor, Tensor, Analysis, object], Tensor]
    logits_loss: Callable[[Tensor, Observation, LogitsSpace, nn.Module, object], Tensor]
    quality: tuple[str, Callable[[Tensor, Tensor], float]]
    evaluation: Evaluation
    excerpt_loss: Callable | None = None
    scored_as: Callable[[Mapping], Domain] | None = None

    def count(self, classifier: nn.Module, logits: Logits, truths: Sequence) -> tuple[int, int]:
        """Errors of a batch, and what they are counted against."""
        errors, counted = map(sum, zip(*self.errors(classifier, logits, truths)))
        return errors, counted

    def truths(self, batch) -> list:
        """The right answers of a training batch."""
        found = getattr(batch, self.truth)
        return found.tolist() if isinstance(found, torch.Tensor) else list(found)


DOMAINS = {"speech": "cdasr.speech.domain:SPEECH", "images": "cdasr.images.domain:IMAGES"}


def load_domain(name: str) -> Domain:
    """The domain of that name, one of `DOMAINS`."""
    module, _, constant = DOMAINS[name].partition(":")
    return getattr(import_module(module), constant)


def find_domain(name_or_dir: str | os.PathLike) -> Domain:
    """The domain of a model package. Raises ValueError for one that there is not."""
    from cdasr.coupled.bundled import find_package
    from cdasr.runtime.plain_data import read_json

    folder = find_package(name_or_dir)
    name = read_json(folder / "config.json").get("domain", "speech")
    if name not in list(DOMAINS):  # a list, since the file may hold anything
        raise ValueError(f"{folder}: it is for {name!r}; this version knows {', '.join(DOMAINS)}")
    return load_domain(name)
