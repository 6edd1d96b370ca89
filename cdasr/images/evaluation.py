"""Images, as the shared evaluation knows them: rows of degraded pictures, top-1 errors, picture quality, words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cdasr.coupled.evaluation import Evaluation, OtherRate, Quality, Row, Target, p_text
from cdasr.images.metrics import psnr, ssim

TOP = 5


def image_rows(sets: Mapping[str, object], clean) -> list[Row]:
    """A row for each image of each `ImageSet` in `sets`, by condition: the images of the set `clean`, degraded."""
    return [{"ID": f"{condition}-{index:06d}", "condition": condition, "duration": 1.0, "index": index, "label": label,
             "class": clean.classes[label], "image": data.images[index], "clean_image": clean.images[index]}
            for condition, data in sets.items() for index, label in enumerate(clean.labels.tolist())]


def image_key(row: Row, known: dict[str, str]) -> str:
    """A fingerprint of both images of a row and of its class."""
    from cdasr.runtime.atomic import fingerprint

    return fingerprint([row["class"], *(row[name].numpy().tobytes() for name in ("image", "clean_image"))])


def read_noisy(row: Row, classifier: nn.Module) -> Tensor:
    """The degraded image (C, H, W) in [0, 1]."""
    return row["image"].float() / 255.0


def read_clean(row: Row, classifier: nn.Module, noisy: Tensor) -> Tensor:
    """The clean image (C, H, W) in [0, 1]."""
    return row["clean_image"].float() / 255.0


def example(pipeline, seconds: float) -> Tensor:
    """A made-up image of the package's size."""
    size = (pipeline.classifier.colours, *pipeline.config["image_size"])
    return torch.rand(size, generator=torch.Generator().manual_seed(0))


def recognise(pipeline, images: Sequence[Tensor], strategy: str, batch_seconds: float, **sampling) -> list:
    """A classification of each image, which `evaluate` has put into batches already."""
    return pipeline.classify(images, strategy, top=TOP, **sampling)


def entry(row: Row, result) -> dict:
    """What is kept of a classification."""
    wrong = result.label != row["class"]
    return {"label": row["class"], "answer": result.label, "answer_enhanced": result.label_enhanced,
            "errors": int(wrong), "errors_top5": int(row["class"] not in dict(result.probabilities)), "images": 1,
            "duration": 1.0, "nfe": result.nfe, "confidence": [round(result.confidence, 4)], "correct": [not wrong],
            **({"chosen": result.chosen} if result.chosen else {})}


def degraded(conditions: Sequence[str]) -> list[str]:
    """The conditions that are degraded."""
    return [name for name in conditions if name != "clean"]


def about(found) -> str:
    """What a recipe's report says of its data."""
    data, split = found.hparams["data"], found.hparams["data"]["eval_split"]
    classifier = found.classifier
    if "clean" in classifier:  # else a record of an earlier version
        classifier = {**classifier["classifier"], "accuracy": 100.0 - classifier["clean"]["error"]}
    images = next(iter(found.scores["conditions"]["clean"].values()))["images"]
    degradations = [*map(_words, data["degradations"]), *(f"{_words(new)}, not trained on" for new in data["unseen"])]
    return (
        f"{found.hparams['dataset']}: {images} {split} images, degraded once ({'; '.join(degradations)}); all systems "
        f"see the same images. The classifier was trained on clean images and is frozen: "
        f"{classifier['accuracy']:.1f} % on the clean {split} images, {classifier['parameters']} parameters. Early "
        "stopping, numbers of steps and options of the strategies were chosen on other images. Intervals: bootstrap "
        "over images, Wilson's where nothing was wrong; p-values: paired bootstrap, and corrected by Holm for the "
        "comparisons of a table. `enhanced_matched`: the signal process of stage 3, trained on alone "
        "for about as long as the logits and the coupled training took. `retrained`: the classifier itself, fine-tuned "
        "on degraded images; no longer frozen, a reference only.")


def _words(config: Mapping) -> str:
    return " ".join([config["name"].replace("_", " "),
                     *(f"{key} {value}" for key, value in config.items() if key != "name")])


def targets(found) -> list[Target]:
    """The targets of recipes/images, over all degraded images and training seeds."""
    scores, made = found.pooled, []
    if not (present := [name for name in found.coupled if name in scores]):
        return []
    best = min(present, key=lambda name: scores[name]["error"])
    for other in [name for name in ("enhanced_matched", "card") if name in scores]:
        gain, p_value = scores[other]["error"] - scores[best]["error"], found.difference(scores, best, other)[1]
        made.append(Target(f"{best}: at least 3 points over {other}, p < 0.05",
                           f"{gain:+.2f} points, p {p_text(p_value)}", gain >= 3.0 and p_value < 0.05))
    if (extra := found.extra_errors(10, 150)) is not None:
        made.append(Target(f"{found.ablation['strategy']}: 10 + 10 steps within 0.5 points of 150 + 150",
                           f"{-extra:+.2f} points ({found.ablation['utterances']} images)", extra <= 0.5))
    return made


EVALUATION = Evaluation(
    counted="images", read_noisy=read_noisy, read_clean=read_clean, recognise=recognise, entry=entry,
    enhanced=lambda result: result.image, row_key=image_key, example=example, scores_file="accuracy.json",
    qualities={"psnr": Quality("PSNR dB", lambda image, clean, classifier: psnr(image, clean)),
               "ssim": Quality("SSIM", lambda image, clean, classifier: ssim(image, clean), digits=3, stored=4)},
    right_parts=lambda entry: [not entry["errors"]], measured=("psnr", "ssim"),
    other_rates={"top5": OtherRate("top-5 %", "errors_top5", "images")}, average=degraded,
    average_title="degraded, average",
    item=lambda entry: entry["ID"].removeprefix(f"{entry['condition']}-"), title="Top-1 accuracy", accuracy=True,
    unit="images", speed=("images / s", lambda factor: f"{1.0 / factor:.0f}"), most_intervals=99,
    name=lambda hparams: f"images, {hparams['dataset']}", about=about,
    compared=lambda hparams, conditions: ("All degraded conditions, each counting alike", degraded(conditions)),
    targets=targets, picture=lambda image: image.permute(1, 2, 0).squeeze(-1).numpy(),
    caption=lambda result: result.label)
