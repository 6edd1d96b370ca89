"""recipes/librispeech on miniatures of LibriSpeech, MUSAN and RIRS_NOISES in their own layouts, as a user runs it."""

import hashlib
import importlib.util
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cdasr.recipe.hparams import load_hparams
from cdasr.speech.audio import read_audio, resample, write_audio
from cdasr.speech.manifest import read_manifest
from cdasr.speech.synthesis import speak
from tests.recipes.staged import ROOT, check_nothing_is_redone, check_whole_run, load_prepare, run_recipe

TEXTS = ("SHE DIDN'T SAY", "A SMALL BOAT", "NOTHING MORE", "HE LEFT AT DAWN", "COME IN", "IT RAINED")
TALKERS = {"train-clean-100": {19: "en-us+f2", 26: "en-us+m3"}, "dev-clean": {84: "en-us+f1"},
           "test-clean": {61: "en-us+m1"}, "test-other": {367: "en-us+m7"}}
BASE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
        "conv_dim": [8, 8, 8, 8, 8], "conv_kernel": [20, 8, 4, 4, 4], "conv_stride": [10, 4, 2, 2, 2],
        "feat_extract_norm": "group", "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """`LibriSpeech/`, `musan/` and `RIRS_NOISES/` side by side, and a recogniser of wav2vec2-base's kind."""
    from cdasr.speech.train_recogniser import make_model, make_processor

    folder, rng = tmp_path_factory.mktemp("corpus"), np.random.default_rng(0)
    for subset, talkers in TALKERS.items():
        for speaker, voice in talkers.items():
            chapter = folder / "LibriSpeech" / subset / str(speaker) / "198"
            names = [f"{speaker}-198-{number:04d}" for number in range(len(TEXTS))]
            for name, text in zip(names, TEXTS):
                wave, rate = speak(text.lower(), voice)
                write_audio(chapter / f"{name}.flac", 0.5 * resample(wave, rate, 16_000), 16_000)
            lines = (f"{name} {text}\n" for name, text in zip(names, TEXTS))
            (chapter / f"{speaker}-198.trans.txt").write_text("".join(lines))
    for number in range(4):
        write_audio(folder / "musan" / "noise" / "free-sound" / f"noise-free-sound-{number:04d}.wav",
                    0.05 * rng.standard_normal(16_000).astype(np.float32), 16_000)
    for name in ("real_rirs_isotropic_noises/RVB2014_type1_rir_largeroom1_far_angla",
                 "simulated_rirs/smallroom/Room001/a", "real_rirs_isotropic_noises/RVB2014_type1_noise_largeroom1_1",
                 "pointsource_noises/noise-free-0001"):
        decay = np.exp(-np.arange(1600) / 200) * rng.standard_normal(1600)
        write_audio(folder / "RIRS_NOISES" / f"{name}.wav", (0.3 * decay).astype(np.float32), 16_000)
    torch.manual_seed(0)
    processor = make_processor(TEXTS, folder / "tokenizer", 16_000)
    processor.feature_extractor.return_attention_mask = False  # as wav2vec2-base, which was trained without
    for part in (make_model(BASE, processor), processor):
        part.save_pretrained(folder / "asr")
    return folder


def options_of(corpus):
    return "--data-dir", str(corpus), "--asr", str(corpus / "asr")


def run(corpus, exp_dir, *options):
    return run_recipe("librispeech", exp_dir, *options_of(corpus), *options)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("exp")
    done = run(corpus, exp_dir)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return exp_dir, done


def test_all_stages_run_and_write_the_results(finished):
    exp_dir, done = finished
    results = check_whole_run(exp_dir, done, (
        "test-other_noise_10dB", "test-clean_babble_0dB", "test-clean_reverb", "cascade", "parallel", "nested",
        "enhanced_matched", "retrained", "All test sets with noise", "of test-clean, test-other (3 of each"))
    assert "Targets" not in results and "digit" not in results
    record = json.loads((exp_dir / "recogniser" / "record.json").read_text())["settings"]
    assert record["recogniser"]["class"] == "Wav2Vec2ForCTC" and record["recogniser"]["stride"] == 320
    assert record["clean"]["utterances"] == 6 and record["noisy"]["utterances"] == 6
    scores = json.loads((exp_dir / "results" / "wer.json").read_text())["conditions"]
    plain = scores["test-clean_clean"]["none"]
    assert (plain["utterances"], plain["words"]) == (3, 7)


def test_manifests_hold_the_corpus_and_keep_the_noise_apart(finished, corpus):
    exp_dir, _ = finished
    train = read_manifest(exp_dir / "data" / "train.csv")
    assert [row["ID"] for row in train[:2]] == ["19-198-0000", "19-198-0001"] and len(train) == 12
    assert train[0]["text"] == TEXTS[0] and {row["spk_id"] for row in train} == {"19", "26"}
    wave, rate = read_audio(train[0]["wav"])
    assert rate == 16_000 and float(train[0]["duration"]) == pytest.approx(len(wave) / rate, abs=1e-4)
    assert Path(train[0]["wav"]).resolve() == (corpus / "LibriSpeech/train-clean-100/19/198/19-198-0000.flac").resolve()

    rows = read_manifest(exp_dir / "data" / "eval.csv")
    kinds = ("clean", "reverb", "noise_0dB", "noise_10dB", "babble_0dB", "babble_10dB")
    assert {row["condition"] for row in rows} == {f"{subset}_{kind}" for subset in ("test-clean", "test-other")
                                                  for kind in kinds}
    lists = json.loads((exp_dir / "data" / "noise.json").read_text())
    heard = {Path(path).name for name in ("train", "valid") for path in lists[name]["files"]}
    for row in rows:
        noisy, clean = (read_audio(row[column])[0] for column in ("wav", "clean_wav"))
        if "_noise_" in row["condition"]:
            assert row["noise"].startswith("noise-free-sound") and row["noise"] not in heard and row["seed"] == "1"
            snr = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
            assert snr == pytest.approx(float(row["snr"]), abs=0.3)
        elif row["condition"].endswith("reverb"):
            assert row["rir"] in ("RVB2014_type1_rir_largeroom1_far_angla.wav", "a.wav")
    assert not {row["spk_id"] for row in rows} & {row["spk_id"] for row in train}


