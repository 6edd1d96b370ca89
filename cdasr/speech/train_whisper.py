"""The control `retrained` with Whisper's own decoder: a copy of the recogniser, fine-tuned on degraded speech."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import speechbrain as sb
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from cdasr.speech.normalisers import PLAIN, Normaliser
from cdasr.speech.padded_data import sample_lengths, unpad
from cdasr.speech.utterances import Utterances, joined_rows
from cdasr.speech.whisper_labels import IGNORED, Label, LabelledUtterances, clean_answers, transcripts
from cdasr.speech.words import word_errors
from cdasr.training.base import Trainer
from cdasr.training.data import batch_limit
from cdasr.training.distributed import on_main


class WhisperTrainer(Trainer):
    """Cross-entropy of given tokens on degraded speech; validation is the word error rate of the real decoding.

    The window of 30 s is encoded whole, as it is in use, with the frozen recogniser's spectrogram.
    """

    def __init__(self, network: nn.Module, frozen: WhisperDecoderRecogniser, output_dir: Path, hparams: dict,
                 device: str = "cpu", normalise: Normaliser = PLAIN):
        super().__init__({"network": network}, output_dir, hparams, device)
        self.frozen, self.normalise = frozen.to(device), normalise

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        with torch.no_grad(), torch.autocast(torch.device(self.device).type, enabled=False):
            features = self.frozen.log_mel(batch.noisy.data, sample_lengths(batch.noisy))
        tokens = pad_sequence(unpad(batch.tokens), batch_first=True, padding_value=self.frozen.ends[0])
        return self.modules.network(input_features=features, decoder_input_ids=tokens, use_cache=False).logits

    def compute_objectives(self, predictions: Tensor, batch, stage):
        labels = pad_sequence(unpad(batch.labels), batch_first=True, padding_value=IGNORED)
        return F.cross_entropy(predictions.float().transpose(1, 2), labels, ignore_index=IGNORED)

    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        if stage != sb.Stage.TRAIN:
            model = deepcopy(self.ema.module.network).to(self.frozen.model.dtype)  # as it will be used
            self.recogniser = self.frozen.with_model(model)

    def validate_batch(self, batch, networks):
        heard = self.recogniser(batch.noisy.data, sample_lengths(batch.noisy)).texts()
        counts = [word_errors(text, answer, self.normalise) for text, answer in zip(batch.text, heard)]
        return {"errors": sum(count[0] for count in counts), "words": sum(count[1] for count in counts)}

    def summarise(self, sums):
        return {"wer": 100.0 * sums["errors"] / sums["words"]}


def retrain_whisper(frozen: WhisperDecoderRecogniser, start: nn.Module, train_rows: Sequence[Mapping],
                    valid_rows: Sequence[Mapping], output_dir: Path, hparams: dict, transform, slowest: float,
                    device: str, normalise: Normaliser = PLAIN) -> WhisperDecoderRecogniser:
    """Train a copy of the model `start`, the `frozen` recogniser's in float32; save it as `output_dir/model`.

    `transform(wave, rng)` gives `{noisy}` of the clean training rows, played at `slowest` of their speed or faster;
    `valid_rows` are noisy. `hparams["parts"]` says what learns; `labels` and `joined_seconds` as in `labelled_items`.
    Raises ValueError where no row serves.
    """
    window = frozen.log_mel.window_samples / frozen.sample_rate
    items, labels = labelled_items(frozen.to(device), train_rows, output_dir / "answers", hparams, window * slowest,
                                   max(1, int(batch_limit(hparams) // window)), device)
    train = LabelledUtterances(items, labels, frozen.sample_rate, hparams["seed"], transform, window)
    valid = Utterances([{**row, "duration": window} for row in valid_rows], frozen.sample_rate, 0, False,
                       lambda wave, rng: {"noisy": wave})
    torch.manual_seed(hparams["seed"])
    network = learning(deepcopy(start), hparams["parts"])
    best = WhisperTrainer(network, frozen, output_dir, hparams, device, normalise).run(train, valid)
    tuned = frozen.with_model(best.network)
    if on_main():
        tuned.save_pretrained(output_dir / "model")
    return tuned


def labelled_items(frozen: WhisperDecoderRecogniser, rows: Sequence[Mapping], folder: Path, hparams: Mapping,
                   longest: float, batch_items: int, device: str) -> tuple[list[Mapping], list[Label]]:
    """Clean rows of at most `longest` seconds, joined up to `joined_seconds`, and what is to be written for each.

    `hparams["labels"]`: `clean`, the answers of `frozen`, kept in `folder`, or `transcripts`. Raises ValueError where
    no row serves.
    """
    by_text = hparams["labels"] == "transcripts"
    usable = [row for row in rows if float(row["duration"]) <= longest and (row["text"].strip() or not by_text)]
    if not usable:
        raise ValueError(f"none of the {len(rows)} training rows serves: they may have {longest:.1f} s at most"
                         + (" and need a transcript (retrained.labels)" if by_text else ""))
    items = joined_rows(usable, min(hparams["joined_seconds"], longest), hparams["seed"])
    labels = (transcripts(frozen, items, device) if by_text
              else clean_answers(frozen, items, folder, batch_items, device))
    pairs = [(item, label) for item, label in zip(items, labels) if label is not None]
    if on_main():
        print(f"retrained: {len(usable)} of {len(rows)} utterances in {len(items)} items, {len(pairs)} of them with "
              "labels", flush=True)
    if not pairs:
        raise ValueError(f"none of the {len(items)} training items has a label; see retrained.labels")
    return [item for item, _ in pairs], [label for _, label in pairs]


def learning(network: nn.Module, parts: str) -> nn.Module:
    """The network, of which the `encoder` or `all` can learn; the encoder's sinusoids stay as transformers has them."""
    network.requires_grad_(parts == "all")
    network.get_encoder().requires_grad_(True)
    network.get_encoder().embed_positions.requires_grad_(False)
    return network
