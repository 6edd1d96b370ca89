"""Pictures for people: spectrograms, the estimates of a coupled trajectory, rates over SNR, and grids of examples."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cdasr.coupled.domain import Domain
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.coupled.rows import take_evenly
from cdasr.evaluation.report import shown
from cdasr.runtime.atomic import save_figure


def check_format(path: str | os.PathLike) -> None:
    """Raise ValueError for a suffix that no kind of picture has."""
    from matplotlib.backend_bases import FigureCanvasBase

    if (suffix := Path(path).suffix[1:].lower()) not in (known := FigureCanvasBase.get_supported_filetypes()):
        raise ValueError(f"{path}: {suffix or 'no suffix'} is not a kind of picture; use {', '.join(sorted(known))}")


def plot_spectrograms(waves: Mapping[str, np.ndarray], rate: int, path: str | os.PathLike) -> None:
    """One panel for each titled waveform (samples,), on common time, frequency and level axes; the suffix decides."""
    import librosa
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from librosa.display import specshow

    figure, axes = plt.subplots(len(waves), 1, figsize=(9, 2.3 * len(waves)), sharex=True, layout="constrained",
                                squeeze=False)
    levels = {title: librosa.amplitude_to_db(np.abs(librosa.stft(wave, n_fft=512, hop_length=128)), top_db=None)
              for title, wave in waves.items()}
    top = max(level.max() for level in levels.values())
    for axis, (title, level) in zip(axes[:, 0], levels.items()):
        image = specshow(level, sr=rate, hop_length=128, x_axis="s", y_axis="linear", ax=axis, vmin=top - 80, vmax=top,
                         cmap="magma", rasterized=True)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set(xlabel="", ylabel="Hz")
    axes[-1, 0].set_xlabel("seconds")
    figure.colorbar(image, ax=axes[:, 0], label="dB")
    save_figure(figure, path)
    plt.close(figure)


def plot_estimates(signals: Sequence[tuple[str, np.ndarray]], logits: Sequence[tuple[str, np.ndarray]],
                   tokens: Sequence[str], rows: Sequence[int], seconds: float, highest: float, path: Path) -> None:
    """Two lines of titled panels: levels (F, N) in dB up to `highest` Hz, posteriors (V, M) of the classes `rows`."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = max(len(signals), len(logits))
    figure, axes = plt.subplots(2, columns, figsize=(2.6 * columns + 1, 5.4), squeeze=False, layout="constrained")
    top = max(level.max() for _, level in signals)
    for axis, (title, level) in zip(axes[0], signals):
        axis.imshow(level, origin="lower", aspect="auto", extent=(0, seconds, 0, highest / 1000), vmin=top - 70,
                    vmax=top, cmap="magma")
        axis.set_title(f"signal, {title}", fontsize=9)
    for axis, (title, posterior) in zip(axes[1], logits):
        axis.imshow(posterior[list(rows)], origin="lower", aspect="auto", extent=(0, seconds, -0.5, len(rows) - 0.5),
                    vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        axis.set_title(f"logits, {title}", fontsize=9)
        axis.set_xlabel("seconds")
        axis.set_yticks(range(len(rows)), tokens if axis is axes[1, 0] else [], fontsize=6)
    for axis in (*axes[0, len(signals):], *axes[1, len(logits):]):
        axis.set_axis_off()
    axes[0, 0].set_ylabel("kHz")
    save_figure(figure, path)
    plt.close(figure)


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
