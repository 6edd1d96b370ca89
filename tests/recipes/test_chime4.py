"""recipes/chime4 on a miniature in the official layout: one-channel track, six-channel pairs, annotations and dots."""

import json
import shutil
import sys

import numpy as np
import pytest

from cdasr.speech.audio import write_audio
from cdasr.speech.corpus import recorded_pair
from cdasr.speech.evaluation import averages
from cdasr.speech.manifest import read_manifest
from cdasr.speech.utterances import FixedPairs
from tests.recipes.staged import (
    ROOT,
    check_nothing_is_redone,
    check_whole_run,
    load_prepare,
    make_ctc,
    run_recipe,
    spoken,
    tiny_hparams,
)

ENVIRONMENTS = ("bus", "caf", "ped", "str")
DOTS = {"22GC010A": "The sale of the hotels is part of Holiday\\'s strategy [loud_breath]",
        "22GC010B": "Rose five %percent ~ in <the> [door_slam>] U\\. S\\.", "011C0201": "The market fell ,COMMA again"}
TEXTS = {"22GC010A": "THE SALE OF THE HOTELS IS PART OF HOLIDAY'S STRATEGY",
         "22GC010B": "ROSE FIVE PERCENT IN THE U. S.", "011C0201": "THE MARKET FELL ,COMMA AGAIN"}


def entry(speaker, name, place, **more):
    return {"speaker": speaker, "wsj_name": name, "environment": place.upper(), "dot": DOTS[name], **more}


def make_corpus(folder):
    """`data/` with the sets dt05 and et05, real and simulated, two prompts in each environment, and pairs of tr05."""
    rng, data = np.random.default_rng(0), folder / "data"
    audio, waves = data / "audio" / "16kHz", dict(zip(TEXTS, spoken(("the hotels", "rose five", "fell again"), 16_000)))

    def mixed(name):
        return (waves[name] + 0.01 * rng.standard_normal(len(waves[name]))).astype(np.float32)
    for part in ("annotations", "transcriptions", "WSJ0/wsj0/transcrp/dots/si_tr_s/011"):
        (data / part).mkdir(parents=True)
    for name, speaker in (("dt05", "F01"), ("et05", "F05")):
        for kind in ("real", "simu"):
            entries, dots, names = [], [], []
            for place in ENVIRONMENTS:
                for prompt in ("22GC010A", "22GC010B"):
                    utterance, wave = f"{speaker}_{prompt}_{place.upper()}", mixed(prompt)
                    part = f"{name}_{place}_{kind}"
                    write_audio(audio / "isolated_1ch_track" / part / f"{utterance}.wav", wave, 16_000)
                    entries.append(entry(speaker, prompt, place, start=1.0, end=2.0, wavfile=f"{speaker}_1_{place}"))
                    dots.append(f"{DOTS[prompt]} ({utterance})")
                    names.append(f"{part}/{utterance}.CH4.wav")
                    write_audio(audio / "isolated" / f"{name}_bth" / f"{speaker}_{prompt}_BTH.CH0.wav", waves[prompt],
                                16_000)
            (data / "annotations" / f"{name}_{kind}.json").write_text(json.dumps(entries))
            (data / "annotations" / f"{name}_{kind}_1ch_track.list").write_text("\n".join(names) + "\n")
            (data / "transcriptions" / f"{name}_{kind}.dot_all").write_text("\n".join(dots) + "\n")
    entries = []
    for number in range(12):
        speaker, place = f"{number:03d}", ENVIRONMENTS[number % 4]
        for channel in range(1, 7):
            name = f"{speaker}_011C0201_{place.upper()}.CH{channel}.wav"
            write_audio(audio / "isolated" / f"tr05_{place}_simu" / name, mixed("011C0201"), 16_000)
        write_audio(audio / "isolated" / "tr05_org" / f"{speaker}_011C0201_ORG.wav", waves["011C0201"], 16_000)
        entries.append({key: value for key, value in entry(speaker, "011C0201", place).items() if key != "dot"})
    (data / "annotations" / "tr05_simu.json").write_text(json.dumps(entries))
    (data / "WSJ0/wsj0/transcrp/dots/si_tr_s/011/011c0200.dot").write_text(f"{DOTS['011C0201']} (011c0201)\n")
    for number in range(3):
        for channel in (1, 5):
            write_audio(audio / "backgrounds" / f"BGD_15020{number}_010_BUS.CH{channel}.wav",
                        0.05 * rng.standard_normal(16_000).astype(np.float32), 16_000)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = make_corpus(tmp_path_factory.mktemp("home"))
    make_ctc(folder, list(TEXTS.values()))
    return folder


