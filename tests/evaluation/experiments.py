"""Folders as the stages of a recipe leave them, with entries drawn at random in place of decoded ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

CONTROLS = ("enhanced_matched", "oa_matched", "retrained")
COUPLED = ("card", "cascade", "cascade_pretrained", "parallel", "alternating", "nested")
TUNING = {"steps": {"1": 21.5, "2": 20.25}, "weights": {"0.0": 20.25, "0.1": 20.75}, "best_steps": 2,
          "best_weight": 0.0}
SPEECH = {"systems": ("none", "enhanced", *CONTROLS, *COUPLED), "items": 24,
          "conditions": {"clean": 0.02, "reverb": 0.1, "seen_0dB": 0.4, "seen_5dB": 0.3, "unseen_0dB": 0.5,
                         "unseen_5dB": 0.4, "unseen_10dB": 0.3, "unseen_15dB": 0.2}}
IMAGES = {"systems": ("none", "enhanced", "enhanced_matched", "retrained", "card", "cascade", "parallel",
                      "alternating", "nested"), "items": 60,
          "conditions": {"clean": 0.1, "pixel_noise": 0.5, "gaussian_blur": 0.4}}


def speech(folder: Path) -> tuple[Path, dict]:
    """A speech recipe's `exp_dir` and its settings: two training seeds, and a consensus of 3 samples."""
    exp_dir, other = folder / "digits", folder / "other"
    _decode(exp_dir / "results", SPEECH, utterance, 0)
    _decode(other / "results", SPEECH, utterance, 1)
    _decode(exp_dir / "results" / "samples-3", {**SPEECH, "systems": ("parallel",)}, utterance, 2)
    _stages(exp_dir, "recogniser", "wer", 1, {"clean": {"wer": 1.25, "words": 400}})
    _stages(other, "recogniser", "wer", 7, {})
    _write(exp_dir / "results" / "rtf.json", {
        "rtf": {"none": 0.01, "enhanced": 0.15, "parallel": 0.35}, "utterances": 20, "audio_seconds": 61.5,
        "device": "cpu", "threads": 2})
    _write(exp_dir / "results" / "ablation.json", _ablation("wer", 4, 50))
    hparams = {"exp_dir": str(exp_dir), "other_seeds": [str(other)], "data": {"snrs": [0, 5], "valid": "dev"},
               "report": {"about": "Strings at {snrs} dB; chosen on {valid}.", "targets": True,
                          "compared": {"title": "Unseen noise", "conditions": "unseen_(0|5|10)dB"}}}
    return exp_dir, hparams


def images(folder: Path) -> tuple[Path, dict]:
    """An image recipe's `exp_dir` and its settings: two training seeds."""
    exp_dir, other = folder / "images", folder / "other"
    _decode(exp_dir / "results", IMAGES, picture, 0)
    _decode(other / "results", IMAGES, picture, 1)
    _stages(exp_dir, "classifier", "error", 1, {"accuracy": 91.25, "parameters": 1234})
    _stages(other, "classifier", "error", 7, {})
    _write(exp_dir / "results" / "ablation.json", _ablation("error", 10, 150))
    hparams = {"exp_dir": str(exp_dir), "dataset": "digits", "other_seeds": [str(other)], "data": {
        "eval_split": "dev", "unseen": [{"name": "jpeg", "quality": 10}], "degradations": [
            {"name": "pixel_noise", "level": 0.3}, {"name": "gaussian_blur", "kernel": 5, "sigma": 2.0}]}}
    return exp_dir, hparams


