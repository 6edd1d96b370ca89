"""The stages of every recipe, for any domain; command.py runs them.

A recipe's own `prepare.py`, or its domain, writes `exp_dir/data`; everything after that is here. Stages read what
earlier ones wrote and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from cdasr.runtime.atomic import write_json
from cdasr.runtime.provenance import record

if TYPE_CHECKING:
    from torch.utils.data import Dataset

    from cdasr.coupled.models import SignalModel
    from cdasr.coupled.pipeline import CoupledPipeline
    from cdasr.coupled.recipe import Recipe


def download(hparams: dict, recipe: Recipe) -> None:
    """Stage 0 of a recipe without a prepare.py: the domain's own."""
    recipe.download(hparams)


def prepare(hparams: dict, recipe: Recipe) -> None:
    """Stage 1 of a recipe without a prepare.py: the domain's own."""
    recipe.prepare(hparams)


def classifier(hparams: dict, recipe: Recipe) -> None:
    """Stage 2: the frozen classifier, given or trained here, and its error rates."""
    from cdasr.evaluation.tuning import classifier_alone
    from cdasr.training.distributed import on_main

    exp_dir, device, domain = data_folder(hparams), compute_device(hparams), recipe.domain
    name, counted = recipe.classifier, domain.evaluation.counted
    frozen = recipe.make_classifier(hparams, exp_dir / name, device)
    if not on_main():
        return
    frozen = frozen.with_hidden_layers(hparams["logits_model"]["hidden_layers"])  # has it them: now, not in stage 4
    clean, noisy = (classifier_alone(frozen, domain, recipe.rows(hparams, part), batch_items(hparams))
                    for part in ("clean", "valid_noisy"))
    about = recipe.about_classifier(frozen)
    write_json(exp_dir / name / "record.json", record(stage=name, hparams=hparams, clean=clean, noisy=noisy,
                                                      **{name: about}))
    print(f"frozen {name}: {', '.join(f'{key} {value}' for key, value in about.items())}")
    print(f"frozen {name}: {domain.rate} {clean[domain.rate]:.2f} % on {clean[counted]} clean {counted}, "
          f"{noisy[domain.rate]:.2f} % on the noisy validation set")


def signal(hparams: dict, recipe: Recipe) -> None:
    """Stage 3: train the signal process, choose its steps and the observation-adding weight, write the package."""
    exp_dir, device = data_folder(hparams), compute_device(hparams)
    frozen = recipe.load_classifier(hparams, exp_dir / recipe.classifier)
    start = initial_signal(hparams["signal_init"], recipe) if hparams["signal_init"] else None
    if start is not None:
        recipe.check_start(start, hparams)
    if hparams["signal"]["epochs"]:
        config = start.config if start else recipe.signal_config(hparams)
        model = fit(hparams, recipe, frozen, config, hparams["signal"], exp_dir / "signal", device, start)
    elif start is None:
        raise ValueError("--signal.epochs 0 leaves the signal process untrained; give --signal-init PACKAGE")
    else:
        (exp_dir / "signal").mkdir(exist_ok=True)
        model = start
    pipeline = recipe.pipeline()(frozen, model, recipe.package_config(hparams), device)
    write_tuned(pipeline, hparams, recipe, "signal")


def fit(hparams: dict, recipe: Recipe, frozen, config: dict, settings: dict, folder: Path, device: str,
        start: SignalModel | None) -> SignalModel:
    """A signal process of `config`, trained on the prepared sets from the weights of `start` or from random ones."""
    import torch

    from cdasr.training.signal import fit_signal

    data = training_sets(hparams, recipe, settings["seed"])
    torch.manual_seed(settings["seed"])
    model = recipe.pipeline().model_class.from_config(config)
    return fit_signal(model, frozen, recipe.domain, *data, folder, settings, device, start)


def training_sets(hparams: dict, recipe: Recipe, seed: int) -> tuple:
    """Items to train on, degraded anew in each epoch, and those of the fixed validation set."""
    return (recipe.degraded(hparams, recipe.rows(hparams, "train"), seed),
            recipe.fixed(hparams, recipe.rows(hparams, "valid_noisy")))


def write_tuned(pipeline: CoupledPipeline, hparams: dict, recipe: Recipe, stage: str, latest: bool = True) -> None:
    """Choose what a signal process leaves open, and write record and package of its stage."""
    from cdasr.training.distributed import on_main

    if not on_main():
        return
    with sharing(pipeline, hparams):
        pipeline, choices = tuned(pipeline, hparams, recipe)
    exp_dir = Path(hparams["exp_dir"])
    write_json(exp_dir / stage / "record.json", record(stage=stage, hparams=hparams, tuning=choices))
    save_package(pipeline, exp_dir, stage, latest)
    print(f"{stage}: steps {choices['best_steps']}, observation-adding weight {pipeline.oa_weight:g}")


