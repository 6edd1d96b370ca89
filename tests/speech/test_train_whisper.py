"""The control `retrained` of Whisper's decoder: a copy learns from the frozen one's answers to clean speech."""


import pytest
import torch

from cdasr.classifiers.load import load_recogniser
from cdasr.speech.train_whisper import retrain_whisper
from cdasr.speech.whisper_labels import clean_answers
from tests.classifiers.whisper import make_whisper
from tests.conftest import TRAINER
from tests.training.helpers import add_noise, fingerprint, log

HPARAMS = {**TRAINER, "seed": 1, "epochs": 3, "lr": 3e-3, "warmup": 0.1, "ema_decay": 0.5, "batch_seconds": 4.0,
           "labels": "clean", "parts": "encoder", "joined_seconds": 1.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def noisy(wave, rng):
    return {"noisy": add_noise(wave, rng)[0]}


def train(corpus, folder, output_dir, frozen=None, **changes):
    frozen, start = frozen or load_recogniser(folder), load_recogniser(folder).model
    return retrain_whisper(frozen, start, *corpus, output_dir, {**HPARAMS, **changes}, noisy, 0.9, "cpu")


def changed(before, after) -> set[str]:
    """The parts of the model, `encoder` or `decoder`, whose parameters differ."""
    old = before.model.state_dict()
    return {name.split(".")[1] for name, value in after.model.state_dict().items() if not torch.equal(value, old[name])}


def test_the_encoder_alone_learns_what_the_frozen_recogniser_writes(corpus, folder, tmp_path):
    frozen = load_recogniser(folder)
    before = fingerprint(frozen)
    tuned = train(corpus, folder, tmp_path, frozen, epochs=6)
    losses = [entry["train_loss"] for entry in log(tmp_path)]
    assert losses[-1] < 0.8 * losses[0]
    assert changed(frozen, tuned) == {"encoder"} and fingerprint(frozen) == before
    positions = tuned.model.get_encoder().embed_positions.weight
    assert torch.equal(positions, frozen.model.get_encoder().embed_positions.weight)
    assert not any(parameter.requires_grad for parameter in tuned.parameters())
    again = load_recogniser(tmp_path / "model")
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    assert type(again) is type(frozen)
    torch.testing.assert_close(again(wave, length).values, tuned(wave, length).values, atol=0, rtol=0)
