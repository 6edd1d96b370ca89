"""recipes/speechocean762 on a miniature in the official layout: Kaldi files whose paths are relative to the corpus."""

import csv
import importlib.util

import numpy as np
import pytest

from cdasr.speech.audio import resample, write_audio
from cdasr.speech.corpus import leave_out
from cdasr.speech.manifest import read_manifest
from cdasr.speech.synthesis import speak
from tests.classifiers.whisper import make_whisper
from tests.recipes.staged import ROOT, check_nothing_is_redone, check_whole_run, run_recipe

AGES = {"train": {f"{number:04d}": 9 if number % 3 == 0 else 25 for number in range(1, 17)},
        "test": {"0101": 30, "0102": 8}}
TEXTS = ("WE CALL IT BEAR", "ZERO ONE")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The corpus, folders of noise, further speech, and a small Whisper."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    corpus = folder / "speechocean762"
    spoken = [resample(wave, rate, 16_000) for wave, rate in (speak(text.lower(), "en-us+f2", 220) for text in TEXTS)]
    for split, ages in AGES.items():
        tables = {name: [] for name in ("wav.scp", "text", "utt2spk", "spk2age")}
        for speaker, age in ages.items():
            tables["spk2age"].append(f"{speaker}\t{age}")
            for number, (text, wave) in enumerate(zip(TEXTS, spoken)):
                name = f"{speaker[-4:].zfill(5)}{number:04d}"
                wav = f"WAVE/SPEAKER{speaker}/{name}.WAV"
                write_audio((corpus / wav).with_suffix(".wav"), 0.5 * wave[:28_000], 16_000)
                (corpus / wav).with_suffix(".wav").rename(corpus / wav)
                for table, value in (("wav.scp", wav), ("text", text), ("utt2spk", speaker)):
                    tables[table].append(f"{name}\t{value}")
        (corpus / split).mkdir()
        for table, lines in tables.items():
            (corpus / split / table).write_text("\n".join(lines) + "\n")
    for name in ("noise", "city", "speech"):
        for number in range(4):
            write_audio(folder / name / f"{name}-{number}.wav",
                        (0.05 * rng.standard_normal(16_000)).astype(np.float32), 16_000)
    make_whisper(folder / "asr")
    return folder


def options_of(home):
    return ("--data-dir", str(home / "speechocean762"), "--asr", str(home / "asr"), "--noise-dir", str(home / "noise"),
            "--unseen-noise-dir", str(home / "city"), "--speech-dir", str(home / "speech"))


def run(home, exp_dir, *options):
    return run_recipe("speechocean762", exp_dir, *options_of(home), *options)


def test_all_stages_run_and_write_the_results(home, tmp_path):
    done = run(home, tmp_path)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    check_whole_run(tmp_path, done, (
        "adults_city_0dB", "children_clean", "adults_reverb_city_5dB", "children_babble_0dB", "cascade", "parallel",
        "enhanced_matched", "speakers of the test set (2 utterances", "after Whisper's English normaliser"))
    train, valid = (read_manifest(tmp_path / "data" / f"{name}.csv", empty_text=True) for name in ("train", "valid"))
    assert sum(row["text"] == "" for row in train) == 4, "the speech without transcripts"
    assert not {row["spk_id"] for row in train} & {row["spk_id"] for row in valid}
    check_nothing_is_redone("speechocean762", tmp_path, *options_of(home))


def test_development_speakers_are_every_fifth_adult(home, tmp_path):
    done = run(home, tmp_path, "--data.eval-split", "dev", "--stop-stage", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    adults = sorted(speaker for speaker, age in AGES["train"].items() if age >= 16)
    with (tmp_path / "data" / "eval.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["spk_id"] for row in rows} == set(adults[4::5])
    assert {row["condition"] for row in rows} == {"clean", "reverb", "city_0dB", "babble_0dB", "reverb_city_5dB"}
    with (tmp_path / "data" / "train.csv").open() as file:
        assert not {row["spk_id"] for row in csv.DictReader(file)} & set(adults[4::5])


def test_listed_utterances_are_not_trained_on(home, tmp_path):
    (tmp_path / "listed.txt").write_text("000010000\n000020001\nspeech-2\n")
    done = run(home, tmp_path / "exp", "--data.exclude-list", str(tmp_path / "listed.txt"), "--stop-stage", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    names = {row["ID"] for row in read_manifest(tmp_path / "exp" / "data" / "train.csv", empty_text=True)}
    assert {"000010001", "000020000", "speech-1"} <= names
    assert not names & {"000010000", "000020001", "speech-2"}
    with pytest.raises(ValueError, match=r"listed.txt: 000010000 \(2 in all\) is no training utterance"):
        leave_out([{"ID": "000020001"}], tmp_path / "listed.txt")


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "recipes" / "speechocean762" / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_missing_is_named(home, prepare, tmp_path):
    hparams = {"data_dir": str(tmp_path), "exp_dir": str(tmp_path)}
    with pytest.raises(ValueError, match="no train/wav.scp and WAVE/.*--data-dir"):
        prepare.find_corpus(hparams)
    with pytest.raises(ValueError, match="no dev split.*--data.eval-split dev"):
        prepare.read_split(home / "speechocean762", "dev", {})
    (tmp_path / "spk2age").write_text("0001\tten\n")
    with pytest.raises(ValueError, match="spk2age: line 1: expected <speaker> <years>"):
        prepare.read_ages(tmp_path)
    with pytest.raises(ValueError, match="no age of the speaker 7"):
        prepare.by_age([{"spk_id": "7"}], {"8": 9})
    both = {"noise_dir": str(home / "noise"), "unseen_noise_dir": str(home / "noise"), "data": {
        "train_families": [], "valid_families": [], "unseen_families": []}}
    with pytest.raises(ValueError, match="must not be trained on"):
        prepare.noise_lists(both)
