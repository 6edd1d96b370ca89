"""What a recording goes through on its way: level, clipping, filters, resampling, lost packets, codecs.

Each effect is a pure function of a wave `(samples,)` that keeps its length and its alignment. `EFFECTS` has them by
the names that grids use: `clip_20`, `mp3_32k`, `gsm`, several in a row as `telephone+loss_5`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft

from cdasr.speech import codecs
from cdasr.speech.audio import fit_length, resample
from cdasr.speech.degrade import FULL_SCALE, SILENT
from cdasr.speech.noise import equalise
from cdasr.speech.noise_families import rms

PACKET, GAP = 0.02, 0.2  # seconds
FILTER_ORDER = 8  # of the Butterworth filters: 48 dB an octave
TELEPHONE_BAND = (300.0, 3400.0)  # Hz


def set_level(wave: np.ndarray, decibels: float) -> np.ndarray:
    """`wave` at an RMS of `decibels` of full scale, or as near to it as its peak allows."""
    peak = float(np.abs(wave).max(initial=0.0))
    gain = min(10 ** (decibels / 20) / max(rms(wave), SILENT), FULL_SCALE / max(peak, SILENT))
    return wave * np.float32(gain)


def clip(wave: np.ndarray, percent: float) -> np.ndarray:
    """`wave` cut off at `percent` of its peak, as by an overdriven input."""
    limit = np.abs(wave).max(initial=0.0) * np.float32(percent / 100)
    return np.clip(wave, -limit, limit)


def lowpass(wave: np.ndarray, rate: int, hertz: float) -> np.ndarray:
    """`wave` at `rate` Hz without what is above `hertz`, where it is 3 dB weaker: Butterworth, without delay."""
    return _filtered(wave, rate, lambda frequency: frequency / hertz)


def highpass(wave: np.ndarray, rate: int, hertz: float) -> np.ndarray:
    """`wave` at `rate` Hz without what is below `hertz`, where it is 3 dB weaker."""
    return _filtered(wave, rate, lambda frequency: hertz / np.maximum(frequency, 1e-3))


def telephone(wave: np.ndarray, rate: int) -> np.ndarray:
    """`wave` at `rate` Hz over a telephone line: 300 to 3400 Hz, then G.711 mu-law at 8 kHz."""
    low, high = TELEPHONE_BAND
    return codecs.mulaw(lowpass(highpass(wave, rate, low), rate, high), rate)


def through_rate(wave: np.ndarray, rate: int, hertz: float) -> np.ndarray:
    """`wave` at `rate` Hz after it was kept at `hertz` samples a second, which takes what is above half of that."""
    own = min(round(hertz), rate)
    return fit_length(resample(resample(wave, rate, own), own, rate), len(wave))


def lose(wave: np.ndarray, rate: int, percent: float, rng: np.random.Generator, seconds: float = PACKET) -> np.ndarray:
    """`wave` at `rate` Hz with `percent` of its packets of `seconds`, drawn without order, replaced by silence."""
    size = round(seconds * rate)
    packets = -(-len(wave) // size)
    lost = np.zeros(packets, bool)
    lost[rng.permutation(packets)[:round(percent / 100 * packets)]] = True
    return np.where(np.repeat(lost, size)[:len(wave)], np.float32(0), wave)


def _filtered(wave: np.ndarray, rate: int, relative: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """`wave` with the gains of a Butterworth filter; `relative` of frequencies in Hz is 1 at its edge, then grows."""
    padded = np.pad(wave, (0, rate // 10))  # the filter is circular: its end must not reach the beginning
    frequency = fft.rfftfreq(fft.next_fast_len(len(padded), real=True), 1 / rate)
    gains = 1 / np.sqrt(1 + np.minimum(relative(frequency), 1e6) ** (2 * FILTER_ORDER))
    return equalise(padded, gains)[:len(wave)].astype(np.float32)


# -- by name ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Effect:
    """An effect, `apply(wave, rate, value, rng)`. Its value is `what`, from `least` to `most`; without, it has none.

    `suffix` is written behind the value: `mp3_32k`.
    """

    apply: Callable[[np.ndarray, int, float | None, np.random.Generator], np.ndarray]
    what: str = ""
    least: float = 0.0
    most: float = 0.0
    suffix: str = ""


EFFECTS: dict[str, Effect] = {
    "level": Effect(lambda wave, rate, value, rng: set_level(wave, value), "RMS in dB of full scale", -80, -10),
    "clip": Effect(lambda wave, rate, value, rng: clip(wave, value), "per cent of the peak", 1, 99),
    "lowpass": Effect(lambda wave, rate, value, rng: lowpass(wave, rate, value), "Hz", 50, 100_000),
    "highpass": Effect(lambda wave, rate, value, rng: highpass(wave, rate, value), "Hz", 10, 50_000),
    "resample": Effect(lambda wave, rate, value, rng: through_rate(wave, rate, 1000 * value), "kHz", 1, 192, "k"),
    "loss": Effect(lambda wave, rate, value, rng: lose(wave, rate, value, rng), "per cent of packets of 20 ms",
                   0.1, 90),
    "dropout": Effect(lambda wave, rate, value, rng: lose(wave, rate, value, rng, GAP), "per cent, in gaps of 200 ms",
                      0.1, 90),
    "telephone": Effect(lambda wave, rate, value, rng: telephone(wave, rate)),
    "gsm": Effect(lambda wave, rate, value, rng: codecs.gsm(wave, rate)),
    "mulaw": Effect(lambda wave, rate, value, rng: codecs.mulaw(wave, rate)),
    "alaw": Effect(lambda wave, rate, value, rng: codecs.alaw(wave, rate)),
    "g721": Effect(lambda wave, rate, value, rng: codecs.g721(wave, rate)),
    "mp3": Effect(lambda wave, rate, value, rng: codecs.mp3(wave, rate, value), "kbit/s", 8, 320, "k"),
    "opus": Effect(lambda wave, rate, value, rng: codecs.opus(wave, rate, value), "kbit/s", 6, 256, "k"),
    "vorbis": Effect(lambda wave, rate, value, rng: codecs.vorbis(wave, rate, value), "quality", 0, 10),
}


def parse_effect(text: str) -> tuple[Effect, float | None]:
    """`clip_20` as the effect and its value. Raises ValueError for what is none."""
    name, underscore, number = text.partition("_")
    if name not in EFFECTS:
        raise ValueError(f"no effect is called {name!r}; known: {', '.join(EFFECTS)}")
    effect = EFFECTS[name]
    if not effect.what:
        if underscore:
            raise ValueError(f"{text}: {name} has no value; write {name}")
        return effect, None
    match = re.fullmatch(rf"(-?\d+(?:\.\d+)?){effect.suffix}", number)
    if match is None or not effect.least <= float(match[1]) <= effect.most:
        raise ValueError(f"{text}: expected {name}_N{effect.suffix}, where N is {effect.what}, from {effect.least:g} "
                         f"to {effect.most:g}")
    return effect, float(match[1])


@dataclass(frozen=True)
class Channel:
    """The effects of `name`, such as `telephone+loss_5`, one after the other, on waves at `rate` Hz.

    Raises ValueError for an effect that does not exist.
    """

    name: str
    rate: int

    def __post_init__(self):
        for part in self.name.split("+"):
            parse_effect(part)

    def __call__(self, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What comes out of `wave` (samples,), as long and aligned with it."""
        for part in self.name.split("+"):
            effect, value = parse_effect(part)
            wave = effect.apply(wave, self.rate, value, rng)
        return wave.astype(np.float32)
