"""Generated noise by families, each call a new one: `f(rng, samples, rate, utterance) -> (samples,)`, RMS 1.

They stand in for recordings where there are few. `utterance(rng)` gives some random speech `(n,)`; only the
families in NEED_SPEECH use it. Filters work on whole waveforms by FFT: three seconds take a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import fft

Utterance = Callable[[np.random.Generator], np.ndarray]


def coloured(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance | None = None):
    """Stationary noise with a random spectral slope, from blue to brown, and a random smooth spectrum."""
    size = fft_size(samples)
    slope = np.maximum(fft.rfftfreq(size, 1 / rate), rng.uniform(20, 120)) ** -rng.uniform(-0.4, 1.1)
    return unit(_gaussian(rng, size, slope * random_equaliser(rng, size, rate, spread=3.0))[:samples])


def speech_shaped(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance):
    """Stationary noise with the smoothed average spectrum of a random utterance."""
    spectrum = _mean_spectrum(utterance(rng))
    size = fft_size(samples)
    gains = np.interp(np.linspace(0, 1, size // 2 + 1), np.linspace(0, 1, len(spectrum)), spectrum)
    return unit(_gaussian(rng, size, gains)[:samples])


def babble(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance):
    """Three to eight talkers at once, each from a random place of a random utterance, at a random level."""
    noise = 1e-3 * rng.standard_normal(samples, dtype=np.float32)
    for _ in range(rng.integers(3, 9)):
        talker = make_periodic(utterance(rng), fade=rate // 50)
        talker = wrapped(talker, rng.integers(len(talker)), samples)
        noise += 10 ** (rng.normal(0, 4) / 20) / max(rms(talker), 1e-4) * talker
    return unit(noise)


def tonal(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance | None = None):
    """Mains hum, horns, alarms, sirens: one to three harmonic sounds, steady, gliding or going on and off."""
    noise = 10 ** (rng.uniform(-40, -10) / 20) * rng.standard_normal(samples, dtype=np.float32)
    pitches = (rng.choice((50.0, 60.0)), np.exp(rng.uniform(np.log(150), np.log(800))),
               np.exp(rng.uniform(np.log(400), np.log(3000))))
    pitch = pitches[rng.integers(3)]
    for _ in range(rng.integers(1, 4)):
        noise += _harmonics(rng, pitch, samples, rate) * _switching(rng, samples, rate)
        pitch *= rng.choice((1.0, 1.19, 1.26, 1.335, 1.5, 2.0)) * rng.uniform(0.99, 1.01)
    return unit(noise)


def modulated(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance | None = None):
    """One to three bands of noise whose loudness wanders or pulses: wind, waves, traffic, machines."""
    size = fft_size(samples)
    frequency = np.maximum(fft.rfftfreq(size, 1 / rate), 1.0)
    noise = 0.01 * rng.standard_normal(samples, dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        centre, octaves = np.exp(rng.uniform(np.log(80), np.log(0.4 * rate))), rng.uniform(0.1, 2.0)
        band = _gaussian(rng, size, np.exp(-0.5 * (np.log2(frequency / centre) / octaves) ** 2))[:samples]
        band *= random_gain(rng, samples, rate, hertz=np.exp(rng.uniform(-1, 3)), spread=rng.uniform(3, 12))
        noise += 10 ** (rng.normal(0, 4) / 20) * unit(band)
    return unit(noise)


def impulsive(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance | None = None):
    """Decaying resonant bursts at a random rate: knocks, clatter, steps, barks, clicks."""
    size = fft.next_fast_len(samples + rate // 2, real=True)
    noise = 10 ** (rng.uniform(-50, -25) / 20) * rng.standard_normal(size, dtype=np.float32)
    for _ in range(rng.integers(1, 4)):
        train = np.zeros(size, np.float32)
        count = 1 + rng.poisson(np.exp(rng.uniform(np.log(1.5), np.log(12))) * size / rate)
        np.add.at(train, rng.integers(size, size=count), from_decibels(rng.normal(0, 4, count)))
        noise += _filtered(train, _burst(rng, rate))
    start = rng.integers(size - samples + 1)
    return unit(noise[start:start + samples])


def crackle(rng: np.random.Generator, samples: int, rate: int, utterance: Utterance | None = None):
    """Dense tiny clicks of very different strength over soft hiss or rumble: fire, rain, paper, records."""
    size = fft_size(samples)
    density = np.exp(rng.uniform(np.log(15), np.log(600))) / rate
    clicks = np.zeros(size, np.float32)
    count = 1 + rng.poisson(density * size)
    clicks[rng.integers(size, size=count)] = rng.standard_cauchy(count).clip(-30, 30)
    grain = _gaussian(rng, 256, np.ones(129)) * np.exp(-np.arange(256) / (rate * rng.uniform(2e-4, 2e-3)))
    clicks = _filtered(clicks, grain) * random_gain(rng, size, rate, hertz=rng.uniform(0.5, 8), spread=4.0)
    slope = np.maximum(fft.rfftfreq(size, 1 / rate), 40.0) ** -rng.uniform(0.0, 1.2)
    bed = 10 ** (rng.uniform(-25, -5) / 20) * unit(_gaussian(rng, size, slope))
    return unit((clicks / (rms(clicks) + 1e-6) + bed)[:samples])


FAMILIES = {"coloured": coloured, "speech_shaped": speech_shaped, "babble": babble, "tonal": tonal,
            "modulated": modulated, "impulsive": impulsive, "crackle": crackle}
NEED_SPEECH = ("speech_shaped", "babble")


def _harmonics(rng: np.random.Generator, pitch: float, samples: int, rate: int) -> np.ndarray:
    """A stack of harmonics with a random spectrum and a steady, gliding or vibrating pitch: `(samples,)`."""
    time = np.arange(samples) / rate
    course = np.zeros(samples)  # in octaves
    if rng.random() < 0.4:
        course += rng.uniform(0.0, 0.5) * np.sin(2 * np.pi * (rng.uniform(0.1, 2.0) * time + rng.random()))
    if rng.random() < 0.3:
        course += rng.uniform(0.0, 0.03) * np.sin(2 * np.pi * rng.uniform(4, 12) * time)
    frequency = pitch * 2**course
    phasor = np.exp(2j * np.pi * (np.cumsum(frequency) / rate % 1.0)).astype(np.complex64)
    count = min(int(rng.integers(1, 25)), max(1, int(0.5 * rate / frequency.max())))
    weights = from_decibels(rng.normal(0, 6, count)) * np.arange(1, count + 1) ** -rng.uniform(0.3, 1.5)
    weights = (weights * np.exp(2j * np.pi * rng.random(count))).astype(np.complex64)
    stack = np.zeros(samples, np.complex64)
    for weight in weights[::-1]:  # Horner's scheme: powers of the phasor are the harmonics
        stack = (stack + weight) * phasor
    return unit(stack.imag + 1e-4)


def _switching(rng: np.random.Generator, samples: int, rate: int) -> np.ndarray | float:
    """An on-off pattern `(samples,)` with soft edges, or always on."""
    if rng.random() < 0.4:
        return 1.0
    wave = np.sin(2 * np.pi * (np.arange(samples) * (np.exp(rng.uniform(-1.0, 2.3)) / rate) + rng.random()))
    return np.clip(0.5 + rng.uniform(3, 20) * (wave - rng.uniform(-0.7, 0.5)), 0.0, 1.0).astype(np.float32)


def _burst(rng: np.random.Generator, rate: int) -> np.ndarray:
    """One decaying sound of at most half a second: noise and resonances, or a voiced bark."""
    time = np.arange(rate // 2, dtype=np.float32) / rate
    decay = np.exp(rng.uniform(np.log(0.003), np.log(0.12)))
    noise = rng.standard_normal(len(time), dtype=np.float32) * np.exp(-time / (decay * rng.uniform(0.1, 1.0)))
    if rng.random() < 0.3:
        pitch = np.exp(rng.uniform(np.log(150), np.log(900)))
        envelope = np.minimum(time / 0.01, 1.0) * np.exp(-time / decay)
        return unit(_harmonics(rng, pitch, len(time), rate) * envelope + rng.uniform(0.0, 0.5) * noise)
    frequencies = np.exp(rng.uniform(np.log(100), np.log(0.45 * rate), rng.integers(1, 5)))[:, None]
    decays = decay * rng.uniform(0.3, 1.5, frequencies.shape)
    rings = np.exp(-time / decays) * np.sin(2 * np.pi * frequencies * time)
    return unit(noise + rng.uniform(0.3, 3.0) * rings.sum(axis=0))


def _mean_spectrum(wave: np.ndarray, size: int = 512) -> np.ndarray:
    """Root mean square amplitudes `(size / 2 + 1,)` over the frames of `wave`."""
    wave = wrapped(wave, 0, max(len(wave), 2 * size))
    frames = np.lib.stride_tricks.sliding_window_view(wave, size)[::size // 2] * np.hanning(size)
    return np.sqrt(np.mean(np.abs(fft.rfft(frames)) ** 2, axis=0)) + 1e-6


def fft_size(samples: int) -> int:
    return fft.next_fast_len(max(samples, 1024), real=True)


def _gaussian(rng: np.random.Generator, size: int, gains: np.ndarray) -> np.ndarray:
    """Gaussian noise `(size,)` with the amplitude `gains` (size // 2 + 1,) over frequency."""
    white = rng.standard_normal((len(gains), 2), dtype=np.float32).view(np.complex64)[:, 0]
    return fft.irfft(white * gains.astype(np.float32), size)


def _filtered(wave: np.ndarray, response: np.ndarray) -> np.ndarray:
    return fft.irfft(fft.rfft(wave) * fft.rfft(response, len(wave)), len(wave))


# -- tools, also of the warping of recordings ----------------------------------------------------------------


def random_equaliser(rng: np.random.Generator, size: int, rate: int, spread: float = 6.0) -> np.ndarray:
    """Smooth random amplitude gains, some `spread` dB up and down, for each frequency of an FFT of `size`."""
    knots = np.geomspace(60.0, rate / 2, rng.integers(4, 12))
    decibels = np.interp(fft.rfftfreq(size, 1 / rate), knots, rng.normal(0.0, spread, len(knots)))
    return from_decibels(decibels)


def random_gain(rng: np.random.Generator, samples: int, rate: int, hertz: float, spread: float) -> np.ndarray:
    """A random loudness curve `(samples,)` that moves about `hertz` times a second by some `spread` dB."""
    knots = np.arange(-1, samples * hertz / rate + 2) + rng.random()
    decibels = rng.normal(0.0, spread, len(knots))
    return from_decibels(np.interp(np.arange(samples) * (hertz / rate), knots, decibels))


def make_periodic(wave: np.ndarray, fade: int) -> np.ndarray:
    """Fade the last `fade` samples into the first ones, with equal power, so that a loop has no seam."""
    fade = min(fade, len(wave) // 4)
    if fade == 0:
        return wave
    ramp = np.sin(0.5 * np.pi * (np.arange(fade, dtype=np.float32) + 0.5) / fade)
    looped = wave[:-fade].copy()
    looped[:fade] = ramp * wave[:fade] + ramp[::-1] * wave[-fade:]
    return looped


def wrapped(wave: np.ndarray, start: int, samples: int) -> np.ndarray:
    """`samples` of the periodic `wave` from `start` on."""
    return np.take(wave, np.arange(start, start + samples), mode="wrap")


def from_decibels(decibels: np.ndarray) -> np.ndarray:
    """Amplitude factors, float32."""
    return np.exp(decibels.astype(np.float32) * np.float32(np.log(10) / 20))


def rms(wave: np.ndarray) -> float:
    """Root mean square of `(samples,)`."""
    return float(np.sqrt(np.mean(np.square(wave, dtype=np.float64))))


def unit(wave: np.ndarray) -> np.ndarray:
    """`wave` as float32 with an RMS of 1."""
    return (wave / max(rms(wave), 1e-12)).astype(np.float32)
