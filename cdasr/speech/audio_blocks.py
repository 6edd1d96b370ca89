"""Audio that is too long to be held at once, read and written in blocks; each is what `audio.py` makes of the whole."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from cdasr.runtime.atomic import replacing
from cdasr.speech.audio import (
    HEADROOM,
    check_samples,
    file_format,
    mono_channel,
    native,
    opened,
    read_samples,
    truncated,
)

SECONDS = 20.0  # in a block
BYTES = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}  # of a sample


@dataclass(frozen=True)
class Survey:
    """What a first pass over a recording says: its `channel`, None for the mean of all, and its `level`, an RMS."""

    channel: int | None
    level: float


def survey(path: str | os.PathLike, channel: int | None = None, start: float = 0.0,
           stop: float | None = None) -> Survey:
    """Look at every sample of a recording once. The arguments, and the ValueErrors, are those of `read_audio`."""
    count, powers, mean_power = 0, 0.0, 0.0
    for block in _stored(path, channel, start, stop):
        check_samples(path, block)
        count += len(block)
        powers = powers + np.square(block, dtype=np.float64).sum(axis=0)
        mean_power += float(np.square(block.mean(axis=1), dtype=np.float64).sum())
    if channel is None:
        channel = mono_channel(path, powers / count, mean_power / count)
    return Survey(channel, float(np.sqrt((mean_power if channel is None else float(powers[channel])) / count)))


def read_blocks(path: str | os.PathLike, rate: int, channel: int | None, start: float = 0.0,
                stop: float | None = None) -> Iterator[np.ndarray]:
    """The samples of `read_audio` in consecutive blocks (samples,); `channel` as `survey` has it."""
    def mono() -> Iterator[np.ndarray]:
        for block in _stored(path, channel, start, stop):
            yield block.mean(axis=1) if channel is None else np.ascontiguousarray(block[:, channel])
    yield from resample_blocks(mono(), file_format(path)[0], rate)


def _stored(path: str | os.PathLike, channel: int | None, start: float, stop: float | None) -> Iterator[np.ndarray]:
    """The stretch of a file in blocks (samples, channels), as it is stored. Raises ValueError as `read_audio` does."""
    with opened(path) as (file, found):
        first, last = found.stretch(path, channel, start, stop)
        at = first
        while at < last:
            count = min(round(SECONDS * found.rate), last - at)
            block = read_samples(path, file, count, skip=first if at == first else 0)
            if not len(block):
                break
            at += len(block)
            yield block
    if at == first or at < last - found.rate // 10:
        raise truncated(path, at / found.rate, found.seconds)


def resample_blocks(blocks: Iterable[np.ndarray], rate: int, new_rate: int) -> Iterator[np.ndarray]:
    """Blocks (samples,) as `resample` makes them of the whole: to the last bit the same."""
    if rate == new_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, new_rate, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def fit_blocks(blocks: Iterable[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """Blocks of so many `samples` together, cut or zero-padded at the end."""
    left = samples
    for block in blocks:
        if len(block) >= left:
            yield block[:left]
            return
        left -= len(block)
        yield block
    if left:
        yield np.zeros(left, np.float32)


@dataclass
class Spool:
    """Blocks (samples,) float32 kept in a binary `file`; they can be gone through again."""

    file: BinaryIO
    samples: int = 0

    def add(self, block: np.ndarray) -> None:
        """Raises OSError where the disk is full."""
        self.file.write(np.ascontiguousarray(block, dtype=np.float32))
        self.samples += len(block)

    def __iter__(self) -> Iterator[np.ndarray]:
        self.file.seek(0)
        while data := self.file.read(4 << 18):
            yield np.frombuffer(data, np.float32)


@contextmanager
def spooled(folder: str | os.PathLike) -> Iterator[Spool]:
    """A `Spool` on the disk of `folder`, which is made; nobody sees its file, and nothing is left of it."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        yield Spool(file)


def write_blocks(path: str | os.PathLike, blocks: Callable[[], Iterable[np.ndarray]], rate: int,
                 subtype: str = "PCM_16") -> float:
    """Write a WAV file as `write_audio` does, of what `blocks` gives, which is called twice; returns the gain."""
    peaks = () if subtype == "FLOAT" else (float(np.abs(block).max(initial=0.0)) for block in blocks())
    gain = HEADROOM / peak if (peak := max(peaks, default=0.0)) > 1.0 else 1.0
    with replacing(path) as partial:
        with soundfile.SoundFile(native(partial), "w", rate, 1, subtype, format="WAV") as file:
            for block in blocks():
                file.write(block * np.float32(gain) if gain != 1.0 else block)
            expected = file.frames * BYTES[subtype]
        if os.path.getsize(partial) < expected:  # libsndfile does not say that a disk is full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return gain
