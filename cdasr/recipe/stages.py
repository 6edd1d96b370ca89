"""The stages that all speech recipes share: `python -m cdasr.recipe STAGE --hparams FILE [--key value ...]`.

`python -m cdasr.recipe run --recipe DIR ...` runs them all, as a recipe's run.sh does (runner.py). A recipe's own
`prepare.py` writes `exp_dir/data` (manifests `train`, `valid`, `valid_noisy`, `eval`; `noise.json`); everything after
that is here. Stages read what earlier ones wrote and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cdasr.recipe.hparams import load_hparams
from cdasr.recipe.markers import Markers, Stage
from cdasr.recipe.runner import CAUSE, run, tell_cause
from cdasr.runtime.provenance import program_name, read_json, record, write_json


def download(hparams: dict) -> None:
    """Stage 0 of a recipe without a prepare.py: whether its manifests are there."""
    from cdasr.speech.corpus import find_manifests

    find_manifests(hparams)


def prepare(hparams: dict) -> None:
    """Stage 1 of a recipe without a prepare.py: from its manifests."""
    from cdasr.speech.corpus import prepare_manifests

    prepare_manifests(hparams)


def recogniser(hparams: dict) -> None:
    """Stage 2: the frozen recogniser, `asr` or (a CTC head on it, or all of it) trained here, and its error rates."""
    from cdasr.classifiers.load import load_recogniser, save_recogniser
    from cdasr.evaluation.tuning import recogniser_wer
    from cdasr.speech.corpus import clean_rows, prepared_rows
    from cdasr.training.distributed import on_main
    from cdasr.training.recogniser import CleanAugment, train_recogniser

    exp_dir, data = data_folders(hparams)
    device, folder = compute_device(hparams), exp_dir / "recogniser"
    if hparams["asr"] and not hparams["asr_head"]:
        frozen = load_recogniser(hparams["asr"], **hparams["asr_options"]).to(device)
        _check_rate(frozen, hparams)
        if on_main():
            save_recogniser(frozen, folder / "model", by_reference=True)
    else:
        speech = prepared_rows(data, "train"), prepared_rows(data, "valid")
        learn = folder, hparams["recogniser"], CleanAugment(hparams["sample_rate"]), device
        frozen = train_head(hparams, *speech, *learn) if hparams["asr"] else train_recogniser(*speech, *learn)
    if not on_main():
        return
    frozen.with_hidden_layers(hparams["logits_model"]["hidden_layers"])  # whether it has them: now, not in stage 4
    clean = recogniser_wer(frozen, clean_rows(prepared_rows(data, "eval")) or prepared_rows(data, "valid"))
    noisy = recogniser_wer(frozen, prepared_rows(data, "valid_noisy"))
    write_json(folder / "record.json", record(stage="recogniser", hparams=hparams, clean=clean, noisy=noisy,
                                              recogniser=_about(frozen)))
    print(f"frozen recogniser: {', '.join(f'{key} {value}' for key, value in _about(frozen).items())}")
    print(f"frozen recogniser: {clean['wer']:.2f} % WER on {clean['words']} clean words, {noisy['wer']:.2f} % on the "
          "noisy validation set")


def train_head(hparams: dict, *settings):
    """A CTC head on the frozen encoder of `asr`, as `asr_head` says."""
    if hparams["asr_head"] != "whisper":
        raise ValueError("--asr-head is whisper, for a CTC head on Whisper's encoder, or empty; got "
                         f"{hparams['asr_head']!r}")
    from cdasr.training.whisper_head import train_whisper_head

    return train_whisper_head(hparams["asr"], *settings, hparams["asr_options"])


def _check_rate(frozen, hparams: dict) -> None:
    if frozen.sample_rate != hparams["sample_rate"]:
        raise ValueError(f"{hparams['asr']} takes {frozen.sample_rate} Hz and the recipe {hparams['sample_rate']} Hz; "
                         f"give --sample-rate {frozen.sample_rate} and run stage 1 again")


def _about(frozen) -> dict:
    """Size and geometry of a recogniser, for its record; a decoder has no `stride` (samples)."""
    return {"class": type(frozen.model).__name__, "parameters": sum(part.numel() for part in frozen.parameters()),
            "sample_rate": frozen.sample_rate, "stride": getattr(frozen, "stride", None)}


def signal(hparams: dict) -> None:
    """Stage 3: train the signal process, choose its steps and the observation-adding weight, write the package."""
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.corpus import prepared_rows
    from cdasr.speech.pipeline import Pipeline
    from cdasr.training.distributed import on_main
    from cdasr.training.signal import train_signal

    exp_dir, data = data_folders(hparams)
    device = compute_device(hparams)
    frozen = load_recogniser(exp_dir / "recogniser" / "model", **hparams["asr_options"])
    train_rows, valid_rows = prepared_rows(data, "train"), prepared_rows(data, "valid_noisy")
    start = initial_signal(hparams["signal_init"]) if hparams["signal_init"] else None
    if start and start.sample_rate != hparams["sample_rate"]:
        raise ValueError(f"{hparams['signal_init']} works at {start.sample_rate} Hz and the recipe at "
                         f"{hparams['sample_rate']} Hz; start from another signal process")
    if hparams["signal"]["epochs"]:
        config = start.config if start else hparams["signal_model"]
        degrade = training_degrader(data, train_rows, hparams)
        model = train_signal(config, frozen, train_rows, valid_rows, exp_dir / "signal", hparams["signal"], degrade,
                             device, start)
    elif start is None:
        raise ValueError("--signal.epochs 0 leaves the signal process untrained; give --signal-init PACKAGE")
    else:
        (exp_dir / "signal").mkdir(exist_ok=True)
        model = start
    if not on_main():
        return
    pipeline = Pipeline(frozen, model, {"about": hparams["about"], "context": hparams["context"]}, device)
    pipeline, choices = _tune(pipeline, valid_rows, hparams)
    write_json(exp_dir / "signal" / "record.json", record(stage="signal", hparams=hparams, tuning=choices))
    save_package(pipeline, exp_dir, "signal")
    print(f"steps {choices['best_steps']}, observation-adding weight {choices['best_weight']}")


def initial_signal(path: str):
    """The signal process of a model package or a public SGMSE checkpoint, to start from; it is told no logits yet."""
    from cdasr.speech.pipeline import Pipeline
    from cdasr.speech.sgmse import load_sgmse
    from cdasr.speech.signal_model import SpectrogramModel

    if str(path).endswith(".ckpt"):
        return load_sgmse(path)
    trained = Pipeline.from_pretrained(path, device="cpu").signal
    network = {key: value for key, value in trained.config["network"].items()
               if key not in ("tokens", "condition", *SpectrogramModel.injection)}
    model = SpectrogramModel.from_config({**trained.config, "network": network})
    weights = trained.network.state_dict()
    model.network.load_state_dict({name: weights[name] for name in model.network.state_dict()})
    return model


def logits(hparams: dict) -> None:
    """Stage 4: fill the bank of logits, then train the logits process on it."""
    from cdasr.speech.corpus import prepared_rows, spread
    from cdasr.speech.pipeline import Pipeline
    from cdasr.training.distributed import on_main
    from cdasr.training.logits import train_logits
    from cdasr.training.logits_cache import build_bank, degraded_pairs, fixed_pairs

    exp_dir, data = data_folders(hparams)
    settings, device, rate, seed = hparams["logits"], compute_device(hparams), hparams["sample_rate"], hparams["seed"]
    pipeline = Pipeline.from_pretrained(exp_dir / "signal" / "package", device=device)
    model, frozen = pipeline.signal, pipeline.recogniser.with_hidden_layers(hparams["logits_model"]["hidden_layers"])
    train_rows, valid_rows = prepared_rows(data, "train"), prepared_rows(data, "valid_noisy")
    pairs = degraded_pairs(rate, training_degrader(data, train_rows, hparams))
    folder = exp_dir / "logits" / "bank"
    spoken = spread(train_rows, settings["bank"]["utterances"])
    train = build_bank(folder / "train", spoken, pairs, frozen, model, settings["bank"], seed, device)
    once = {**settings["bank"], "passes": 1, "steps": [model.config["sampling"]["steps"]]}
    valid = build_bank(folder / "valid", valid_rows, fixed_pairs(rate), frozen, model, once, seed, device)
    trained = train_logits(hparams["logits_model"], frozen, train, valid, exp_dir / "logits", settings, device)
    if not on_main():
        return
    write_json(exp_dir / "logits" / "record.json", record(stage="logits", hparams=hparams))
    guided = model.with_injection(trained.tokens, hparams["coupled"]["condition"])
    save_package(Pipeline(frozen, guided, pipeline.config, device, trained), exp_dir, "logits")


def coupled(hparams: dict) -> None:
    """Stage 5: train both processes together, each given what the other shows it."""
    from cdasr.evaluation.tuning import tune_strategies
    from cdasr.speech.corpus import prepared_rows
    from cdasr.speech.pipeline import Pipeline
    from cdasr.training.coupled import train_coupled
    from cdasr.training.distributed import on_main

    exp_dir, data = data_folders(hparams)
    device = compute_device(hparams)
    pipeline = Pipeline.from_pretrained(exp_dir / "logits" / "package", device=device)
    train_rows, valid_rows = prepared_rows(data, "train"), prepared_rows(data, "valid_noisy")
    models = train_coupled(pipeline.signal, pipeline.logits, pipeline.recogniser, train_rows, valid_rows,
                           exp_dir / "coupled", hparams["coupled"], training_degrader(data, train_rows, hparams),
                           device)
    if not on_main():
        return
    trained = Pipeline(pipeline.recogniser, models[0], pipeline.config, device, models[1])
    trained, choices = _tune(trained, valid_rows, hparams)
    trained, choices["strategies"] = tune_strategies(trained, valid_rows, hparams["tuning"]["strategies"])
    write_json(exp_dir / "coupled" / "record.json", record(stage="coupled", hparams=hparams, tuning=choices))
    save_package(trained, exp_dir, "coupled")
    print(f"strategy {trained.default_strategy}: {trained.config['strategies'][trained.default_strategy]}")


def matched(hparams: dict) -> None:
    """Control: the signal process of stage 3, trained on by itself for as long as stages 4 and 5 take."""
    from cdasr.speech.corpus import prepared_rows
    from cdasr.speech.pipeline import Pipeline
    from cdasr.training.distributed import on_main
    from cdasr.training.signal import train_signal

    exp_dir, data = data_folders(hparams)
    settings = as_in(hparams["signal"], hparams["matched"])
    pipeline = Pipeline.from_pretrained(exp_dir / "signal" / "package", device=compute_device(hparams))
    train_rows, valid_rows = prepared_rows(data, "train"), prepared_rows(data, "valid_noisy")
    model = train_signal(pipeline.signal.config, pipeline.recogniser, train_rows, valid_rows, exp_dir / "matched",
                         settings, training_degrader(data, train_rows, hparams), pipeline.device, pipeline.signal)
    if not on_main():
        return
    trained = Pipeline(pipeline.recogniser, model, pipeline.config, pipeline.device)
    trained, choices = _tune(trained, valid_rows, hparams)
    write_json(exp_dir / "matched" / "record.json", record(stage="matched", hparams=hparams, tuning=choices))
    save_package(trained, exp_dir, "matched", latest=False)


def as_in(settings: dict, changes: dict) -> dict:
    """`settings` with the `changes` that are not null."""
    return {**settings, **{key: value for key, value in changes.items() if value is not None}}


def retrained(hparams: dict) -> None:
    """Reference beyond the rules: the recogniser fine-tuned on noisy speech for as long as stages 3 to 5 take."""
    from cdasr.classifiers.ctc import CTCRecogniser
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.corpus import prepared_rows
    from cdasr.speech.pipeline import Pipeline
    from cdasr.training.distributed import on_main
    from cdasr.training.recogniser import train_recogniser

    exp_dir, data = data_folders(hparams)
    device = compute_device(hparams)
    settings = as_in(hparams["recogniser"], hparams["retrained"])
    train_rows, valid_rows = prepared_rows(data, "train"), prepared_rows(data, "valid_noisy")
    degrade = training_degrader(data, train_rows, hparams)
    frozen = load_recogniser(exp_dir / "recogniser" / "model")
    if type(frozen) is not CTCRecogniser:
        raise ValueError("the control retrained is for CTC recognisers; give --controls [matched]")
    signal = Pipeline.from_pretrained(exp_dir / "signal" / "package", device=device).signal
    tuned = train_recogniser(train_rows, valid_rows, exp_dir / "retrained", settings,
                             lambda wave, rng: degrade(wave, rng)[0], device, start=frozen)
    if not on_main():
        return
    write_json(exp_dir / "retrained" / "record.json", record(stage="retrained", hparams=hparams))
    save_package(Pipeline(tuned, signal, device=device), exp_dir, "retrained", latest=False)


def controls(hparams: dict) -> None:
    """Stage 6: the controls that the recipe lists, of `matched` and `retrained`."""
    known = {"matched": matched, "retrained": retrained}
    if unknown := [name for name in hparams["controls"] if name not in known]:
        raise ValueError(f"there is no control {unknown[0]!r}; known: {', '.join(known)}")
    for name in hparams["controls"]:
        known[name](hparams)


CONTROLS = {"enhanced_matched": ("matched", "enhanced"), "oa_matched": ("matched", "oa"),
            "cascade_pretrained": ("logits", "cascade"),
            "retrained": ("retrained", "none")}  # system: (stage whose package it takes, strategy)


def training_degrader(data: Path, train_rows, hparams: dict):
    """Degradation on the fly for training, as the signal's hyper-parameters say."""
    from cdasr.speech.degrade import TrainingDegrader

    settings = hparams["signal"]
    return TrainingDegrader(*training_sources(data, train_rows, hparams), snr_range=tuple(settings["snr_range"]),
                            reverb_share=settings["reverb_share"], clean_share=settings["clean_share"],
                            tight_share=settings["tight_share"],
                            speed_range=tuple(settings["speed_range"]), channel_db=settings["channel_db"])