def tuned(pipeline: CoupledPipeline, hparams: dict, recipe: Recipe) -> tuple[CoupledPipeline, dict]:
    """The pipeline with the signal steps and the observation-adding weight that do best on the validation set."""
    from cdasr.evaluation.tuning import tune

    settings = hparams["tuning"]
    steps = {*settings["steps"], *([pipeline.signal.sampling["steps"]] if hparams["signal_init"] else ())}
    choices = tune(pipeline, recipe.rows(hparams, "valid_noisy"), sorted(steps), settings["oa_weights"],
                   batch_items(hparams), recipe.domain, settings["fused_weights"])
    weights = {name: {"weight": choices[best]} for name, best in (
        ("observation_adding", "best_weight"), ("fused", "best_fused")) if best in choices}
    return pipeline.with_choices(choices["best_steps"], **weights), choices


def initial_signal(path: str, recipe: Recipe) -> SignalModel:
    """The signal process of a model package or of a foreign checkpoint, to start from; it is given no logits yet."""
    from cdasr.coupled.package import load_models

    if (imported := recipe.import_signal(path)) is not None:
        return imported
    _, _, trained, _ = load_models(path, recipe.domain.name, recipe.pipeline().model_class)  # no recogniser is needed
    kind = type(trained)
    network = {key: value for key, value in trained.config["network"].items()
               if key not in ("tokens", "condition", *kind.injection)}
    model = kind.from_config({**trained.config, "network": network})
    weights = trained.network.state_dict()
    model.network.load_state_dict({name: weights[name] for name in model.network.state_dict()})
    return model


def logits(hparams: dict, recipe: Recipe) -> None:
    """Stage 4: fill the cache of logits, then train the logits process on it."""
    from cdasr.training.distributed import on_main
    from cdasr.training.logits import train_logits
    from cdasr.training.logits_cache import build_cache

    exp_dir, settings, device = data_folder(hparams), hparams["logits"], compute_device(hparams)
    pipeline = recipe.load_package(exp_dir / "signal" / "package", device)
    frozen, model = pipeline.classifier.with_hidden_layers(hparams["logits_model"]["hidden_layers"]), pipeline.signal
    once = {**settings["bank"], "passes": 1, "steps": [model.sampling["steps"]]}
    caches = [build_cache(exp_dir / "logits" / "bank" / name, items, frozen, model, options, hparams["seed"], device,
                          recipe.domain)
              for name, items, options in (
                  ("train", bank_items(hparams, recipe), settings["bank"]),
                  ("valid", recipe.fixed(hparams, recipe.rows(hparams, "valid_noisy")), once))]
    trained = train_logits(hparams["logits_model"], frozen, *caches, exp_dir / "logits", settings, device,
                           recipe.domain)
    if not on_main():
        return
    write_json(exp_dir / "logits" / "record.json", record(stage="logits", hparams=hparams))
    guided = model.with_injection(trained.tokens, hparams["coupled"]["condition"])
    save_package(type(pipeline)(frozen, guided, pipeline.config, device, trained), exp_dir, "logits")


def bank_items(hparams: dict, recipe: Recipe) -> Dataset:
    """The items of stage 4's cache, degraded anew in each pass."""
    from cdasr.coupled.rows import take_evenly

    rows = take_evenly(recipe.rows(hparams, "train"), hparams["logits"]["bank"]["utterances"])
    return recipe.degraded(hparams, recipe.bank_rows(hparams, rows), hparams["seed"])


def coupled(hparams: dict, recipe: Recipe) -> None:
    """Stage 5: train both processes together, each given what the other shows it."""
    from cdasr.evaluation.auto_rule import add_auto
    from cdasr.evaluation.tuning import tune_strategies
    from cdasr.training.coupled import fit_coupled
    from cdasr.training.distributed import on_main
    from cdasr.training.guided import fit_guided

    exp_dir, settings, device = data_folder(hparams), hparams["coupled"], compute_device(hparams)
    pipeline = recipe.load_package(exp_dir / "logits" / "package", device)
    train, valid = training_sets(hparams, recipe, settings["seed"])
    fit = fit_coupled
    if settings.get("from_cache"):
        train, fit = cached_pairs(hparams, recipe), fit_guided
    models = fit(pipeline.signal, pipeline.logits, pipeline.classifier, recipe.domain, train, valid,
                 exp_dir / "coupled", settings, device)
    if not on_main():
        return
    trained = type(pipeline)(pipeline.classifier, models[0], pipeline.config, device, models[1])
    rows, tuning, items = recipe.rows(hparams, "valid_noisy"), hparams["tuning"], batch_items(hparams)
    with sharing(trained, hparams):
        trained, choices = tuned(trained, hparams, recipe)
        trained, choices["strategies"] = tune_strategies(trained, rows, tuning["strategies"], items, recipe.domain)
        if tuning["auto"] is not None:
            trained = add_auto(trained, rows, tuning["auto"], items, recipe.domain)
        trained = recipe.add_rover(hparams, trained, rows, items)
    write_json(exp_dir / "coupled" / "record.json", record(stage="coupled", hparams=hparams, tuning=choices))
    save_package(trained, exp_dir, "coupled")
    print(f"strategy {trained.default_strategy}: {trained.config['strategies'][trained.default_strategy]}")


