"""Robustness grids: names, combinations, determinism, one line for what is wrong, and a whole evaluation of one."""

import json

import numpy as np
import pytest
import soundfile

from cdasr.cli import main
from cdasr.speech.grid import BUNDLED, conditions_of, find_grid, read_grid, simulate_grid
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.noise_families import rms

GRID = """
noise: {city: noise}
room: {hall: {files: rir}}
conditions:
  - {noise: [city, coloured], snr: [0, -5]}
  - {room: hall}
  - {room: hall, noise: city, snr: 5}
  - {effect: [clip_20, mp3_32k, gsm+loss_10]}
  - {effect: gsm, room: hall, noise: city, snr: 5}
"""
NAMES = ["clean", "city_0dB", "city_-5dB", "coloured_0dB", "coloured_-5dB", "hall", "hall_city_5dB", "clip_20",
         "mp3_32k", "gsm+loss_10", "gsm_hall_city_5dB"]


@pytest.fixture
def corpus(tmp_path, write_wav, tone):
    """A manifest of two clean utterances, folders of noise and rooms, and a grid of them."""
    rows = [{"ID": f"u{number}", "wav": write_wav(f"clean/u{number}.wav", tone(0.5 + 0.1 * number, 300 + 100 * number)),
             "text": "one two", "duration": 0.5 + 0.1 * number, "spk_id": "s"} for number in range(2)]
    write_manifest(tmp_path / "clean.csv", rows)
    write_wav("noise/street.wav", 0.1 * np.random.default_rng(0).standard_normal(9000))
    write_wav("rir/hall.wav", np.concatenate([[0.8], 0.1 * np.random.default_rng(1).standard_normal(800)]))
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")
            if path.name != "simulate.json"}


def test_a_condition_is_named_by_what_is_done(corpus):
    assert list(conditions_of(read_grid(corpus / "grid.yaml"))) == NAMES
    made, count = simulate_grid(corpus / "clean.csv", corpus / "grid.yaml", 3, corpus / "out")
    rows = {row["ID"]: row for row in read_manifest(made)}
    assert count == len(NAMES) and list(rows) == [f"u{number}_{name}" for name in NAMES for number in (0, 1)]
    row = rows["u1_gsm_hall_city_5dB"]
    assert (row["noise"], row["rir"], row["snr"], row["effect"], row["condition"], row["seed"]) == (
        "street.wav", "hall.wav", "5", "gsm", "gsm_hall_city_5dB", "3")
    assert rows["u0_clean"]["effect"] == rows["u0_city_0dB"]["effect"] == ""
    waves = {name: soundfile.read(row["wav"])[0] for name, row in rows.items()}
    clean = {name: soundfile.read(row["clean_wav"])[0] for name, row in rows.items()}
    assert all(len(waves[name]) == len(clean[name]) for name in rows)
    for name, snr in (("u0_city_0dB", 0), ("u1_coloured_-5dB", -5)):
        assert 20 * np.log10(rms(clean[name]) / rms(waves[name] - clean[name])) == pytest.approx(snr, abs=0.01)
    assert np.abs(waves["u0_clip_20"]).max() == pytest.approx(0.2 * np.abs(clean["u0_clip_20"]).max(), abs=1e-4)
    settings = json.loads((corpus / "out/simulate.json").read_text())["settings"]
    assert settings["grid"]["conditions"][2] == {"room": ["hall"], "noise": ["city"], "snr": [5.0], "effect": []}


def test_a_grid_follows_from_its_seed(corpus, capsys):
    for folder, seed, workers in (("one", "3", "1"), ("two", "3", "2"), ("other", "4", "1")):
        assert main(["simulate", str(corpus / "clean.csv"), "--grid", str(corpus / "grid.yaml"), "--seed", seed,
                     "--num-workers", workers, "--output-dir", str(corpus / folder)]) == 0
    assert f"wrote {corpus / 'one' / 'manifest.csv'}: the {len(NAMES)} conditions of" in capsys.readouterr().out
    one, two, other = (contents(corpus / name) for name in ("one", "two", "other"))
    assert one == two
    for name in ("city_0dB", "coloured_0dB", "gsm+loss_10"):
        assert one[f"{name}/u0.flac"] != other[f"{name}/u0.flac"]
    assert one["clip_20/u0.flac"] == other["clip_20/u0.flac"], "nothing is drawn there"
    (corpus / "grid.yaml").write_text(GRID.replace("clip_20", "clip_20, clip_30"))
    assert simulate_grid(corpus / "clean.csv", corpus / "grid.yaml", 3, corpus / "one")[1] == len(NAMES) + 1
    assert contents(corpus / "one").items() >= {key: value for key, value in one.items() if "csv" not in key}.items()


