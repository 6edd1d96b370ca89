"""Training the classifier of a recipe on images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.image import ImageClassifier, make_model, prepare
from cdasr.coupled.recipe import as_in
from cdasr.images.corpus import images_of, prepared_rows, stored, training_degrader
from cdasr.images.data import ImageSet
from cdasr.images.degrade import augment
from cdasr.images.pictures import Pictures
from cdasr.training.base import Trainer
from cdasr.training.distributed import on_main


class ClassifierTrainer(Trainer):
    """Cross-entropy training on clean images; validation is the top-1 error in per cent."""

    average_buffers = True

    def __init__(self, network: nn.Module, config: dict, output_dir: Path, hparams: dict, device: str):
        super().__init__({"network": network}, output_dir, hparams, device, "error")
        self.mean, self.std = (torch.tensor(config[key], device=device).view(-1, 1, 1) for key in ("mean", "std"))
        self.size = config.get("size")

    def _forward(self, network: nn.Module, batch) -> Tensor:
        return network(prepare(batch.image.data, self.mean, self.std, self.size))

    def compute_forward(self, batch, stage):
        return self._forward(self.modules.network, batch.to(self.device))

    def compute_objectives(self, predictions, batch, stage):
        return F.cross_entropy(predictions.float(), _labels(batch).to(self.device),
                               label_smoothing=self.hparams.label_smoothing)

    def validate_batch(self, batch, networks):
        wrong = self._forward(networks.network, batch).argmax(dim=-1) != _labels(batch).to(self.device)
        return {"errors": int(wrong.sum()), "images": len(wrong)}

    def summarise(self, sums):
        return {"error": 100.0 * sums["errors"] / sums["images"]}


def train_classifier(data: ImageSet, valid: ImageSet, output_dir: Path, hparams: dict, device: str,
                     degrade: Callable | None = None, start: ImageClassifier | None = None) -> ImageClassifier:
    """Train on clean images, save with `save_pretrained` under `output_dir/model`, and return the frozen classifier.

    With `degrade(image, rng) -> degraded, clean` and `start` a copy of that classifier is trained on degraded images
    instead: no longer frozen, a reference for comparison.
    """
    torch.manual_seed(hparams["seed"])
    if start is None:
        pixels = data.images.float() / 255.0
        config = {"architecture": hparams["architecture"], "classes": list(data.classes), "size": None,
                  "mean": [round(float(channel), 4) for channel in pixels.mean(dim=(0, 2, 3))],
                  "std": [round(float(channel), 4) for channel in pixels.std(dim=(0, 2, 3))]}
    else:
        config = start.config
    network = make_model(config["architecture"], len(data.classes), data.images.shape[1])
    network = network.to(memory_format=torch.channels_last)
    if start is not None:
        network.load_state_dict(start.model.state_dict())

    def varied(image: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        return {"image": degrade(image, rng)[0] if degrade else augment(image, rng, hparams["shift"], hparams["flip"])}

    best = ClassifierTrainer(network, config, output_dir, hparams, device).run(
        Pictures(data, varied, hparams["seed"]), Pictures(valid, lambda image, rng: {"image": image}, train=False))
    classifier = ImageClassifier(best.network, config)
    if on_main():
        classifier.save_pretrained(output_dir / "model")
    return classifier


def make_classifier(hparams: Mapping, folder: Path, device: str) -> ImageClassifier:
    """The frozen classifier: a checkpoint, or one trained here on clean images."""
    settings, train = hparams["classifier"], stored(hparams, "train")
    if not settings["checkpoint"]:
        return train_classifier(train, stored(hparams, "valid"), folder, settings, device).to(device)
    config = {"architecture": settings["architecture"], "classes": list(train.classes), "size": settings["size"],
              **({key: settings[key] for key in ("mean", "std") if settings[key]})}
    frozen = ImageClassifier.from_checkpoint(settings["checkpoint"], config).to(device)
    if on_main():
        frozen.save_pretrained(folder / "model")
    return frozen


def retrain(hparams: Mapping, folder: Path, device: str) -> ImageClassifier:
    """The classifier fine-tuned on degraded images."""
    return train_classifier(stored(hparams, "train"), images_of(prepared_rows(hparams, "valid_noisy"), "image"), folder,
                            as_in(hparams["classifier"], hparams["retrained"]), device, training_degrader(hparams),
                            ImageClassifier.from_pretrained(folder.parent / "classifier" / "model"))


def _labels(batch) -> Tensor:
    return torch.as_tensor(batch.label)
