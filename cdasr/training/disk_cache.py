"""What a slow frozen network makes of training items, computed once and kept on disk.

There is one file for each batch, in half precision. Filling goes on where it was interrupted. Under torchrun each
process fills its share.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from speechbrain.utils.distributed import ddp_barrier
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from cdasr.runtime.atomic import replacing, write_json
from cdasr.runtime.plain_data import read_json
from cdasr.training.data import DurationBatchSampler, Items
from cdasr.training.distributed import on_main, shard

Batch = tuple[int, Sequence[int]]  # the pass over the items, from 0, and the indices of the items


class DiskCache(Dataset):
    """What `fill_cache` has left in a folder. `rows` say ID, duration and truth of each item, as a manifest does."""

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.epoch = Path(folder), 0
        self.rows = read_json(path := self.folder / "index.json", list, called=path, largest=math.inf)

    def __len__(self) -> int:
        return len(self.rows)

    def _truth(self, row: Mapping) -> dict:
        """What a row says of the truth."""
        return {key: value for key, value in row.items() if key not in ("ID", "duration", "file", "place")}

    def _read(self, row: Mapping[str, str], *names: str) -> dict[str, torch.Tensor]:
        """Those of the tensors `names` that there are of a row, as float32."""
        with safe_open(self.folder / row["file"], "pt") as tensors:
            there = set(tensors.keys())
            keys = {name: f"{row['place']}/{name}" for name in names}
            return {name: tensors.get_tensor(key).float() for name, key in keys.items() if key in there}


def batches_of_passes(rows: Sequence[Mapping], passes: int, batch_seconds: float, seed: int) -> list[Batch]:
    """Batches of items of similar duration, of each of the passes over the rows."""
    durations = [float(row["duration"]) for row in rows]
    return [(epoch, batch) for epoch in range(passes)
            for batch in DurationBatchSampler(durations, batch_seconds, seed, epoch=epoch + 1)]


def fill_cache(folder: Path, items: Items, batches: Sequence[Batch], truth: str, workers: int,
               make: Callable[[int, list[dict]], Iterable[Mapping[str, torch.Tensor]]]) -> None:
    """Write the tensors that `make(number, drawn items)` gives for each item of each batch, and `index.json`.

    `number` is that of the batch, from 0; `truth`: the key of the rows that is kept in the index.
    """
    index, waiting = [], []
    folder.mkdir(parents=True, exist_ok=True)
    rank, processes = shard()
    for number, (epoch, batch) in enumerate(batches):
        path = folder / f"{number:06d}.safetensors"
        index += [{"ID": f"{items.rows[i]['ID']}-{epoch}", "duration": items.rows[i]["duration"],
                   truth: items.rows[i][truth], "file": path.name, "place": str(k)} for k, i in enumerate(batch)]
        if not path.is_file() and number % processes == rank:
            waiting.append((number, path))
    drawn = DataLoader(_Batches(items, [batches[number] for number, _ in waiting]), batch_size=None,
                       num_workers=workers)
    for batch, (number, path) in zip(tqdm(drawn, desc=f"fill {folder.parent.name}/{folder.name}",
                                          disable=not on_main()), waiting):
        tensors = {f"{k}/{name}": value.half().cpu().contiguous() for k, item in enumerate(make(number, batch))
                   for name, value in item.items()}
        with replacing(path) as partial:
            save_file(tensors, partial)
    if on_main():
        write_json(folder / "index.json", index)
    ddp_barrier()


class _Batches(Dataset):
    """Batches of items, of which the cache is made."""

    def __init__(self, items: Items, batches: Sequence[Batch]):
        self.items, self.batches = items, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> list[dict]:
        self.items.epoch, batch = self.batches[place]
        return [self.items[index] for index in batch]
