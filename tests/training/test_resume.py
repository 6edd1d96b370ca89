"""Each training stage of speech, killed between two steps and started again, ends with the same numbers, bit by bit.

Those of the signal process from random weights and of the coupled training are in test_training.py and test_coupled.py.
"""

import pytest
import speechbrain as sb

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.speech.domain import SPEECH
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.speech.train_recogniser import CleanAugment, RecogniserTrainer, train_recogniser
from cdasr.training.logits import LogitsTrainer, train_logits
from cdasr.training.signal import SignalTrainer
from tests.conftest import TINY_LOGITS, TINY_SIGNAL, TINY_WAV2VEC2
from tests.training.helpers import BANK, HPARAMS, LOGITS, RECOGNISER, add_noise, cache_of, fingerprint, train_signal

RECOGNISING = {**RECOGNISER, "epochs": 2, "batch_seconds": 1.5, "model": TINY_WAV2VEC2, "dropout": {1: 0.0, 2: 0.1},
          "curriculum": {1: 0.55}}


def recogniser_stage(corpus, frozen, folder):
    return train_recogniser(*corpus, folder, RECOGNISING, CleanAugment(16_000), "cpu")


def retrained(corpus, frozen, folder):
    return train_recogniser(*corpus, folder, RECOGNISING, lambda wave, rng: add_noise(wave, rng)[0], "cpu",
                            start=frozen)


def matched(corpus, frozen, folder):
    start = SpectrogramModel.from_config(TINY_SIGNAL)
    return train_signal(TINY_SIGNAL, frozen, *corpus, folder, HPARAMS, add_noise, "cpu", start).network


def logits(corpus, frozen, folder):
    signal = SpectrogramModel.from_config(TINY_SIGNAL)
    bank = cache_of(folder / "bank", corpus[0], add_noise, frozen, signal, BANK)
    return train_logits(TINY_LOGITS, frozen, bank, bank, folder, LOGITS, "cpu", SPEECH).network


@pytest.mark.parametrize("trainer, stage, step", [
    (RecogniserTrainer, recogniser_stage, 2), (RecogniserTrainer, retrained, 3), (SignalTrainer, matched, 3),
    (LogitsTrainer, logits, 4)])
def test_a_killed_stage_ends_at_the_same_numbers(trainer, stage, step, corpus, recogniser_dir, tmp_path,
                                                 monkeypatch, killed):
    import torch

    def train(name):
        torch.manual_seed(5)  # of what is random before the stage, such as an untrained signal process here
        (tmp_path / name).mkdir(exist_ok=True)
        return fingerprint(stage(corpus, CTCRecogniser.from_pretrained(recogniser_dir), tmp_path / name))

    whole = train("whole")
    monkeypatch.setattr(sb.Brain, "_should_save_intra_epoch_ckpt", lambda *_: True)  # one after each step
    killed(trainer, lambda run: run.optimizer_step == step, lambda: train("resumed"))
    assert (tmp_path / "resumed" / "checkpoints").is_dir()
    assert train("resumed") == whole