def cached_pairs(hparams: dict, recipe: Recipe) -> Dataset:
    """The training signals of stage 4's cache, with what the classifier makes of them."""
    from cdasr.training.guided import CachedPairs
    from cdasr.training.logits_cache import LogitsCache

    return CachedPairs(bank_items(hparams, recipe), LogitsCache(data_folder(hparams) / "logits" / "bank" / "train"))


def controls(hparams: dict, recipe: Recipe) -> None:
    """Stage 6: the controls that the recipe lists, of `matched` and `retrained`."""
    known = {"matched": matched, "retrained": retrained}
    if unknown := [name for name in hparams["controls"] if name not in known]:
        raise ValueError(f"there is no control {unknown[0]!r}; known: {', '.join(known)}")
    for name in hparams["controls"]:
        known[name](hparams, recipe)


def matched(hparams: dict, recipe: Recipe) -> None:
    """Control: the signal process of stage 3, trained on by itself for as long as stages 4 and 5 take."""
    from cdasr.coupled.recipe import as_in

    exp_dir, settings = data_folder(hparams), as_in(hparams["signal"], hparams["matched"])
    pipeline = recipe.load_package(exp_dir / "signal" / "package", compute_device(hparams))
    model = fit(hparams, recipe, pipeline.classifier, pipeline.signal.config, settings, exp_dir / "matched",
                pipeline.device, pipeline.signal)
    write_tuned(type(pipeline)(pipeline.classifier, model, pipeline.config, pipeline.device), hparams, recipe,
                "matched", latest=False)


def retrained(hparams: dict, recipe: Recipe) -> None:
    """Reference beyond the rules: the classifier fine-tuned on degraded data for as long as stages 3 to 5 take."""
    from cdasr.training.distributed import on_main

    exp_dir, device = data_folder(hparams), compute_device(hparams)
    pipeline = recipe.load_package(exp_dir / "signal" / "package", device)
    tuned = recipe.retrain(hparams, exp_dir / "retrained", device)
    if not on_main():
        return
    write_json(exp_dir / "retrained" / "record.json", record(stage="retrained", hparams=hparams))
    save_package(type(pipeline)(tuned, pipeline.signal, pipeline.config, device), exp_dir, "retrained", latest=False)


CONTROLS = {"enhanced_matched": ("matched", "enhanced"), "oa_matched": ("matched", "oa"),
            "cascade_pretrained": ("logits", "cascade"),
            "retrained": ("retrained", "none")}  # system: (stage whose package it takes, strategy)


def decode(hparams: dict, recipe: Recipe) -> None:
    """Stage 7: every system on the fixed test sets, going on where it was interrupted; then real-time factors."""
    from cdasr.coupled.rows import sample_rows
    from cdasr.coupled.strategies import needs_logits
    from cdasr.evaluation.benchmark import real_time_factors
    from cdasr.evaluation.evaluate import evaluate
    from cdasr.training.data import batch_limit

    exp_dir, settings, device = data_folder(hparams), hparams["decode"], compute_device(hparams)
    pipeline = recipe.load_package(exp_dir / "package", device)
    others = control_systems(exp_dir, pipeline, recipe)
    names = sorted([*pipeline.strategies, *others], key=lambda name: (
        2 * (name not in others and needs_logits(name)) or name in others))  # what needs no logits, controls, the rest
    systems = settings["systems"] or [name for name in names
                                      if _adds_something(name, *others.get(name, (pipeline, name)))]
    samples, results = settings["samples"], exp_dir / "results"
    print(evaluate(recipe.scored(hparams), pipeline, systems,
                   results if samples == 1 else results / f"samples-{samples}", seed=hparams["seed"], samples=samples,
                   batch_seconds=batch_limit(settings), others=others, conditions=settings["conditions"] or None,
                   only=settings["only"], overwrite=settings["overwrite"], domain=recipe.domain,
                   quality=settings.get("quality") or None, external=settings.get("external"),
                   external_weight=settings.get("external_weight"), remember=settings.get("remember", 0.0)))
    if settings["timed_utterances"] and samples == 1:
        rows = sample_rows(recipe.rows(hparams, "eval"), settings["timed_utterances"], hparams["seed"])
        own = [name for name in systems if name in pipeline.strategies]
        write_json(results / "rtf.json", real_time_factors(pipeline, rows, own))