def utterance(rng: np.random.Generator, number: int, condition: str, rate: float, system: int) -> dict:
    """An entry of decode/*.jsonl as the first version wrote it."""
    words = 3 + number % 4
    errors = int(rng.binomial(words, rate))
    entry = {"ID": f"utt{number:03d}_{condition}", "condition": condition, "errors": errors, "words": words,
             "reference": " ".join(f"word{place}" for place in range(words)),
             "text": " ".join(f"word{place}" if place < words - errors else "wrong" for place in range(words)),
             "confidence": [round(float(value), 4) for value in rng.uniform(0.3, 1.0, words)],
             "correct": [True] * (words - errors) + [False] * errors, "duration": 1.5 + 0.1 * words,
             "seconds": 0.1 + 0.01 * system, "nfe": {"signal": system % 4, "logits": system // 4, "classifier": 1}}
    if condition != "clean":
        entry |= {"si_sdr_input": 3.0 + 0.1 * number, "si_sdr": round(3.0 + float(rng.uniform(0, 9)), 3)}
    return entry


def picture(rng: np.random.Generator, number: int, condition: str, rate: float, system: int) -> dict:
    """An entry of decode/*.jsonl as the first version wrote it."""
    errors = int(rng.binomial(1, rate))
    entry = {"ID": f"{condition}-{number:06d}", "condition": condition, "errors": errors, "images": 1,
             "errors_top5": int(errors and rng.random() < 0.3), "confidence": [round(float(rng.uniform(0.3, 1)), 4)],
             "correct": [not errors], "duration": 1.0, "seconds": 0.001 + 0.0001 * system,
             "nfe": {"signal": system % 4, "logits": system // 4, "classifier": 1}}
    if condition != "clean":
        entry |= {"psnr_input": 15.0, "psnr": round(float(rng.uniform(18, 30)), 3), "ssim_input": 0.5,
                  "ssim": round(float(rng.uniform(0.5, 0.9)), 4)}
    return entry


def decoded(kind: dict, make, seed: int) -> dict[str, list[dict]]:
    """Entries by system; each system errs less than the one before."""
    rng = np.random.default_rng(seed)
    return {system: [make(rng, number, condition, rate * (1.0 - 0.07 * place), place)
                     for condition, rate in kind["conditions"].items() for number in range(kind["items"])]
            for place, system in enumerate(kind["systems"])}


def _decode(results: Path, kind: dict, make, seed: int) -> None:
    for system, entries in decoded(kind, make, seed).items():
        path = results / "decode" / f"{system}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def _stages(exp_dir: Path, classifier: str, rate: str, seed: int, measured: dict) -> None:
    """Records and training logs."""
    strategies = {"parallel": [{"options": {"steps": 2}, rate: 19.5}, {"options": {"steps": 4}, rate: 18.75}],
                  "nested": [{"options": {"steps": 1, "inner": 2}, rate: 18.25}]}
    choices = {"signal": TUNING, "coupled": {**TUNING, "strategies": strategies}}
    for place, stage in enumerate((classifier, "signal", "logits", "coupled", "matched", "retrained")):
        log = [{"epoch": epoch, "seconds": 90.0 + place, rate: 30.0 - 3 * epoch + place,
                **({f"{rate}_cascade": 29.0 - 3 * epoch} if stage == "logits" else {})} for epoch in (1, 2, 3)]
        settings = {"hparams": {"training_seed": seed}, **(measured if stage == classifier else {}),
                    **({"tuning": choices[stage]} if stage in choices else {})}
        _write(exp_dir / stage / "record.json", {"settings": settings, "machine": {"cores": 2, "gpu": None}})
        (exp_dir / stage / "train_log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))


def _ablation(rate: str, few: int, many: int) -> dict:
    variants = [("parallel, as the package runs it", 20.25), (f"parallel, {few} + {few} steps", 21.0),
                (f"parallel, {many} + {many} steps", 20.5), ("signal to logits: off", 30.0)]
    return {"strategy": "parallel", "about": "One training seed.", "conditions": ["seen_5dB"], "words": 120,
            "utterances": 24, "variants": [
                {"variant": name, rate: value, "interval": [value - 2.5, value + 3.0], f"{rate}_enhanced":
                 None if place == 3 else value + 1, "difference": [place - 1.25, place + 1.5],
                 "nfe": {"signal": 1 + place, "logits": 2 + place}} for place, (name, value) in enumerate(variants)]}


def _write(path: Path, found: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
