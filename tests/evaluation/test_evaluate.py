"""`cdasr evaluate`: right numbers, nothing decoded twice, other settings kept apart."""

import errno
import json
import os
import re
import shutil

import pytest

from cdasr import Pipeline
from cdasr.evaluation.evaluate import evaluate, read_decoded
from cdasr.evaluation.plots import plot_rates_by_snr
from cdasr.evaluation.report import table
from cdasr.evaluation.scoring import score_conditions
from cdasr.speech.domain import SPEECH
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.words import word_errors


@pytest.fixture
def manifest(tmp_path, write_wav, tone):
    rows = []
    for number in range(8):
        wave, clean = tone(0.4 + 0.05 * number, 200 + 50 * number), number % 2
        path = write_wav(f"{number}.wav", wave)
        noisy = path if clean else write_wav(f"noisy{number}.wav", wave + 0.1 * tone(len(wave) / 16_000, 3000))
        rows.append({"ID": f"u{number}", "duration": 0.4 + 0.05 * number, "wav": noisy, "text": "one two",
                     "spk_id": "s", "clean_wav": path, "condition": "clean" if clean else "unseen_5dB"})
    write_manifest(tmp_path / "set.csv", rows)
    return tmp_path / "set.csv"


@pytest.fixture
def pipeline(package_dir):
    return Pipeline.from_pretrained(package_dir, device="cpu")


def test_scores_are_those_of_the_transcripts(manifest, pipeline, tmp_path):
    shown = evaluate(manifest, pipeline, ["none", "enhanced"], tmp_path / "out", batch_seconds=1.2)
    scores = json.loads((tmp_path / "out" / "wer.json").read_text())
    assert list(scores["conditions"]) == ["unseen_5dB", "clean"], "in the manifest's order"
    for name, condition in scores["conditions"].items():
        rows = [row for row in read_manifest(manifest) if row["condition"] == name]
        for system, entry in condition.items():
            errors = sum(word_errors(row["text"], pipeline(row["wav"], strategy=system).text)[0] for row in rows)
            assert entry["wer"] == pytest.approx(100 * errors / (2 * len(rows))) and entry["words"] == 2 * len(rows)
            assert entry["interval"][0] <= entry["wer"] <= entry["interval"][1] and entry["rtf"] > 0
        assert condition["none"]["nfe"] == {"signal": 0, "logits": 0, "classifier": 1}
        assert condition["enhanced"]["nfe"]["signal"] == 2
        assert set(condition["enhanced"]["p_values"]) == set(condition["enhanced"]["relative"]) == {"none"}
    assert scores["conditions"]["clean"]["none"]["si_sdr"] is None, "unbounded for a clean input"
    noisy = scores["conditions"]["unseen_5dB"]
    assert 0 < noisy["none"]["si_sdr"] == noisy["none"]["si_sdr_input"] == noisy["enhanced"]["si_sdr_input"] < 40
    assert noisy["enhanced"]["si_sdr"] != noisy["none"]["si_sdr"]
    assert (tmp_path / "out" / "table.txt").read_text().strip() == shown
    assert {"command", "versions", "settings", "time"} <= set(scores["record"])


def test_systems_of_other_packages_are_scored_beside(manifest, pipeline, package_dir, tmp_path):
    other = Pipeline.from_pretrained(package_dir, device="cpu")
    other.signal.config["sampling"]["steps"] = 1
    evaluate(manifest, pipeline, ["enhanced", "short", "parallel"], tmp_path / "out",
             others={"short": (other, "enhanced")})
    scores = json.loads((tmp_path / "out" / "wer.json").read_text())
    clean = scores["conditions"]["clean"]
    assert scores["systems"] == ["enhanced", "short", "parallel"]
    assert clean["short"]["nfe"]["signal"] == 1 and clean["enhanced"]["nfe"]["signal"] == 2
    assert set(clean["parallel"]["p_values"]) == {"enhanced", "short"}
    with pytest.raises(ValueError, match="others"):
        evaluate(manifest, pipeline, ["enhanced"], tmp_path / "out")