def control_systems(exp_dir: Path, pipeline: CoupledPipeline, recipe: Recipe) -> dict:
    """The pipeline and strategy of each control that was trained; what is frozen in all of them is loaded once.

    Before the coupled training the cascade of the pretrained processes is the package's own `cascade`, no control.
    """
    packages = {}
    for stage in dict.fromkeys(stage for stage, _ in CONTROLS.values()):
        if (exp_dir / ("coupled" if stage == "logits" else stage) / "package").is_dir():
            frozen = None if stage == "retrained" else pipeline.classifier
            packages[stage] = recipe.load_package(exp_dir / stage / "package", pipeline.device, frozen)
    return {name: (packages[stage], strategy) for name, (stage, strategy) in CONTROLS.items() if stage in packages}


def _adds_something(name: str, pipeline: CoupledPipeline, strategy: str) -> bool:
    """False for observation adding with a weight of 0, which is `enhanced` over again."""
    if strategy != "oa" or pipeline.oa_weight > 0:
        return True
    print(f"{name}: the weight chosen on validation data is 0, so it equals its enhanced; not decoded again")
    return False


def ablate(hparams: dict, recipe: Recipe) -> None:
    """Stage 8: what each part of the package's strategy is worth, on a share of the scored rows."""
    from cdasr.evaluation.ablation import ablate

    exp_dir, settings = data_folder(hparams), hparams["ablation"]
    pipeline = recipe.load_package(exp_dir / "package", compute_device(hparams))
    rows = recipe.ablation_rows(hparams)
    if not rows:
        print("none of the conditions of --ablation.conditions is in the test set; nothing to ablate")
        return
    found = ablate(pipeline, rows, settings["strategy"], settings["steps"], settings["guidance"], batch_items(hparams),
                   recipe.domain)
    share = f"One in {settings['every']} test {recipe.domain.evaluation.unit}; o" if settings["every"] > 1 else "O"
    write_json(exp_dir / "results" / "ablation.json", {
        **found, "about": f"{share}ne training seed.", "conditions": list(dict.fromkeys(
            row["condition"] for row in rows)), "record": record(stage="ablate", hparams=hparams)})


def score(hparams: dict, recipe: Recipe) -> None:
    """Stage 9: the recipe's RESULTS.md and pictures, from what the other stages recorded."""
    from cdasr.evaluation.plots import plot_examples
    from cdasr.evaluation.results import write_recipe_results

    exp_dir = data_folder(hparams)
    target = Path(hparams["results"] or exp_dir / "RESULTS.md")
    write_recipe_results(recipe.domain, exp_dir, hparams, target)
    if recipe.domain.evaluation.picture is not None:
        pipeline = recipe.load_package(exp_dir / "package", compute_device(hparams))
        plot_examples(pipeline, recipe.rows(hparams, "eval"), exp_dir / "results" / "pictures.png",
                      hparams["seed"])
    print(f"wrote {target}")


def sharing(pipeline: CoupledPipeline, hparams: Mapping) -> AbstractContextManager:
    """While this is open, what is tuned shares encoder states of the classifier, as in decoding."""
    from cdasr.evaluation.evaluate import remembering

    return remembering(pipeline.classifier, hparams["decode"].get("remember", 0.0))


def batch_items(hparams: Mapping) -> int:
    """Items in a batch of tuning and ablation: that of decoding where it counts items."""
    from cdasr.evaluation.tuning import ITEMS

    return hparams["decode"].get("batch_size", ITEMS)


def save_package(pipeline: CoupledPipeline, exp_dir: Path, stage: str, latest: bool = True) -> None:
    """Write the package of a stage and, unless it is a control, the recipe's `latest` one, which is scored."""
    for folder in (exp_dir / stage / "package", exp_dir / "package")[:2 if latest else 1]:
        pipeline.save_pretrained(folder, half=True)
        print(f"wrote {folder}")


def data_folder(hparams: Mapping) -> Path:
    """`exp_dir`. Raises ValueError where nothing is prepared there."""
    exp_dir = Path(hparams["exp_dir"])
    if not (exp_dir / "data").is_dir():
        raise ValueError(f"{exp_dir / 'data'} is not there; run the recipe's stages 0 and 1 first")
    return exp_dir


def compute_device(hparams: Mapping) -> str:
    """The device of this process; threads and, under torchrun, the group of processes are set up."""
    import torch

    from cdasr.runtime.device import resolve_device
    from cdasr.runtime.memory import keep_freed_memory
    from cdasr.training.distributed import join_group

    keep_freed_memory()
    if hparams["threads"]:  # of all processes together
        torch.set_num_threads(max(1, hparams["threads"] // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    return join_group(resolve_device(hparams["device"]))
