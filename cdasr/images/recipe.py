"""The stages of recipes/images: `python -m cdasr.images.recipe STAGE --hparams FILE [--key value ...]`.

They are those of speech (`cdasr.recipe`) with images for data: the trainers, the bank, tuning, ablation, scoring and
packages are the same. `exp_dir/data` holds `train`, `valid`, the clean `eval` set, and each of the latter two degraded
once, by condition, all as safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cdasr.recipe.markers import Stage
from cdasr.recipe.stages import as_in, compute_device, data_folders, main, save_package
from cdasr.runtime.provenance import record, write_json

CONTROLS = {"enhanced_matched": ("matched", "enhanced"), "retrained": ("retrained", "none")}


def download(hparams: dict) -> None:
    """Stage 0: find the data set or download it, and keep it as safetensors."""
    from cdasr.images.data import load_dataset

    exp_dir = Path(hparams["exp_dir"])
    parts = load_dataset(hparams["dataset"], hparams["data_dir"], exp_dir / "download",
                         {"classes": hparams["data"]["classes"], "seed": hparams["seed"]})
    for name, part in parts.items():
        part.save(exp_dir / "source" / f"{name}.safetensors")
        print(f"{hparams['dataset']}, {name}: {len(part)} images {tuple(part.images.shape[1:])}, "
              f"{len(part.classes)} classes")


def prepare(hparams: dict) -> None:
    """Stage 1: split the training images, and degrade what is validated and scored once and for all."""
    from cdasr.images.data import ImageSet, split
    from cdasr.images.degrade import degrade_set

    exp_dir, settings, seed = Path(hparams["exp_dir"]), hparams["data"], hparams["seed"]
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


def classifier(hparams: dict) -> None:
    """Stage 2: the frozen classifier, a checkpoint or trained here on clean images, and its accuracy."""
    from cdasr.classifiers.image import ImageClassifier
    from cdasr.images.training import train_classifier

    exp_dir, data = data_folders(hparams)
    settings, device = hparams["classifier"], compute_device(hparams)
    train, valid, clean = (_load(data, name) for name in ("train", "valid", "eval"))
    if settings["checkpoint"]:
        config = {"architecture": settings["architecture"], "classes": list(train.classes), "size": settings["size"],
                  **({key: settings[key] for key in ("mean", "std") if settings[key]})}
        frozen = ImageClassifier.from_checkpoint(settings["checkpoint"], config).to(device)
        frozen.save_pretrained(exp_dir / "classifier" / "model")
    else:
        frozen = train_classifier(train, valid, exp_dir / "classifier", settings, device).to(device)
    accuracy = _accuracy(frozen, clean)
    parameters = sum(part.numel() for part in frozen.parameters())
    write_json(exp_dir / "classifier" / "record.json", record(stage="classifier", hparams=hparams, accuracy=accuracy,
                                                              parameters=parameters))
    print(f"frozen classifier: {accuracy:.2f} % on {len(clean)} clean images, {parameters} parameters")


def signal(hparams: dict) -> None:
    """Stage 3: train the signal process, choose its steps, write the package."""
    from cdasr.classifiers.image import ImageClassifier

    exp_dir, _ = data_folders(hparams)
    frozen = ImageClassifier.from_pretrained(exp_dir / "classifier" / "model")
    _train_signal(hparams, frozen, hparams["signal_model"], hparams["signal"], "signal")


def _train_signal(hparams: dict, frozen, config: dict, settings: dict, stage: str, start=None) -> None:
    import torch

    from cdasr.images.domain import IMAGES
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.images.signal_model import ImageModel
    from cdasr.training.signal import fit_signal

    (exp_dir, data), device = data_folders(hparams), compute_device(hparams)
    train, valid = _pairs(data, hparams, settings["seed"])
    torch.manual_seed(settings["seed"])
    config = {**config, "network": {"colours": train.data.images.shape[1], **config["network"]}}
    model = fit_signal(ImageModel.from_config(config), frozen, IMAGES, train, valid, exp_dir / stage, settings, device,
                       start)
    pipeline = ImagePipeline(frozen, model, {"image_size": list(train.data.images.shape[-2:])}, device)
    pipeline, choices = _tune(pipeline, hparams)
    write_json(exp_dir / stage / "record.json", record(stage=stage, hparams=hparams, tuning=choices))
    save_package(pipeline, exp_dir, stage, latest=stage == "signal")
    print(f"{stage}: {choices['best_steps']} steps")


def logits(hparams: dict) -> None:
    """Stage 4: fill the bank of logits, then train the logits process on it."""
    from cdasr.images.domain import IMAGES
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.training.logits import train_logits
    from cdasr.training.logits_cache import build_bank

    (exp_dir, data), settings, device = data_folders(hparams), hparams["logits"], compute_device(hparams)
    pipeline = ImagePipeline.from_pretrained(exp_dir / "signal" / "package", device=device)
    frozen, model = pipeline.classifier, pipeline.signal
    (train, valid), degrade = _pairs(data, hparams, settings["seed"]), _degrader(hparams)

    def drawn(row: dict, rng):
        return degrade(train.data.images[row["index"]].float() / 255.0, rng)

    def fixed(row: dict, rng):
        item = valid[row["index"]]
        return item["noisy"], item["clean"]
    folder = exp_dir / "logits" / "bank"
    banks = [build_bank(folder / name, rows, pairs, frozen, model, options, hparams["seed"], device, IMAGES)
             for name, rows, pairs, options in (
                 ("train", train.rows, drawn, settings["bank"]),
                 ("valid", valid.rows, fixed, {**settings["bank"], "passes": 1, "steps": [model.sampling["steps"]]}))]
    trained = train_logits(hparams["logits_model"], frozen, *banks, exp_dir / "logits", settings, device, IMAGES)
    write_json(exp_dir / "logits" / "record.json", record(stage="logits", hparams=hparams))
    guided = model.with_injection(trained.tokens, hparams["coupled"]["condition"])
    save_package(ImagePipeline(frozen, guided, pipeline.config, device, trained), exp_dir, "logits")


def coupled(hparams: dict) -> None:
    """Stage 5: train both processes together, each given what the other shows it."""
    from cdasr.evaluation.tuning import tune_options
    from cdasr.images.domain import IMAGES
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.training.coupled import fit_coupled

    (exp_dir, data), settings, device = data_folders(hparams), hparams["coupled"], compute_device(hparams)
    pipeline = ImagePipeline.from_pretrained(exp_dir / "logits" / "package", device=device)
    models = fit_coupled(pipeline.signal, pipeline.logits, pipeline.classifier, IMAGES,
                         *_pairs(data, hparams, settings["seed"]), exp_dir / "coupled", settings, device)
    trained = ImagePipeline(pipeline.classifier, models[0], pipeline.config, device, models[1])
    trained, choices = _tune(trained, hparams)
    trained, choices["strategies"] = tune_options(trained, _validation(trained, hparams),
                                                  hparams["tuning"]["strategies"])
    write_json(exp_dir / "coupled" / "record.json", record(stage="coupled", hparams=hparams, tuning=choices))
    save_package(trained, exp_dir, "coupled")
    print(f"strategy {trained.default_strategy}: {trained.config['strategies'][trained.default_strategy]}")


def controls(hparams: dict) -> None:
    """Stage 6: both controls, `matched` and `retrained`."""
    matched(hparams)
    retrained(hparams)


def matched(hparams: dict) -> None:
    """Control: the signal process of stage 3, trained on by itself for as long as stages 4 and 5 take."""
    from cdasr.images.pipeline import ImagePipeline

    exp_dir, _ = data_folders(hparams)
    pipeline = ImagePipeline.from_pretrained(exp_dir / "signal" / "package", device=compute_device(hparams))
    _train_signal(hparams, pipeline.classifier, pipeline.signal.config, as_in(hparams["signal"], hparams["matched"]),
                  "matched", pipeline.signal)


def retrained(hparams: dict) -> None:
    """Reference beyond the rules: the classifier fine-tuned on degraded images."""
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.images.training import train_classifier

    (exp_dir, data), device = data_folders(hparams), compute_device(hparams)
    pipeline = ImagePipeline.from_pretrained(exp_dir / "signal" / "package", device=device)
    train, valid = _pairs(data, hparams, hparams["retrained"]["seed"])
    tuned = train_classifier(train.data, valid.data, exp_dir / "retrained",
                             as_in(hparams["classifier"], hparams["retrained"]), device, _degrader(hparams),
                             pipeline.classifier)
    write_json(exp_dir / "retrained" / "record.json", record(stage="retrained", hparams=hparams))
    save_package(ImagePipeline(tuned, pipeline.signal, pipeline.config, device), exp_dir, "retrained", latest=False)


def decode(hparams: dict) -> None:
    """Stage 7: every system on the fixed degraded sets, going on where it was interrupted."""
    from cdasr.coupled.pipeline import NEED_LOGITS
    from cdasr.images.evaluate import evaluate_images
    from cdasr.images.pipeline import ImagePipeline

    (exp_dir, data), device = data_folders(hparams), compute_device(hparams)
    pipeline = ImagePipeline.from_pretrained(exp_dir / "package", device=device)
    others = {name: (ImagePipeline.from_pretrained(exp_dir / stage / "package", device=device), strategy)
              for name, (stage, strategy) in CONTROLS.items() if (exp_dir / stage / "package").is_dir()}
    able = [name for name in pipeline.strategies if name != "oa"]
    settings = hparams["decode"]
    systems = settings["systems"] or sorted([*able, *others], key=lambda name: name in NEED_LOGITS)
    print(evaluate_images(_conditions(data, hparams), _load(data, "eval"), pipeline, systems, exp_dir / "results",
                          batch_size=settings["batch_size"], seed=hparams["seed"], others=others,
                          overwrite=settings["overwrite"]))


def ablate(hparams: dict) -> None:
    """Stage 8: what each part of the package's strategy is worth, on a share of the scored images."""
    import torch

    from cdasr.evaluation.ablation import ablate_batches
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.images.training import FixedPictures

    (exp_dir, data), settings = data_folders(hparams), hparams["ablation"]
    pipeline = ImagePipeline.from_pretrained(exp_dir / "package", device=compute_device(hparams))
    clean = _load(data, "eval")
    every = torch.arange(0, len(clean), settings["every"])
    sets = [_load(data / "eval", config["name"]).select(every) for config in hparams["data"]["degradations"]]
    pictures = FixedPictures(_joined(sets), _joined([clean.select(every)] * len(sets)))
    found = ablate_batches(pipeline, _batches(pipeline, pictures, hparams),
                           lambda batch, rows: pipeline.batch([pictures[row["index"]]["clean"] for row in rows]),
                           settings["strategy"] or pipeline.default_strategy, settings["steps"], settings["guidance"])
    about = f"One image in {settings['every']}; one training seed." if settings["every"] > 1 else "One training seed."
    conditions = [config["name"] for config in hparams["data"]["degradations"]]
    write_json(exp_dir / "results" / "ablation.json", {**found, "about": about, "conditions": conditions,
                                                       "record": record(stage="ablate", hparams=hparams)})