def training_sources(data: Path, train_rows, hparams: dict):
    """The noise and room sources of `noise.json`'s training lists."""
    from cdasr.speech.corpus import room_source
    from cdasr.speech.noise import NoiseSource

    lists, rate = read_json(data / "noise.json"), hparams["sample_rate"]
    noise = NoiseSource(files=lists["train"]["files"], families=lists["train"]["families"],
                        speech=train_rows, rate=rate,
                        file_share=hparams["signal"]["file_share"])
    rooms = room_source(lists["rooms"]["train"], hparams["data"]["train_rooms"], hparams["seed"], rate,
                        data / "rooms" / "train")
    return noise, rooms


def decode(hparams: dict) -> None:
    """Stage 7: every system on the fixed test sets, going on where it was interrupted; then real-time factors."""
    from cdasr.coupled.pipeline import NEED_LOGITS
    from cdasr.evaluation.benchmark import real_time_factors
    from cdasr.evaluation.evaluate import evaluate
    from cdasr.speech.corpus import drawn_rows, prepared_rows
    from cdasr.speech.pipeline import Pipeline

    exp_dir, data = data_folders(hparams)
    settings = hparams["decode"]
    device = compute_device(hparams)
    pipeline = Pipeline.from_pretrained(exp_dir / "package", device=device)
    others = control_systems(exp_dir, pipeline)
    coupled = [name for name in pipeline.strategies if name in NEED_LOGITS]
    plain = [name for name in pipeline.strategies if name not in coupled]
    systems = settings["systems"] or [name for name in (*plain, *others, *coupled)
                                      if _adds_something(name, *others.get(name, (pipeline, name)))]
    samples = settings["samples"]
    folder = exp_dir / "results" / ("" if samples == 1 else f"samples-{samples}")
    print(evaluate(data / "eval.csv", pipeline, systems, folder, seed=hparams["seed"], samples=samples,
                   batch_seconds=settings["batch_seconds"], others=others,
                   conditions=settings["conditions"] or None, only=settings["only"], overwrite=settings["overwrite"]))
    if settings["timed_utterances"] and samples == 1:
        rows = drawn_rows(prepared_rows(data, "eval"), settings["timed_utterances"], hparams["seed"])
        own = [name for name in systems if name not in others]
        write_json(exp_dir / "results" / "rtf.json", real_time_factors(pipeline, rows, own))


