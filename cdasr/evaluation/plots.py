"""Pictures of results: rates over SNR, and grids of examples."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import numpy as np

from cdasr.coupled.domain import Domain
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.coupled.rows import take_evenly
from cdasr.evaluation.report import shown
from cdasr.runtime.atomic import save_figure


def plot_rates_by_snr(scores: Mapping, domain: Domain, path: str | os.PathLike) -> None:
    """Rates over SNR of each system, one panel for each kind of condition `<kind>_<snr>dB`, with intervals."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds: dict[str, list[tuple[float, Mapping]]] = {}
    for name, condition in scores["conditions"].items():
        if match := re.fullmatch(r"(.*?)_?(-?[\d.]+)dB", name):
            kinds.setdefault(match[1], []).append((float(match[2]), condition))
    if not kinds:
        return
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 3.6), sharey=True, squeeze=False,
                                layout="constrained")
    for axis, (kind, points) in zip(axes[0], kinds.items()):
        points.sort(key=lambda point: point[0])
        snrs = [snr for snr, _ in points]
        for number, system in enumerate(scores["systems"]):  # of one colour in every panel
            if known := [(snr, point[system]) for snr, point in points if system in point]:
                at, entries = zip(*known)
                rates = [shown(entry[domain.rate], domain) for entry in entries]
                axis.plot(at, rates, f"C{number}", marker="o", label=system)
                bounds = [[shown(bound, domain) for bound in entry["interval"]] for entry in entries]
                axis.fill_between(at, *zip(*bounds), color=f"C{number}", alpha=0.15)
        axis.set(title=f"{kind} noise", xlabel="SNR (dB)", xticks=snrs)
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylabel=f"{domain.evaluation.title} (%)", ylim=(0, None))
    curves = {line.get_label(): line for axis in axes[0] for line in axis.lines}
    figure.legend(handles=[curves[system] for system in scores["systems"] if system in curves], fontsize="small",
                  loc="outside right upper")  # ten systems would hide curves
    save_figure(figure, path)
    plt.close(figure)


def plot_examples(pipeline: CoupledPipeline, rows: Sequence[Mapping], path: str | os.PathLike, seed: int,
                  columns: int = 10) -> None:
    """Items from all over the set under each condition, degraded, enhanced and coupled, and what each is taken for."""
    how, lines = pipeline.domain.evaluation, []
    for condition in dict.fromkeys(row["condition"] for row in rows):
        found = take_evenly([row for row in rows if row["condition"] == condition], columns)
        signals = [how.read_noisy(row, pipeline.classifier) for row in found]
        for system in ("none",) if condition == "clean" else ("none", "enhanced", pipeline.default_strategy):
            results = how.recognise(pipeline, signals, system, float("inf"), seed=seed)
            pictures = [how.picture(signal if how.enhanced(result) is None else how.enhanced(result))
                        for signal, result in zip(signals, results)]
            lines.append((f"{condition}\n{system}".replace("_", " "), pictures, list(map(how.caption, results)),
                          [how.entry(row, result)["errors"] == 0 for row, result in zip(found, results)]))
    plot_grid(lines, path)


def plot_grid(lines: Sequence[tuple[str, Sequence[np.ndarray], Sequence[str], Sequence[bool]]],
              path: str | os.PathLike) -> None:
    """Lines of pictures: title, pictures (H, W[, C]), what each is taken for, and whether that is right."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = len(lines[0][1])
    figure, axes = plt.subplots(len(lines), columns, figsize=(1.15 * columns + 1.2, 1.35 * len(lines)), squeeze=False,
                                layout="constrained")
    for line, (title, pictures, captions, right) in zip(axes, lines):
        for axis, picture, caption, good in zip(line, pictures, captions, right):
            axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(caption, fontsize=8, color="tab:green" if good else "tab:red", pad=2)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(title, fontsize=8)
    save_figure(figure, path)
    plt.close(figure)
