"""Audio files in and out: any format soundfile reads, any rate, any number of channels, as mono float32."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile
import soxr


def read_audio(path: str | os.PathLike, rate: int | None = None, channel: int | None = None) -> tuple[np.ndarray, int]:
    """Read a file as mono float32 `(samples,)` in [-1, 1] and its sampling rate in Hz, resampled to `rate` if given.

    Channels are averaged, unless one `channel` is asked for. Raises ValueError, in one line that names the file and the
    reason, when the file is missing, is not audio, is empty or holds NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        wave, file_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw without a declared format
        raise ValueError(f"{path}: not an audio file that soundfile can read ({_reason(error)})") from None
    if wave.size == 0:
        raise ValueError(f"{path}: the file has no samples")
    if not np.isfinite(wave).all():
        raise ValueError(f"{path}: the file holds NaN or infinite samples; export it again")
    wave = wave.mean(axis=1) if channel is None else wave[:, channel]
    return (wave, file_rate) if rate is None else (resample(wave, file_rate, rate), rate)


def file_format(path: str | os.PathLike) -> tuple[int, int]:
    """Sampling rate in Hz and number of samples a channel. Raises ValueError as `read_audio` does."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, TypeError) as error:
        raise ValueError(f"{path}: not an audio file that soundfile can read ({_reason(error)})") from None
    return info.samplerate, info.frames


def resample(wave: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Band-limited resampling of `(samples,)` from `rate` to `new_rate` Hz (soxr, high quality)."""
    if rate == new_rate:
        return wave
    return soxr.resample(wave, rate, new_rate, quality="HQ").astype(np.float32)


def fit_length(wave: np.ndarray, samples: int) -> np.ndarray:
    """Cut or zero-pad `(n,)` at the end to `(samples,)`."""
    return wave[:samples] if len(wave) >= samples else np.pad(wave, (0, samples - len(wave)))


def write_audio(path: str | os.PathLike, wave: np.ndarray, rate: int) -> None:
    """Write `(samples,)` float32 as 16-bit PCM (by the suffix: .wav or .flac), atomically; clips at full scale."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    soundfile.write(partial, np.clip(wave, -1.0, 1.0), rate, subtype="PCM_16")
    os.replace(partial, path)


def _reason(error: Exception) -> str:
    return str(error).rstrip(".").rsplit(": ", 1)[-1]
