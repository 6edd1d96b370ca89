"""Stage 2 of a recipe that has no published recogniser: a Wav2Vec2ForCTC trained on clean speech, then frozen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from scipy import fft
from speechbrain.augment.time_domain import SpeedPerturb
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from cdasr.classifiers.ctc import CTCRecogniser, normalise_waves
from cdasr.classifiers.padding import as_if_alone, maskable
from cdasr.speech.normalisers import PLAIN, Normaliser
from cdasr.speech.padded_data import sample_lengths, unpad
from cdasr.speech.utterances import Utterances
from cdasr.speech.words import word_errors
from cdasr.training.base import Trainer
from cdasr.training.distributed import on_main

SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "|")  # the order of wav2vec2's own vocabularies; <pad> is the blank


def make_processor(texts: Iterable[str], folder: Path, rate: int, units: str = "characters"):
    """A wav2vec2 processor whose vocabulary is the upper-case characters of `texts`, or their words.

    Whole words suit small vocabularies, as the digit models of Aurora-2; characters any other.
    """
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    if units not in ("characters", "words"):
        raise ValueError(f"unknown units {units!r}; known: characters, words")
    words = " ".join(texts).upper().split()
    tokens = sorted(set(words) if units == "words" else set("".join(words)))
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({token: index for index, token in enumerate((*SPECIALS, *tokens))}))
    tokenizer = Wav2Vec2CTCTokenizer(str(vocabulary), do_lower_case=False)
    extractor = Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=rate, padding_value=0.0, do_normalize=True,
                                         return_attention_mask=True)
    return Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)


def make_model(settings: Mapping, processor) -> nn.Module:
    """A Wav2Vec2ForCTC with random weights; `settings` are Wav2Vec2Config's own names."""
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    return Wav2Vec2ForCTC(Wav2Vec2Config(
        vocab_size=len(processor.tokenizer), pad_token_id=processor.tokenizer.pad_token_id,
        num_feat_extract_layers=len(settings["conv_dim"]), ctc_loss_reduction="mean", ctc_zero_infinity=True,
        **settings))


class RecogniserTrainer(Trainer):
    """CTC training on clean speech; validation is the word error rate of greedy decoding."""

    unused_parameters = True  # the embedding of masked frames, where nothing is masked

    def __init__(self, network: nn.Module, processor, output_dir: Path, hparams: dict, device: str = "cpu",
                 normalise: Normaliser = PLAIN):
        super().__init__({"network": network}, output_dir, hparams, device)
        self.processor, self.normalise = processor, normalise
        self.perturb_speed = SpeedPerturb(hparams["sample_rate"], hparams["speeds"])

    @property
    def curriculum(self) -> dict[int, float]:
        return self.hparams.curriculum

    def on_stage_start(self, stage, epoch=None):
        super().on_stage_start(stage, epoch)
        if schedule := self.hparams.dropout:
            for module in self.modules.network.modules():
                if isinstance(module, nn.Dropout):
                    module.p = dropout_rate(schedule, epoch or 1)

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        waves = self.perturb_speed(batch.wave.data)
        lengths = (batch.wave.lengths * waves.shape[1]).round().long()
        mask = torch.arange(waves.shape[1], device=self.device) < lengths[:, None]
        if self.processor.feature_extractor.do_normalize:
            waves = normalise_waves(waves, mask)
        labels = pad_sequence(unpad(batch.tokens), batch_first=True, padding_value=-100)
        model = getattr(self.modules.network, "module", self.modules.network)  # inside DDP
        frames = model._get_feat_extract_output_lengths(lengths)
        with as_if_alone(model, lengths, frames) if maskable(model.config) else nullcontext():
            return self.modules.network(waves, attention_mask=mask.long(), labels=labels).loss

    def compute_objectives(self, predictions, batch, stage):
        return predictions

    def recogniser(self, networks: nn.ModuleDict) -> CTCRecogniser:
        """The recogniser with the weights of `networks`."""
        return CTCRecogniser(networks.network, self.processor)

    def transcripts(self, batch, networks: nn.ModuleDict) -> list[str]:
        """What the recogniser with the weights of `networks` hears in a batch."""
        recogniser = self.recogniser(networks)
        logits = recogniser(batch.wave.data, sample_lengths(batch.wave))
        return recogniser.decode(logits.values, logits.lengths)

    def validate_batch(self, batch, networks):
        counts = [word_errors(text, heard, self.normalise)
                  for text, heard in zip(batch.text, self.transcripts(batch, networks))]
        return {"errors": sum(count[0] for count in counts), "words": sum(count[1] for count in counts)}

    def summarise(self, sums):
        return {"wer": 100.0 * sums["errors"] / sums["words"]}