def score(hparams: dict) -> None:
    """Stage 9: RESULTS.md and a grid of pictures, from what the other stages made."""
    from cdasr.images.report import write_image_results

    exp_dir, data = data_folders(hparams)
    target = Path(hparams["results"] or exp_dir / "RESULTS.md")
    write_image_results(exp_dir, hparams, target)
    grid = exp_dir / "results" / "pictures.png"
    _plot_grid(exp_dir, data, hparams, grid)
    print(f"wrote {target} and {grid}")


def _plot_grid(exp_dir: Path, data: Path, hparams: dict, path: Path, columns: int = 10) -> None:
    """Clean, degraded, enhanced and coupled pictures of images from all over the set, and what they are taken for."""
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.images.report import plot_grid
    from cdasr.speech.corpus import spread

    pipeline = ImagePipeline.from_pretrained(exp_dir / "package", device=compute_device(hparams))
    clean, rows = _load(data, "eval"), []
    places = spread(range(len(clean.labels)), columns)
    names = [clean.classes[label] for label in clean.labels[places].tolist()]
    for condition, part in _conditions(data, hparams).items():
        pictures = list(part.images[places].float() / 255.0)
        for system in (("none",) if condition == "clean" else ("none", "enhanced", pipeline.default_strategy)):
            results = pipeline.classify(pictures, system, seed=hparams["seed"])
            shown = [picture if result.image is None else result.image for picture, result in zip(pictures, results)]
            rows.append((f"{condition}\n{system}".replace("_", " "),
                         [image.permute(1, 2, 0).squeeze(-1).numpy() for image in shown],
                         [result.label for result in results],
                         [result.label == name for result, name in zip(results, names)]))
    plot_grid(rows, path)


