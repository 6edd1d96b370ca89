"""Audio files in and out: any format soundfile reads, any rate, any number of channels, as mono float32."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import soundfile
import soxr

from cdasr.runtime.atomic import write_bytes

HEADROOM = 0.99  # of full scale: the peak of what would be clipped


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
        raise ValueError(f"{path}: " + ("a folder; give the files in it" if path.is_dir() else "no such file"
                                        if not path.exists() else "not a file but a pipe or device; save it first"))
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


def write_audio(path: str | os.PathLike, wave: np.ndarray, rate: int, subtype: str = "PCM_16") -> float:
    """Write `(samples,)` float32 (by the suffix: .wav or .flac), atomically and never clipped; returns the gain.

    `subtype` is PCM_16, PCM_24 or, in WAV files, FLOAT, which keeps any level. In the others a wave beyond full scale
    is scaled down as a whole; the gain is 1 where it was not.
    """
    gain = 1.0
    if subtype != "FLOAT" and (peak := float(np.abs(wave).max(initial=0.0))) > 1.0:
        gain = HEADROOM / peak
    memory = io.BytesIO()  # libsndfile does not say that a disk is full
    soundfile.write(memory, wave * np.float32(gain) if gain != 1.0 else wave, rate, subtype,
                    format=Path(path).suffix[1:].upper())
    write_bytes(path, memory.getbuffer())
    return gain


def stored_subtype(path: str | os.PathLike) -> str:
    """The subtype that a copy of the file at `path` needs so as to keep its levels: PCM_16, PCM_24 or FLOAT."""
    found = soundfile.info(path).subtype
    return {"FLOAT": "FLOAT", "DOUBLE": "FLOAT", "PCM_24": "PCM_24", "PCM_32": "PCM_24"}.get(found, "PCM_16")


def _reason(error: Exception) -> str:
    return str(error).rstrip(".").rsplit(": ", 1)[-1]
