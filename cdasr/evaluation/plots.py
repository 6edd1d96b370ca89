"""Pictures for people: spectrograms side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def plot_spectrograms(waves: Mapping[str, np.ndarray], rate: int, path: str | os.PathLike) -> None:
    """One panel for each titled waveform (samples,), on common time, frequency and level axes; the suffix decides."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from scipy.signal import stft

    figure, axes = plt.subplots(len(waves), 1, figsize=(9, 2.3 * len(waves)), sharex=True, layout="constrained",
                                squeeze=False)
    levels = []
    for title, wave in waves.items():
        frequencies, times, spectrum = stft(wave, rate, nperseg=512, noverlap=384)
        levels.append((title, times, frequencies, 20 * np.log10(np.abs(spectrum) + 1e-7)))
    top = max(level.max() for _, _, _, level in levels)
    for axis, (title, times, frequencies, level) in zip(axes[:, 0], levels):
        image = axis.pcolormesh(times, frequencies / 1000, level, vmin=top - 80, vmax=top, cmap="magma",
                                rasterized=True)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylabel("kHz")
    axes[-1, 0].set_xlabel("seconds")
    figure.colorbar(image, ax=axes[:, 0], label="dB")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
