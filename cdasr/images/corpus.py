"""The data of the image recipe: how they are prepared, and how its stages read them.

`exp_dir/data` holds `train`, `valid` and the clean `eval` images and, in folders, the latter two under each
degradation, all as safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from cdasr.images.data import ImageSet, load_dataset, split
from cdasr.images.degrade import TrainingDegrader, degrade_set, make_degradation
from cdasr.images.evaluation import image_rows
from cdasr.images.pictures import FixedPictures, degraded_pictures


def download(hparams: Mapping) -> None:
    """Stage 0: find the data set or download it, and keep it as safetensors."""
    exp_dir = Path(hparams["exp_dir"])
    parts = load_dataset(hparams["dataset"], hparams["data_dir"], exp_dir / "download",
                         {"classes": hparams["data"]["classes"], "seed": hparams["seed"]})
    for name, part in parts.items():
        part.save(exp_dir / "source" / f"{name}.safetensors")
        print(f"{hparams['dataset']}, {name}: {len(part)} images {tuple(part.images.shape[1:])}, "
              f"{len(part.classes)} classes")


def prepare(hparams: Mapping) -> None:
    """Stage 1: split the training images, and degrade what is validated and scored once and for all."""
    exp_dir, settings, seed = Path(hparams["exp_dir"]), hparams["data"], hparams["seed"]
    for config in (*settings["degradations"], *settings["unseen"]):
        make_degradation(config)  # whether there is one: before anything is written
    source = exp_dir / "source"
    if not (source / "train.safetensors").is_file():
        raise ValueError(f"{source}: no images there; run stage 0 first")
    parts = split(ImageSet.load(source / "train.safetensors"),
                  {"dev": settings["dev_images"], "valid": settings["valid_images"]}, seed)
    if settings["eval_split"] == "test":
        if not (source / "test.safetensors").is_file():
            raise ValueError(f"{hparams['dataset']}: this copy has no test images; take --data.eval_split dev")
        parts["test"] = ImageSet.load(source / "test.safetensors")
    chosen = {"train": parts["train"], "valid": parts["valid"], "eval": parts[settings["eval_split"]]}
    for name, part in chosen.items():
        part.save(exp_dir / "data" / f"{name}.safetensors")
    for number, config in enumerate([*settings["degradations"], *settings["unseen"]]):
        for offset, name in enumerate(("eval", "valid") if config in settings["degradations"] else ("eval",)):
            degraded = degrade_set(chosen[name], config, seed + 1000 * number + 500 * offset)
            degraded.save(exp_dir / "data" / name / f"{config['name']}.safetensors")
    print(", ".join(f"{name}: {len(part)} images" for name, part in chosen.items()))


def stored(hparams: Mapping, *names: str) -> ImageSet:
    """A prepared set: `train`, `valid`, `eval`, or one of the latter two and a degradation."""
    return ImageSet.load(Path(hparams["exp_dir"], "data", *names).with_suffix(".safetensors"))


def prepared_rows(hparams: Mapping, name: str) -> list[dict]:
    """A row for each image; of `valid_noisy` under each degradation, of `eval` clean and under each condition."""
    if name == "train":
        return [{"ID": f"{index:06d}", "duration": 1.0, "label": label, "index": index}
                for index, label in enumerate(stored(hparams, "train").labels.tolist())]
    part, settings = "valid" if name == "valid_noisy" else "eval", hparams["data"]
    clean = stored(hparams, part)
    sets = {} if name == "valid_noisy" else {"clean": clean}
    for config in {"valid_noisy": settings["degradations"], "clean": []}.get(
            name, [*settings["degradations"], *settings["unseen"]]):
        sets[config["name"]] = stored(hparams, part, config["name"])
    return image_rows(sets, clean)


def degraded(hparams: Mapping, rows: Sequence[Mapping], seed: int) -> Dataset:
    """Training images, degraded on the fly."""
    data = stored(hparams, "train").select(torch.tensor([row["index"] for row in rows]))
    return degraded_pictures(data, training_degrader(hparams), seed)


def fixed(hparams: Mapping, rows: Sequence[Mapping]) -> Dataset:
    """Images that were degraded once, with their clean versions."""
    return FixedPictures(images_of(rows, "image"), images_of(rows, "clean_image"))


def images_of(rows: Sequence[Mapping], name: str) -> ImageSet:
    """The images that the rows have under a name, as one set."""
    return ImageSet(torch.stack([row[name] for row in rows]), torch.tensor([row["label"] for row in rows]), ())


def training_degrader(hparams: Mapping) -> TrainingDegrader:
    """The degradations of `data`, on images that are varied as in the training of the classifier."""
    varied = {key: hparams["classifier"][key] for key in ("shift", "flip")}
    return TrainingDegrader(hparams["data"]["degradations"], hparams["signal"]["clean_prob"], **varied)


def ablation_rows(hparams: Mapping) -> list[dict]:
    """One in so many images, under each degradation that is trained on."""
    conditions = [config["name"] for config in hparams["data"]["degradations"]]
    return [row for row in prepared_rows(hparams, "eval") if row["condition"] in conditions
            and row["index"] % hparams["ablation"]["every"] == 0]