def train_recogniser(train_rows, valid_rows, output_dir: Path, hparams: dict, augment, device: str,
                     start: CTCRecogniser | None = None, normalise: Normaliser = PLAIN) -> CTCRecogniser:
    """Train on clean rows, save with `save_pretrained` under `output_dir/model`, and return the frozen recogniser.

    `augment(wave, rng)` varies a clean waveform; validation is not augmented, and compares texts after `normalise`.
    Training begins with a copy of `start` where one is given, else with random weights. Raises ValueError for a `start`
    that is no `CTCRecogniser` itself.
    """
    if start is not None and type(start) is not CTCRecogniser:
        raise ValueError(f"a {type(start).__name__} cannot be trained further; leave `retrained` out of the controls")
    torch.manual_seed(hparams["seed"])
    rate = hparams["sample_rate"]
    processor = start.processor if start else make_processor(
        (row["text"] for row in train_rows), output_dir / "tokenizer", rate, hparams["units"])
    network = deepcopy(start.model).requires_grad_(True) if start else make_model(hparams["model"], processor)
    trainer = RecogniserTrainer(network, processor, output_dir, hparams, device, normalise)
    best = trainer.run(*clean_speech(train_rows, valid_rows, hparams, augment, processor.tokenizer))
    recogniser = CTCRecogniser(best.network, processor)
    if on_main():
        recogniser.save_pretrained(output_dir / "model")
    return recogniser


def clean_speech(train_rows, valid_rows, hparams: Mapping, augment, tokenizer) -> tuple[Utterances, Utterances]:
    """Training data, varied by `augment(wave, rng)`, and validation data as it is, with labels of `tokenizer`."""
    rate, seed = hparams["sample_rate"], hparams["seed"]
    encode = label_encoder(tokenizer, hparams["units"])
    return (Utterances(train_rows, rate, seed, True, lambda wave, rng: {"wave": augment(wave, rng)}, encode),
            Utterances(valid_rows, rate, seed, False, lambda wave, rng: {"wave": wave}, encode))


def label_encoder(tokenizer, units: str = "characters") -> Callable[[str], list[int]]:
    """Text to the ids of its words or characters, in the case that the vocabulary is written in."""
    lower = any(token.islower() for token in tokenizer.get_vocab() if token not in tokenizer.all_special_tokens)
    delimiter = tokenizer.word_delimiter_token

    def encode(text: str) -> list[int]:
        words = (text.lower() if lower else text.upper()).split()
        tokens = f" {delimiter} ".join(words).split() if units == "words" else list((delimiter or "").join(words))
        return tokenizer.convert_tokens_to_ids(tokens)
    return encode


def dropout_rate(schedule: Mapping[int, float], epoch: int) -> float:
    """The rate of the phase that `epoch` is in; `schedule` maps the last epoch of each phase to its rate.

    CTC takes off sooner without dropout, and generalises better with it: first the one, then the other.
    """
    return schedule[min((last for last in schedule if epoch <= last), default=max(schedule))] if schedule else 0.0


class CleanAugment:
    """Variation that stays clean speech: level, microphone channel, a faint room floor.

    The floor is `floor_snr` dB below the speech: a recogniser trained on digital silence breaks at any floor.
    """

    def __init__(self, rate: int, level_db=(-32.0, -14.0), floor_snr=(28.0, 55.0), channel_db=6.0):
        self.rate, self.level_db = rate, level_db
        self.floor_snr, self.channel_db = floor_snr, channel_db

    def __call__(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        samples, size = len(wave), fft.next_fast_len(len(wave), real=True)
        frequencies = fft.rfftfreq(size, 1 / self.rate)
        knots = np.geomspace(60, self.rate / 2, 7)
        gain = np.interp(np.log(np.maximum(frequencies, 1.0)), np.log(knots),
                         rng.uniform(-self.channel_db, self.channel_db, len(knots)))
        wave = fft.irfft(fft.rfft(wave, size) * 10 ** (gain / 20), size)[:samples]
        tilt = np.maximum(frequencies, 50.0) ** -rng.uniform(0.0, 1.0)
        floor = fft.irfft(fft.rfft(rng.standard_normal(size)) * tilt, size)[:samples]
        rms = np.sqrt(np.mean(wave**2)) + 1e-8
        wave = wave + floor * rms / (np.sqrt(np.mean(floor**2)) + 1e-8) * 10 ** (-rng.uniform(*self.floor_snr) / 20)
        return (wave / rms * 10 ** (rng.uniform(*self.level_db) / 20)).astype(np.float32)
