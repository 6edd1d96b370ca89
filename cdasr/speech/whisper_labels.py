"""What a Whisper that is trained further is to write: its own answers to clean speech, kept on disk, or transcripts.

Answers C(x0) of the frozen recogniser need no transcripts, so that all clean speech serves, and they are what the
logits process learns from, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from speechbrain.utils.distributed import ddp_barrier
from torch import Tensor
from tqdm import tqdm

from cdasr.classifiers.fallback import quality
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from cdasr.runtime.atomic import write_json
from cdasr.runtime.plain_data import read_json
from cdasr.speech.segments import collate_waves
from cdasr.speech.utterances import Utterances, read_joined
from cdasr.training.distributed import on_main, shard

IGNORED = -100  # label of a position without loss, as cross-entropy knows it


@dataclass(frozen=True)
class Label:
    """The `tokens` of an item, the end of text included where it was reached, after `prefix` of them that are given."""

    tokens: list[int]
    prefix: int

    def tensors(self) -> dict[str, Tensor]:
        """The decoder's input `tokens` (L,) and what it is to write after each of them, `labels` (L,)."""
        tokens = torch.tensor(self.tokens)
        labels = tokens[1:].clone()
        labels[:self.prefix - 1] = IGNORED
        return {"tokens": tokens[:-1], "labels": labels}


class LabelledUtterances(Utterances):
    """Items of `Utterances` with the tensors of their labels. Each costs, and counts as, a `window` in seconds."""

    def __init__(self, rows: Sequence[Mapping], labels: Sequence[Label], rate: int, seed: int, transform,
                 window: float):
        super().__init__([{**row, "duration": window} for row in rows], rate, seed, True, transform)
        self.labels = labels

    def __getitem__(self, index: int) -> dict:
        return {**super().__getitem__(index), **self.labels[index].tensors()}


def clean_answers(recogniser: WhisperDecoderRecogniser, rows: Sequence[Mapping], folder: Path, batch_items: int,
                  device: str) -> list[Label | None]:
    """What the frozen `recogniser` writes for each clean row, decoded once, in files of `folder`, one a batch.

    None where the answer repeats itself or was cut off: that is nothing to learn. Decoding goes on where it was
    interrupted; under torchrun each process takes its share.
    """
    order = sorted(range(len(rows)), key=lambda place: float(rows[place]["duration"]))
    batches = [order[start:start + batch_items] for start in range(0, len(order), batch_items)]
    paths = [folder / f"{place:06d}.json" for place in range(len(batches))]
    rank, processes = shard()
    waiting = [place for place in range(rank, len(batches), processes)
               if not _holds(paths[place], [rows[index] for index in batches[place]])]
    for place in tqdm(waiting, desc="clean answers", disable=not on_main()):
        write_json(paths[place], _decoded(recogniser, [rows[index] for index in batches[place]], device))
    ddp_barrier()
    found: list[Label | None] = [None] * len(rows)
    for batch, path in zip(batches, paths):
        for index, answer in zip(batch, read_json(path, list, called=path)):
            found[index] = Label(answer["tokens"], answer["prefix"]) if answer["kept"] else None
    return found


def _holds(path: Path, rows: Sequence[Mapping]) -> bool:
    """Whether a file has the answers to these rows, and not those of other batches."""
    return path.is_file() and [answer["IDs"] for answer in read_json(path, list, called=path)] == list(map(_ids, rows))


def _ids(row: Mapping) -> list[str]:
    return [part["ID"] for part in row.get("parts", [row])]


@torch.no_grad()
def _decoded(recogniser: WhisperDecoderRecogniser, rows: Sequence[Mapping], device: str) -> list[dict]:
    waves = [torch.from_numpy(read_joined(row, recogniser.sample_rate)) for row in rows]
    clean, lengths = collate_waves(waves)
    answer = recogniser(clean.to(device), lengths.to(device))
    prefix = answer.tokens.shape[1] - answer.values.shape[1]
    kept = ~quality(answer)[0]
    return [{"IDs": _ids(row), "prefix": prefix, "kept": good, "tokens": tokens[:prefix + length]}
            for row, good, tokens, length in zip(rows, kept.tolist(), answer.tokens.tolist(), answer.lengths.tolist())]


def transcripts(recogniser: WhisperDecoderRecogniser, rows: Sequence[Mapping], device: str) -> list[Label | None]:
    """The transcripts of rows; None where there is none, or where it is longer than the decoder takes.

    Those in capitals alone become lower case. The prefix is that which the recogniser puts before its own answers.
    """
    most = recogniser.model.config.max_target_positions
    shortest = min(rows, key=lambda row: float(row["duration"]))
    before = _decoded(recogniser, [shortest], device)[0]
    prefix = before["tokens"][:before["prefix"]]

    def label(text: str) -> Label | None:
        text = text.lower() if text.isupper() else text
        words = recogniser.processor.tokenizer(f" {text.strip()}", add_special_tokens=False).input_ids
        tokens = [*prefix, *words, recogniser.ends[0]]
        return Label(tokens, len(prefix)) if text.strip() and len(tokens) <= most else None
    return [label(row["text"]) for row in rows]
