"""docs/new-corpus.md: its commands, as they stand there, on a miniature corpus; and manifests of all formats."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cdasr.cli import main
from cdasr.speech.audio import resample, write_audio
from cdasr.speech.corpus import check_apart, prepare_manifests
from cdasr.speech.manifest import read_manifest
from cdasr.speech.synthesis import speak

ROOT = Path(__file__).parents[2]
TEXTS = ("open the door", "two brown eggs, please", "turn it off now", "more salt in it", "it's too hot now")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    """A folder that holds `kitchen/` as the page describes it."""
    from cdasr.speech.train_recogniser import make_model, make_processor
    from tests.conftest import TINY_WAV2VEC2

    home, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    folder = home / "kitchen"
    for number in range(3):
        write_audio(folder / "noise" / f"{number}.wav", 0.05 * rng.standard_normal(8000).astype(np.float32), 16_000)
    lines, waves = [], []
    for number in range(12):
        wave, rate = speak(TEXTS[number % 5], ("en-us+f2", "en-us+m3")[number % 2], 150 + 5 * number)
        waves.append(0.5 * resample(wave, rate, 16_000))
        write_audio(folder / "wav" / f"{number}.wav", waves[-1], 16_000)
        lines.append(json.dumps({"audio_filepath": f"wav/{number}.wav", "text": TEXTS[number % 5].upper() + "."}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    write_audio(folder / "wav" / "radio.wav", np.concatenate(waves[:3]), 16_000)
    kaldi = folder / "kaldi" / "test"
    kaldi.mkdir(parents=True)
    ends = np.cumsum([len(wave) / 16_000 for wave in waves[:3]])
    (kaldi / "wav.scp").write_text(f"radio {folder / 'wav' / 'radio.wav'}\n")
    (kaldi / "segments").write_text("".join(f"utt{place} radio {start:.3f} {end:.3f}\n" for place, (start, end)
                                            in enumerate(zip([0.0, *ends], ends))))
    (kaldi / "text").write_text("".join(f"utt{place} {TEXTS[place]}\n" for place in range(3)))
    (kaldi / "utt2spk").write_text("".join(f"utt{place} cook\n" for place in range(3)))
    torch.manual_seed(0)
    processor = make_processor(TEXTS, home / "tokenizer", 16_000)
    for part in (make_model({**TINY_WAV2VEC2, "num_hidden_layers": 1}, processor), processor):
        part.save_pretrained(folder / "asr")
    return home


def test_the_commands_of_the_page_work_as_they_stand(kitchen, tmp_path):
    commands = [line for block in re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "new-corpus.md").read_text(), re.S)
                for line in block.strip().splitlines()]
    assert len(commands) == 4
    (tmp_path / "cdasr").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m cdasr.cli "$@"\n')
    (tmp_path / "cdasr").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHON": sys.executable,
                   "PYTHONPATH": str(ROOT)}

    def run(command):  # in the home of `kitchen`, far from the repository
        done = subprocess.run(["bash", "-c", command], cwd=kitchen, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-800:]}\n{done.stderr[-2000:]}"
        return done.stdout
    said = [run(command) for command in commands]
    exp_dir = kitchen / "exp" / "kitchen-tiny"
    assert "wrote recipes/kitchen" in said[0] and not list((kitchen / "recipes" / "kitchen").glob("*.py"))
    assert [f"stage {stage} (" in said[1] for stage in range(10)] == [True] * 10
    assert "noise_0dB" in (exp_dir / "RESULTS.md").read_text() and "parallel" in (exp_dir / "RESULTS.md").read_text()
    assert json.loads(said[2])["strategy"] == "parallel" and "enhanced" in said[3]
    train, valid, scored = (read_manifest(exp_dir / "data" / f"{name}.csv") for name in ("train", "valid", "eval"))
    assert len(train) == 11 and [row["ID"] for row in valid] == ["9"] and train[0]["text"] == "OPEN THE DOOR."
    assert {row["condition"] for row in scored} == {"clean", "noise_0dB", "crackle_0dB"}
    assert {row["text"] for row in scored} == set(TEXTS[:3]) and {row["spk_id"] for row in scored} == {"cook"}
    assert run(commands[1]).count("done already") == 10


@pytest.fixture
def waves(tmp_path):
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", np.full(8000 + 800 * number, 0.1 * (number + 1)), 8000)
    return tmp_path


def test_formats_say_the_same(waves, tmp_path):
    (waves / "a.csv").write_text("utt_id,path,sentence,speaker\na,0.wav,one two,s1\nb,1.wav,\"three, four\",s2\n")
    (waves / "a.tsv").write_text("ID\tduration\twav\twrd\tspk_id\na\t1.0\t0.wav\tone two\ts1\n"
                                 "b\t1.1\t1.wav\tthree, four\ts2\n")
    rows = [{"id": "a", "audio_filepath": "0.wav", "duration": 1.0, "text": "one  two", "speaker": "s1"},
            {"id": "b", "audio_filepath": str(waves / "1.wav"), "text": "three, four", "speaker": "s2"}]
    (waves / "a.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (waves / "kaldi").mkdir()
    (waves / "kaldi" / "wav.scp").write_text(f"a {waves / '0.wav'}\nb {waves / '1.wav'}\n")
    (waves / "kaldi" / "text").write_text("a one two\nb three, four\n")
    (waves / "kaldi" / "utt2spk").write_text("a s1\nb s2\n")
    read = [read_manifest(waves / name) for name in ("a.csv", "a.tsv", "a.jsonl", "kaldi")]
    assert all(rows == read[0] for rows in read)
    assert read[0][1] == {"ID": "b", "duration": "1.1000", "wav": str(waves / "1.wav"), "text": "three, four",
                          "spk_id": "s2"}


def test_corrected_segments_leave_no_old_cuts(waves, tmp_path):
    (waves / "wav.scp").write_text("rec 2.wav\n")
    (waves / "text").write_text("u1 one\nu2 two\n")
    (waves / "train.csv").write_text("ID,wav,text\na,0.wav,one\nb,1.wav,two\n")
    hparams = {"exp_dir": tmp_path / "exp", "sample_rate": 8000, "seed": 1, "threads": 1, "noise_dir": "",
               "rir_dir": "", "manifests": {"train": waves / "train.csv", "valid": waves, "test": waves},
               "data": {"shortest": 0.1, "longest": 9, "train_utterances": 0, "valid_utterances": 0,
                        "eval_utterances": 0, "mix_test": True, "train_families": ["coloured"],
                        "valid_families": ["coloured"], "unseen_families": ["babble"], "snrs": [10],
                        "valid_snrs": [10], "eval_rooms": 0}}
    lengths = []
    for end in ("0.35", "0.3"):
        (waves / "segments").write_text(f"u1 rec 0.1 {end}\nu2 rec 0.5 -1\n")
        prepare_manifests(hparams)
        rows = read_manifest(tmp_path / "exp" / "data" / "eval.csv")
        lengths.append({(row["condition"], soundfile.info(row[part]).frames) for row in rows
                        if row["ID"].startswith("u1") for part in ("wav", "clean_wav")})
    assert lengths == [{("clean", frames), ("babble_10dB", frames)} for frames in (2000, 1600)]
    valid = read_manifest(tmp_path / "exp" / "data" / "valid.csv")
    assert [(row["offset"], row["duration"]) for row in valid] == [("0.1", "0.2000"), ("0.5", "0.7000")]
    assert not (tmp_path / "exp" / "data" / "segments").exists()


def test_what_is_scored_is_not_trained_on(waves):
    def rows(*stretches):
        return [{"ID": str(place), "wav": "a.wav", "duration": duration, "text": "one", "spk_id": "",
                 **({} if offset is None else {"offset": offset}), "channel": channel}
                for place, (offset, duration, channel) in enumerate(stretches)]
    check_apart({"train": rows(("0", "1", ""), ("1", "1", "")), "test": rows(("2.01", "1", ""))})
    check_apart({"train": rows((None, "4", "0")), "test": rows((None, "4", "1"))})
    for test in (("0.5", "1", ""), (None, "4", ""), ("0.2", "0.1", "1")):
        with pytest.raises(ValueError, match="both the train and the test"):
            check_apart({"train": rows(("0", "1", "")), "test": rows(("3", "1", ""), test)})


def test_new_recipe_lists_the_faults_of_all_manifests(waves, monkeypatch, capsys):
    monkeypatch.chdir(waves)
    (waves / "a.csv").write_text("wav,text\n0.wav,one\nnone.wav,two\n1.wav,\n")
    (waves / "b.jsonl").write_text('{"wav": "2.wav", "text": "one", "offset": 1.5}\n')
    assert main(["new-recipe", "x", "--manifest", "train=a.csv", "--manifest", "test=b.jsonl"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and not (waves / "recipes").exists()
    assert "a.csv: line 3: " in lines[0] and "none.wav: no such file" in lines[0]
    assert "a.csv: line 4: there is no text" in lines[1] and "b.jsonl: line 1: 1.5 to " in lines[2]


@pytest.mark.parametrize("name, text, reason", [
    ("a.csv", "path,speaker\n0.wav,s\n", "lacks the column(s) text"),
    ("a.jsonl", '{"path": "0.wav"}\n', "line 1 has no text"), ("a.csv", "wav,text\nnone.wav,one\n", "no such file"),
    ("a.csv", "wav,text\n0.wav,one\n0.wav,two\n", "repeats the ID '0' of line 2"),
    ("a.csv", "wav,text\n", "no utterances"),
    ("a.jsonl", "{\n", "line 1 is not JSON"), ("a.jsonl", "[1]\n", "not a JSON object"),
    ("a.jsonl", "\udcff\n", "not text in UTF-8"), ("b.csv", None, "no such manifest"),
    ("wav.scp", "u touch ran; cat 0.wav |\n", "commands are not run")])
def test_what_cannot_be_used_is_one_line_and_runs_nothing(waves, monkeypatch, capsys, name, text, reason):
    monkeypatch.chdir(waves)
    if text is not None:
        (waves / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    (waves / "text").write_text("u one\n")
    given = "." if name == "wav.scp" else name
    assert main(["new-recipe", "mine", "--manifest", f"train={given}", "--manifest", f"test={given}"]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert reason in message and not (waves / "recipes").exists() and not (waves / "ran").exists()


def test_wrong_use_is_named(waves, monkeypatch, capsys):
    monkeypatch.chdir(waves)
    (waves / "a.csv").write_text("wav,text\n0.wav,one\n")
    good = ["--manifest", "train=a.csv", "--manifest", "test=a.csv"]
    for words, reason in ((["../x", *good], "cannot be a recipe's name"), (["x", *good[:2]], "needs a test set"),
                          (["x", *good, "--manifest", "dev=a.csv"], "unknown set")):
        assert main(["new-recipe", *words]) == 2 and reason in capsys.readouterr().err
    assert main(["new-recipe", "x", *good]) == 0 and main(["new-recipe", "x", *good]) == 2
    assert "there already" in capsys.readouterr().err
