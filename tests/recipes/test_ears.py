"""recipes/ears on a miniature in the layout of the authors' download scripts: EARS, WHAM! at 48 kHz, room responses."""

import json
import zipfile

import numpy as np
import pytest
import soundfile

from cdasr.speech.loudness import integrated_loudness
from cdasr.speech.manifest import read_manifest
from tests.classifiers.whisper import make_whisper
from tests.recipes.staged import (
    check_nothing_is_redone,
    check_whole_run,
    load_prepare,
    run_recipe,
    spoken,
    tiny_hparams,
)

TEXTS = {"rainbow_01_fast": "When the sunlight", "emo_anger_sentences": "I'm so mad right now"}
TRAIN = ("p001", "p002", "p100", "p101")
TEST = ("p102", "p103")
ROOMS = {"ACE-Challenge/EM32/Office/x_RIR": 4, "AIR/AIR_1_4/AIR_wav_files/air_1": 2,
         "DetmoldSRIR/SetA_SingleSources/Data/Hall/h": 3, "Palimpsest/cave/c": 1}


def write(path, wave, rate=48_000):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The parts side by side, and a small Whisper."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    data, waves = folder / "data", spoken(TEXTS.values(), 48_000)
    freeform, cuts = np.tile(waves[1], 8)[:6 * 48_000], {}
    for speaker in (*TRAIN, *TEST):
        for name, wave in zip(TEXTS, waves):
            write(data / "EARS" / speaker / f"{name}.wav", wave)
        write(data / "EARS" / speaker / "freeform_speech_01.wav", freeform)
        write(data / "EARS" / speaker / "emo_pride_freeform.wav", waves[1])
        write(data / "EARS" / speaker / "interjection_yes.wav", waves[0])
        if speaker in TEST:
            cuts[speaker] = {**{name: [[0, -1]] for name in TEXTS},
                             "freeform_speech_01": [[0, 96_000], [96_000, 200_000]]}
    for number in range(16):
        write(data / "WHAM48kHz" / "high_res_wham" / "audio" / f"n{number:02d}.wav",
              0.05 * rng.standard_normal((48_000 * (2 + number % 7), 2)))
    for name, channels in ROOMS.items():
        decay = rng.standard_normal((24_000, channels)) * np.exp(-np.arange(24_000) / 3000)[:, None]
        decay[20] = 5.0
        write(data / f"{name}.wav", 0.1 * decay)
    (data / "test_files.json").write_text(json.dumps(cuts))
    (data / "transcripts.json").write_text(json.dumps(TEXTS))
    make_whisper(folder / "asr")
    return folder


@pytest.fixture(scope="module")
def prepare():
    return load_prepare("ears")


def test_all_stages_run_and_write_the_results(home, tmp_path):
    options = "--data-dir", str(home / "data"), "--asr", str(home / "asr"), "--data.longest", "1.7"
    done = run_recipe("ears", tmp_path, *options)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "left out: " in done.stdout and "BRUDEX: no room responses" in done.stdout
    check_whole_run(tmp_path, done, ("wham", "reverb", "clean", "parallel", "enhanced_matched", "PESQ",
                                     "Noise and rooms"))
    scored, train, valid = (read_manifest(tmp_path / "data" / f"{name}.csv", empty_text=True)
                            for name in ("eval", "train", "valid"))
    assert {row["condition"] for row in scored} == {"clean", "wham", "reverb"} and len(scored) == 6
    assert all(row["text"] in TEXTS.values() and row["spk_id"] in TEST for row in scored)
    assert {row["spk_id"] for row in train} == {"p001", "p002"} and {row["spk_id"] for row in valid} == {"p100", "p101"}
    assert not any("interjection" in row["ID"] for row in train) and any(not row["text"] for row in train)
    lists = json.loads((tmp_path / "data" / "noise.json").read_text())
    heard = {path.rpartition("/")[2] for path in lists["train"]["files"]}
    assert heard and not heard & {row["noise"] for row in scored}, "no recording of the test set is trained on"
    check_nothing_is_redone("ears", tmp_path, *options)


def test_mixtures_keep_their_loudness_and_are_the_same_anywhere(home, prepare, tmp_path):
    data, cuts = home / "data", json.loads((home / "data" / "test_files.json").read_text())
    made = {place: {name: list(prepare.make_tests(name, data, cuts, tmp_path / place)) for name in ("wham", "reverb")}
            for place in "ab"}
    for name, kind in (("wham", "EARS-WHAM"), ("reverb", "EARS-Reverb")):
        assert len(made["a"][name]) == 8
        for one, other in zip(made["a"][name], made["b"][name]):
            assert soundfile.read(one["noisy"])[0].tobytes() == soundfile.read(other["noisy"])[0].tobytes()
            assert one["noisy"].replace("/a/", "/b/") == other["noisy"] and kind in one["noisy"]
    for test in made["a"]["wham"]:
        (noisy, rate), (clean, _) = (soundfile.read(test[part]) for part in ("noisy", "clean"))
        snr = integrated_loudness(clean, rate) - integrated_loudness(noisy - clean, rate)
        assert rate == 48_000 and snr == pytest.approx(float(test["snr"]), abs=0.2) and np.abs(noisy).max() <= 1.0
        assert noisy[0] == clean[0] == 0.0, "ramps"
    styles = sorted(float(test["snr"]) for test in made["a"]["wham"] if "fast" in test["file"])
    assert -2.5 <= styles[0] <= -0.8 < styles[1] <= 0.9, "the first two bins of the style"
    for test in made["a"]["reverb"]:
        (wet, rate), (clean, _) = (soundfile.read(test[part]) for part in ("noisy", "clean"))
        assert integrated_loudness(wet, rate) == pytest.approx(integrated_loudness(clean, rate), abs=1.0)
        assert float(test["rt60"]) == pytest.approx(0.43, abs=0.06), "6.9 times 3000 samples"


