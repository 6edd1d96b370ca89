"""Training on images through the shared trainers: losses fall, the classifier stays, a killed run ends the same."""

import hashlib
import json

import pytest
import speechbrain as sb
import torch

from cdasr.images.data import ImageSet
from cdasr.images.degrade import TrainingDegrader, augment, degrade_set
from cdasr.images.domain import IMAGES
from cdasr.images.pictures import FixedPictures, Pictures, degraded_pictures
from cdasr.images.signal_model import ImageModel
from cdasr.images.training import ClassifierTrainer, train_classifier
from cdasr.training.coupled import CoupledTrainer, fit_coupled
from cdasr.training.logits import LogitsTrainer, train_logits
from cdasr.training.logits_cache import build_cache
from cdasr.training.signal import SignalTrainer, fit_signal
from tests.conftest import TRAINER
from tests.images.conftest import CLASSES, LOGITS, SIGNAL

NOISE = {"name": "pixel_noise", "level": 0.3}
HPARAMS = {**TRAINER, "seed": 1, "epochs": 2, "lr": 3e-3, "warmup": 0.1, "ema_decay": 0.9, "batch_size": 8,
           "conditions": {}, "excerpt_weight": 0.0, "recogniser_weight": 0.0, "start_prob": 0.3,
           "kl_weight": 1.0, "drop_seen": 0.2, "drop_hidden": 0.2}
COUPLED = {**HPARAMS, "condition": 8, "condition_steps": 2, "swapped": 0.5, "logits_weight": 0.3,
           "recogniser_weight": 0.1, "scheduled_sampling_prob": 0.5, "validate": ["parallel"],
           "conditions": {"none": 0.3, "heard": 0.2, "estimate": 0.3, "noised": 0.2}}


@pytest.fixture
def pairs():
    """Bright squares at seven places, one for each class: training items and fixed ones."""
    labels = torch.arange(42) % 7
    images = torch.full((42, 3, 8, 8), 40, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist()):
        image[:, label % 4 * 2:label % 4 * 2 + 2, label // 4 * 4:label // 4 * 4 + 3] = 220
    data = ImageSet(images, labels, tuple(CLASSES))
    return degraded_pictures(data, TrainingDegrader([NOISE]), 1), FixedPictures(degrade_set(data, NOISE, 2), data)


def fingerprint(*modules) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for module in modules
                                   for tensor in module.state_dict().values())).hexdigest()


def log(folder):
    return [json.loads(line) for line in (folder / "train_log.jsonl").read_text().splitlines()]


def test_all_stages_learn_and_leave_the_classifier_alone(pairs, classifier, tmp_path, killed):
    before = fingerprint(classifier)
    folders = {name: tmp_path / name for name in ("signal", "logits", "whole", "resumed")}
    for folder in folders.values():
        folder.mkdir()
    signal = fit_signal(ImageModel.from_config(SIGNAL), classifier, IMAGES, *pairs, folders["signal"], HPARAMS, "cpu")
    assert log(folders["signal"])[1]["train_loss"] < log(folders["signal"])[0]["train_loss"]
    assert {"error", "psnr"} <= set(log(folders["signal"])[0])

    bank = build_cache(tmp_path / "bank", pairs[0], classifier, signal,
                       {"passes": 2, "batch_size": 16, "steps": [1, 2], "workers": 0}, 3, "cpu", IMAGES)
    assert len(bank) == 84 and bank[0]["heard"].shape == (7,) and bank[0]["seen_hidden"].shape == (8,)
    labels = pairs[0].data.labels
    assert all(item["label"] == labels[int(item["id"].split("-")[0])] for item in bank)
    clean = torch.stack([pairs[1][int(item["id"].split("-")[0])]["clean"] for item in bank])
    known = torch.stack([item["clean"] for item in bank])
    torch.testing.assert_close(known, classifier(clean).values, atol=2e-3, rtol=2e-3)

    logits = train_logits(LOGITS, classifier, bank, bank, folders["logits"], HPARAMS, "cpu", IMAGES)
    assert {"error", "error_cascade", "error_card", "error_enhanced", "error_clean"} <= set(log(folders["logits"])[0])
    assert float(logits.space.encode(known).square().mean()) == pytest.approx(1.0, abs=1e-3)

    def couple(name):
        return fit_coupled(signal, logits, classifier, IMAGES, *pairs, folders[name], COUPLED, "cpu")

    whole = couple("whole")
    assert {"error", "error_parallel", "error_parallel_signal"} <= set(log(folders["whole"])[0])
    injections = [value for name, value in whole[0].network.named_parameters() if "inject" in name]
    assert injections and all(value.detach().abs().max() > 0 for value in injections), "injection has learnt"
    assert fingerprint(classifier) == before

    killed(CoupledTrainer, lambda run: run.optimizer_step == 7, lambda: couple("resumed"))
    assert fingerprint(*(model.network for model in couple("resumed"))) == fingerprint(
        *(model.network for model in whole))


