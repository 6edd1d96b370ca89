"""Pictures of results: rates over SNR, and grids of examples."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from cdasr.coupled.domain import Domain
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.coupled.rows import take_evenly
from cdasr.evaluation.html_figures import figures, rates_figure
from cdasr.runtime.atomic import save_figure


def plot_rates_by_snr(scores: Mapping, domain: Domain, path: str | os.PathLike) -> None:
    """Rates over SNR of each system in a panel of its own, a block for each kind of noise; nothing without SNRs."""
    with figures() as plt:
        if (figure := rates_figure(plt, scores, domain)) is not None:
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
