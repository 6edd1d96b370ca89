"""Noise to train and test against: recordings, and endless generated noise of several families.

What a network hears in training decides what it can remove later, so everything here is random within wide
limits: recordings are cut, looped, warped and mixed, and each call of a family is a new noise. All draws come
from the `numpy.random.Generator` that is passed in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import soxr
from scipy import fft

from cdasr.speech.audio import read_audio
from cdasr.speech.manifest import read_row
from cdasr.speech.noise_families import (
    FAMILIES,
    NEED_SPEECH,
    make_periodic,
    random_equaliser,
    random_gain,
    rms,
    unit,
    wrapped,
)

SUFFIXES = (".wav", ".flac", ".ogg")
SILENCE = 1e-4  # of the peak; below is digital silence
CACHE_BYTES = 400_000_000


class NoiseSource:
    """Draws noise from recordings (a share of `file_prob`) and from the generated `families`, at `rate` Hz.

    `speech` are utterances, rows of a manifest or paths, for the families that need some (babble, speech_shaped). With
    `warp` a draw is also changed in speed, spectrum and loudness, and sometimes mixed with a second one: for training.
    Without it recordings only get a random start and their digital silence shortened: for test sets.
    """

    def __init__(self, files: Sequence[str | os.PathLike] = (), families: Sequence[str] = (),
                 speech: Sequence[Mapping[str, str] | str | os.PathLike] = (), rate: int = 16_000,
                 file_prob: float = 0.5, warp: bool = True):
        unknown = [family for family in families if family not in FAMILIES]
        if unknown:
            raise ValueError(f"no noise family is called {', '.join(unknown)}; use {', '.join(FAMILIES)}")
        wanting = [family for family in families if family in NEED_SPEECH]
        if wanting and not speech:
            raise ValueError(f"noise like {', '.join(wanting)} is made from speech; give some speech files")
        if not files and not families:
            raise ValueError("a noise source needs noise files, families of generated noise, or both")
        self.files, self.families, self.speech = list(files), list(families), list(speech)
        self.rate, self.warp = rate, warp
        self.file_prob = file_prob if files and families else float(bool(files))
        self._recordings = WaveCache(partial(_recording, rate=rate))
        self._utterances = WaveCache(partial(_speech, speech=self.speech, rate=rate))

    def draw(self, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, str]:
        """Noise `(samples,)` of unit RMS, and its name: a file's, a family's, or two joined by `+`."""
        if not self.warp:
            return self._draw_plain(rng, samples)
        noise, name = self._draw_warped(rng, samples)
        if rng.random() < 0.25:
            second, other = self._draw_warped(rng, samples)
            noise = unit(noise + 10 ** (rng.uniform(-10, 10) / 20) * second)
            name = f"{name}+{other}"
        return noise, name

    def _draw_plain(self, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, str]:
        if rng.random() < self.file_prob:
            path = self.files[rng.integers(len(self.files))]
            return cut(rng, self._recordings(path), samples), Path(path).name
        family = self.families[rng.integers(len(self.families))]
        return FAMILIES[family](rng, samples, self.rate, self._utterance), family

    def _draw_warped(self, rng: np.random.Generator, samples: int) -> tuple[np.ndarray, str]:
        speed = np.exp(rng.uniform(np.log(0.7), np.log(1.4))) if rng.random() < 0.7 else 1.0
        noise, name = self._draw_plain(rng, int(samples * speed) + 16)
        return warp(rng, noise, self.rate, speed, samples), name

    def _utterance(self, rng: np.random.Generator) -> np.ndarray:
        return self._utterances(int(rng.integers(len(self.speech))))


def find_audio(folder: str | os.PathLike) -> list[Path]:
    """All WAV, FLAC and Ogg files under `folder`, sorted. Raises ValueError when there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    files = sorted(path for path in folder.rglob("*")
                   if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith("."))
    if not files:
        raise ValueError(f"{folder}: no audio there (looked for {', '.join(SUFFIXES)}, also in subfolders)")
    return files


class WaveCache:
    """Waveforms, read by `load(key)` when first asked for; kept while they fit into `limit` bytes."""

    def __init__(self, load: Callable[[Hashable], np.ndarray], limit: int = CACHE_BYTES):
        self.load, self.room, self.waves = load, limit, {}

    def __call__(self, key: Hashable) -> np.ndarray:
        wave = self.waves.get(key)
        if wave is None:
            wave = self.load(key)
            if wave.nbytes <= self.room:
                self.waves[key] = wave
                self.room -= wave.nbytes
        return wave


# -- recordings ----------------------------------------------------------------------------------------------


def _recording(path: str | os.PathLike, rate: int) -> np.ndarray:
    """A noise file at `rate` Hz without long digital silence, ready to be looped."""
    wave, _ = read_audio(path, rate)
    if np.ptp(wave) == 0:
        raise ValueError(f"{path}: the noise recording is digital silence; leave it out")
    wave = shorten_silence(wave, rate)
    return make_periodic(wave - wave.mean(), fade=rate // 20)


def _speech(place: int, speech: Sequence, rate: int) -> np.ndarray:
    found = speech[place]
    return read_row(found, rate) if isinstance(found, Mapping) else read_audio(found, rate)[0]


def shorten_silence(wave: np.ndarray, rate: int, longest: float = 0.3) -> np.ndarray:
    """Cut every run of digital silence to at most `longest` seconds.

    Short sounds are often padded with zeros (ESC-50: a bark in 5 s), which would make an SNR meaningless.
    """
    index = np.arange(len(wave))
    loud = np.abs(wave) > SILENCE * np.abs(wave).max()
    last_loud = np.maximum.accumulate(np.where(loud, index, -1))
    return wave[index - last_loud <= longest * rate]


def cut(rng: np.random.Generator, wave: np.ndarray, samples: int) -> np.ndarray:
    """A stretch `(samples,)` of unit RMS from a random place of the periodic `wave`; never a silent one."""
    start = rng.integers(len(wave))
    piece = wrapped(wave, start, samples)
    if rms(piece) < 0.01 * rms(wave):
        piece = wrapped(wave, int(np.argmax(np.abs(wave))) - samples // 2, samples)
    return unit(piece)


# -- warping -------------------------------------------------------------------------------------------------


def warp(rng: np.random.Generator, noise: np.ndarray, rate: int, speed: float, samples: int) -> np.ndarray:
    """Play `noise` at `speed`, then often change its spectrum and move its loudness slowly: `(samples,)`."""
    if speed != 1.0:
        noise = soxr.resample(noise, speed * rate, rate, quality="LQ")
    noise = wrapped(noise, 0, samples)
    if rng.random() < 0.8:
        noise = equalise(noise, random_equaliser(rng, fft.next_fast_len(samples, real=True), rate))
    if rng.random() < 0.5:
        noise = noise * random_gain(rng, samples, rate, hertz=rng.uniform(0.3, 4.0), spread=rng.uniform(2, 8))
    return unit(noise)


def equalise(wave: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Filter `(samples,)` circularly with amplitude `gains` over the bins of the next fast FFT size."""
    samples = len(wave)
    size = fft.next_fast_len(samples, real=True)
    return fft.irfft(fft.rfft(wave, size) * gains, size)[:samples]
