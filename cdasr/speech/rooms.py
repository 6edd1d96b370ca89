"""Room impulse responses: measured ones from files, and shoebox rooms simulated by image sources.

Every response starts with the direct path, of amplitude 1, so that `convolve(speech, rir)[:n]` stays aligned
with the dry speech.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cdasr.runtime.atomic import replacing
from cdasr.speech.audio import read_audio

SOUND_SPEED = 343.0  # m/s
MAX_ORDER = 60  # of reflection: what lies beyond has decayed by 30 dB or more


class RoomSource:
    """Draws measured responses (a share of `file_prob`) and `simulated` rooms that follow from `seed`.

    A room is simulated when it is first drawn, and kept; with `cache_dir` also on disk, for later runs.
    """

    def __init__(self, files: Sequence[str | os.PathLike] = (), simulated: int = 0, seed: int = 0,
                 rate: int = 16_000, file_prob: float = 0.3, cache_dir: str | os.PathLike | None = None):
        if not files and simulated < 1:
            raise ValueError("a room source needs files of room responses, some simulated rooms, or both")
        self.files, self.simulated, self.seed, self.rate = list(files), simulated, seed, rate
        self.file_prob = file_prob if files and simulated else float(bool(files))
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self._responses: dict[int | str, np.ndarray] = {}

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """A response `(samples,)` and its name: a file's, or `room` and a number."""
        if rng.random() < self.file_prob:
            path = self.files[rng.integers(len(self.files))]
            return self._keep(str(path), lambda: read_response(path, self.rate)), Path(path).name
        number = int(rng.integers(self.simulated))
        return self._keep(number, lambda: self._room(number)), f"room{number:04d}"

    def _keep(self, key, make) -> np.ndarray:
        if key not in self._responses:
            self._responses[key] = make()
        return self._responses[key]

    def _room(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, number])
        if self.cache_dir is None:
            return simulate_room(rng, self.rate)
        path = self.cache_dir / f"room{number:04d}-seed{self.seed}-{self.rate}.npy"
        if not path.is_file():
            with replacing(path) as partial:
                np.save(partial, simulate_room(rng, self.rate))
        return np.load(path)


def read_response(path: str | os.PathLike, rate: int) -> np.ndarray:
    """A measured response at `rate` Hz, the first channel of several: their mean would be no room's response.

    Raises ValueError when it is silent or no audio.
    """
    wave, _ = read_audio(path, rate, channel=0)
    if not wave.any():
        raise ValueError(f"{path}: the room response is digital silence; leave it out")
    return from_direct_path(wave, int(np.argmax(np.abs(wave))))


def from_direct_path(rir: np.ndarray, direct: int, decay: float = 60.0) -> np.ndarray:
    """`rir` from index `direct` on, where it becomes 1, up to where its energy has decayed by `decay` dB."""
    rir = rir[direct:] / rir[direct]
    left = np.cumsum(np.square(rir[::-1], dtype=np.float64))[::-1]
    return rir[:max(1, int(np.count_nonzero(left > left[0] * 10 ** (-decay / 10))))].astype(np.float32)


def simulate_room(rng: np.random.Generator, rate: int) -> np.ndarray:
    """The response of a random room of 16 to 320 cubic metres, RT60 around 0.15 to 0.8 s."""
    import pyroomacoustics

    size = rng.uniform((3.0, 2.5, 2.2), (10.0, 8.0, 4.0))
    rt60 = max(rng.uniform(0.15, 0.8), 1.3 * shortest_rt60(size))
    absorption, order = pyroomacoustics.inverse_sabine(rt60, size, c=SOUND_SPEED)
    room = pyroomacoustics.ShoeBox(size, fs=rate, materials=pyroomacoustics.Material(absorption),
                                   max_order=min(order, MAX_ORDER))
    room.set_sound_speed(SOUND_SPEED)
    microphone, talker, delay = draw_positions(rng, size, rate)
    room.add_source(talker)
    room.add_microphone(microphone)
    room.compute_rir()
    half_filter = pyroomacoustics.constants.get("frac_delay_length") // 2
    return from_direct_path(room.rir[0][0], delay + half_filter)


def shortest_rt60(size: np.ndarray) -> float:
    """RT60 in seconds of a room of `size` (3,) metres that absorbs everything (Sabine's formula)."""
    surface = 2 * (size[0] * size[1] + size[1] * size[2] + size[2] * size[0])
    return 24 * np.log(10) * np.prod(size) / (SOUND_SPEED * surface)


def draw_positions(rng: np.random.Generator, size: np.ndarray,
                   rate: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Microphone and talker in metres, half a metre from every wall, and the delay between them in samples.

    The delay is a whole number of samples, so that the direct path is one single pulse.
    """
    while True:
        microphone = rng.uniform(0.5, size - 0.5)
        direction = rng.standard_normal(3) * (1.0, 1.0, 0.3)
        delay = round(rng.uniform(0.3, 3.0) * rate / SOUND_SPEED)
        talker = microphone + direction / np.linalg.norm(direction) * delay * SOUND_SPEED / rate
        if np.all(talker > 0.5) and np.all(talker < size - 0.5):
            return microphone, talker, delay
