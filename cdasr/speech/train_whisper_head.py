"""Stage 2 with Whisper: a CTC head on its frozen encoder, trained on clean speech, then frozen too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from torch.nn import functional as F

from cdasr.classifiers.whisper_ctc import CTCHead, WhisperCTCRecogniser, load_encoder
from cdasr.speech.normalisers import PLAIN, Normaliser
from cdasr.speech.train_recogniser import RecogniserTrainer, clean_speech, make_processor, unpad
from cdasr.training.distributed import on_main


class WhisperHeadTrainer(RecogniserTrainer):
    """CTC training of the head alone. The encoder runs in its own precision, each utterance as 30 s."""

    unused_parameters = False

    def __init__(self, frozen: WhisperCTCRecogniser, head: CTCHead, output_dir: Path, hparams: dict, device: str,
                 normalise: Normaliser = PLAIN):
        super().__init__(head, frozen.processor, output_dir, hparams, device, normalise)
        self.frozen = frozen.to(device)

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        waves = self.perturb_speed(batch.wave.data)
        lengths = (batch.wave.lengths * waves.shape[1]).round().long()
        frames = self.frozen.frame_lengths(lengths)
        with torch.no_grad(), torch.autocast(torch.device(self.device).type, enabled=False):
            states = self.frozen.encode(waves, lengths)
        scores = self.modules.network(states, frames).float().log_softmax(dim=-1)
        labels = unpad(batch.tokens)
        sizes = torch.tensor([len(row) for row in labels], device=frames.device)
        return F.ctc_loss(scores.transpose(0, 1), torch.cat(labels), frames, sizes, self.frozen.blank,
                          zero_infinity=True)

    def recogniser(self, networks) -> WhisperCTCRecogniser:
        return self.frozen.with_head(networks.network)


def train_whisper_head(name_or_dir: str | os.PathLike, train_rows, valid_rows, output_dir: Path, hparams: dict, augment,
                       device: str, options: Mapping | None = None,
                       normalise: Normaliser = PLAIN) -> WhisperCTCRecogniser:
    """Train a head on clean rows, save it under `output_dir/model`, which names the encoder, and return the recogniser.

    `hparams["head"]`: options of `CTCHead`; the others and `normalise` as in `train_recogniser`. `options`: those of
    the encoder.
    Raises ValueError for what is no Whisper model, or one of another sampling rate.
    """
    torch.manual_seed(hparams["seed"])
    encoder, extractor, source = load_encoder(name_or_dir, **(options or {}))
    if extractor.sampling_rate != hparams["sample_rate"]:
        raise ValueError(f"{name_or_dir} takes {extractor.sampling_rate} Hz, the recipe's sample_rate is "
                         f"{hparams['sample_rate']} Hz")
    tokenizer = make_processor((row["text"] for row in train_rows), output_dir / "tokenizer", extractor.sampling_rate,
                               hparams["units"]).tokenizer
    head = CTCHead(encoder.config.num_hidden_layers + 1, encoder.config.d_model, len(tokenizer), **hparams["head"])
    frozen = WhisperCTCRecogniser(encoder, deepcopy(head), extractor, tokenizer, source)
    trainer = WhisperHeadTrainer(frozen, head, output_dir, hparams, device, normalise)
    best = trainer.run(*clean_speech(train_rows, valid_rows, hparams, augment, tokenizer))
    recogniser = WhisperCTCRecogniser(encoder, best.network, extractor, tokenizer, source)
    if on_main():
        recogniser.save_pretrained(output_dir / "model")
    return recogniser
