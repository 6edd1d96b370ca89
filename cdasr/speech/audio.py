"""Audio files in and out: any format soundfile reads, any rate, any number of channels, as mono float32."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import soxr

from cdasr.runtime.atomic import write_bytes
from cdasr.runtime.files import check_file, check_not_empty

HEADROOM = 0.99  # of full scale: the peak of what would be clipped

LOUDEST = 1e10  # full scale is 1, of integers kept as floats 2**31; squares of much more overflow float32
CANCELS = 0.25  # the RMS of the channels' mean over that of uncorrelated channels: correlation near -1 below
UNKNOWN_SIZES = (0, 0x7FFFFFFF, 0xFFFFFFFF)  # what streaming writers leave in a WAV header, within a block


class UnknownFormat(ValueError):
    """A file that soundfile does not know: not audio, or audio of a format that other programs read."""


@dataclass(frozen=True)
class AudioFormat:
    """What the header of an audio file says: sampling rate in Hz, samples of each channel, channels."""

    rate: int
    samples: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate

    def stretch(self, path: str | os.PathLike, channel: int | None, start: float,
                stop: float | None) -> tuple[int, int]:
        """The first sample from `start` on and that behind `stop` (s). Raises ValueError where there is no such."""
        first = round(start * self.rate)
        last = self.samples if stop is None else min(self.samples, round(stop * self.rate))
        if channel is not None and not 0 <= channel < self.channels:
            raise ValueError(f"{path}: there is no channel {channel}; the file has {self.channels}, counted from 0")
        if not 0 <= first < last:
            raise ValueError(f"{path}: " + ("the file has no samples" if not self.samples else
                             f"{_stretch(start, stop)} is outside of the file, which lasts {self.seconds:g} s"))
        return first, last


def read_audio(path: str | os.PathLike, rate: int | None = None, channel: int | None = None, start: float = 0.0,
               stop: float | None = None) -> tuple[np.ndarray, int]:
    """Read a file as mono float32 `(samples,)` in [-1, 1] and its sampling rate in Hz, resampled to `rate` if given.

    `start` and `stop` (seconds; None: the end) limit what is read. Channels are averaged, unless one `channel`, counted
    from 0, is asked for; channels that cancel each other are not averaged: the loudest is taken, and stderr says so
    once a file. Raises ValueError, in one line that names the file and the reason, when the file is missing, is not
    audio, has no such channel or stretch, is empty, truncated, or holds samples that are not finite or beyond 1e10.
    """
    with opened(path) as (file, found):
        first, last = found.stretch(path, channel, start, stop)
        wave = read_samples(path, file, last - first, skip=first)
    if not len(wave) or len(wave) < last - first - found.rate // 10:
        raise truncated(path, (first + len(wave)) / found.rate, found.seconds)
    check_samples(path, wave)
    wave = _mono(path, wave) if channel is None else wave[:, channel]
    return (wave, found.rate) if rate is None else (resample(wave, found.rate, rate), rate)


@contextmanager
def opened(path: str | os.PathLike) -> Iterator[tuple[soundfile.SoundFile, AudioFormat]]:
    """A file while it is read, and its format. Raises ValueError for one that soundfile cannot read."""
    if not os.path.isfile(path):  # a pipe would be waited for
        check_file(path)
    try:
        with soundfile.SoundFile(native(path)) as file:
            yield file, _format(path, file)
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: headerless .raw without a declared format
        check_not_empty(check_file(path))
        raise _unreadable(path, error) from None


def audio_format(path: str | os.PathLike) -> AudioFormat:
    """What the header of a file says. Raises ValueError as `read_audio` does, for what the header shows."""
    with opened(path) as (_, found):
        return found


def file_format(path: str | os.PathLike) -> tuple[int, int]:
    """Sampling rate in Hz and number of samples a channel. Raises ValueError as `audio_format` does."""
    found = audio_format(path)
    return found.rate, found.samples


def native(path: str | os.PathLike) -> str | bytes:
    """A path as soundfile takes it, which encodes text as UTF-8: bytes where the name of the file is not UTF-8."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


def _format(path: str | os.PathLike, file: soundfile.SoundFile) -> AudioFormat:
    if (cut := re.search(r"^data : (\d+) \(should be (\d+)\)", file.extra_info, re.M)) and file.format != "RAW":
        said, there = map(int, cut.groups())
        if said > there and not any(abs(said - unknown) < 4096 for unknown in UNKNOWN_SIZES):
            raise truncated(path, file.frames / file.samplerate, file.frames / file.samplerate * said / max(there, 1))
    return AudioFormat(file.samplerate, max(file.frames, 0), file.channels)


def read_samples(path: str | os.PathLike, file: soundfile.SoundFile, count: int, skip: int = 0) -> np.ndarray:
    """The next samples (count, channels), fewer where the file ends, after `skip`. Raises ValueError for damage."""
    try:
        if skip:
            file.seek(skip)
        return file.read(count, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise ValueError(f"{path}: the file is damaged or truncated ({_reason(error)}); copy or export it "
                         "again") from None


def check_samples(path: str | os.PathLike, wave: np.ndarray) -> None:
    """Raise ValueError for samples that are not finite or beyond any scale."""
    peak = max(wave.max(initial=0.0), -wave.min(initial=0.0))  # NaN where one sample is
    if not np.isfinite(peak):
        raise ValueError(f"{path}: the file holds NaN or infinite samples; export it again")
    if peak > LOUDEST:
        raise ValueError(f"{path}: the file holds samples of {peak:.1e}, and full scale is 1; export it again")


def _mono(path: str | os.PathLike, wave: np.ndarray) -> np.ndarray:
    """The mean of the channels, `(samples, channels)` to `(samples,)`; the loudest where they cancel each other."""
    mean = wave.mean(axis=1)
    if wave.shape[1] == 1:
        return mean
    power, mean_power = (np.square(part, dtype=np.float64).mean(axis=0) for part in (wave, mean))
    channel = mono_channel(path, power, float(mean_power))
    return mean if channel is None else np.ascontiguousarray(wave[:, channel])


def mono_channel(path: str | os.PathLike, power: np.ndarray, mean_power: float) -> int | None:
    """The channel to take of channels of `power` (channels,): None, for their mean, unless they cancel in it."""
    if len(power) == 1 or mean_power >= CANCELS ** 2 * power.sum() / len(power) ** 2:
        return None
    _warn_once(f"{path}: the channels cancel each other (one has the wrong polarity); the louder one is taken")
    return int(power.argmax())


@lru_cache(maxsize=10_000)
def _warn_once(message: str) -> None:
    print(f"cdasr: warning: {message}", file=sys.stderr, flush=True)


def _stretch(start: float, stop: float | None) -> str:
    return f"what begins at {start:g} s" if stop is None else f"{start:g} to {stop:g} s"


def truncated(path: str | os.PathLike, there: float, said: float) -> ValueError:
    """What is wrong with a file of which only the first seconds are `there`."""
    return ValueError(f"{path}: the file is truncated, {there:.1f} of {said:.1f} s are there; copy or export it again")


def _unreadable(path: str | os.PathLike, error: Exception) -> UnknownFormat:
    return UnknownFormat(f"{path}: not an audio file that soundfile can read ({_reason(error)})")


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
    found = soundfile.info(native(path)).subtype
    return {"FLOAT": "FLOAT", "DOUBLE": "FLOAT", "PCM_24": "PCM_24", "PCM_32": "PCM_24"}.get(found, "PCM_16")


def _reason(error: Exception) -> str:
    return str(error).rstrip(".").rsplit(": ", 1)[-1]
