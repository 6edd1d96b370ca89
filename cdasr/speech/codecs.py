"""Speech codecs, there and back: what a wave sounds like after MP3, Opus, Vorbis, GSM, G.711 or G.721 (libsndfile).

Every function returns as many samples as it is given, aligned with them: the delay of a codec is taken out.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import soundfile

from cdasr.speech.audio import fit_length, resample

TELEPHONE = 8_000  # Hz, the rate of GSM, G.711 and G.721
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
MP3_DELAY = 576 + 529  # samples of LAME and of any decoder, where the file has no room to tell them


def mp3(wave: np.ndarray, rate: int, kbps: float) -> np.ndarray:
    """`(samples,)` at `rate` Hz after MP3 of a constant `kbps` (LAME takes the nearest that the format has)."""
    own = at_least(rate, MP3_RATES)
    low, high = (32, 320) if own >= 32_000 else (8, 160) if own >= 16_000 else (8, 64)  # what libsndfile spreads 0..1
    compression = float(np.clip(1 - (kbps - low) / (high - low), 0.0, 0.999))
    return _through(wave, rate, own, "MP3", "MPEG_LAYER_III", delay=_mp3_delay, compression_level=compression,
                    bitrate_mode="CONSTANT")


def opus(wave: np.ndarray, rate: int, kbps: float) -> np.ndarray:
    """`(samples,)` at `rate` Hz after Opus of about `kbps`, 6 to 256."""
    compression = float(np.clip(1 - (kbps - 6) / 250, 0.0, 1.0))
    return _through(wave, rate, at_least(rate, OPUS_RATES), "OGG", "OPUS", compression_level=compression)


def vorbis(wave: np.ndarray, rate: int, quality: float) -> np.ndarray:
    """`(samples,)` at `rate` Hz after Ogg Vorbis of a `quality` from 0 to 10."""
    return _through(wave, rate, rate, "OGG", "VORBIS", compression_level=1 - quality / 10)


def gsm(wave: np.ndarray, rate: int) -> np.ndarray:
    """`(samples,)` at `rate` Hz after GSM 06.10 full rate (13 kbit/s, 8 kHz)."""
    return _through(wave, rate, TELEPHONE, "WAV", "GSM610")


def mulaw(wave: np.ndarray, rate: int) -> np.ndarray:
    """`(samples,)` at `rate` Hz after G.711 mu-law (64 kbit/s, 8 kHz)."""
    return _through(wave, rate, TELEPHONE, "WAV", "ULAW")


def alaw(wave: np.ndarray, rate: int) -> np.ndarray:
    """`(samples,)` at `rate` Hz after G.711 A-law (64 kbit/s, 8 kHz)."""
    return _through(wave, rate, TELEPHONE, "WAV", "ALAW")


def g721(wave: np.ndarray, rate: int) -> np.ndarray:
    """`(samples,)` at `rate` Hz after G.721 ADPCM (32 kbit/s, 8 kHz)."""
    return _through(wave, rate, TELEPHONE, "WAV", "G721_32")


def at_least(rate: int, rates: tuple[int, ...]) -> int:
    """The lowest of `rates` that loses nothing of `rate` Hz; the highest where all do."""
    return next((own for own in rates if own >= rate), rates[-1])


def _mp3_delay(surplus: int) -> int:
    """Samples in front of what was encoded, where the decoder gives `surplus` samples more than it was given.

    The first frame says how many there are, and the decoder leaves them out; below 64 kbit/s it is too short for that.
    """
    return MP3_DELAY if surplus >= MP3_DELAY else 0


def _through(wave: np.ndarray, rate: int, own: int, file_format: str, subtype: str,
             delay: Callable[[int], int] = lambda surplus: 0, **options) -> np.ndarray:
    """`wave` written and read again at the codec's `own` rate; `delay(surplus)`: samples that it puts in front.

    Raises ValueError where this libsndfile does not have the codec.
    """
    if subtype not in soundfile.available_subtypes(file_format):
        raise ValueError(f"libsndfile {soundfile.__libsndfile_version__} does not write {subtype}; pip install -U "
                         "soundfile, or leave this effect out")
    given, memory = resample(wave, rate, own), io.BytesIO()
    soundfile.write(memory, np.clip(given, -1.0, 1.0), own, subtype, format=file_format, **options)
    memory.seek(0)
    heard, _ = soundfile.read(memory, dtype="float32")
    heard = heard[delay(len(heard) - len(given)):]
    return fit_length(resample(fit_length(heard, len(given)), own, rate), len(wave))
