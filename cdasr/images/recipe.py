"""The recipe of images, as its stages know it; `python -m cdasr.images.recipe` is an earlier name of `cdasr.recipe`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cdasr.coupled.recipe import Hparams, Recipe
from cdasr.images.corpus import ablation_rows, degraded, download, fixed, prepare, prepared_rows, stored
from cdasr.images.domain import IMAGES


def make_classifier(hparams: Hparams, folder: Path, device: str):
    """The frozen classifier: a checkpoint, or one trained here on clean images."""
    from cdasr.images.training import make_classifier

    return make_classifier(hparams, folder, device)


def load_classifier(hparams: Hparams, folder: Path):
    """The classifier of stage 2."""
    from cdasr.classifiers.image import ImageClassifier

    return ImageClassifier.from_pretrained(folder / "model")


def retrain(hparams: Hparams, folder: Path, device: str):
    """The classifier fine-tuned on degraded images."""
    from cdasr.images.training import retrain

    return retrain(hparams, folder, device)


def pipeline() -> type:
    """The class of its pipelines."""
    from cdasr.images.pipeline import ImagePipeline

    return ImagePipeline


def load_package(folder: str | os.PathLike, device: str, classifier=None):
    """A model package; a classifier that is loaded already saves little here."""
    return pipeline().from_pretrained(folder, device=device)


def image_shape(hparams: Hparams) -> list[int]:
    """Colours, height and width of the images."""
    return list(stored(hparams, "train").images.shape[1:])


def signal_config(hparams: Hparams) -> dict:
    """The configuration of the recipe, with the colours of the images."""
    config = hparams["signal_model"]
    return {**config, "network": {"colours": image_shape(hparams)[0], **config["network"]}}


def check_start(model, hparams: Hparams) -> None:
    """Raise ValueError for a signal process of other colours."""
    found, colours = model.config["network"].get("colours", 3), image_shape(hparams)[0]
    if found != colours:
        raise ValueError(f"{hparams['signal_init']} is for images of {found} colours and the recipe has {colours}; "
                         "start from another signal process")


RECIPE = Recipe(
    domain=IMAGES, classifier="classifier", download=download, prepare=prepare, rows=prepared_rows, degraded=degraded,
    fixed=fixed, ablation_rows=ablation_rows, make_classifier=make_classifier, load_classifier=load_classifier,
    retrain=retrain, pipeline=pipeline, load_package=load_package,
    scored=lambda hparams: prepared_rows(hparams, "eval"), signal_config=signal_config, check_start=check_start,
    package_config=lambda hparams: {"about": hparams["about"], "image_size": image_shape(hparams)[1:]},
    reads={"download": ("dataset", "data_dir", "data.classes", "seed"), "prepare": ("data",),
           "classifier": ("classifier", "training_seed")},
    files={"download": ("data_dir",), "classifier": ("classifier.checkpoint",)})


if __name__ == "__main__":
    from cdasr.recipe.command import main

    sys.exit(main(base="images", module="cdasr.images.recipe"))