@pytest.fixture(scope="module")
def prepare():
    return load_prepare("chime4")


def test_all_stages_run_with_real_recordings_that_have_no_clean_reference(home, tmp_path):
    options = "--data-dir", str(home), "--asr", str(home / "asr")
    done = run_recipe("chime4", tmp_path, *options)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    results = check_whole_run(tmp_path, done, (
        "dt05_real_bus", "et05_simu_str", "| et05 real, bus, caf, ped, str", "| dt05 simu, bus, caf, ped, str",
        "Real recordings of et05, all environments", "parallel", "enhanced_matched"))
    assert "oracle" not in results, "the ablation has rows without a clean signal"
    scores = json.loads((tmp_path / "results" / "wer.json").read_text())["conditions"]
    assert scores["dt05_real_bus"]["none"]["si_sdr"] is None and scores["dt05_simu_bus"]["none"]["si_sdr"] > 0
    noisy = read_manifest(tmp_path / "data" / "valid_noisy.csv")
    assert {bool(row["clean_wav"]) for row in noisy} == {True, False}, "real ones count in tuning"
    train = read_manifest(tmp_path / "data" / "train.csv")
    assert len(train) == 12 and all(row["noisy_wav"].endswith(".CH5.wav") and "_ORG" in row["wav"] for row in train)
    lists = json.loads((tmp_path / "data" / "noise.json").read_text())
    assert len(lists["train"]["files"]) == 3 and all(path.endswith("CH5.wav") for path in lists["train"]["files"])
    check_nothing_is_redone("chime4", tmp_path, *options)


def test_texts_and_references_are_those_of_the_release(home, prepare, tmp_path):
    corpus = prepare.find_corpus({"data_dir": str(home)})
    rows = {row["ID"] + row["kind"]: row for row in prepare.read_set(corpus, "dt05", False)}
    assert len(rows) == 16
    real, simulated = rows["F01_22GC010B_PEDreal"], rows["F01_22GC010B_PEDsimu"]
    assert real["text"] == TEXTS["22GC010B"] and real["wav"] == "" and real["spk_id"] == "F01"
    assert simulated["wav"].endswith("isolated/dt05_bth/F01_22GC010B_BTH.CH0.wav")
    assert [row["text"] for row in prepare.read_training(corpus, 5, False)] == 12 * [TEXTS["011C0201"]]
    image = corpus / "audio/16kHz/isolated_ext/dt05_ped_simu/F01_22GC010B_PED.CH4.Clean.wav"
    assert prepare.reference(corpus / "audio/16kHz", "dt05", "F01_22GC010B_PED", "CH4") == simulated["wav"]
    write_audio(image, np.zeros(8, np.float32), 16_000)
    assert prepare.reference(corpus / "audio/16kHz", "dt05", "F01_22GC010B_PED", "CH4") == str(image)
    shutil.rmtree(image.parents[1])


@pytest.mark.parametrize("option", ["--data.mix-test", "--data.train"])
def test_scoring_alone_needs_the_test_sets_only(home, prepare, tmp_path, option):
    shutil.copytree(home / "data", tmp_path / "CHiME3" / "data", ignore=shutil.ignore_patterns("isolated", "WSJ0"))
    prepare.prepare(tiny_hparams("chime4", tmp_path / "exp", "--data-dir", str(tmp_path), option, "false",
                                 "--data.eval-sets", "[et05]", "--data.eval-utterances", "0"))
    rows = read_manifest(tmp_path / "exp" / "data" / "eval.csv")
    assert len(rows) == 16 and not any(row["clean_wav"] for row in rows)
    assert not (tmp_path / "exp" / "data" / "train.csv").exists()