# -- data -------------------------------------------------------------------------------------------------------------


def _load(folder: Path, name: str):
    from cdasr.images.data import ImageSet

    return ImageSet.load(folder / f"{name}.safetensors")


def _joined(sets):
    """Several sets of the same classes as one."""
    from dataclasses import replace

    import torch

    return replace(sets[0], images=torch.cat([part.images for part in sets]),
                   labels=torch.cat([part.labels for part in sets]))


def _conditions(data: Path, hparams: dict) -> dict:
    """The scored sets by condition, clean first."""
    settings = hparams["data"]
    return {"clean": _load(data, "eval"), **{config["name"]: _load(data / "eval", config["name"])
                                             for config in (*settings["degradations"], *settings["unseen"])}}


def _degrader(hparams: dict):
    from cdasr.images.degrade import TrainingDegrader

    varied = {key: hparams["classifier"][key] for key in ("shift", "flip")}
    return TrainingDegrader(hparams["data"]["degradations"], hparams["signal"]["clean_share"], **varied)


def _pairs(data: Path, hparams: dict, seed: int):
    """Training images, degraded on the fly, and the validation images under each degradation."""
    from cdasr.images.training import FixedPictures, degraded_pictures

    clean = _load(data, "valid")
    sets = [_load(data / "valid", config["name"]) for config in hparams["data"]["degradations"]]
    return (degraded_pictures(_load(data, "train"), _degrader(hparams), seed),
            FixedPictures(_joined(sets), _joined([clean] * len(sets))))


