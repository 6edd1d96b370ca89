"""Room responses: direct path first, plausible decay, reproducible, cached."""

import numpy as np
import pytest
import soundfile

from cdasr.speech.degrade import reverberate
from cdasr.speech.rooms import RoomSource, from_direct_path, read_response, shortest_rt60, simulate_room

RATE = 16_000


def reverberation_time(rir: np.ndarray) -> float:
    """RT60 in seconds from the decay between -5 and -25 dB (Schroeder 1965)."""
    left = np.cumsum(np.square(rir[::-1], dtype=np.float64))[::-1]
    decibels = 10 * np.log10(left / left[0])
    return 3 * (np.argmax(decibels < -25) - np.argmax(decibels < -5)) / RATE


@pytest.fixture(scope="module")
def rooms():
    return [simulate_room(np.random.default_rng([5, number]), RATE) for number in range(12)]


def test_simulated_rooms_start_with_the_direct_path(rooms):
    for rir in rooms:
        assert rir.dtype == np.float32 and rir[0] == 1.0
        assert np.abs(rir[1:]).max() < 1.0
        assert np.abs(rir[1:8]).max() < 0.05  # no reflection arrives at once: half a metre from every wall


def test_simulated_rooms_reverberate_plausibly_long(rooms):
    times = [reverberation_time(rir) for rir in rooms]
    assert min(times) > 0.08 and max(times) < 1.4
    assert np.median(times) == pytest.approx(0.45, abs=0.2)
    assert max(times) > 2 * min(times)


def test_sabine_limit():
    assert shortest_rt60(np.array([5.0, 4.0, 3.0])) == pytest.approx(0.161 * 60 / 94, rel=0.01)


def test_reverberant_speech_is_aligned_with_the_dry_one(rooms):
    dry = np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    for rir in rooms:
        correlation = np.correlate(reverberate(dry, rir), dry, mode="full")
        assert np.argmax(np.abs(correlation)) == len(dry) - 1  # lag 0


def test_measured_responses_are_aligned_and_normalised(write_wav):
    rir = np.zeros(4000, np.float32)
    rir[700], rir[900] = -0.5, 0.2
    response = read_response(write_wav("rir.wav", rir), RATE)
    assert response[0] == 1.0 and len(response) == 201
    assert response[200] == pytest.approx(-0.4, abs=1e-3)


def test_source_is_reproducible_and_caches(tmp_path):
    plain = RoomSource(simulated=3, seed=2)
    cached = RoomSource(simulated=3, seed=2, cache_dir=tmp_path / "rooms")
    names = set()
    for seed in range(10):
        rir, name = plain.draw(np.random.default_rng(seed))
        again, same = cached.draw(np.random.default_rng(seed))
        assert name == same and np.array_equal(rir, again)
        names.add(name)
    assert names == {"room0000", "room0001", "room0002"}
    files = sorted((tmp_path / "rooms").iterdir())
    assert len(files) == 3
    np.save(files[0], np.ones(1, np.float32))  # what is in the cache is used
    fresh = RoomSource(simulated=3, seed=2, cache_dir=tmp_path / "rooms")
    assert any(len(fresh.draw(np.random.default_rng(seed))[0]) == 1 for seed in range(10))


def test_files_and_simulated_rooms_share_the_draws(write_wav):
    impulse = np.zeros(100, np.float32)
    impulse[3] = 0.9
    source = RoomSource(files=[write_wav("hall.wav", impulse)], simulated=1, file_prob=0.5)
    names = [source.draw(np.random.default_rng(seed))[1] for seed in range(40)]
    assert set(names) == {"hall.wav", "room0000"} and 8 < names.count("hall.wav") < 32


def test_unusable_input_is_named(write_wav):
    with pytest.raises(ValueError, match="room source needs"):
        RoomSource()
    with pytest.raises(ValueError, match=r"silent\.wav.*digital silence"):
        read_response(write_wav("silent.wav", np.zeros(100, np.float32)), RATE)


def test_a_microphone_array_gives_its_first_channel(tmp_path):
    noise = np.random.default_rng(0).standard_normal((800, 8)).astype(np.float32)
    response = noise * np.exp(-np.arange(800) / 90)[:, None]
    response[10, 0] = 4.0
    soundfile.write(tmp_path / "array.wav", 0.2 * response, 16_000, subtype="FLOAT")
    expected = from_direct_path(0.2 * response[:, 0].astype(np.float32), 10)
    assert np.allclose(read_response(tmp_path / "array.wav", 16_000), expected, atol=1e-6)
