"""Training data of speech: utterances of a manifest, degraded or augmented on the fly.

Everything random about an item follows from (seed, epoch, index): a run that was interrupted and resumed sees exactly
the data that the uninterrupted one would have seen, with any number of loader workers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Dataset

from cdasr.speech.audio import fit_length
from cdasr.speech.manifest import read_clean, read_row


class Utterances(Dataset):
    """Rows of a manifest as items `{id, text, ...}` plus the tensors that `transform(wave, rng)` makes of the audio.

    `transform` gets mono float32 `(samples,)` at `rate` Hz and returns a dict of 1-D arrays. With `train=False` an
    item is the same in every epoch.
    """

    def __init__(self, rows: Sequence[Mapping[str, str]], rate: int, seed: int, train: bool,
                 transform: Callable[[np.ndarray, np.random.Generator], Mapping[str, np.ndarray]],
                 encode: Callable[[str], list[int]] | None = None):
        self.rows, self.rate, self.seed, self.train = list(rows), rate, seed, train
        self.transform, self.encode = transform, encode
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        rng = np.random.default_rng([self.seed, self.epoch if self.train else 0, index])
        wave = read_joined(row, self.rate)
        item = {"id": row["ID"], "text": row["text"]}
        item.update((key, torch.from_numpy(value)) for key, value in self.transform(wave, rng).items())
        if self.encode is not None:
            item["tokens"] = torch.tensor(self.encode(row["text"]))
        return item


def read_joined(row: Mapping, rate: int) -> np.ndarray:
    """The waveform (samples,) of a row at `rate` Hz: of its own recording, or of its `parts`, one after the other."""
    return np.concatenate([read_row(part, rate) for part in row["parts"]]) if "parts" in row else read_row(row, rate)


def joined_rows(rows: Sequence[Mapping[str, str]], longest: float, seed: int) -> list[dict]:
    """Rows of several utterances (`parts`) one after the other, each of up to `longest` seconds; in all each row once.

    A recogniser that takes windows of a fixed length, as Whisper does, hears one of them in the time of one utterance.
    Lengths are drawn at random, so that short items are among them. Neighbours are of one speaker where rows say whose
    they are (`spk_id`).
    """
    rng = np.random.default_rng([seed, len(rows)])
    order = sorted(rng.permutation(len(rows)), key=lambda place: str(rows[place].get("spk_id", "")))
    groups, room = [], 0.0
    for row in (rows[place] for place in order):
        seconds = float(row["duration"])
        if seconds > room:
            groups.append([])
            room = max(seconds, rng.uniform(0.0, longest))
        groups[-1].append(row)
        room -= seconds
    return [parts[0] if len(parts) == 1 else
            {"ID": f"{parts[0]['ID']}+{len(parts) - 1}", "duration": sum(float(part["duration"]) for part in parts),
             "text": " ".join(part["text"] for part in parts), "parts": parts} for parts in map(list, groups)]


def noisy_and_clean(degrade: Callable) -> Callable[[np.ndarray, np.random.Generator], dict[str, np.ndarray]]:
    """`degrade(clean, rng) -> noisy, clean` as a transform of `Utterances`."""
    return lambda wave, rng: dict(zip(("noisy", "clean"), degrade(wave, rng)))


class PairedUtterances(Utterances):
    """Items `{id, text, noisy, clean}`: degraded by `transform`, or, with `pair_prob`, as the corpus has them.

    A row with a `noisy_wav` is such a pair: the same utterance with noise, aligned with `wav`.
    """

    def __init__(self, rows, rate: int, seed: int, transform, pair_prob: float):
        super().__init__(rows, rate, seed, True, transform)
        self.pair_prob = pair_prob

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        rng = np.random.default_rng([self.seed, self.epoch, index, 1])  # not the stream of `transform`
        if not row.get("noisy_wav") or rng.random() >= self.pair_prob:
            return super().__getitem__(index)
        noisy = read_row({**row, "wav": row["noisy_wav"]}, self.rate)
        return {"id": row["ID"], "text": row["text"], "noisy": torch.from_numpy(noisy),
                "clean": torch.from_numpy(fit_length(read_row(row, self.rate), len(noisy)))}


class FixedPairs(Utterances):
    """Items `{id, text, noisy, clean}` of a fixed noisy manifest; rows without a clean reference are left out.

    Raises ValueError where no row has one.
    """

    def __init__(self, rows, rate: int):
        pairs = [row for row in rows if row.get("clean_wav")]
        if not pairs:
            raise ValueError(f"none of the {len(rows)} rows of the noisy validation set has a clean_wav; training is "
                             "validated on pairs of noisy and clean speech, add some")
        super().__init__(pairs, rate, seed=0, train=False, transform=lambda wave, rng: {"noisy": wave})

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return {**item, "clean": torch.from_numpy(read_clean(self.rows[index], self.rate, len(item["noisy"])))}
