"""Pictures of speech: spectrograms one above the other, and the estimates of a coupled trajectory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

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
