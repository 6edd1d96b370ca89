"""Synthetic speech from eSpeak NG: the demo's talkers, and further talkers for small corpora.

Uses the shared library of the package `espeakng-loader` (extra `demo`) through its C interface (speak_lib.h).
"""

from __future__ import annotations

import ctypes
from functools import cache

import numpy as np

RETRIEVAL, RATE_PARAMETER, PITCH_PARAMETER, UTF8 = 1, 1, 3, 1


def speak(text: str, voice: str = "en-us", words_per_minute: int = 160, pitch: int = 50) -> tuple[np.ndarray, int]:
    """Speech `(samples,)` float32 and its rate in Hz; `voice` as eSpeak names it, e.g. `en-us+f2`; `pitch` 0 to 99.

    The same calls in the same order give the same samples in every process; the flutter of some voices goes on from
    one call to the next.
    Raises ValueError when the library is not installed or does not know the voice.
    """
    library, rate, chunks = _library()
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"eSpeak NG has no voice {voice!r}")
    library.espeak_SetParameter(RATE_PARAMETER, words_per_minute, 0)
    library.espeak_SetParameter(PITCH_PARAMETER, pitch, 0)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))  # else breath and flutter follow the clock
    chunks.clear()
    data = text.encode() + b"\0"
    library.espeak_Synth(data, len(data), 0, 0, 0, UTF8, None, None)
    library.espeak_Synchronize()
    return trim(np.concatenate(chunks).astype(np.float32) / 32768.0), rate


def check_library() -> None:
    """Raise ValueError where the library is not installed."""
    _library()


def trim(wave: np.ndarray, threshold: float = 0.01) -> np.ndarray:
    """Cut the silence before and after, below `threshold` of the peak."""
    loud = np.flatnonzero(np.abs(wave) > threshold * np.abs(wave).max())
    return wave[loud[0]:loud[-1] + 1] if len(loud) else wave


@cache
def _library():
    try:
        import espeakng_loader
    except ImportError:
        raise ValueError("synthetic speech needs eSpeak NG: pip install 'cdasr[demo]'") from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    rate = library.espeak_Initialize(RETRIEVAL, 0, str(espeakng_loader.get_data_path()).encode(), 0)
    if rate <= 0:
        raise ValueError("eSpeak NG could not be started: its voice data is missing; reinstall espeakng-loader")
    chunks: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def collect(samples, count, events):
        if samples and count > 0:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    library.espeak_SetSynthCallback(collect)
    library.keep_callback = collect  # the C side holds no reference
    return library, rate, chunks