def test_a_classifier_learns_clean_images_and_a_copy_can_be_retrained(pairs, tmp_path):
    data = pairs[0].data
    settings = {**HPARAMS, "architecture": {"name": "small_resnet", "widths": [8, 16]}, "epochs": 6, "lr": 0.01,
                "label_smoothing": 0.0, "shift": 0, "flip": False}
    for name in ("clean", "noisy"):
        (tmp_path / name).mkdir()
    trained = train_classifier(data, data, tmp_path / "clean", settings, "cpu")
    assert log(tmp_path / "clean")[-1]["error"] < 50.0
    before = fingerprint(trained)
    again = train_classifier(data, data, tmp_path / "noisy", {**settings, "epochs": 1}, "cpu",
                             TrainingDegrader([NOISE]), trained)
    assert fingerprint(trained) == before != fingerprint(again) and again.classes == trained.classes


def classifier_stage(pairs, frozen, folder):
    settings = {**HPARAMS, "architecture": {"name": "small_resnet", "widths": [8, 16]}, "label_smoothing": 0.0,
                "shift": 1, "flip": True}
    return train_classifier(pairs[0].data, pairs[1].clean, folder, settings, "cpu")


def signal_stage(pairs, frozen, folder):
    return fit_signal(ImageModel.from_config(SIGNAL), frozen, IMAGES, *pairs, folder, HPARAMS, "cpu").network


def logits_stage(pairs, frozen, folder):
    signal = ImageModel.from_config(SIGNAL)
    bank = build_cache(
        folder / "bank", pairs[1], frozen, signal, {"passes": 1, "batch_size": 16, "steps": [1], "workers": 0}, 3,
        "cpu", IMAGES)
    return train_logits(LOGITS, frozen, bank, bank, folder, HPARAMS, "cpu", IMAGES).network


@pytest.mark.parametrize("trainer, stage", [
    (ClassifierTrainer, classifier_stage), (SignalTrainer, signal_stage), (LogitsTrainer, logits_stage)])
def test_a_killed_stage_ends_at_the_same_numbers(trainer, stage, pairs, classifier, tmp_path, monkeypatch, killed):
    def train(name):
        torch.manual_seed(5)
        (tmp_path / name).mkdir(exist_ok=True)
        return fingerprint(stage(pairs, classifier, tmp_path / name))

    whole = train("whole")
    monkeypatch.setattr(sb.Brain, "_should_save_intra_epoch_ckpt", lambda *_: True)  # one after each step
    killed(trainer, lambda run: run.optimizer_step == 8, lambda: train("resumed"))
    assert (tmp_path / "resumed" / "checkpoints").is_dir()
    assert train("resumed") == whole


def test_items_follow_seed_and_epoch(pairs):
    train, fixed = pairs
    first = train[3]["noisy"]
    assert torch.equal(train[3]["noisy"], first)
    train.epoch = 1
    assert not torch.equal(train[3]["noisy"], first)
    before = fixed[3]["noisy"]
    fixed.epoch = 1
    assert torch.equal(fixed[3]["noisy"], before) and torch.equal(fixed[3]["clean"], train[3]["clean"])


def test_augmentation_moves_and_mirrors():
    import numpy as np

    image = torch.arange(48.0).view(3, 4, 4)
    seen = {tuple(augment(image, np.random.default_rng(seed), 0, True).flatten().tolist()) for seed in range(20)}
    assert seen == {tuple(image.flatten().tolist()), tuple(image.flip(-1).flatten().tolist())}
    moved = [augment(image, np.random.default_rng(seed), 1, False) for seed in range(200)]
    assert len({tuple(picture.flatten().tolist()) for picture in moved}) == 9
    assert any(torch.equal(picture[:, 1:, 1:], image[:, :-1, :-1]) for picture in moved)
    assert len(Pictures(ImageSet(image[None].byte(), torch.tensor([0]), ("a",)), lambda image, rng: {})) == 1