def test_conditions_can_be_added_later(manifest, pipeline, tmp_path):
    shown = evaluate(manifest, pipeline, ["none"], tmp_path / "out", conditions=["clean"])
    assert "unseen_5dB" not in shown and len(read_decoded(tmp_path / "out" / "decode" / "none.jsonl")) == 4
    before = read_decoded(tmp_path / "out" / "decode" / "none.jsonl")
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    after = read_decoded(tmp_path / "out" / "decode" / "none.jsonl")
    assert after[:4] == before and {entry["condition"] for entry in after[4:]} == {"unseen_5dB"}
    with pytest.raises(ValueError, match="no condition loud; it has unseen_5dB, clean"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", conditions=["loud"])


def test_a_system_can_be_kept_to_some_conditions(manifest, pipeline, tmp_path):
    shown = evaluate(manifest, pipeline, ["none", "enhanced"], tmp_path / "out", only={"enhanced": "unseen_.*"})
    scores = json.loads((tmp_path / "out" / "wer.json").read_text())
    assert {name: list(found) for name, found in scores["conditions"].items()} == {
        "unseen_5dB": ["none", "enhanced"], "clean": ["none"]}
    assert re.search(r"(?m)^clean +8 +\S+ \[.*\] +-$", shown)
    both = score_conditions({name: read_decoded(tmp_path / "out" / "decode" / f"{name}.jsonl")
                             for name in ("none", "enhanced")}, SPEECH, ["unseen_5dB", "clean"])
    assert list(both) == ["none"], "an average over conditions is that of systems that have them all"
    plot_rates_by_snr(scores, SPEECH, tmp_path / "wer.png")
    assert (tmp_path / "wer.png").is_file()
    with pytest.raises(ValueError, match="unknown strategy 'enhancd'"):
        evaluate(manifest, pipeline, ["none", "enhanced"], tmp_path / "out", only={"enhancd": "unseen_.*"})
    with pytest.raises(ValueError, match="nothing to decode.* seen_.*; there are unseen_5dB, clean"):
        evaluate(manifest, pipeline, ["enhanced"], tmp_path / "out", only={"enhanced": "seen_.*"})
    with pytest.raises(ValueError, match=r"only enhanced: '\*' is not a regular expression"):
        evaluate(manifest, pipeline, ["enhanced"], tmp_path / "out", only={"enhanced": "*"})


def test_samples_and_guidance_are_those_of_the_pipeline_and_kept_apart(manifest, pipeline, tmp_path):
    options = {"samples": 3, "guidance": 0.0}
    evaluate(manifest, pipeline, ["parallel"], tmp_path / "out", seed=5, **options)
    rows = {row["ID"]: row for row in read_manifest(manifest)}
    for entry in read_decoded(tmp_path / "out" / "decode" / "parallel.jsonl"):
        result = pipeline(rows[entry["ID"]]["wav"], strategy="parallel", seed=5, **options)
        assert (entry["text"], entry["nfe"]) == (result.text, result.nfe) and result.nfe["signal"] % 3 == 0
        assert entry["confidence"] == [round(word.confidence, 4) for word in result.words]
    with pytest.raises(ValueError, match=r"other settings \(samples, guidance\)"):
        evaluate(manifest, pipeline, ["parallel"], tmp_path / "out", seed=5)


def test_results_go_on_where_all_was_moved_to(manifest, pipeline, tmp_path):
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    shutil.copytree(tmp_path, moved := tmp_path.with_name(tmp_path.name + "-moved"))
    evaluate(moved / manifest.name, pipeline, ["none", "enhanced"], moved / "out")
    assert json.loads((moved / "out" / "wer.json").read_text())["systems"] == ["none", "enhanced"]


def test_an_interrupted_run_goes_on_where_it_stopped(manifest, pipeline, tmp_path, monkeypatch):
    seen, transcribe = [], pipeline.transcribe

    def dies_at_the_third_batch(waves, **options):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(waves))
        return transcribe(waves, **options)

    monkeypatch.setattr(pipeline, "transcribe", dies_at_the_third_batch)
    with pytest.raises(KeyboardInterrupt):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", batch_seconds=1.0)
    path = tmp_path / "out" / "decode" / "none.jsonl"
    with path.open("a") as file:
        file.write('{"ID": "torn')  # as a crash in the middle of a line leaves it
    assert len(read_decoded(path)) == sum(seen)

    decoded = []
    monkeypatch.setattr(pipeline, "transcribe", lambda waves, **options: decoded.append(len(waves)) or transcribe(
        waves, **options))
    evaluate(manifest, pipeline, ["none"], tmp_path / "out", batch_seconds=1.0)
    assert sum(decoded) == 8 - sum(seen) and sorted(entry["ID"] for entry in read_decoded(path)) == [
        f"u{number}" for number in range(8)]
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    assert sum(decoded) == 8 - sum(seen), "a finished run decodes nothing"


