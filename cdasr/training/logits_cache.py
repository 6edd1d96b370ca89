"""What the frozen classifier makes of degraded, enhanced and clean versions of the training signals, kept on disk.

The classifier and the signal process are frozen while the logits process is trained, so each of their outputs is
computed once: C(y), C(x_hat) and C(x0), values and hidden states, in half precision, one file a batch. Building goes on
where it was interrupted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from speechbrain.utils.distributed import ddp_barrier
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cdasr.coupled.domain import Domain
from cdasr.coupled.models import SignalModel, unpadded
from cdasr.runtime.atomic import replacing, write_json
from cdasr.runtime.plain_data import read_json
from cdasr.training.data import DurationBatchSampler, Items, batch_limit
from cdasr.training.distributed import on_main, shard


class LogitsCache(Dataset):
    """Items `{id, heard, seen, clean, heard_hidden, seen_hidden}`: ([M,] V) and ([M,] H) float32 each; and the truth.

    Of a decoder also the `boundaries` (M + 1,) of its tokens in seconds.
    `rows` say ID, duration and truth (`text`) of each item, as a manifest does.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.epoch = Path(folder), 0
        self.rows = read_json(path := self.folder / "index.json", list, called=path, largest=math.inf)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        parts = self._read(row, "heard", "seen", "clean", "heard_hidden", "seen_hidden", "boundaries")
        truth = {key: value for key, value in row.items() if key not in ("ID", "duration", "file", "place")}
        return {"id": row["ID"], **truth, **parts}

    def clean_logits(self) -> Iterator[tuple[torch.Tensor, None]]:
        """C(x0) of every item, as `LogitsSpace.fit` takes them."""
        return ((torch.atleast_2d(self._read(row, "clean")["clean"]), None) for row in self.rows)

    def _read(self, row: Mapping[str, str], *names: str) -> dict[str, torch.Tensor]:
        with safe_open(self.folder / row["file"], "pt") as tensors:
            there = set(tensors.keys())
            keys = {name: f"{row['place']}/{name}" for name in names}
            return {name: tensors.get_tensor(key).float() for name, key in keys.items() if key in there}


def build_cache(folder: Path, items: Items, classifier: nn.Module, signal_model: SignalModel, settings: Mapping,
                seed: int, device: str, domain: Domain) -> LogitsCache:
    """The cache in `folder`, built where it is not there yet, of `{noisy, clean}` items: `passes` epochs of them.

    Each batch is enhanced with one of the numbers of `steps`, so that the logits process meets signal estimates of the
    quality that every strategy shows it. A decoder's positions are those of its answer to the clean signal, or to the
    degraded one for the share `noisy_prefix` of the batches: prefixes as right and as wrong as those it will read.
    """
    index, rows = [], items.rows
    batches = [(epoch, batch) for epoch in range(settings["passes"]) for batch in DurationBatchSampler(
        [float(row["duration"]) for row in rows], batch_limit(settings), seed, epoch=epoch + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    rank, processes = shard()
    waiting = []
    for place, (epoch, batch) in enumerate(batches):
        path = folder / f"{place:06d}.safetensors"
        index += [{"ID": f"{rows[i]['ID']}-{epoch}", "duration": rows[i]["duration"], domain.truth:
                   rows[i][domain.truth], "file": path.name, "place": str(k)} for k, i in enumerate(batch)]
        if not path.is_file() and place % processes == rank:
            waiting.append((place, path))
    drawn = DataLoader(_Batches(items, [batches[place] for place, _ in waiting]), batch_size=None,
                       num_workers=settings["workers"])
    for signals, (place, path) in zip(tqdm(drawn, desc=f"cache logits, {folder.name}", disable=not on_main()), waiting):
        steps = settings["steps"][place % len(settings["steps"])]
        noisy_prefix = np.random.default_rng([seed, place]).random() < settings.get("noisy_prefix", 0.0)
        observed = _observe(signals, classifier, signal_model, steps, device, domain, noisy_prefix)
        with replacing(path) as partial:
            save_file({f"{k}/{name}": value.half().cpu().contiguous() for k, item in enumerate(observed)
                       for name, value in item.items()}, partial)
    if on_main():
        write_json(folder / "index.json", index)
    ddp_barrier()
    return LogitsCache(folder)


class _Batches(Dataset):
    """Batches of degraded and clean signals, from which the cache is made."""

    def __init__(self, items: Items, batches: Sequence[tuple[int, Sequence[int]]]):
        self.items, self.batches = items, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        self.items.epoch, batch = self.batches[place]
        return [(item["noisy"], item["clean"]) for item in map(self.items.__getitem__, batch)]


@torch.no_grad()
def _observe(drawn: Sequence[tuple], classifier: nn.Module, signal_model: SignalModel, steps: int, device: str,
             domain: Domain, noisy_prefix: bool) -> Iterable[dict[str, torch.Tensor]]:
    """What the classifier makes of each degraded signal, of its enhanced version and of the clean one.

    All keep to the positions of the clean one, or of the degraded one with a `noisy_prefix`.
    """
    noisy, lengths = domain.collate([pair[0] for pair in drawn])
    clean, _ = domain.collate([pair[1] for pair in drawn])
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
