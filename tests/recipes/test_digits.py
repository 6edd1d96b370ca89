"""recipes/digits from a copy of FSDD's layout to RESULTS.md, as a user runs it, on synthetic talkers."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cdasr.speech.audio import read_audio, resample, write_audio
from cdasr.speech.manifest import read_manifest
from cdasr.speech.synthesis import speak
from tests.recipes.staged import ROOT, check_whole_run, copy_of_results, run_recipe

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two talkers, indices 5 to 12 of each digit, at 8 kHz under FSDD's names; and a folder of noise."""
    folder = tmp_path_factory.mktemp("corpus")
    for talker, voice in (("anna", "en-us+f2"), ("bert", "en-us+m3")):
        for digit, word in enumerate(WORDS):
            for index in range(5, 13):
                wave, rate = speak(word, voice, words_per_minute=130 + 8 * index, pitch=30 + 4 * index)
                write_audio(folder / "recordings" / f"{digit}_{talker}_{index}.wav", resample(wave, rate, 8000), 8000)
    rng = np.random.default_rng(0)
    for name in ("noise1", "noise2", "noise3", "1-100-A-0", "2-100-B-1"):
        write_audio(folder / "noise" / f"{name}.wav", 0.05 * rng.standard_normal(24_000).astype(np.float32), 16_000)
    return folder


def run(corpus, exp_dir, *options):
    return run_recipe("digits", exp_dir, "--data-dir", str(corpus), "--noise-dir", str(corpus / "noise"), *options)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("exp")
    done = run(corpus, exp_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    return exp_dir, done


def test_all_stages_run_and_say_so(finished):
    exp_dir, done = finished
    assert "no recordings with index 0 to 4" in done.stderr
    check_whole_run(exp_dir, done, ("unseen_10dB", "enhanced", "parallel", "nested", "enhanced_matched", "retrained",
                                    "oracle", "RTF", "Targets"))
    assert (exp_dir / "results" / "wer.png").stat().st_size > 5000


def test_manifests_describe_what_was_mixed(finished):
    exp_dir, _ = finished
    rows = read_manifest(exp_dir / "data" / "eval.csv")
    single = [row for row in rows if row["condition"] == "single"]
    assert len(single) == 6 and all(row["text"] in WORDS and row["wav"] == row["clean_wav"] for row in single)
    rows = [row for row in rows if row["condition"] != "single"]
    conditions = {row["condition"] for row in rows}
    assert conditions == {"clean", "reverb", "seen_0dB", "seen_10dB", "unseen_0dB", "unseen_10dB"}
    texts = {condition: [row["text"] for row in rows if row["condition"] == condition] for condition in conditions}
    assert all(text == texts["clean"] for text in texts.values()), "the same strings in every condition"
    for row in rows:
        assert 1 <= len(row["text"].split()) <= 7 and set(row["text"].split()) <= set(WORDS)
        noisy, rate = read_audio(row["wav"])
        clean, _ = read_audio(row["clean_wav"])
        assert rate == 16_000 and len(noisy) == len(clean)
        assert float(row["duration"]) == pytest.approx(len(noisy) / rate, abs=1e-4)
        if row["condition"].startswith("unseen"):
            assert row["noise"] in ("1-100-A-0.wav", "2-100-B-1.wav")
            snr = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
            assert snr == pytest.approx(float(row["snr"]), abs=0.2)
        if row["condition"].startswith("seen"):
            assert not row["noise"].startswith(("1-", "2-", "noise3"))
    train = {path["wav"] for path in read_manifest(exp_dir / "data" / "train.csv")}
    assert not train & {row["clean_wav"] for row in rows}


def test_there_is_no_digital_silence(finished):
    exp_dir, _ = finished
    for row in read_manifest(exp_dir / "data" / "train.csv")[:20]:
        wave, _ = read_audio(row["wav"])
        longest = np.diff(np.flatnonzero(np.concatenate([[1], wave, [1]]))).max()
        assert longest < 0.02 * 16_000


def test_a_second_run_redoes_nothing(finished, corpus):
    exp_dir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in exp_dir.rglob("*") if path.is_file()}
    again = run(corpus, exp_dir)
    assert again.returncode == 0 and again.stdout.count("done already") == 10
    assert {path: path.stat().st_mtime_ns for path in exp_dir.rglob("*") if path.is_file()} == before


