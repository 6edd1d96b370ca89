"""recipes/voicebank on a miniature in the official layout: folders of pairs and texts at 48 kHz, and logs."""

import json
import sys
import zipfile

import numpy as np
import pytest

from cdasr.speech.audio import read_audio, write_audio
from cdasr.speech.manifest import read_manifest
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

TEXTS = ("Please call Stella.", "Ask her to bring these things.", "It's a rainbow")
SPEAKERS = {"trainset_28spk": ("p226", "p227", "p228"), "trainset_56spk": ("p234",), "testset": ("p232", "p257")}
LAYOUT = ("noisy_{}_wav", "clean_{}_wav", "{}_txt")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The corpus and a small recogniser."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    waves = spoken(TEXTS, 48_000)
    for name, speakers in SPEAKERS.items():
        noisy, clean, texts = (folder / "corpus" / part.format(name) for part in LAYOUT)
        texts.mkdir(parents=True)
        lines = []
        for speaker in speakers:
            for number, (text, wave) in enumerate(zip(TEXTS, waves), start=1):
                utterance = f"{speaker}_{number:03d}"
                noise = rng.standard_normal(len(wave)) * np.sqrt(np.mean(wave ** 2)) * 10 ** (-2.5 / 20)
                write_audio(clean / f"{utterance}.wav", wave, 48_000)
                write_audio(noisy / f"{utterance}.wav", (wave + noise).astype(np.float32), 48_000)
                (texts / f"{utterance}.txt").write_text(f"{text}\n")
                lines.append(f"{utterance} cafe 2.5")
        (folder / "corpus" / f"log_{name}.txt").write_text("\n".join(lines) + "\n")
    make_ctc(folder, [text.upper() for text in TEXTS])
    return folder


def test_all_stages_run_on_the_corpus_own_pairs_and_a_second_run_redoes_nothing(home, tmp_path):
    options = "--data-dir", str(home / "corpus"), "--asr", str(home / "asr")
    done = run_recipe("voicebank", tmp_path, *options)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    results = check_whole_run(tmp_path, done, ("noisy", "clean", "parallel", "enhanced_matched", "PESQ", "ESTOI",
                                               "SI-SDR", "oracle", "CSIG", "CBAK", "COVL", "SSNR dB"))
    assert "The noisy test set" in results
    train, valid, noisy, scored = (read_manifest(tmp_path / "data" / f"{name}.csv")
                                   for name in ("train", "valid", "valid_noisy", "eval"))
    assert {row["spk_id"] for row in train} == {"p227", "p228"} and {row["spk_id"] for row in valid} == {"p226"}
    assert all(row["noisy_wav"] == row["wav"].replace("clean_", "noisy_") for row in train)
    assert [row["clean_wav"] for row in noisy] == [row["wav"] for row in valid]
    assert {row["condition"] for row in scored} == {"clean", "noisy"} and len(scored) == 4
    pair = next(row for row in scored if row["condition"] == "noisy")
    assert (pair["ID"], pair["noise"], pair["snr"]) == ("p232_001_noisy", "cafe", "2.5")
    scores = json.loads((tmp_path / "results" / "wer.json").read_text())["conditions"]["noisy"]["none"]
    assert scores["si_sdr_input"] > 2.0 and scores["pesq_input"] > 1.0 and 0.0 < scores["estoi_input"] < 1.0
    assert all(1.0 <= scores[f"{name}_input"] <= 5.0 for name in ("csig", "cbak", "covl"))
    check_nothing_is_redone("voicebank", tmp_path, *options)


def test_training_takes_the_pairs_of_the_corpus(home, tmp_path):
    from cdasr.speech.utterances import PairedUtterances

    load_prepare("voicebank").prepare(tiny_hparams("voicebank", tmp_path, "--data-dir", str(home / "corpus"),
                                                   "--data.train-sets", "[28spk, 56spk]"))
    rows = read_manifest(tmp_path / "data" / "train.csv")
    assert {row["spk_id"] for row in rows} == {"p227", "p228", "p234"}
    items = PairedUtterances(rows, 16_000, 0, lambda wave, rng: {"noisy": 0 * wave, "clean": wave}, pair_prob=0.5)
    drawn = [items[index] for index in range(len(rows))]
    paired = [bool(item["noisy"].any()) for item in drawn]
    assert 0 < sum(paired) < len(rows), "some as the corpus has them, others degraded anew"
    for row, item, pair in zip(rows, drawn, paired):
        assert len(item["noisy"]) == len(item["clean"])
        if pair:
            assert np.array_equal(item["noisy"].numpy(), read_audio(row["noisy_wav"], 16_000)[0])
    items.epoch = 1
    assert [bool(items[index]["noisy"].any()) for index in range(len(rows))] != paired


