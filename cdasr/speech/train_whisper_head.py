"""Stage 2 with Whisper: a CTC head on its frozen encoder, trained on clean speech, then frozen too.

The encoder takes nearly all of the time. Its states can be kept on disk (`kept_states`): a pass over the speech, or
several of which each varies the speech anew, then serve for all epochs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from speechbrain.augment.freq_domain import SpectrogramDrop
from torch import Tensor
from torch.nn import functional as F

from cdasr.classifiers.whisper_ctc import CTCHead, WhisperCTCRecogniser
from cdasr.classifiers.whisper_loading import load_encoder
from cdasr.coupled.models import unpadded
from cdasr.speech.normalisers import PLAIN, Normaliser
from cdasr.speech.padded_data import sample_lengths, unpad
from cdasr.speech.segments import collate_waves
from cdasr.speech.train_recogniser import RecogniserTrainer, clean_speech, make_processor
from cdasr.speech.utterances import Utterances, joined_rows
from cdasr.training.data import batch_limit
from cdasr.training.disk_cache import DiskCache, batches_of_passes, fill_cache
from cdasr.training.distributed import on_main


class WhisperHeadTrainer(RecogniserTrainer):
    """CTC training of the head alone. The encoder runs in its own precision, each utterance as 30 s.

    Items have a `wave`, or the `states` of the encoder.
    """

    unused_parameters = False

    def __init__(self, frozen: WhisperCTCRecogniser, head: CTCHead, output_dir: Path, hparams: dict, device: str,
                 normalise: Normaliser = PLAIN):
        super().__init__(head, frozen.processor, output_dir, hparams, device, normalise)
        self.frozen, spans = frozen.to(device), hparams["masked_spans"]
        self.mask = SpectrogramDrop(5, 16, spans, spans, dim=1) if spans else None

    def compute_forward(self, batch, stage):
        states, frames = self._states(batch.to(self.device), varied=True)
        scores = self.modules.network(states, frames).float().log_softmax(dim=-1)
        labels = unpad(batch.tokens)
        sizes = torch.tensor([len(row) for row in labels], device=frames.device)
        return F.ctc_loss(scores.transpose(0, 1), torch.cat(labels), frames, sizes, self.frozen.blank,
                          zero_infinity=True)

    def _states(self, batch, varied: bool) -> tuple[Sequence[Tensor], Tensor]:
        """The encoder's states, each (B, M, H), and their lengths; `varied`: as in training."""
        if hasattr(batch, "states"):
            states, frames = batch.states.data.unbind(dim=2), sample_lengths(batch.states)
        else:
            waves = self.perturb_speed(batch.wave.data) if varied else batch.wave.data
            lengths = (batch.wave.lengths * waves.shape[1]).round().long()
            frames = self.frozen.frame_lengths(lengths)
            with torch.no_grad(), torch.autocast(torch.device(self.device).type, enabled=False):
                states = self.frozen.encode(waves, lengths)
        if varied and self.mask is not None:  # the same frames of all layers
            states = self.mask(torch.cat(tuple(states), dim=-1)).chunk(len(states), dim=-1)
        return states, frames

    def recogniser(self, networks) -> WhisperCTCRecogniser:
        return self.frozen.with_head(networks.network)

    def transcripts(self, batch, networks):
        states, frames = self._states(batch, varied=False)
        return self.frozen.decode(networks.network(states, frames), frames)


def train_whisper_head(name_or_dir: str | os.PathLike, train_rows, valid_rows, output_dir: Path, hparams: dict, augment,
                       device: str, options: Mapping | None = None,
                       normalise: Normaliser = PLAIN) -> WhisperCTCRecogniser:
    """Train a head on clean rows, save it under `output_dir/model`, which names the encoder, and return the recogniser.

    `hparams["head"]`: options of `CTCHead`; `kept_states` and `masked_spans` are explained in recipe/base.yaml; the
    others and `normalise` as in `train_recogniser`. `options`: those of the encoder.
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
    frozen = WhisperCTCRecogniser(encoder, deepcopy(head), extractor, tokenizer, source, hparams["windows"])
    trainer = WhisperHeadTrainer(frozen, head, output_dir, hparams, device, normalise)
    data = clean_speech(train_rows, valid_rows, hparams, augment, tokenizer)
    if hparams["kept_states"]:
        data = kept_states(output_dir / "bank", *data, trainer)
    best = trainer.run(*data)
    recogniser = frozen.with_head(best.network)
    if on_main():
        recogniser.save_pretrained(output_dir / "model")
    return recogniser


# -- states on disk -----------------------------------------------------------------------------------------------


class EncoderStates(DiskCache):
    """Items `{id, text, tokens, states}`: the encoder's states (M, layers, H) float32 of an utterance."""

    def __init__(self, folder: Path, encode: Callable[[str], list[int]]):
        super().__init__(folder)
        self.encode = encode

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        return {"id": row["ID"], "text": row["text"], "tokens": torch.tensor(self.encode(row["text"])),
                **self._read(row, "states")}


def kept_states(folder: Path, train: Utterances, valid: Utterances,
                trainer: WhisperHeadTrainer) -> tuple[EncoderStates, EncoderStates]:
    """The encoder's states of both sets, computed where `folder` does not hold them yet.

    There is a pass over the training utterances for each number of `kept_states`, which are joined up to so many
    seconds; with 0 each is by itself. A head that knew nothing but the first seconds of Whisper's window would fail
    behind them.
    """
    settings = trainer.hparams
    rows = [row for number, longest in enumerate(settings.kept_states) for row in (
        joined_rows(train.rows, longest, settings.seed + number) if longest else train.rows)]
    varied = Utterances(rows, train.rate, train.seed, True, train.transform, train.encode)
    for name, items, perturb in (("train", varied, trainer.perturb_speed), ("valid", valid, None)):
        batches = batches_of_passes(items.rows, 1, batch_limit(vars(settings)), settings.seed)
        fill_cache(folder / name, items, batches, "text", settings.workers, _encoder(trainer.frozen, perturb,
                                                                                     settings.seed))
    return EncoderStates(folder / "train", train.encode), EncoderStates(folder / "valid", valid.encode)


def _encoder(frozen: WhisperCTCRecogniser, perturb: Callable[[Tensor], Tensor] | None,
             seed: int) -> Callable[[int, Sequence[Mapping]], Iterable[dict[str, Tensor]]]:
    """What `fill_cache` calls: the states of a batch, normalised in every frame as the head takes them.

    Their numbers may then be kept in half precision. `perturb` changes the speed of a batch.
    """
    @torch.no_grad()
    def make(number: int, drawn: Sequence[Mapping]) -> Iterable[dict[str, Tensor]]:
        waves, lengths = collate_waves([item["wave"] for item in drawn])
        if perturb is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed * 1_000_003 + number)
                changed = perturb(waves)
            lengths = (lengths * (changed.shape[1] / waves.shape[1])).round().long()
            waves = changed
        waves, lengths = waves.to(frozen.features.window.device), lengths.to(frozen.features.window.device)
        states = torch.stack([F.layer_norm(state, state.shape[-1:]) for state in frozen.encode(waves, lengths)], dim=2)
        return [{"states": item} for item in unpadded(states, frozen.frame_lengths(lengths))]
    return make
