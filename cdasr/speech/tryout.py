"""One recording, with noise if wanted, as every strategy of a package hears it: what `cdasr app` computes.

Nothing here knows of a web page. Recordings come from strangers' files, so their size and their duration are bounded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cdasr.runtime.arguments import LARGEST_SEED
from cdasr.speech.degrade import degrade
from cdasr.speech.inputs import Source, readable
from cdasr.speech.noise import NoiseSource
from cdasr.speech.noise_families import FAMILIES

if TYPE_CHECKING:
    from cdasr.speech.pipeline import Pipeline
    from cdasr.speech.transcript import Transcript

LONGEST, LONGEST_NOISE = 30.0, 300.0  # seconds of a recording, and of a noise recording
MEGABYTE = 2**20
LARGEST = 20 * MEGABYTE  # of a file
LARGEST_DECODED = 2 * MEGABYTE  # of a file of which only decoding tells how long it is
NO_NOISE, OWN_NOISE = "none", "a file"  # beside the families of generated noise
NOISES = (NO_NOISE, OWN_NOISE, *FAMILIES)
SNR_RANGE = (-20.0, 40.0)  # dB
MOST_WORDS = 200  # of what was said


@dataclass(frozen=True)
class Settings:
    """What is to be done with a recording.

    `noise` is one of `NOISES`, added at `snr` dB; `noise_file` goes with `OWN_NOISE`. `strategies`: None for all of the
    package. `said`: the words of the recording, or nothing where they are not known. `steps`: those of each process,
    None for the package's.
    """

    noise: str = NO_NOISE
    noise_file: str | os.PathLike | None = None
    snr: float = 0.0
    seed: int = 0
    strategies: Sequence[str] | None = None
    said: str = ""
    steps: int | None = None

    def __post_init__(self):
        if self.noise not in NOISES:
            raise ValueError(f"there is no noise called {self.noise!r}; choose one of {', '.join(NOISES)}")
        if self.noise == OWN_NOISE and self.noise_file is None:
            raise ValueError("no noise file was given; upload one, or choose a generated noise")
        if not (math.isfinite(self.snr) and SNR_RANGE[0] <= self.snr <= SNR_RANGE[1]):
            raise ValueError(f"an SNR of {self.snr:g} dB is out of range; expected {SNR_RANGE[0]:g} to "
                             f"{SNR_RANGE[1]:g} dB")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"the seed {self.seed} is out of range; expected 0 to {LARGEST_SEED}")
        if self.strategies is not None and not self.strategies:
            raise ValueError("no strategy is chosen; choose at least one")
        if len(self.said.split()) > MOST_WORDS:
            raise ValueError(f"what was said has more than {MOST_WORDS} words; give only the words of the recording")


@dataclass(frozen=True)
class Heard:
    """What a strategy made of the recording, and the seconds that it took."""

    strategy: str
    result: Transcript
    seconds: float


@dataclass
class Tryout:
    """A recording (samples,) at `rate` Hz, the same with noise or None, and what each strategy heard in the last."""

    recording: np.ndarray
    rate: int
    settings: Settings
    noisy: np.ndarray | None = None
    heard: list[Heard] = field(default_factory=list)

    @property
    def input(self) -> np.ndarray:
        """What the strategies were given."""
        return self.recording if self.noisy is None else self.noisy


def try_out(pipeline: Pipeline, path: str | os.PathLike | None, settings: Settings,
            tell: Callable[[int, int, str], None] = lambda done, count, strategy: None) -> Tryout:
    """Read the recording at `path`, add noise, and run strategies one after the other.

    `tell` is called before each: how many are done, of how many, and which is next. Raises ValueError, in one line, for
    files that cannot be used or are beyond the limits, and for settings that the package does not have.
    """
    from cdasr.speech.comparison import side_by_side

    if path is None:
        raise ValueError("there is no recording; record one or upload a file")
    strategies = list(dict.fromkeys(pipeline.strategies if settings.strategies is None else settings.strategies))
    pipeline.check(strategies, settings.steps)
    tried = Tryout(read_bounded(path, pipeline.sample_rate), pipeline.sample_rate, settings)
    if settings.noise != NO_NOISE:
        tried.recording, tried.noisy = with_noise(tried.recording, tried.rate, settings)
    running = side_by_side(pipeline, tried.input, strategies, seed=settings.seed, steps=settings.steps)
    for number, strategy in enumerate(strategies):
        tell(number, len(strategies), strategy)
        tried.heard.append(Heard(*next(running)))
    return tried


def read_bounded(path: str | os.PathLike, rate: int, longest: float = LONGEST) -> np.ndarray:
    """Mono samples (samples,) at `rate` Hz of a file within the limits, `longest` in s. Raises ValueError for others.

    The size and the header are looked at before the file is read.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path.name}: no such file")
    source, size = Source(path, path), path.stat().st_size
    try:
        _check_size(path, size, LARGEST)
        if (found := source.format()) is None:
            _check_size(path, size, LARGEST_DECODED)
        else:
            _check_duration(path, found[1] / found[0], longest)
        wave = source.read(rate)
    except ValueError as error:
        raise ValueError(str(error).replace(str(path), path.name)) from None  # where it was kept helps nobody
    _check_duration(path, len(wave) / rate, longest)
    return wave


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"{path.name}: the file has {size / MEGABYTE:.1f} MB, at most {most / MEGABYTE:g} MB are "
                         "taken; cut the recording, or convert it to FLAC")


def _check_duration(path: Path, seconds: float, longest: float) -> None:
    if seconds > longest + 0.05:  # resampling and encoders round up
        raise ValueError(f"{path.name}: the recording lasts {seconds:.1f} s, at most {longest:g} s are taken; cut it")


def with_noise(wave: np.ndarray, rate: int, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """The recording (samples,) and the same with noise at an SNR; both are scaled down where the sum would clip.

    The families that are made from speech (babble, speech_shaped) are made from this recording.
    Raises ValueError for a silent recording and for a noise file that cannot be used.
    """
    rng = np.random.default_rng(settings.seed)
    if settings.noise != OWN_NOISE:
        result = degrade(wave, rng, Generated(settings.noise, wave, rate), None, settings.snr)
    else:
        read_bounded(settings.noise_file, rate, LONGEST_NOISE)  # the limits
        with readable(Path(settings.noise_file)) as path:
            try:
                result = degrade(wave, rng, NoiseSource([path], rate=rate, warp=False), None, settings.snr)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), Path(settings.noise_file).name)) from None
    return result.clean, result.noisy


@dataclass(frozen=True)
class Generated:
    """A source of noise of one family, as `degrade` draws from it; `speech` (samples,) is what babble is made from."""

    family: str
    speech: np.ndarray
    rate: int

    def draw(self, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, str]:
        """Noise (samples,) of unit RMS, and its name."""
        return FAMILIES[self.family](rng, samples, self.rate, lambda _: self.speech), self.family