def test_scoring_alone_needs_only_the_test_set(home, tmp_path):
    corpus = tmp_path / "corpus"
    for part in (*(part.format("testset") for part in LAYOUT), "log_testset.txt"):
        corpus.mkdir(exist_ok=True)
        (corpus / part.replace("_wav", "_wav_16k")).symlink_to(home / "corpus" / part)
    load_prepare("voicebank").prepare(tiny_hparams("voicebank", tmp_path / "exp", "--data-dir", str(corpus),
                                                   "--data.train-sets", "[]"))
    assert [path.name for path in (tmp_path / "exp" / "data").iterdir() if path.is_file()] == ["eval.csv"]


def test_what_a_copy_lacks_is_listed_and_left_out_by_an_option_only(home, tmp_path):
    prepare = load_prepare("voicebank")
    for part in LAYOUT:
        name = part.format("testset")
        (tmp_path / name).mkdir()
        for path in (home / "corpus" / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    (tmp_path / "testset_txt" / "p232_001.txt").unlink()
    (tmp_path / "noisy_testset_wav" / "p257_003.wav").unlink()
    (tmp_path / "log_testset.txt").write_text("p232_001 bus 2.5\np232_999 bus 2.5\n")
    with pytest.raises(ValueError) as caught:
        prepare.read_set(tmp_path, "testset", skip_missing=False)
    said = str(caught.value)
    assert "3 of 7 utterances are not whole" in said and "--data.skip-missing true" in said
    assert "testset_txt/p232_001" in said and "noisy_testset_wav/p257_003" in said and "p232_999: no" in said
    assert len(prepare.read_set(tmp_path, "testset", skip_missing=True)) == 4
    (tmp_path / "log_testset.txt").write_text("p232_001 bus\n")
    with pytest.raises(ValueError, match="log_testset.txt: line 1: expected <ID> <noise> <SNR>"):
        prepare.read_log(tmp_path, "testset")
    with pytest.raises(ValueError, match="there is no '29spk'; known: 28spk, 56spk"):
        prepare.used_sets({"data": {"train_sets": ["29spk"]}})
    with pytest.raises(ValueError, match="noisy_trainset_28spk_wav.*--data-dir"):
        prepare.read_set(tmp_path, "trainset_28spk", skip_missing=True)
    with pytest.raises(ValueError, match="no training utterance is of a speaker"):
        prepare.split_speakers([{"spk_id": "p1"}], ["p2"])


def test_stage_0_downloads_the_sets_and_the_logs(home, tmp_path, monkeypatch):
    prepare = load_prepare("voicebank")
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for part in (part.format("testset") for part in LAYOUT):
        with zipfile.ZipFile(mirror / f"{part}.zip", "w") as archive:
            for path in (home / "corpus" / part).iterdir():
                archive.write(path, f"{part}/{path.name}")
    with zipfile.ZipFile(mirror / "logfiles.zip", "w") as archive:
        archive.write(home / "corpus" / "log_testset.txt", "log_testset.txt")
    monkeypatch.setattr(prepare, "SOURCES", (mirror.as_uri(),))
    monkeypatch.setattr(prepare, "GIGABYTES", {"testset": 0.0})
    hparams = {"exp_dir": str(tmp_path / "exp"), "data_dir": "", "download": True, "data": {"train_sets": []}}
    prepare.download(hparams)
    kept = [path for path in (tmp_path / "exp").rglob("*") if path.is_file()]
    assert len(kept) == 3 * 6 + 1 and len(prepare.read_set(tmp_path / "exp" / "download", "testset", False)) == 6
    with pytest.raises(ValueError, match="testset is not there.*--download true"):
        prepare.download({**hparams, "data_dir": str(mirror), "download": False})


def test_a_measure_that_is_not_installed_is_named_before_anything_runs(home, tmp_path, monkeypatch, capsys):
    from cdasr.recipe import command

    monkeypatch.setitem(sys.modules, "pesq", None)
    words = ["run", "--recipe", str(ROOT / "recipes" / "voicebank"), "--exp-dir", str(tmp_path / "exp")]
    monkeypatch.setattr(sys, "argv", ["recipe", *words, "--size", "tiny", "--data-dir", str(home / "corpus")])
    assert command.main() == 2 and not (tmp_path / "exp").exists()
    assert "pesq is not installed: pip install 'cdasr[metrics]'" in capsys.readouterr().err
