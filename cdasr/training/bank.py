"""What the frozen recogniser makes of degraded, enhanced and clean versions of the training speech, kept on disk.

The recogniser and the signal process are frozen while the logits process is trained, so each of their outputs is
computed once: C(y), C(x_hat) and C(x0), values and hidden states, in half precision, one file a batch. Building goes on
where it was interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from speechbrain.utils.distributed import ddp_barrier
from torch.utils.data import Dataset
from tqdm import tqdm

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.provenance import write_json
from cdasr.speech.audio import read_audio
from cdasr.speech.manifest import read_clean
from cdasr.speech.signal_model import SignalModel
from cdasr.training.data import DurationBatchSampler
from cdasr.training.distributed import on_main, shard

Pairs = Callable[[Mapping[str, str], np.random.Generator], tuple[np.ndarray, np.ndarray]]  # row -> noisy, clean


class Bank(Dataset):
    """Items `{id, text, heard, seen, clean, heard_hidden, seen_hidden}`: (M, V) and (M, H) float32 each.

    `rows` say ID, duration and text of each item, as a manifest does.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder, self.epoch = Path(folder), 0
        self.rows = json.loads((self.folder / "index.json").read_text(encoding="utf-8"))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        with safe_open(self.folder / row["file"], "pt") as tensors:
            parts = {name: tensors.get_tensor(f"{row['place']}/{name}").float()
                     for name in ("heard", "seen", "clean", "heard_hidden", "seen_hidden")}
        return {"id": row["ID"], "text": row["text"], **parts}

    def clean_logits(self) -> Iterator[tuple[torch.Tensor, None]]:
        """C(x0) of every item, as `LogitsSpace.fit` takes them."""
        return ((self[index]["clean"], None) for index in range(len(self)))


def build_bank(folder: Path, rows: Sequence[Mapping[str, str]], pairs: Pairs, recogniser: CTCRecogniser,
               signal_model: SignalModel, settings: Mapping, seed: int, device: str) -> Bank:
    """The bank in `folder`, built where it is not there yet: `passes` degraded versions of each row.

    Each batch is enhanced with one of the numbers of `steps`, so that the logits process meets signal estimates of the
    quality that every strategy shows it.
    """
    index = []
    batches = [(number, batch) for number in range(settings["passes"]) for batch in DurationBatchSampler(
        [float(row["duration"]) for row in rows], settings["batch_seconds"], seed, epoch=number + 1)]
    folder.mkdir(parents=True, exist_ok=True)
    rank, processes = shard()
    for place, (number, batch) in enumerate(tqdm(batches, desc=f"logits bank {folder.name}", disable=not on_main())):
        path = folder / f"{place:06d}.safetensors"
        index += [{"ID": f"{rows[i]['ID']}-{number}", "duration": rows[i]["duration"], "text": rows[i]["text"],
                   "file": path.name, "place": str(k)} for k, i in enumerate(batch)]
        if path.is_file() or place % processes != rank:
            continue
        drawn = [pairs(rows[i], np.random.default_rng([seed, number, i])) for i in batch]
        steps = settings["steps"][place % len(settings["steps"])]
        items = _observe(drawn, recogniser, signal_model, steps, device)
        partial = path.with_suffix(".partial")
        save_file({f"{k}/{name}": value.half().cpu().contiguous() for k, item in enumerate(items)
                   for name, value in item.items()}, partial)
        os.replace(partial, path)
    if on_main():
        write_json(folder / "index.json", index)
    ddp_barrier()
    return Bank(folder)


@torch.no_grad()
def _observe(drawn: Sequence[tuple[np.ndarray, np.ndarray]], recogniser: CTCRecogniser, signal_model: SignalModel,
             steps: int, device: str) -> Iterable[dict[str, torch.Tensor]]:
    """What the recogniser makes of each noisy utterance, of its enhanced version and of the clean one."""
    lengths = torch.tensor([len(noisy) for noisy, _ in drawn], device=device)
    noisy, clean = (torch.nn.utils.rnn.pad_sequence([torch.from_numpy(pair[side]) for pair in drawn],
                                                    batch_first=True).to(device) for side in (0, 1))
    enhanced, _ = signal_model.enhance(noisy, lengths, steps)
    heard = recogniser(noisy, lengths)
    seen, known = (recogniser(waves, lengths, **heard.positions) for waves in (enhanced, clean))
    for k, frames in enumerate(heard.lengths.tolist()):
        yield {"heard": heard.values[k, :frames], "seen": seen.values[k, :frames], "clean": known.values[k, :frames],
               "heard_hidden": heard.hidden[k, :frames], "seen_hidden": seen.hidden[k, :frames]}


def fixed_pairs(rate: int) -> Pairs:
    """The noisy and clean waveforms that a fixed noisy manifest names."""
    def read(row: Mapping[str, str], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        noisy, _ = read_audio(row["wav"], rate)
        return noisy, read_clean(row, rate, len(noisy))
    return read


def degraded_pairs(rate: int, degrade: Callable) -> Pairs:
    """A new degradation of a clean utterance."""
    return lambda row, rng: degrade(read_audio(row["wav"], rate)[0], rng)