def test_a_second_run_redoes_nothing_and_the_test_sets_are_the_same_anywhere(finished, corpus, tmp_path):
    exp_dir, _ = finished
    check_nothing_is_redone("librispeech", exp_dir, *options_of(corpus))
    assert run(corpus, tmp_path / "other", "--stage", "1", "--stop-stage", "1").returncode == 0
    for row in read_manifest(exp_dir / "data" / "eval.csv"):
        other = tmp_path / "other" / Path(row["wav"]).relative_to(exp_dir)
        assert Path(row["wav"]).read_bytes() == other.read_bytes()


def test_noise_of_wham_keeps_its_own_split_and_both_development_sets_are_read(corpus, tmp_path):
    for part, count in (("tr", 3), ("cv", 1), ("tt", 2)):
        for number in range(count):
            write_audio(tmp_path / "wham_noise" / part / f"{part}{number}.wav", np.full(800, 0.1, np.float32), 16_000)
    prepare, folder = load_prepare("librispeech"), ROOT / "recipes" / "librispeech" / "hparams"
    hparams = load_hparams([folder / f"{name}.yaml" for name in ("default", "wham")],
                           ["--data-dir", str(corpus), "--noise-dir", str(tmp_path / "wham_noise")])
    noise, kinds = prepare.noise_lists(hparams)
    assert {name: len(part["files"]) for name, part in noise.items()} == {"train": 3, "valid": 1}
    assert [path.name for path in kinds["wham"]["files"]] == ["tt0.wav", "tt1.wav"] and set(kinds) == {"wham", "babble"}
    assert prepare._subsets(hparams) == ["train-clean-100", "dev-clean", "dev-other", "test-clean", "test-other"]
    with pytest.raises(ValueError, match="LibriSpeech's dev-other is not there"):
        prepare.prepare(hparams)


def test_wrong_use_is_one_line(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    broken = tmp_path / "broken" / "LibriSpeech"
    for subset in TALKERS:
        (broken / subset / "1" / "2").mkdir(parents=True)
    for options, reason in ((("--data-dir", str(tmp_path / "empty")), "is not there; give the folder"),
                            (("--data-dir", str(broken.parent)), "1-2.trans.txt: no such file"),
                            (("--data.eval-subsets", "[test-cleen]"), "no subset 'test-cleen'"),
                            (("--data.eval-subsets", "[train-clean-100]"), "training and a test subset")):
        done = run(corpus, tmp_path / "exp", "--stage", "1", *options)
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr, done.stderr[-800:]


def test_stage_0_fetches_only_what_is_missing(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("prepare", ROOT / "recipes" / "librispeech" / "prepare.py")
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    (tmp_path / "mirror" / "12").mkdir(parents=True)
    for name in ("dev-clean", "test-clean"):
        (tmp_path / "LibriSpeech" / name / "1").mkdir(parents=True)
        (tmp_path / "LibriSpeech" / name / "1" / "a.flac").write_text("a")
        with tarfile.open(tmp_path / "mirror" / "12" / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "LibriSpeech", "LibriSpeech")
    sums = {path.name.split(".")[0]: (hashlib.md5(path.read_bytes()).hexdigest(), 0.0)
            for path in (tmp_path / "mirror" / "12").iterdir()}
    monkeypatch.setattr(prepare, "SUBSETS", sums)
    monkeypatch.setattr(prepare, "MIRRORS", ((tmp_path / "mirror").as_uri(),))
    data = {"train_subsets": [], "valid_subsets": ["dev-clean"], "eval_subsets": ["test-clean"]}
    hparams = {"exp_dir": str(tmp_path), "data_dir": str(tmp_path / "to"), "download": ["librispeech"], "data": data,
               "noise_dir": "", "rir_dir": ""}
    (tmp_path / "to" / "LibriSpeech" / "dev-clean").mkdir(parents=True)
    prepare.download(hparams)
    found = sorted(str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*") if path.is_file())
    assert found == ["LibriSpeech/test-clean/1/a.flac"], "the subset that was there is not touched"
    with pytest.raises(ValueError, match="no part is called 'muse'"):
        prepare.download({**hparams, "download": ["muse"]})
    monkeypatch.setattr(prepare, "SUBSETS", {**sums, "test-other": ("0" * 32, 0.0)})
    with pytest.raises(ValueError, match=r"test-other.tar.gz cannot be fetched"):
        prepare.download({**hparams, "data": {**data, "eval_subsets": ["test-other"]}})
