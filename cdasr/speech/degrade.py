"""Degradations of clean speech: room reverberation, then additive noise at a given signal-to-noise ratio.

The target stays the dry speech: noisy and clean are aligned in time and share any change of level.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soxr
from scipy import fft

from cdasr.speech.noise import NoiseSource, equalise
from cdasr.speech.noise_families import random_equaliser, rms
from cdasr.speech.rooms import RoomSource

SILENT = 1e-7  # RMS
FULL_SCALE = 0.99


@dataclass
class Degraded:
    """A degraded utterance and its target, both `(samples,)` float32, and what was done; `snr` in dB."""

    noisy: np.ndarray
    clean: np.ndarray
    noise_name: str = ""
    rir_name: str = ""
    snr: float | None = None
    gain: float = 1.0  # common to both, below 1 where the mixture would have clipped


def mix_at_snr(speech: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """`speech` plus `noise`, both `(samples,)`, scaled to `snr_db` by their RMS over the whole utterance.

    Raises ValueError when either is silent or their lengths differ.
    """
    if speech.shape != noise.shape:
        raise ValueError(f"speech has {len(speech)} samples and noise {len(noise)}; cut both to one length")
    speech_rms, noise_rms = rms(speech), rms(noise)
    for name, level in (("speech", speech_rms), ("noise", noise_rms)):
        if not level > SILENT:
            raise ValueError(f"the {name} is silent (RMS {level:.1g}), so there is no signal-to-noise ratio")
    return speech + np.float32(speech_rms / noise_rms * 10 ** (-snr_db / 20)) * noise


def reverberate(speech: np.ndarray, rir: np.ndarray) -> np.ndarray:
    """`speech` in a room: convolved with `rir` (direct path first), at the length and RMS of the input."""
    size = fft.next_fast_len(len(speech) + len(rir) - 1, real=True)
    wet = fft.irfft(fft.rfft(speech, size) * fft.rfft(rir, size), size)[:len(speech)]
    return (wet * (rms(speech) / max(rms(wet), SILENT))).astype(np.float32)


def degrade(clean: np.ndarray, rng: np.random.Generator, noise_source: NoiseSource | None = None,
            room_source: RoomSource | None = None, snr_db: float | None = None) -> Degraded:
    """Reverberate `clean` (samples,), then add noise at `snr_db`, each where it has a source.

    Noisy and clean are scaled down together where the peak would clip.
    Raises ValueError when only one of `noise_source` and `snr_db` is given, and as `mix_at_snr` does.
    """
    if (noise_source is None) != (snr_db is None):
        raise ValueError("noise and its SNR go together: give both noise_source and snr_db, or neither")
    noisy, noise_name, rir_name = clean, "", ""
    if room_source is not None:
        rir, rir_name = room_source.draw(rng)
        noisy = reverberate(noisy, rir)
    if noise_source is not None:
        noise, noise_name = noise_source.draw(rng, len(clean))
        noisy = mix_at_snr(noisy, noise, snr_db)
    peak = max(np.abs(noisy).max(), np.abs(clean).max())
    gain = np.float32(min(1.0, FULL_SCALE / max(peak, SILENT)))
    return Degraded(gain * noisy, gain * clean, noise_name, rir_name, snr_db, float(gain))


def without_pauses(speech: np.ndarray, rate: int, below: float = 30.0) -> np.ndarray:
    """`speech` without what is more than `below` dB under its loudest 10 ms at both ends; never shorter than 0.1 s.

    As librosa.effects.trim, which would take each loader process seconds to import.
    """
    block = rate // 100
    power = np.square(speech[:len(speech) // block * block]).reshape(-1, block).mean(axis=1)
    loud = np.flatnonzero(power > power.max(initial=0.0) * 10 ** (-below / 10))
    kept = speech[loud[0] * block:(loud[-1] + 1) * block] if len(loud) else speech
    return kept if len(kept) >= rate // 10 else speech


@dataclass
class TrainingDegrader:
    """Degradation on the fly: `(clean, rng) -> (noisy, clean)`, different for every state of `rng`.

    The clean speech is varied first: played at a speed within `speed_range`, and through a microphone whose gains over
    frequency have a standard deviation of `channel_db`. SNR and level (RMS) are uniform within their ranges, in dB.
    `reverb_prob` of the utterances is in a room, and `clean_prob` has neither noise nor room, so that a network
    learns to leave clean speech alone. For `tight_prob` of them the pauses at both ends are cut off: people cut
    recordings tightly, and what only ever met pauses there takes the first and the last sound for noise.
    """

    noise_source: NoiseSource
    room_source: RoomSource | None = None
    snr_range: tuple[float, float] = (-8.0, 20.0)
    reverb_prob: float = 0.3
    clean_prob: float = 0.05
    tight_prob: float = 0.0
    level_range: tuple[float, float] = (-35.0, -15.0)
    speed_range: tuple[float, float] = (1.0, 1.0)
    channel_db: float = 0.0

    def __call__(self, clean: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if self.tight_prob and rng.random() < self.tight_prob:
            clean = without_pauses(clean, self.noise_source.rate)
        clean = self._varied(clean, rng)
        clean = clean * np.float32(10 ** (rng.uniform(*self.level_range) / 20) / max(rms(clean), SILENT))
        if rng.random() < self.clean_prob:
            return clean, clean
        rooms = self.room_source if rng.random() < self.reverb_prob else None
        result = degrade(clean, rng, self.noise_source, rooms, rng.uniform(*self.snr_range))
        return result.noisy, result.clean

    def _varied(self, clean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rate = self.noise_source.rate
        if len(set(self.speed_range)) > 1:
            clean = soxr.resample(clean, rng.uniform(*self.speed_range) * rate, rate, quality="LQ")
        if self.channel_db > 0:
            size = fft.next_fast_len(len(clean), real=True)
            clean = equalise(clean, random_equaliser(rng, size, rate, self.channel_db)).astype(np.float32)
        return clean
