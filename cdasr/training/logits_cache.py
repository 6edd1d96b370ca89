"""What the frozen classifier makes of degraded, enhanced and clean versions of the training signals, kept on disk.

The classifier and the signal process are frozen while the logits process is trained, so each of their outputs is
computed once: C(y), C(x_hat) and C(x0), values and hidden states, in half precision, one file a batch. Building goes on
where it was interrupted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
from cdasr.runtime.provenance import read_json
from cdasr.speech.domain import SPEECH
from cdasr.speech.manifest import read_clean, read_row
from cdasr.training.data import DurationBatchSampler, batch_limit
from cdasr.training.distributed import on_main, shard

Pairs = Callable[[Mapping[str, str], np.random.Generator], tuple[np.ndarray, np.ndarray]]  # row -> noisy, clean


class Bank(Dataset):
    """Items `{id, heard, seen, clean, heard_hidden, seen_hidden}`: ([M,] V) and ([M,] H) float32 each; and the truth.

    `rows` say ID, duration and truth (`text`) of each item, as a manifest does.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.epoch = Path(folder), 0
        self.rows = read_json(self.folder / "index.json", list)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        parts = self._read(row, "heard", "seen", "clean", "heard_hidden", "seen_hidden")
        truth = {key: value for key, value in row.items() if key not in ("ID", "duration", "file", "place")}
        return {"id": row["ID"], **truth, **parts}

    def clean_logits(self) -> Iterator[tuple[torch.Tensor, None]]:
        """C(x0) of every item, as `LogitsSpace.fit` takes them."""
        return ((torch.atleast_2d(self._read(row, "clean")["clean"]), None) for row in self.rows)

    def _read(self, row: Mapping[str, str], *names: str) -> dict[str, torch.Tensor]:
        with safe_open(self.folder / row["file"], "pt") as tensors:
            return {name: tensors.get_tensor(f"{row['place']}/{name}").float() for name in names}


def build_bank(folder: Path, rows: Sequence[Mapping[str, str]], pairs: Pairs, classifier: nn.Module,
               signal_model: SignalModel, settings: Mapping, seed: int, device: str, domain: Domain = SPEECH) -> Bank:
    """The bank in `folder`, built where it is not there yet: `passes` degraded versions of each row.

    Each batch is enhanced with one of the numbers of `steps`, so that the logits process meets signal estimates of the
    quality that every strategy shows it.
    """
    index = []
    batches = [(number, batch) for number in range(settings["passes"]) for batch in DurationBatchSampler(
        [float(row["duration"]) for row in rows], batch_limit(settings), seed, epoch=number + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    rank, processes = shard()
    waiting = []
    for place, (number, batch) in enumerate(batches):
        path = folder / f"{place:06d}.safetensors"
        index += [{"ID": f"{rows[i]['ID']}-{number}", "duration": rows[i]["duration"], "file": path.name,
                   domain.truth: rows[i][domain.truth], "place": str(k)} for k, i in enumerate(batch)]
        if not path.is_file() and place % processes == rank:
            waiting.append((place, path))
    drawn = DataLoader(_Drawn([batches[place] for place, _ in waiting], rows, pairs, seed), batch_size=None,
                       num_workers=settings["workers"])
    for signals, (place, path) in zip(tqdm(drawn, desc=f"logits bank {folder.name}", disable=not on_main()), waiting):
        steps = settings["steps"][place % len(settings["steps"])]
        items = _observe(signals, classifier, signal_model, steps, device, domain)
        with replacing(path) as partial:
            save_file({f"{k}/{name}": value.half().cpu().contiguous() for k, item in enumerate(items)
                       for name, value in item.items()}, partial)
    if on_main():
        write_json(folder / "index.json", index)
    ddp_barrier()
    return Bank(folder)


class _Drawn(Dataset):
    """Batches of degraded and clean signals, what a bank is made of."""

    def __init__(self, batches: Sequence[tuple[int, Sequence[int]]], rows: Sequence[Mapping[str, str]], pairs: Pairs,
                 seed: int):
        self.batches, self.rows, self.pairs, self.seed = batches, rows, pairs, seed

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, place: int) -> list[tuple[np.ndarray, np.ndarray]]:
        number, batch = self.batches[place]
        return [self.pairs(self.rows[i], np.random.default_rng([self.seed, number, i])) for i in batch]


@torch.no_grad()
def _observe(drawn: Sequence[tuple], classifier: nn.Module, signal_model: SignalModel, steps: int, device: str,
             domain: Domain) -> Iterable[dict[str, torch.Tensor]]:
    """What the classifier makes of each degraded signal, of its enhanced version and of the clean one."""
    noisy, lengths = domain.collate([pair[0] for pair in drawn])
    clean, _ = domain.collate([pair[1] for pair in drawn])
    noisy, clean, lengths = noisy.to(device), clean.to(device), None if lengths is None else lengths.to(device)
    enhanced, _ = signal_model.enhance(noisy, lengths, steps)
    heard = classifier(noisy, lengths)
    seen, known = (classifier(signals, lengths, like=heard) for signals in (enhanced, clean))
    parts = {"heard": heard.values, "seen": seen.values, "clean": known.values, "heard_hidden": heard.hidden,
             "seen_hidden": seen.hidden}
    items = {name: unpadded(values, heard.lengths) for name, values in parts.items()}
    return [dict(zip(items, values)) for values in zip(*items.values())]


def fixed_pairs(rate: int) -> Pairs:
    """The noisy and clean waveforms that a fixed noisy manifest names."""
    def read(row: Mapping[str, str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        noisy = read_row(row, rate)
        return noisy, read_clean(row, rate, len(noisy))
    return read


def degraded_pairs(rate: int, degrade: Callable) -> Pairs:
    """A new degradation of a clean utterance."""
    return lambda row, rng: degrade(read_row(row, rate), rng)
