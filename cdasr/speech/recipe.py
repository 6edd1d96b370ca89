"""The recipes of speech, as their stages know them: manifests, noise and rooms, the frozen recogniser."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from torch import nn
from torch.utils.data import Dataset

from cdasr.coupled.recipe import Hparams, Recipe, Rows, as_in
from cdasr.runtime.plain_data import read_json
from cdasr.speech.domain import SPEECH
from cdasr.speech.normalisers import Normaliser, recipe_normaliser


def data_folder(hparams: Hparams) -> Path:
    """Where the prepare stage has written to."""
    return Path(hparams["exp_dir"]) / "data"


def download(hparams: Hparams) -> None:
    """Stage 0 of a recipe without a prepare.py: whether its manifests are there."""
    from cdasr.speech.corpus import find_manifests

    find_manifests(hparams)


def prepare(hparams: Hparams) -> None:
    """Stage 1 of a recipe without a prepare.py: from its manifests."""
    from cdasr.speech.corpus import prepare_manifests

    prepare_manifests(hparams)


# -- data -------------------------------------------------------------------------------------------------------------


def rows(hparams: Hparams, name: str) -> Rows:
    """The rows of a prepared manifest; `clean`: the clean test utterances, else those of `valid`."""
    from cdasr.speech.corpus import clean_rows, prepared_rows

    folder = data_folder(hparams)
    if name != "clean":
        return prepared_rows(folder, name)
    return clean_rows(prepared_rows(folder, "eval")) or prepared_rows(folder, "valid")


def degraded(hparams: Hparams, rows: Rows, seed: int) -> Dataset:
    """Utterances, degraded on the fly as the section `signal` says, or the corpus's own pairs (`data.pair_prob`)."""
    from cdasr.speech.utterances import PairedUtterances, noisy_and_clean

    return PairedUtterances(rows, hparams["sample_rate"], seed, noisy_and_clean(training_degrader(hparams)),
                            hparams["data"].get("pair_prob", 0.0))


def bank_rows(hparams: Hparams, rows: Rows) -> Rows:
    """The rows of stage 4's cache: several utterances each, of up to `logits.bank.joined_seconds` together."""
    from cdasr.speech.utterances import joined_rows

    longest = hparams["logits"]["bank"]["joined_seconds"]
    return joined_rows(rows, longest, hparams["seed"]) if longest else rows


def fixed(hparams: Hparams, rows: Rows) -> Dataset:
    """Utterances of a fixed noisy manifest."""
    from cdasr.speech.utterances import FixedPairs

    return FixedPairs(rows, hparams["sample_rate"])


def training_degrader(hparams: Hparams) -> Callable:
    """Degradation on the fly for training; all training utterances are there to babble in the background."""
    from cdasr.speech.corpus import room_source
    from cdasr.speech.degrade import TrainingDegrader
    from cdasr.speech.noise import NoiseSource

    settings, rate, data = hparams["signal"], hparams["sample_rate"], data_folder(hparams)
    lists = read_json(path := data / "noise.json", called=path, keys=("train.files", "train.families", "rooms.train"))
    noise = NoiseSource(files=lists["train"]["files"], families=lists["train"]["families"],
                        speech=rows(hparams, "train"), rate=rate, file_prob=settings["file_prob"])
    rooms = room_source(lists["rooms"]["train"], hparams["data"]["train_rooms"], hparams["seed"], rate,
                        data / "rooms" / "train")
    return TrainingDegrader(noise, rooms, snr_range=tuple(settings["snr_range"]),
                            reverb_prob=settings["reverb_prob"], clean_prob=settings["clean_prob"],
                            tight_prob=settings["tight_prob"], speed_range=tuple(settings["speed_range"]),
                            channel_db=settings["channel_db"])