def _batches(pipeline, pictures, hparams: dict) -> list:
    """Batches of pictures with their rows, as tuning and ablation take them."""
    size = hparams["decode"]["batch_size"]
    groups = [pictures.rows[start:start + size] for start in range(0, len(pictures), size)]
    return [(pipeline.batch([pictures[row["index"]]["noisy"] for row in group]), group) for group in groups]


def _validation(pipeline, hparams: dict) -> list:
    _, data = data_folders(hparams)
    return _batches(pipeline, _pairs(data, hparams, seed=0)[1], hparams)


def _tune(pipeline, hparams: dict) -> tuple:
    """The pipeline with the signal steps chosen on the validation set; and what was tried."""
    from cdasr.evaluation.tuning import tune_steps

    steps, _ = tune_steps(pipeline, _validation(pipeline, hparams), hparams["tuning"]["steps"])
    best = min(steps, key=lambda count: (steps[count], count))
    return pipeline.with_choices(best), {"steps": steps, "best_steps": best}


def _accuracy(frozen, data) -> float:
    """Accuracy in per cent of the classifier alone."""
    import torch

    with torch.inference_mode():
        wrong = sum(int((frozen(images.to(frozen.mean.device).float() / 255.0).values.argmax(dim=-1).cpu()
                         != labels).sum()) for images, labels in zip(data.images.split(500), data.labels.split(500)))
    return 100.0 - 100.0 * wrong / len(data)


STAGES = {stage.__name__: stage for stage in (download, prepare, classifier, signal, logits, coupled, controls, matched,
                                              retrained, decode, ablate, score)}
BEFORE_LOGITS = ("download", "prepare", "classifier", "signal")
ORDER = (
    Stage("download", "find the data set or download it", makes=("source",),
          reads=("dataset", "data_dir", "data.classes", "seed"), files=("data_dir",)),
    Stage("prepare", "split it; degrade what is validated and scored", makes=("data",), reads=("data",)),
    Stage("classifier", "the frozen classifier and its accuracy", makes=("classifier",),
          reads=("classifier", "training_seed"), files=("classifier.checkpoint",)),
    Stage("signal", "train the signal process, choose its steps, write the model package", makes=("signal",),
          package=True, reads=("signal", "signal_model", "tuning.steps")),
    Stage("logits", "fill the bank of logits and train the logits process", makes=("logits",),
          package=True, reads=("logits", "logits_model", "coupled.condition")),
    Stage("coupled", "train both processes together, tune the strategies", makes=("coupled",),
          package=True, reads=("coupled", "tuning")),
    Stage("controls", "the signal process trained on alone, the classifier retrained on degraded images",
          makes=("matched", "retrained"), needs=BEFORE_LOGITS, reads=("matched", "retrained")),
    Stage("decode", "the degraded sets with each system", makes=("results",), keyed=True, reads=("decode",)),
    Stage("ablate", "what each part of the coupling is worth", makes=("results/ablation.json",),
          needs=(*BEFORE_LOGITS, "logits", "coupled"), reads=("ablation",)),
    Stage("score", "tables, pictures and RESULTS.md", reads=("results", "other_seeds"),
          files=("other_seeds:results",)))


if __name__ == "__main__":
    sys.exit(main(STAGES, ORDER, "cdasr.images.recipe", "images"))