def control_systems(exp_dir: Path, pipeline) -> dict:
    """The pipeline and strategy of each control that was trained; what is frozen in all of them is loaded once.

    Before the coupled training the cascade of the pretrained processes is the package's own `cascade`, no control.
    """
    packages = {}
    for stage in dict.fromkeys(stage for stage, _ in CONTROLS.values()):
        if (exp_dir / ("coupled" if stage == "logits" else stage) / "package").is_dir():
            frozen = {} if stage == "retrained" else {"recogniser": pipeline.recogniser}
            packages[stage] = type(pipeline).from_pretrained(exp_dir / stage / "package", pipeline.device, **frozen)
    return {name: (packages[stage], strategy) for name, (stage, strategy) in CONTROLS.items() if stage in packages}


def _adds_something(name: str, pipeline, strategy: str) -> bool:
    """False for observation adding with a weight of 0, which is `enhanced` over again."""
    if strategy != "oa" or pipeline.oa_weight > 0:
        return True
    print(f"{name}: the weight chosen on validation data is 0, so it equals its enhanced; not decoded again")
    return False


def ablate(hparams: dict) -> None:
    """Stage 8: what each part of the package's strategy is worth, on a share of the test strings."""
    from cdasr.evaluation.ablation import ablate
    from cdasr.speech.corpus import drawn_rows, prepared_rows
    from cdasr.speech.pipeline import Pipeline

    exp_dir, data = data_folders(hparams)
    settings = hparams["ablation"]
    pipeline = Pipeline.from_pretrained(exp_dir / "package", device=compute_device(hparams))
    rows = [row for row in prepared_rows(data, "eval") if row["condition"] in settings["conditions"]]
    if not rows:
        print(f"none of the conditions {', '.join(settings['conditions'])} is in the test set; nothing to ablate")
        return
    rows = drawn_rows(rows, -(-len(rows) // settings["every"]), hparams["seed"])
    found = ablate(pipeline, rows, settings["strategy"], settings["steps"], settings["guidance"])
    share = f"One in {settings['every']} test utterances, drawn at random; o" if settings["every"] > 1 else "O"
    about = f"{share}ne training seed."
    write_json(exp_dir / "results" / "ablation.json", {**found, "about": about, "conditions": settings["conditions"],
                                                       "record": record(stage="ablate", hparams=hparams)})


def score(hparams: dict) -> None:
    """Stage 9: the recipe's RESULTS.md and a plot, from what the other stages recorded."""
    from cdasr.evaluation.report import plot_wer_by_snr
    from cdasr.evaluation.results import write_speech_results

    exp_dir, _ = data_folders(hparams)
    scores = read_json(exp_dir / "results" / "wer.json")
    plot_wer_by_snr(scores, exp_dir / "results" / "wer.png")
    target = Path(hparams["results"] or exp_dir / "RESULTS.md")
    write_speech_results(exp_dir, scores, hparams, target)
    print(f"wrote {target} and {exp_dir / 'results' / 'wer.png'}")


def _tune(pipeline, valid_rows, hparams: dict) -> tuple:
    """The pipeline with the signal steps and the observation-adding weight chosen on the validation set; and both."""
    from cdasr.evaluation.tuning import tune

    steps = {*hparams["tuning"]["steps"], *([pipeline.signal.sampling["steps"]] if hparams["signal_init"] else ())}
    choices = tune(pipeline, valid_rows, sorted(steps), hparams["tuning"]["oa_weights"])
    return pipeline.with_choices(choices["best_steps"], observation_adding={"weight": choices["best_weight"]}), choices


def save_package(pipeline, exp_dir: Path, stage: str, latest: bool = True) -> None:
    """Write the package of a stage and, unless it is a control, the recipe's `latest` one, which is scored."""
    for folder in (exp_dir / stage / "package", exp_dir / "package")[:2 if latest else 1]:
        pipeline.save_pretrained(folder, half=True)
        print(f"wrote {folder}")


def data_folders(hparams: dict) -> tuple[Path, Path]:
    exp_dir = Path(hparams["exp_dir"])
    if not (exp_dir / "data").is_dir():
        raise ValueError(f"{exp_dir / 'data'} is not there; run the recipe's stages 0 and 1 first")
    return exp_dir, exp_dir / "data"


def compute_device(hparams: dict) -> str:
    import torch

    from cdasr.runtime.device import resolve_device
    from cdasr.runtime.memory import keep_freed_memory
    from cdasr.training.distributed import join_group

    keep_freed_memory()
    if hparams["threads"]:  # of all processes together
        torch.set_num_threads(max(1, hparams["threads"] // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))
    return join_group(resolve_device(hparams["device"]))


STAGES = {stage.__name__: stage for stage in (download, prepare, recogniser, signal, logits, coupled, controls, matched,
                                              retrained, decode, ablate, score)}
UP_TO_SIGNAL = ("download", "prepare", "recogniser", "signal")
UP_TO_COUPLED = (*UP_TO_SIGNAL, "logits", "coupled")
ORDER = (  # a setting that no stage reads by name, as those of a recipe's own prepare.py, belongs to stage 0
    Stage("download", "find the corpus or download it", own=True, reads=("data_dir", "download")),
    Stage("prepare", "manifests, lists of noise and rooms, fixed noisy sets", own=True, makes=("data",),
          reads=("data", "manifests", "noise_dir", "rir_dir", "sample_rate", "seed"),
          files=("data_dir", "manifests", "noise_dir", "rir_dir")),
    Stage("recogniser", "the frozen recogniser and its word error rate", trains=True, makes=("recogniser",),
          reads=("asr", "asr_head", "asr_options", "recogniser", "training_seed"), files=("asr",)),
    Stage("signal", "train the signal process, choose its steps, write the model package", trains=True,
          makes=("signal",), files=("signal_init",), package=True,
          reads=("about", "context", "signal", "signal_model", "signal_init", "tuning.steps", "tuning.oa_weights")),
    Stage("logits", "fill the bank of logits and train the logits process", trains=True, makes=("logits",),
          package=True, reads=("logits", "logits_model", "coupled.condition")),
    Stage("coupled", "train both processes together, tune the strategies", trains=True, makes=("coupled",),
          package=True, reads=("coupled", "tuning")),
    Stage("controls", "the signal process trained on alone, the recogniser retrained on noisy speech", trains=True,
          makes=("matched", "retrained"), needs=UP_TO_SIGNAL, reads=("controls", "matched", "retrained")),
    Stage("decode", "the test sets with each system", makes=("results",), keyed=True, reads=("decode",)),
    Stage("ablate", "what each part of the coupling is worth", makes=("results/ablation.json",), needs=UP_TO_COUPLED,
          reads=("ablation",)),
    Stage("score", "tables, plot and RESULTS.md", reads=("report", "results", "other_seeds"),
          files=("other_seeds:results",)))
CONTROL_STAGES = ("matched", "retrained")  # of which `controls` consists, and which can be run alone


def main(stages: dict[str, Callable[[dict], None]], order: Sequence[Stage] = (), module: str = "",
         base: str = "speech") -> int:
    """Run one of `stages` as the command line says: `STAGE --hparams FILE [--hparams CHANGES] [--key value ...]`.

    `run --recipe DIR ...` runs those of `order`, which `module` has (runner.py). `base`: the defaults of a recipe that
    does not name them, in hparams.py.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        if order and sys.argv[1:2] == ["run"]:
            return run(order, stages, module, sys.argv[2:], base)
        parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
        parser.add_argument("stage", choices=stages)
        parser.add_argument("--hparams", action="append", required=True, metavar="FILE",
                            help="the recipe's hyper-parameters; a further file changes values of the first")
        options, overrides = parser.parse_known_args()
        hparams = load_hparams(options.hparams, overrides, base)
        _begin_alone(order or ORDER, options.stage, hparams)
        stages[options.stage](hparams)
    except ValueError as error:
        if not tell_cause(error):
            print(f"{program_name()}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program_name()}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        tell_cause(error)
        raise
    return 0


def _begin_alone(order: Sequence[Stage], name: str, hparams: dict) -> None:
    """A stage that is run without the runner is not done any more, nor are those after it."""
    if CAUSE in os.environ or os.environ.get("RANK", "0") != "0":
        return  # the runner, or the first process, has seen to it
    names = [stage.name for stage in order]
    for place in Markers(order, hparams["exp_dir"]).begin(
            names.index("controls" if name in CONTROL_STAGES else name), hparams):
        print(f"{name}: it cannot go on from other settings; what it had made is now {place}", flush=True)
