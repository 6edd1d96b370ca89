"""Tables of accuracies, the grid of pictures, and the RESULTS.md of the image recipe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

import numpy as np

from cdasr.evaluation.report import extra_errors, p_text, render, training_seeds, write_results
from cdasr.evaluation.scoring import pooled, score_conditions
from cdasr.evaluation.store import read_decoded
from cdasr.runtime.atomic import save_figure

NAMES = {"rate": "error", "counted": "images", "means": ("psnr_input", "psnr", "ssim_input", "ssim")}
COUPLED = ("parallel", "alternating", "nested")
REFERENCES = ("none", "enhanced", "enhanced_matched", "card", "cascade", "retrained")
STAGES = ("classifier", "signal", "logits", "coupled", "matched", "retrained")  # that train, in this order


def table(scores: Mapping, markdown: bool = False) -> str:
    """Top-1 accuracies in per cent with 95 % intervals, conditions as rows; then what the systems cost."""
    lines = [["condition", "images", *scores["systems"]]]
    parts = dict(scores["conditions"])
    if len(parts) > 1:
        parts["degraded, average"] = scores["average"]
    for name, condition in parts.items():
        lines.append([name, str(condition[scores["systems"][0]]["images"]),
                      *(_accuracy(condition[system]) for system in scores["systems"])])
    return (f"Top-1 accuracy % [95 % interval]\n{chr(10) if markdown else ''}{render(lines, markdown)}\n\n"
            + costs(scores, markdown))


def costs(scores: Mapping, markdown: bool = False) -> str:
    """Top-5 accuracy, calibration, picture quality and cost of each system, over all degraded conditions."""
    keys = list(scores["average"][scores["systems"][0]]["nfe"])
    lines = [["system", "top-5 %", "ECE", "PSNR dB", "SSIM", *(f"NFE {key}" for key in keys), "images / s"]]
    for system in scores["systems"]:
        entry = scores["average"][system]
        lines.append([system, _accuracy(entry["top5"]), f"{entry['calibration_error']:.3f}",
                      _number(entry["psnr"], 1), _number(entry["ssim"], 3),
                      *(f"{entry['nfe'][key]:g}" for key in keys), f"{1.0 / entry['rtf']:.0f}"])
    return render(lines, markdown)


def comparisons(scores: Mapping, systems: Sequence[str], references: Sequence[str], markdown: bool = True) -> str:
    """Gain of each of `systems` over each of `references` in points of accuracy, with interval and paired p-value."""
    lines = [["points over", *references]]
    for system in systems:
        lines.append([system, *(_gain(scores, system, other) for other in references)])
    return render(lines, markdown)


def plot_grid(rows: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str], Sequence[bool]]],
              path: str | os.PathLike) -> None:
    """Lines of pictures: title, images (H, W[, C]), what each is taken for, and whether that is right."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = len(rows[0][1])
    figure, axes = plt.subplots(len(rows), columns, figsize=(1.15 * columns + 1.2, 1.35 * len(rows)), squeeze=False,
                                layout="constrained")
    for line, (title, images, labels, right) in zip(axes, rows):
        for axis, image, label, good in zip(line, images, labels, right):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(label, fontsize=8, color="tab:green" if good else "tab:red", pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(title, fontsize=8)
    save_figure(figure, path)
    plt.close(figure)


def write_image_results(exp_dir: Path, hparams: Mapping, target: Path) -> None:
    """Write RESULTS.md from what the stages of `exp_dir` recorded."""
    scores = _read(exp_dir / "results" / "accuracy.json")
    classifier = _read(exp_dir / "classifier" / "record.json")["settings"]
    systems = scores["systems"]
    coupled = [name for name in COUPLED if name in systems]
    references = [name for name in REFERENCES if name in systems]
    ablation = exp_dir / "results" / "ablation.json"
    found = _read(ablation) if ablation.is_file() else None
    tuning = _read(exp_dir / "coupled" / "record.json")["settings"]["tuning"]
    folders = [exp_dir, *map(Path, hparams["other_seeds"])]
    runs = [_decoded(folder, systems) for folder in folders]
    average, about = scores["average"], "All degraded conditions, each counting alike."
    if len(runs) > 1:
        average = score_conditions(pooled(runs, NAMES["counted"]), _degraded(scores), **NAMES)
        about += f" All {len(runs)} training seeds; interval and p-value over the images, each with all its seeds."
        systems = [name for name in systems if name in average]
        coupled, references = ([name for name in names if name in average] for names in (coupled, references))
    sections = [
        ("What was measured", _about(hparams, classifier, scores["conditions"]["clean"][systems[0]]["images"])),
        ("Accuracy", table(scores, markdown=True)),
        *([("Coupled strategies against the others", f"{about}\n\n{comparisons(average, coupled, references)}")]
          if coupled else []),
        *_seeds(training_seeds(folders, "coupled"), runs, systems, _degraded(scores)),
        *([("Targets", _targets(average, coupled, found))] if coupled else []),
        *([("Ablations", _ablations(found))] if found else []),
        ("Choices on validation data", _choices(tuning)),
        ("Training", _training(exp_dir))]
    write_results(target, f"Results of recipes/images, {hparams['dataset']}", scores["record"], sections)


def _about(hparams: Mapping, classifier: Mapping, images: int) -> str:
    split = hparams["data"]["eval_split"]
    return (
        f"{hparams['dataset']}: {images} {split} images, degraded once ({_degradations(hparams)}); all systems see the "
        f"same images. The classifier was trained on clean images and is frozen: {classifier['accuracy']:.1f} % on the "
        f"clean {split} images, {classifier['parameters']} parameters. Early stopping, numbers of steps and options of "
        "the strategies were chosen on other images. Intervals: bootstrap over images; p-values: paired bootstrap. "
        "`enhanced_matched`: the signal process of stage 3, trained on alone for about as long as the logits and the "
        "coupled training took. `retrained`: the classifier itself, fine-tuned on degraded images; no longer frozen, a "
        "reference only.")


def _degradations(hparams: Mapping) -> str:
    def text(config: Mapping) -> str:
        return " ".join([config["name"].replace("_", " "),
                         *(f"{key} {value}" for key, value in config.items() if key != "name")])
    data = hparams["data"]
    unseen = [f"{text(config)}, not trained on" for config in data["unseen"]]
    return "; ".join([*map(text, data["degradations"]), *unseen])


def _seeds(seeds: Sequence[int], runs: Sequence[Mapping], systems: Sequence[str],
           conditions: Sequence[str]) -> list[tuple[str, str]]:
    """Accuracy over the degraded conditions of each training seed, their mean and standard deviation."""
    if len(runs) < 2:
        return []
    lines = [["system", *(f"seed {seed}" for seed in seeds), "mean", "standard deviation"]]
    for system in systems:
        rates = [mean(mean(100.0 - 100.0 * entry["errors"] for entry in run[system] if entry["condition"] == condition)
                      for condition in conditions) for run in runs]
        lines.append([system, *(f"{rate:.2f}" for rate in rates), f"{mean(rates):.2f}", f"{stdev(rates):.2f}"])
    return [("Training seeds", "Top-1 accuracy %, average of the degraded conditions.\n\n"
             + render(lines, markdown=True))]


def _decoded(exp_dir: Path, systems: Sequence[str]) -> dict[str, list[dict]]:
    """What each of `systems` made of the images; those that were not decoded are left out."""
    paths = {system: exp_dir / "results" / "decode" / f"{system}.jsonl" for system in systems}
    return {system: read_decoded(path) for system, path in paths.items() if path.is_file()}


def _degraded(scores: Mapping) -> list[str]:
    """The conditions that are degraded."""
    return [name for name in scores["conditions"] if name != "clean"]


def _targets(average: Mapping, coupled: Sequence[str], ablation: Mapping | None) -> str:
    best = min(coupled, key=lambda name: average[name]["error"])
    lines = [["target", "measured", "met"]]
    for other in [name for name in ("enhanced_matched", "card") if name in average]:
        gain, p = average[other]["error"] - average[best]["error"], _compared(average, best, other)[1]
        lines.append([f"{best}: at least 3 points over {other}, p < 0.05", f"{gain:+.2f} points, p {p_text(p)}",
                      _yes(gain >= 3.0 and p < 0.05)])
    extra = extra_errors(ablation, 10, 150, "error") if ablation else None
    if extra is not None:
        lines.append([f"{ablation['strategy']}: 10 + 10 steps within 0.5 points of 150 + 150",
                      f"{-extra:+.2f} points ({ablation['utterances']} images)", _yes(extra <= 0.5)])
    return render(lines, markdown=True)


def _ablations(found: Mapping) -> str:
    lines = [["variant", "accuracy %", "of C(x_hat) %", "change, points", "NFE signal", "NFE logits"]]
    lines += [[entry["variant"], _accuracy(entry), _number(entry["error_enhanced"], 1, lambda error: 100.0 - error),
               "{:+.1f} to {:+.1f}".format(*(0.0 - bound for bound in reversed(entry["difference"]))),
               f"{entry['nfe']['signal']:g}", f"{entry['nfe']['logits']:g}"] for entry in found["variants"]]
    return (f"{found['about']} {found['utterances']} images, {', '.join(found['conditions'])}; the change is against "
            f"the first line, 95 % interval, paired.\n\n{render(lines, markdown=True)}")


def _choices(tuning: Mapping) -> str:
    steps = [["signal steps", *map(str, tuning["steps"])],
             ["accuracy %", *(f"{100.0 - error:.1f}" for error in tuning["steps"].values())]]
    lines = [["strategy", "options", "accuracy %"]]
    for name, tried in tuning["strategies"].items():
        best = min(tried, key=lambda entry: entry["error"])
        lines += [[name, ", ".join(f"{key} {value}" for key, value in entry["options"].items())
                   + (" (chosen)" if entry is best else ""), f"{100.0 - entry['error']:.1f}"] for entry in tried]
    return f"{render(steps, markdown=True)}\n\n{render(lines, markdown=True)}"


def _training(exp_dir: Path) -> str:
    lines = [["model", "epochs", "minutes", "best epoch", "validation accuracy %"]]
    for path in filter(Path.is_file, (exp_dir / name / "train_log.jsonl" for name in STAGES)):
        log = [json.loads(line) for line in path.read_text().splitlines()]
        best = min(log, key=lambda entry: entry["error"])
        lines.append([path.parent.name, str(len(log)), f"{sum(entry['seconds'] for entry in log) / 60:.0f}",
                      str(best["epoch"]), f"{100.0 - best.get('error_cascade', best['error']):.1f}"])
    return (render(lines, markdown=True) + "\n\nMinutes as they passed on this machine, shared with other work. The "
            "classifier is validated on clean images, all others on degraded ones, logits and coupled training by "
            "`cascade`; the best epoch is that of the lowest mean over all that was validated.")


def _compared(scores: Mapping, system: str, other: str) -> tuple[tuple[float, float], float]:
    """Interval of the gain in points of `system` over `other`, and its p-value, whichever of them comes first."""
    if other in scores[system]["p_values"]:
        low, high = scores[system]["difference"][other]
        return (0.0 - high, 0.0 - low), scores[system]["p_values"][other]
    return tuple(scores[other]["difference"][system]), scores[other]["p_values"][system]


def _gain(scores: Mapping, system: str, other: str) -> str:
    (low, high), p = _compared(scores, system, other)
    return f"{scores[other]['error'] - scores[system]['error']:+.1f} [{low:+.1f}, {high:+.1f}], p {p_text(p)}"


def _accuracy(entry: Mapping) -> str:
    low, high = entry["interval"]
    return f"{100.0 - entry['error']:.1f} [{100.0 - high:.1f}, {100.0 - low:.1f}]"


def _number(value: float | None, digits: int, change=lambda value: value) -> str:
    return "-" if value is None else f"{change(value):.{digits}f}"


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"