def test_changed_audio_is_decoded_again_and_nothing_else(manifest, pipeline, tmp_path, write_wav, tone, capsys):
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    path = tmp_path / "out" / "decode" / "none.jsonl"
    before = {entry["ID"]: entry for entry in read_decoded(path)}
    old = (tmp_path / "2.wav").stat().st_mtime_ns
    write_wav("2.wav", tone(0.5, 900))
    write_wav("noisy4.wav", tone(0.6, 1900))
    for name in ("2.wav", "noisy4.wav"):
        os.utime(tmp_path / name, ns=(old, old - 10**12))  # older than what it replaces
    capsys.readouterr()
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    assert "2 of 8 recordings have changed" in capsys.readouterr().err
    after = {entry["ID"]: entry for entry in read_decoded(path)}
    assert {ID for ID in after if after[ID] != before[ID]} == {"u2", "u4"} and len(after) == 8
    assert after["u4"]["si_sdr_input"] != before["u4"]["si_sdr_input"]
    assert len(path.read_bytes().splitlines()) == 8, "the old entries are gone"


def test_doubled_entries_count_once_and_broken_ones_are_named(manifest, pipeline, tmp_path):
    shown = evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    path = tmp_path / "out" / "decode" / "none.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole)  # as two runs at once left them
    assert len(read_decoded(path)) == 8
    assert evaluate(manifest, pipeline, ["none"], tmp_path / "out").split("\n\n")[0] == shown.split("\n\n")[0]
    path.write_bytes(whole + b"{broken}\n" + whole)
    with pytest.raises(ValueError, match="none.jsonl: line 9 is not a decoded entry"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out")


def test_two_runs_do_not_share_a_folder(manifest, pipeline, tmp_path):
    from cdasr.runtime.lock import locked

    with locked(tmp_path / "out"), pytest.raises(ValueError, match="out: another run is writing there"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    assert not (tmp_path / "out" / "decode").exists() and not (tmp_path / "out" / "evaluate.json").exists()
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")


def test_a_full_disk_loses_nothing_that_was_decoded(manifest, pipeline, tmp_path, monkeypatch):
    from cdasr.evaluation import store

    shown, line, written = evaluate(manifest, pipeline, ["none"], tmp_path / "whole"), store._line, []

    def full(entry):
        written.append(entry)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        return line(entry)
    monkeypatch.setattr(store, "_line", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", batch_seconds=0.1)
    monkeypatch.setattr(store, "_line", line)
    assert len(read_decoded(tmp_path / "out" / "decode" / "none.jsonl")) == 3
    assert not (tmp_path / "out" / "wer.json").exists()
    assert evaluate(manifest, pipeline, ["none"], tmp_path / "out").split("\n\n")[0] == shown.split("\n\n")[0]


def test_a_line_torn_inside_a_character_and_odd_line_ends_are_read(tmp_path):
    path, entry = tmp_path / "none.jsonl", {"ID": "a", "text": "one\u2028two\x85three"}
    line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
    path.write_bytes(line + '{"ID": "é'.encode()[:-1])
    assert read_decoded(path) == [entry] and path.read_bytes() == line


def test_limit_takes_the_first_utterances(manifest, pipeline, tmp_path):
    evaluate(manifest, pipeline, ["none"], tmp_path / "out", limit=3)
    assert {entry["ID"] for entry in read_decoded(tmp_path / "out" / "decode" / "none.jsonl")} == {"u0", "u1", "u2"}
    with pytest.raises(ValueError, match="other settings"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out")


def test_other_settings_are_refused_and_can_be_overwritten(manifest, pipeline, tmp_path):
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    with pytest.raises(ValueError, match=r"other settings \(seed\).*--overwrite"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", seed=3)
    evaluate(manifest, pipeline, ["none"], tmp_path / "out", seed=3, overwrite=True)
    pipeline.config["observation_adding"]["weight"] = 0.9
    with pytest.raises(ValueError, match=r"other settings \(model, seed\)|other settings \(model\)"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", seed=3)


def test_mistakes_come_before_any_work(manifest, pipeline, tmp_path):
    with pytest.raises(ValueError, match="unknown strategy 'magic'; known: none, enhanced, oa"):
        evaluate(manifest, pipeline, ["none", "magic"], tmp_path / "out")
    with pytest.raises(ValueError, match="number of samples must be at least 1"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", samples=0)
    with pytest.raises(ValueError, match="no such manifest"):
        evaluate(tmp_path / "none.csv", pipeline, ["none"], tmp_path / "out")
    def load():
        raise AssertionError("loaded before the checks")
    for row, words in (({"wav": tmp_path / "gone.wav"}, "gone.wav: no such file"),
                       ({"clean_wav": tmp_path / "set.csv"}, "set.csv: not an audio file")):
        write_manifest(tmp_path / "bad.csv", [{**read_manifest(manifest)[0], **row}])
        with pytest.raises(ValueError, match=words):
            evaluate(tmp_path / "bad.csv", load, ["none"], tmp_path / "out", domain=SPEECH)
    with pytest.raises(ValueError, match="no systems"):
        evaluate(manifest, pipeline, [], tmp_path / "out")
    rows = read_manifest(manifest)
    write_manifest(tmp_path / "silent.csv", [{**row, "text": "" if row["condition"] == "clean" else "one"}
                                             for row in rows])
    with pytest.raises(ValueError, match="no words in the text column of condition clean"):
        evaluate(tmp_path / "silent.csv", pipeline, ["none"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tables_show_every_condition_and_system():
    entry = {"wer": 12.34, "interval": [11.0, 13.6], "words": 99, "utterances": 9, "si_sdr": 3.21, "rtf": 0.05,
             "nfe": {"signal": 3.0, "logits": 0.0, "classifier": 2.0}, "p_values": {}, "calibration_error": 0.123,
             "wer_at_80_coverage": None}
    scores = {"systems": ["none", "oa"], "conditions": {"clean": {"none": entry, "oa": entry}}}
    assert re.search(r"clean\s+99\s+12\.3 \[11\.0, 13\.6\]\s+12\.3", table(scores, SPEECH))
    assert "| clean     | 99    | 12.3 [11.0, 13.6] |" in table(scores, SPEECH, markdown=True)
    assert re.search(r"oa\s+3\.2\s+3\s+0\s+2\s+0\.050", table(scores, SPEECH))


def test_other_measures_of_quality_are_taken_on_request(manifest, pipeline, tmp_path):
    pytest.importorskip("pesq")
    pytest.importorskip("pystoi")
    shown = evaluate(manifest, pipeline, ["none", "enhanced"], tmp_path / "out", quality=["si_sdr", "pesq", "estoi"])
    entries = read_decoded(tmp_path / "out" / "decode" / "enhanced.jsonl")
    noisy = [entry for entry in entries if entry["condition"] == "unseen_5dB"]
    assert all({"si_sdr", "estoi", "estoi_input"} <= set(entry) for entry in noisy if entry["duration"] > 0.45)
    assert "ESTOI" in shown and "SI-SDR dB" in shown
    with pytest.raises(ValueError, match=r"other settings \(quality\)"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    with pytest.raises(ValueError, match="unknown quality measure 'loudness'; known: si_sdr, pesq, stoi, estoi, csig"):
        evaluate(manifest, pipeline, ["none"], tmp_path / "out", quality=["loudness"])


def test_entries_have_the_kinds_of_errors(manifest, pipeline, tmp_path):
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    for entry in read_decoded(tmp_path / "out" / "decode" / "none.jsonl"):
        assert entry["errors"] == entry["substitutions"] + entry["deletions"] + entry["insertions"]
        assert (entry["errors"], entry["words"]) == word_errors(entry["reference"], entry["text"])
        assert entry["characters"] == len(entry["reference"])


def test_entries_of_an_earlier_version_are_not_decoded_again(manifest, pipeline, tmp_path, monkeypatch):
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    path = tmp_path / "out" / "decode" / "none.jsonl"
    new = ("substitutions", "deletions", "insertions", "character_errors", "characters", "source")
    old = [{**{key: value for key, value in entry.items() if key not in new}, "audio": entry["source"]}
           for entry in read_decoded(path)]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in old))
    monkeypatch.setattr(pipeline, "transcribe", None)
    shown = evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    assert "CER" not in shown and "ECE" in shown


def test_another_normaliser_counts_again_and_decodes_nothing(manifest, pipeline, tmp_path, monkeypatch, capsys):
    from cdasr.cli import main
    from cdasr.speech.domain import scored_after
    from cdasr.speech.normalisers import Normaliser

    path = tmp_path / "out" / "decode" / "none.jsonl"
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    assert json.loads((tmp_path / "out" / "wer.json").read_text())["record"]["settings"]["normaliser"] == "plain"
    plain = read_decoded(path)
    path.write_text("".join(json.dumps({**entry, "text": "12", "confidence": [0.5]}) + "\n"
                            for entry in plain))
    monkeypatch.setattr(pipeline, "transcribe", None)
    evaluate(manifest, pipeline, ["none"], tmp_path / "out", domain=scored_after(Normaliser("english")))
    assert "errors of 8 recordings were counted in another way" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "wer.json").read_text())["record"]
    assert record["settings"]["normaliser"] == "english, 0 spellings"
    found = read_decoded(path)
    assert {(entry["errors"], entry["normaliser"]) for entry in found} == {(0, "english, 0 spellings")}
    assert all(entry["correct"] == [True] for entry in found)
    evaluate(manifest, pipeline, ["none"], tmp_path / "out")
    assert {(entry["errors"], entry.get("normaliser")) for entry in read_decoded(path)} == {(2, None)}

    arguments = ["evaluate", "--manifest", str(manifest), "--model", str(tmp_path / "gone"), "--output-dir",
                 str(tmp_path / "cli"), "--normaliser", "french"]
    assert main(arguments) == 2 and "invalid choice: 'french'" in capsys.readouterr().err


def test_the_command_takes_a_normaliser(manifest, package_dir, tmp_path):
    from cdasr.cli import main

    assert main(["evaluate", "--manifest", str(manifest), "--model", str(package_dir), "--systems", "none", "--device",
                 "cpu", "--output-dir", str(tmp_path / "out"), "--normaliser", "english"]) == 0
    record = json.loads((tmp_path / "out" / "wer.json").read_text())["record"]
    assert record["settings"]["normaliser"] == "english, 0 spellings"
    assert all(entry["normaliser"] == "english, 0 spellings"
               for entry in read_decoded(tmp_path / "out" / "decode" / "none.jsonl"))