def test_training_pieces_are_those_of_the_authors(home, prepare, tmp_path, monkeypatch):
    mixtures = prepare.mixtures
    assert mixtures.pieces(14 * 48_000 - 1) == [(0, None)]
    assert mixtures.pieces(24 * 48_000) == [(0, 480_000), (480_000, 960_000), (960_000, -1)]
    rows = prepare.official_pairs(["wham"], home / "data", tmp_path)
    assert [row["ID"] for row in rows] == ["wham_00000", "wham_00001"], "freeform speech of two speakers, 6 s each"
    assert all(len(soundfile.read(row["noisy_wav"])[0]) == 6 * 48_000 and row["text"] == "" for row in rows)
    assert len(list((tmp_path / "EARS-WHAM" / "valid" / "noisy").rglob("*.wav"))) == 2
    long = prepare.rows_of(home / "data" / "EARS" / "p001" / "freeform_speech_01.wav", {}, longest=5.0)
    assert long == [], "less than a stretch of 10 s"
    monkeypatch.setattr(prepare, "STRETCH", 2.0)
    long = prepare.rows_of(home / "data" / "EARS" / "p001" / "freeform_speech_01.wav", {}, longest=5.0)
    assert [(row["ID"], row["offset"], row["duration"]) for row in long] == [
        (f"p001_freeform_speech_01-{place:03d}", f"{2 * place}", "2") for place in range(3)]


def test_loudness_is_that_of_the_standard():
    time = np.arange(4 * 48_000) / 48_000
    sine = np.sin(2 * np.pi * 997 * time)
    assert integrated_loudness(sine, 48_000) == pytest.approx(-3.01, abs=0.05)  # BS.1770: full scale, one channel
    assert integrated_loudness(0.1 * sine, 48_000) == pytest.approx(integrated_loudness(sine, 48_000) - 20, abs=1e-9)
    padded = np.concatenate([sine, np.zeros(8 * 48_000)])
    assert integrated_loudness(padded, 48_000) == pytest.approx(-3.01, abs=0.3), "silence is gated"
    assert integrated_loudness(0 * sine, 48_000) == -np.inf
    with pytest.raises(ValueError, match="loudness needs 0.4 s"):
        integrated_loudness(sine[:1000], 48_000)


def test_what_a_copy_lacks_is_listed_and_wrong_use_is_named(home, prepare, tmp_path):
    hparams = tiny_hparams("ears", tmp_path / "exp", "--data-dir", str(home / "data"), "--data.skip-missing", "false")
    with pytest.raises(ValueError) as caught:
        prepare.prepare(hparams)
    said = str(caught.value)
    assert "97 of 101 speakers are not whole" in said and "EARS/p003: no such folder" in said
    with pytest.raises(ValueError, match="3 of 7 .*\n.*ARNI: no room responses"):
        prepare.prepare({**hparams, "data": {**hparams["data"], "train": False}})
    cuts = {"p102": {"rainbow_01_fast": [[0, -1]], "emo_fear_sentences": [[0, -1]]}}
    with pytest.raises(ValueError, match="1 of 2 .*\n.*p102/emo_fear_sentences.wav: no such file"):
        prepare.check_parts(hparams, home / "data", cuts)
    with pytest.raises(ValueError, match="test_files.json: no such file; run stage 0, or put https"):
        prepare.prepare({**hparams, "data_dir": str(tmp_path)})
    with pytest.raises(ValueError, match="there is no 'reverberation'; known: wham, reverb"):
        prepare.sets_of({"data": {"sets": ["reverberation"]}})
    with pytest.raises(ValueError, match="no part is called 'rooms'"):
        prepare.download({**hparams, "download": ["rooms"]})
    write(tmp_path / "low.wav", np.zeros(100), 16_000)
    with pytest.raises(ValueError, match="low.wav: the recording is at 16000 Hz; expected 48000 Hz"):
        prepare.mixtures.read(tmp_path / "low.wav")


def test_stage_0_downloads_each_speaker_the_noise_and_the_lists(home, prepare, tmp_path, monkeypatch):
    mirror, data = tmp_path / "mirror", tmp_path / "to"
    mirror.mkdir()
    for name in ("p001", "p002"):
        with zipfile.ZipFile(mirror / f"{name}.zip", "w") as archive:
            archive.write(home / "data" / "EARS" / name / "rainbow_01_fast.wav", f"{name}/rainbow_01_fast.wav")
    with zipfile.ZipFile(mirror / "wham.zip", "w") as archive:
        archive.writestr("high_res_wham/audio/a.wav", "a")
    (data / "EARS" / "p002").mkdir(parents=True)
    for key, value in {"SPEAKERS": ("p001", "p002"), "EARS": f"{mirror.as_uri()}/{{}}.zip",
                       "WHAM": f"{mirror.as_uri()}/wham.zip", "GIGABYTES": {"EARS": 0.0, "WHAM": 0.0},
                       "LISTS": {"transcripts.json": (home / "data" / "transcripts.json").as_uri()}}.items():
        monkeypatch.setattr(prepare, key, value)
    prepare.download({"data_dir": str(data), "download": ["lists", "ears", "wham"], "data": {"sets": ["wham"]}})
    assert sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file()) == [
        "EARS/p001/rainbow_01_fast.wav", "WHAM48kHz/high_res_wham/audio/a.wav", "transcripts.json"]