def ablation_rows(hparams: Hparams) -> Rows:
    """A share of the test utterances of some conditions, drawn at random."""
    from cdasr.coupled.rows import sample_rows

    settings = hparams["ablation"]
    found = [row for row in rows(hparams, "eval") if row["condition"] in settings["conditions"]]
    return sample_rows(found, -(-len(found) // settings["every"]), hparams["seed"])


# -- the recogniser ---------------------------------------------------------------------------------------------------


def make_recogniser(hparams: Hparams, folder: Path, device: str) -> nn.Module:
    """The frozen recogniser: `asr`, or one, or a CTC head on it, that is trained here on clean speech."""
    from cdasr.classifiers.load import load_recogniser, save_recogniser
    from cdasr.speech.train_recogniser import CleanAugment, train_recogniser
    from cdasr.training.distributed import on_main

    if hparams["asr"] and not hparams["asr_head"]:
        frozen = load_recogniser(hparams["asr"], **hparams["asr_options"]).to(device)
        if frozen.sample_rate != hparams["sample_rate"]:
            raise ValueError(f"{hparams['asr']} takes {frozen.sample_rate} Hz and the recipe {hparams['sample_rate']} "
                             f"Hz; give --sample-rate {frozen.sample_rate} and run stage 1 again")
        if on_main():
            save_recogniser(frozen, folder / "model", by_reference=True)
        return frozen
    train, valid = ([row for row in rows(hparams, name) if row["text"]] for name in ("train", "valid"))
    if not train or not valid:
        raise ValueError(f"{data_folder(hparams)}: no utterance of the {'validation' if train else 'training'} set has "
                         "a transcript, and a recogniser learns from nothing else")
    learn = (train, valid, folder, hparams["recogniser"], CleanAugment(hparams["sample_rate"]), device)
    normalise = recipe_normaliser(hparams)
    return (train_head(hparams, *learn, normalise=normalise) if hparams["asr"]
            else train_recogniser(*learn, normalise=normalise))


def train_head(hparams: Hparams, *settings, normalise: Normaliser) -> nn.Module:
    """A CTC head on the frozen encoder of `asr`, as `asr_head` says."""
    if hparams["asr_head"] != "whisper":
        raise ValueError("--asr-head is whisper, for a CTC head on Whisper's encoder, or empty; got "
                         f"{hparams['asr_head']!r}")
    from cdasr.speech.train_whisper_head import train_whisper_head

    return train_whisper_head(hparams["asr"], *settings, hparams["asr_options"], normalise)


def load_frozen(hparams: Hparams, folder: Path) -> nn.Module:
    """The recogniser of stage 2."""
    from cdasr.classifiers.load import load_recogniser

    return load_recogniser(folder / "model", **hparams["asr_options"])


def about_recogniser(frozen: nn.Module) -> dict:
    """Size and geometry; a decoder has no `stride` (samples)."""
    return {"class": type(frozen.model).__name__, "parameters": sum(part.numel() for part in frozen.parameters()),
            "sample_rate": frozen.sample_rate, "stride": getattr(frozen, "stride", None)}


def retrain(hparams: Hparams, folder: Path, device: str) -> nn.Module:
    """The recogniser fine-tuned on noisy speech for as long as stages 3 to 5 take."""
    from cdasr.classifiers.ctc import CTCRecogniser
    from cdasr.classifiers.load import load_recogniser
    from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
    from cdasr.speech.train_recogniser import train_recogniser

    frozen, degrade = load_recogniser(folder.parent / "recogniser" / "model"), training_degrader(hparams)
    settings, normalise = as_in(hparams["recogniser"], hparams["retrained"]), recipe_normaliser(hparams)
    if type(frozen) is WhisperDecoderRecogniser:
        return _retrain_whisper(hparams, folder, settings, degrade, device, normalise)
    if type(frozen) is not CTCRecogniser:
        raise ValueError("the control retrained is for CTC recognisers of waveforms and for Whisper's decoder; give "
                         "--controls [matched]")
    return train_recogniser(rows(hparams, "train"), rows(hparams, "valid_noisy"), folder, settings,
                            lambda wave, rng: degrade(wave, rng)[0], device, start=frozen, normalise=normalise)


def _retrain_whisper(hparams: Hparams, folder: Path, settings: dict, degrade: Callable, device: str,
                     normalise: Normaliser) -> nn.Module:
    """Whisper learns in float32; its answers to clean speech come from the recogniser as the recipe runs it."""
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.train_whisper import retrain_whisper

    options = {**hparams["asr_options"], "dtype": "float32"}
    start = load_recogniser(folder.parent / "recogniser" / "model", **options).model
    return retrain_whisper(load_frozen(hparams, folder.parent / "recogniser"), start, rows(hparams, "train"),
                           rows(hparams, "valid_noisy"), folder, settings,
                           lambda wave, rng: {"noisy": degrade(wave, rng)[0]}, hparams["signal"]["speed_range"][0],
                           device, normalise)


# -- processes and packages -------------------------------------------------------------------------------------------


def pipeline() -> type:
    """The class of its pipelines."""
    from cdasr.speech.pipeline import Pipeline

    return Pipeline


def load_package(folder: str | os.PathLike, device: str, classifier: nn.Module | None = None):
    """A model package, around a recogniser that is loaded already where one is given."""
    return pipeline().from_pretrained(folder, device=device, recogniser=classifier)


def import_signal(path: str):
    """The signal process of a public SGMSE checkpoint."""
    from cdasr.speech.sgmse import load_sgmse

    return load_sgmse(path) if str(path).endswith((".ckpt", ".pt")) else None


def check_start(model, hparams: Hparams) -> None:
    """Raise ValueError for a signal process of another sampling rate."""
    if model.sample_rate != hparams["sample_rate"]:
        raise ValueError(f"{hparams['signal_init']} works at {model.sample_rate} Hz and the recipe at "
                         f"{hparams['sample_rate']} Hz; start from another signal process")


def recordings_in(manifest: str) -> list[str]:
    """The recordings that a manifest names."""
    from cdasr.speech.manifest import read_manifest

    rows = read_manifest(manifest, check_audio=False, empty_text=True)
    return list(dict.fromkeys(path for row in rows for path in (row["wav"], row.get("clean_wav")) if path))


def add_vote(hparams: Hparams, pipeline, rows: Rows, batch_items: int):
    """The pipeline with a vote for `rover`; as it is where `tuning.rover` is null."""
    from cdasr.speech.rover_rule import add_rover

    tolerance = hparams["tuning"]["rover"]
    return pipeline if tolerance is None else add_rover(pipeline, rows, tolerance, batch_items,
                                                        recipe_normaliser(hparams))


RECIPE = Recipe(
    domain=SPEECH, classifier="recogniser", download=download, prepare=prepare, rows=rows, degraded=degraded,
    fixed=fixed, bank_rows=bank_rows, ablation_rows=ablation_rows, make_classifier=make_recogniser,
    load_classifier=load_frozen, about_classifier=about_recogniser, retrain=retrain, pipeline=pipeline,
    load_package=load_package, import_signal=import_signal, check_start=check_start,
    scored=lambda hparams: data_folder(hparams) / "eval.csv", add_rover=add_vote,
    package_config=lambda hparams: {"about": hparams["about"], "context": hparams["context"]},
    reads={"download": ("data_dir", "download"),
           "prepare": ("data", "manifests", "noise_dir", "rir_dir", "sample_rate", "seed"),
           "recogniser": ("asr", "asr_head", "asr_options", "normaliser", "recogniser", "training_seed"),
           "signal": ("context",), "score": ("report",)},
    files={"download": ("data_dir",), "prepare": ("data_dir", "manifests", "noise_dir", "rir_dir"),
           "recogniser": ("asr",)},
    lists={"prepare": {"manifests": recordings_in}})