def test_the_package_works_and_the_seed_fixes_the_strings(finished, corpus, tmp_path):
    exp_dir, _ = finished
    wav = read_manifest(exp_dir / "data" / "eval.csv")[0]["wav"]
    done = subprocess.run([sys.executable, "-m", "cdasr.cli", "enhance-transcribe", wav, "--model",
                           str(exp_dir / "package"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["strategy"] in ("parallel", "alternating", "nested",
                                                                          "cascade")
    assert run(corpus, tmp_path / "again", "--stop-stage", "1").returncode == 0
    for name in ("train", "eval"):
        first, second = ((folder / "data" / f"{name}.csv").read_text() for folder in (exp_dir, tmp_path / "again"))
        assert first == second
    rows = read_manifest(exp_dir / "data" / "eval.csv")
    sample = next(row["wav"] for row in reversed(rows) if row["noise"])
    other = tmp_path / "again" / Path(sample).relative_to(exp_dir)
    assert Path(sample).read_bytes() == other.read_bytes()


def test_training_seeds_are_compared(finished, corpus, tmp_path):
    exp_dir, _ = finished
    other = copy_of_results(exp_dir, tmp_path / "other", training_seed=7)
    done = run(corpus, exp_dir, "--stage", "9", "--stop-stage", "9", "--redo", "true", "--results",
               str(tmp_path / "R.md"), "--other-seeds", f"[{other}]")
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "R.md").read_text()
    alone, both = (text[text.index(f"\n## Coupled strategies against the others{more}\n"):].split("\n## ")[1]
                   for more in ("", ", all seeds"))
    rows = [[line for line in part.splitlines() if line.startswith("|")] for part in (alone, both)]
    assert "all 2 seeds" in both and rows[0] == rows[1], "the same run twice says the same"
    assert re.search(r"\| system +\| seed 1 \| seed 7 \| mean ", text)


def test_results_are_written_without_real_time_factors(finished, corpus, tmp_path):
    exp_dir, _ = finished
    timed = exp_dir / "results" / "rtf.json"
    kept = timed.rename(tmp_path / "rtf.json")
    try:
        done = run(corpus, exp_dir, "--stage", "9", "--stop-stage", "9", "--redo", "true", "--results",
                   str(tmp_path / "R.md"))
    finally:
        kept.rename(timed)
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "R.md").read_text()
    assert "## Targets" in text and "## Speed" not in text


def test_consensus_and_what_a_system_did_not_decode_are_told(finished, corpus, tmp_path):
    exp_dir = shutil.copytree(finished[0], tmp_path / "exp")
    done = run(corpus, exp_dir, "--stage", "7", "--stop-stage", "7", "--redo", "true", "--decode.samples", "2",
               "--decode.systems", "[parallel]")
    assert done.returncode == 0, done.stderr[-3000:]
    decoded = exp_dir / "results" / "decode" / "enhanced.jsonl"
    lines = decoded.read_text().splitlines(keepends=True)
    decoded.write_text("".join(line for line in lines if json.loads(line)["condition"] == "clean"))
    done = run(corpus, exp_dir, "--stage", "7", "--redo", "true", "--decode.only", "{enhanced: clean}",
               "--decode.timed_utterances", "0")
    assert done.returncode == 0, done.stderr[-3000:]
    text = (exp_dir / "RESULTS.md").read_text()
    consensus = text[text.index("\n## Consensus of samples\n"):].split("\n## ")[1]
    assert re.findall(r"\| (\w+) +\| (\d) +\| [\d.]+ \[", consensus) == [("parallel", "1"), ("parallel", "2")]
    assert re.search(r"\| unseen_0dB .*\| - +\|", text) and "enhanced: clean WER" in text


def test_a_control_says_what_it_lacks_before_it_trains(finished, tmp_path):
    exp_dir, _ = finished
    for part in ("data", "recogniser"):
        (tmp_path / part).symlink_to(exp_dir / part)
    sizes = [word for name in ("default", "tiny") for word in ("--hparams", f"recipes/digits/hparams/{name}.yaml")]
    done = subprocess.run([sys.executable, "-m", "cdasr.recipe", "retrained", *sizes, "--exp-dir", str(tmp_path)],
                          cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "signal/package: no such model package" in done.stderr
    assert not (tmp_path / "retrained").exists()


def test_wrong_use_is_one_line(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    for options, reason in ((("--data-dir", str(tmp_path / "empty")), "no FSDD recordings"),
                            (("--no-such-key", "1"), "no key 'no_such_key'")):
        done = run(corpus, tmp_path / "exp", *options)
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr
    assert run(corpus, tmp_path / "exp", "--size", "huge").returncode == 2
