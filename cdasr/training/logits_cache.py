"""What the frozen classifier makes of degraded, enhanced and clean versions of the training signals, kept on disk.

The classifier and the signal process are frozen while the logits process is trained, so each of their outputs is
computed once: C(y), C(x_hat) and C(x0), values and hidden states, in half precision, one file a batch. Building goes on
where it was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cdasr.coupled.domain import Domain
from cdasr.coupled.models import SignalModel, unpadded
from cdasr.training.data import Items, batch_limit
from cdasr.training.disk_cache import DiskCache, batches_of_passes, fill_cache


class LogitsCache(DiskCache):
    """Items `{id, heard, seen, clean, heard_hidden, seen_hidden}`: ([M,] V) and ([M,] H) float32 each; and the truth.

    Of a decoder also the `boundaries` (M + 1,) of its tokens in seconds.
    """

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        parts = self._read(row, "heard", "seen", "clean", "heard_hidden", "seen_hidden", "boundaries")
        return {"id": row["ID"], **self._truth(row), **parts}

    def clean_logits(self) -> Iterator[tuple[torch.Tensor, None]]:
        """C(x0) of every item, as `LogitsSpace.fit` takes them."""
        return ((torch.atleast_2d(self._read(row, "clean")["clean"]), None) for row in self.rows)


def build_cache(folder: Path, items: Items, classifier: nn.Module, signal_model: SignalModel, settings: Mapping,
                seed: int, device: str, domain: Domain) -> LogitsCache:
    """The cache in `folder`, built where it is not there yet, of `{noisy, clean}` items: `passes` epochs of them.

    Each batch is enhanced with one of the numbers of `steps`, so that the logits process meets signal estimates of the
    quality that every strategy shows it. A decoder's positions are those of its answer to the clean signal, or to the
    degraded one for the share `noisy_prefix` of the batches: prefixes as right and as wrong as those it will read.
    """
    batches = batches_of_passes(items.rows, settings["passes"], batch_limit(settings), seed)

    def make(number: int, drawn: Sequence[Mapping]) -> Iterable[dict[str, torch.Tensor]]:
        steps = settings["steps"][number % len(settings["steps"])]
        noisy_prefix = np.random.default_rng([seed, number]).random() < settings.get("noisy_prefix", 0.0)
        return _observe(drawn, classifier, signal_model, steps, device, domain, noisy_prefix)

    fill_cache(folder, items, batches, domain.truth, settings["workers"], make)
    return LogitsCache(folder)


@torch.no_grad()
def _observe(drawn: Sequence[Mapping], classifier: nn.Module, signal_model: SignalModel, steps: int, device: str,
             domain: Domain, noisy_prefix: bool) -> Iterable[dict[str, torch.Tensor]]:
    """What the classifier makes of each degraded signal, of its enhanced version and of the clean one.

    All keep to the positions of the clean one, or of the degraded one with a `noisy_prefix`.
    """
    noisy, lengths = domain.collate([item["noisy"] for item in drawn])
    clean, _ = domain.collate([item["clean"] for item in drawn])
    noisy, clean, lengths = noisy.to(device), clean.to(device), None if lengths is None else lengths.to(device)
    enhanced, _ = signal_model.enhance(noisy, lengths, steps)
    first = classifier(noisy if noisy_prefix else clean, lengths)
    heard = first if noisy_prefix else classifier(noisy, lengths, like=first)
    known = classifier(clean, lengths, like=first) if noisy_prefix else first
    seen = classifier(enhanced, lengths, like=first)
    parts = {"heard": heard.values, "seen": seen.values, "clean": known.values, "heard_hidden": heard.hidden,
             "seen_hidden": seen.hidden}
    items = {name: unpadded(values, heard.lengths) for name, values in parts.items()}
    if getattr(heard, "boundaries", None) is not None:
        items["boundaries"] = unpadded(heard.boundaries, heard.lengths + 1)
    return [dict(zip(items, values)) for values in zip(*items.values())]
