"""Settings of tiny trainings as a recipe has them, and what several tests of trainings do."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import torch

from cdasr.speech.domain import SPEECH
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.speech.utterances import FixedPairs, Utterances, noisy_and_clean
from cdasr.training.coupled import fit_coupled
from cdasr.training.logits_cache import build_cache
from cdasr.training.signal import fit_signal
from tests.conftest import TRAINER

HPARAMS = {**TRAINER, "seed": 1, "epochs": 2, "lr": 2e-3, "warmup": 0.1, "ema_decay": 0.9, "batch_seconds": 1.5,
           "start_prob": 0.3, "magnitude_weight": 0.5, "conditions": {}, "excerpt_weight": 0.0,
           "recogniser_weight": 0.0}
RECOGNISER = {**TRAINER, "seed": 1, "sample_rate": 16_000, "units": "characters", "epochs": 1, "lr": 1e-3,
              "warmup": 0.1, "ema_decay": 0.5, "batch_seconds": 3.0, "speeds": [100], "curriculum": {}, "dropout": {}}
BANK = {"passes": 2, "batch_seconds": 2.0, "steps": [1, 2], "workers": 0}
LOGITS = {**HPARAMS, "epochs": 3, "kl_weight": 0.5, "sequence_weight": 1.0, "drop_seen": 0.2, "drop_hidden": 0.2,
          "positions": None}
COUPLED = {**LOGITS, "epochs": 2, "condition": 8, "condition_steps": 2, "swapped": 0.5, "logits_weight": 0.3,
           "recogniser_weight": 0.1, "scheduled_sampling_prob": 0.5, "validate": ["parallel"],
           "conditions": {"none": 0.3, "heard": 0.2, "estimate": 0.3, "noised": 0.2}}


def add_noise(wave, rng):
    return wave + 0.1 * rng.standard_normal(len(wave)).astype(np.float32), wave


def fingerprint(module) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in module.state_dict().values())).hexdigest()


def log(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def noisy_speech(rows, degrade, seed, rate=16_000):
    """Utterances that `degrade(wave, rng) -> noisy, clean` degrades on the fly."""
    return Utterances(rows, rate, seed, True, noisy_and_clean(degrade))


def train_signal(config, recogniser, train_rows, valid_rows, folder, hparams, degrade, device, start=None):
    """A signal process, trained on clean rows that `degrade` degrades and validated on noisy rows."""
    torch.manual_seed(hparams["seed"])
    model, train = SpectrogramModel.from_config(config), noisy_speech(train_rows, degrade, hparams["seed"])
    return fit_signal(model, recogniser, SPEECH, train, FixedPairs(valid_rows, 16_000), folder, hparams, device, start)


def train_coupled(signal, logits, recogniser, train_rows, valid_rows, folder, hparams, degrade, device):
    """Both processes, trained together on clean rows that `degrade` degrades and validated on noisy rows."""
    return fit_coupled(signal, logits, recogniser, SPEECH, noisy_speech(train_rows, degrade, hparams["seed"]),
                       FixedPairs(valid_rows, 16_000), folder, hparams, device)


def cache_of(folder, rows, degrade, recogniser, signal, settings, seed=3):
    """The logits of rows that `degrade` degrades; of noisy rows as they are where it is None."""
    items = FixedPairs(rows, 16_000) if degrade is None else noisy_speech(rows, degrade, seed)
    return build_cache(folder, items, recogniser, signal, settings, seed, "cpu", SPEECH)
