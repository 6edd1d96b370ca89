"""Pictures of speech: spectrograms one above the other, and the estimates of a coupled trajectory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdasr.runtime.atomic import save_figure

if TYPE_CHECKING:
    from cdasr.classifiers.hypothesis import Word

COLUMNS = 5  # panels in a line
WIDE = 34  # letters that fit into a line of a panel


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


def plot_estimates(signals: Sequence[tuple[str, np.ndarray]], logits: Sequence[tuple[str, np.ndarray, Sequence[Word]]],
                   tokens: Sequence[str], seconds: float, highest: float, path: Path) -> None:
    """Lines of titled panels: levels (F, N) in dB up to `highest` Hz, then posteriors (R, M) of R `tokens`.

    Each panel of posteriors has words of its own, which are written at their times.
    """
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"text.parse_math": False}):  # tokens and words are no formulas
        columns = min(max(len(signals), len(logits)), COLUMNS)
        rows = [-(-len(panels) // columns) for panels in (signals, logits)]
        heights = [2.6 * rows[0], (1.4 + 0.17 * max(len(tokens), 6)) * rows[1]]
        figure = plt.figure(figsize=(2.9 * columns + 1.2, sum(heights)), layout="constrained")
        upper, lower = figure.subfigures(2, 1, height_ratios=heights)
        _draw_signals(_panels(upper, signals, rows[0], columns), signals, seconds, highest)
        _draw_logits(_panels(lower, logits, rows[1], columns), logits, tokens, seconds)
        save_figure(figure, path)
        plt.close(figure)


def _panels(figure, panels: Sequence, rows: int, columns: int) -> list:
    """An axis for each of the `panels`, titled, with times below the lowest of a column."""
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for place, axis in enumerate(axes.flat):
        if place >= len(panels):
            axis.set_axis_off()
        elif place + columns >= len(panels):
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("seconds")
    for axis, (title, *_) in zip(axes.flat, panels):
        axis.set_title(title, fontsize=10)
    return list(axes.flat)[:len(panels)]


def _draw_signals(axes: list, signals: Sequence[tuple[str, np.ndarray]], seconds: float, highest: float) -> None:
    top = max(level.max() for _, level in signals)
    for axis, (_, level) in zip(axes, signals):
        image = axis.imshow(level - top, origin="lower", aspect="auto", extent=(0, seconds, 0, highest / 1000),
                            vmin=-70, vmax=0, cmap="magma")
    axes[0].set_ylabel("kHz")
    axes[0].figure.colorbar(image, ax=axes[0].figure.axes, label="dB below the loudest", pad=0.01)


def _draw_logits(axes: list, logits: Sequence[tuple[str, np.ndarray, Sequence[Word]]], tokens: Sequence[str],
                 seconds: float) -> None:
    upright = any(sum(len(word.word) + 2 for word in words) > WIDE for *_, words in logits)
    strip = max(len(tokens), 6) * (0.45 if upright else 0.16)
    for axis, (_, posterior, words) in zip(axes, logits):
        image = axis.imshow(posterior, origin="lower", aspect="auto", extent=(0, seconds, -0.5, len(tokens) - 0.5),
                            vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        axis.set_ylim(-0.5, len(tokens) - 0.5 + strip)
        axis.set_yticks(range(len(tokens)), tokens, fontsize=8)
        _write_words(axis, words, seconds, len(tokens) - 0.5, upright)
    axes[0].figure.colorbar(image, ax=axes[0].figure.axes, label="probability", pad=0.01)


def _write_words(axis, words: Sequence[Word], seconds: float, height: float, upright: bool) -> None:
    """Words centred at their times, above the rows of a panel; those at an edge begin or end there."""
    for word in words:
        middle = min(max((word.start + word.end) / 2, 0.015 * seconds), 0.985 * seconds)
        place = "center" if upright or 0.08 < middle / seconds < 0.92 else "left" if middle < seconds / 2 else "right"
        at = {"center": middle, "left": 0.01 * seconds, "right": 0.99 * seconds}[place]
        axis.text(at, height + 0.35, word.word, fontsize=8, ha=place, va="bottom", rotation=90 if upright else 0,
                  clip_on=True)
        axis.plot([word.start, word.end], [height + 0.15] * 2, color="C1", linewidth=2.5, solid_capstyle="butt")