def test_help_names_the_settings_of_the_corpus(capsys, monkeypatch):
    from cdasr.recipe import command

    monkeypatch.setattr(sys, "argv", ["recipe", "run", "--recipe", str(ROOT / "recipes" / "chime4"), "--help"])
    assert command.main() == 0
    shown = capsys.readouterr().out
    assert "--data.mix-test true" in shown and "the test sets are scored as they were recorded" in shown
    assert "--data.eval-sets [dt05, et05]" in shown


def test_without_booth_recordings_training_speakers_are_held_out(home, prepare, tmp_path):
    shutil.copytree(home / "data", tmp_path / "data", ignore=shutil.ignore_patterns("*_bth"))
    prepare.prepare(tiny_hparams("chime4", tmp_path / "exp", "--data-dir", str(tmp_path)))
    train, valid, noisy = (read_manifest(tmp_path / "exp" / "data" / f"{name}.csv")
                           for name in ("train", "valid", "valid_noisy"))
    assert [row["spk_id"] for row in valid] == ["009"] and "009" not in {row["spk_id"] for row in train}
    assert sum(bool(row["clean_wav"]) for row in noisy) == 1 and len(noisy) == 5


def test_what_a_copy_lacks_is_listed_and_wrong_use_is_named(home, prepare, tmp_path):
    with pytest.raises(ValueError, match="--data-dir; the corpus is licensed: LDC2017S24"):
        prepare.download({"data_dir": ""})
    with pytest.raises(ValueError, match="CHiME-4 is not there .*LDC2017S24"):
        prepare.find_corpus({"data_dir": str(tmp_path)})
    shutil.copytree(home / "data", tmp_path / "data")
    corpus = tmp_path / "data"
    (corpus / "audio/16kHz/isolated_1ch_track/et05_bus_real/F05_22GC010A_BUS.wav").unlink()
    dots = corpus / "transcriptions" / "et05_simu.dot_all"
    dots.write_text("".join(line for line in dots.read_text().splitlines(True) if "22GC010B_CAF" not in line))
    (corpus / "audio/16kHz/isolated/tr05_org/003_011C0201_ORG.wav").unlink()
    with pytest.raises(ValueError) as caught:
        prepare.read_set(corpus, "et05", False)
    assert "2 of 16 utterances are not whole" in str(caught.value)
    assert "et05_real: F05_22GC010A_BUS: no audio" in str(caught.value)
    assert "et05_simu: F05_22GC010B_CAF: no transcription" in str(caught.value)
    assert len(prepare.read_set(corpus, "et05", True)) == 14
    with pytest.raises(ValueError, match="tr05_simu: 003_011C0201_STR: no 003_011C0201_ORG.wav"):
        prepare.read_training(corpus, 5, False)
    with pytest.raises(ValueError, match=r"no tr05_<environment>_simu/\*.CH9.wav.*--data.mix-test false"):
        (corpus / "annotations" / "tr05_simu.json").unlink()
        prepare.read_training(corpus, 9, False)
    with pytest.raises(ValueError, match="nothing of xx05_real is there"):
        prepare.read_set(corpus, "xx05", False)
    dots.write_text("NO ID\n")
    with pytest.raises(ValueError, match=r"et05_simu.dot_all: line 1: expected TEXT \(ID\)"):
        prepare.read_set(corpus, "et05", False)
    (corpus / "annotations" / "et05_real.json").write_text("[1]")
    with pytest.raises(ValueError, match="et05_real.json: expected a list of entries"):
        prepare.read_set(corpus, "et05", False)


def test_fixed_pairs_leave_out_rows_without_a_reference(home, prepare):
    rows = [recorded_pair(row, "valid") for row in prepare.read_set(home / "data", "dt05", False)]
    assert len(rows) == 16 and len(FixedPairs(rows, 16_000)) == 8
    with pytest.raises(ValueError, match="none of the 8 rows .* has a clean_wav"):
        FixedPairs([row for row in rows if not row["clean_wav"]], 16_000)


def test_averages_are_over_the_environments_of_a_set():
    names = [f"{name}_{place}" for name in ("dt05_simu", "et05_real") for place in ENVIRONMENTS]
    assert averages([*names, "clean", "unseen_0dB"]) == {
        "dt05 simu, bus, caf, ped, str": names[:4], "et05 real, bus, caf, ped, str": names[4:],
        "unseen noise, 0 dB": ["unseen_0dB"]}