def test_the_bundled_grids_can_be_made():
    for path in BUNDLED.glob("*.yaml"):
        grid = read_grid(find_grid(path.stem))
        assert grid.clean and len(conditions_of(grid)) > 20
        assert all(noise.files is None for noise in grid.noise.values()), "they need no data"
    assert find_grid("robustness").is_file()


@pytest.mark.parametrize("text, message", [
    ("conditions: [{noise: street, snr: 5}]", "conditions.0: no noise is called 'street'; the grid has coloured"),
    ("conditions: [{room: hall}]", "conditions.0: no room is called 'hall'; the grid has none"),
    ("conditions: [{noise: babble}]", "noise and snr go together"), ("conditions: [{snr: 5}]", "go together"),
    ("conditions: [{effect: gsm}, {}]", "conditions.1: nothing is done there"),
    ("conditions: [{effect: clip_200}]", "conditions.0: clip_200: expected clip_N"),
    ("conditions: [{effect: gsm+hum}]", "no effect is called 'hum'"),
    ("conditions: [{effect: [gsm, gsm]}]", "there are two conditions gsm"),
    ("conditions: [{efect: gsm}]", "conditions.0.efect: unknown key"),
    ("conditions: [{effect: gsm, snr: loud}]", "conditions.0.snr.0: input should be a valid number, got 'loud'"),
    ("conditions: []", "conditions: .* at least 1 item"), ("- gsm", "no grid; expected the keys"),
    ("conditions: [", "not YAML"), ("noise: {a/b: x}\nconditions: [{effect: gsm}]", "string should match pattern"),
    ("noise: {city: gone}\nconditions: [{noise: city, snr: 5}]", "noise.city: .*gone: no such folder"),
    ("noise: {city: {families: [hum]}}\nconditions: [{noise: city, snr: 5}]", "noise.city: no noise family"),
    ("room: {hall: {}}\nconditions: [{room: hall}]", "room.hall: a room source needs files")])
def test_a_grid_that_cannot_be_used_is_one_line_and_writes_nothing(corpus, text, message, capsys):
    import re

    (corpus / "bad.yaml").write_text(text)
    assert main(["simulate", str(corpus / "clean.csv"), "--grid", str(corpus / "bad.yaml"), "--output-dir",
                 str(corpus / "out")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "bad.yaml" in said and re.search(message, said), said
    assert not (corpus / "out").exists()


@pytest.mark.parametrize("options, message", [
    (["--grid", "robust"], "robust: no such grid; give a YAML file, or the name of a bundled one: robustness"),
    (["--grid", "gone.yaml"], "gone.yaml: no such grid"), ([], "simulate needs a --grid, or --noise and --snr"),
    (["--grid", "robustness", "--snr", "5"], "--grid says what is mixed; leave out"),
    (["--grid", "robustness", "--manifest", "x.csv"], "simulate takes one manifest")])
def test_options_that_do_not_go_together(corpus, options, message, capsys):
    assert main(["simulate", str(corpus / "clean.csv"), *options, "--output-dir", str(corpus / "out")]) == 2
    assert message in capsys.readouterr().err and not (corpus / "out").exists()


def test_a_grid_is_evaluated_condition_by_condition(corpus, package_dir, capsys):
    simulate_grid(corpus / "clean.csv", corpus / "grid.yaml", 3, corpus / "out")
    assert main(["evaluate", "--manifest", str(corpus / "out/manifest.csv"), "--model", str(package_dir), "--systems",
                 "none,enhanced", "--output-dir", str(corpus / "results"), "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[3:3 + len(NAMES)]] == NAMES
    assert list(json.loads((corpus / "results/wer.json").read_text())["conditions"]) == NAMES
