"""The flat files of an evaluation: a line for each system and utterance, and one for each condition and system."""

import csv
import json
from pathlib import Path

import pytest

from cdasr.cli import main
from cdasr.evaluation.store import read_decoded
from cdasr.speech.manifest import write_manifest


@pytest.fixture
def results(package_dir, tmp_path, write_wav, tone):
    rows = []
    for number in range(4):
        clean, ID = tone(0.5 + 0.05 * number, 200 + 50 * number), f"u{number}_{'clean' if number < 2 else 'city_5dB'}"
        wav = write_wav(f"{ID}.wav", clean if number < 2 else clean + 0.1 * tone(0.5 + 0.05 * number, 700))
        rows.append({"ID": ID, "duration": len(clean) / 16_000, "wav": wav, "text": "one two" if number else "",
                     "spk_id": "anna", "clean_wav": write_wav(f"c{number}.wav", clean), "system": "a stray column",
                     "snr": ("none", "", "5", "2.5")[number], "noise": "" if number < 2 else "street.wav",
                     "condition": ID.split("_", 1)[1], "seed": "7"})
    write_manifest(tmp_path / "set.csv", rows)
    out = tmp_path / "results"
    assert main(["evaluate", "--manifest", str(tmp_path / "set.csv"), "--model", str(package_dir), "--systems",
                 "none,parallel", "--quality", "all", "--output-dir", str(out), "--device", "cpu", "--seed", "3"]) == 0
    return out


def test_every_utterance_of_every_system_is_a_line(results):
    lines = [json.loads(line) for line in (results / "utterances.jsonl").read_text().splitlines()]
    assert [(line["system"], line["ID"]) for line in lines] == [
        (system, entry["ID"]) for system in ("none", "parallel")
        for entry in read_decoded(results / "decode" / f"{system}.jsonl")]
    found = {(line["system"], line["ID"]): line for line in lines}
    line = found["parallel", "u2_city_5dB"]
    assert (line["item"], line["condition"], line["speaker"], line["snr"], line["noise"], line["mixture_seed"]) == (
        "u2", "city_5dB", "anna", 5, "street.wav", 7)
    assert (results / line["wav"]).resolve().is_file() and not Path(line["wav"]).is_absolute()
    assert (line["nfe_signal"], line["nfe_logits"], line["nfe_classifier"], line["seed"], line["steps"]) == (
        2, 2, 3, 3, None)
    assert line["wer"] == 100 * line["errors"] / 2 and line["errors"] == sum(
        line[kind] for kind in ("substitutions", "deletions", "insertions"))
    assert line["rtf"] == line["seconds"] / line["duration"] and line["reference"] == "one two"
    assert len(line["times"]) == len(line["confidence"]) == len(line["correct"]) == len(line["text"].split())
    assert all(type(line[name]) is float for name in ("si_sdr", "si_sdr_input", "stoi", "estoi"))
    assert not any(isinstance(value, dict) for line in lines for value in line.values()), "flat"
    silent = found["none", "u0_clean"]
    assert silent["wer"] is None and silent["snr"] == "none" and silent["noise"] is None and "si_sdr" not in silent
    assert found["none", "u3_city_5dB"]["snr"] == 2.5 and found["none", "u1_clean"]["snr"] is None


def test_every_condition_and_system_is_a_line_of_the_scores(results):
    with (results / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    scores = json.loads((results / "wer.json").read_text())["conditions"]
    assert [(line["condition"], line["system"]) for line in lines] == [
        (condition, system) for condition in ("clean", "city_5dB") for system in ("none", "parallel")]
    for line in lines:
        entry = scores[line["condition"]][line["system"]]
        assert [float(line[name]) for name in ("wer", "wer_low", "wer_high", "rtf")] == pytest.approx(
            [entry["wer"], *entry["interval"], entry["rtf"]])
        assert float(line["cer_low"]) <= float(line["cer"]) == pytest.approx(entry["cer"]["rate"])
        assert all(line[name] for name in ("substitutions", "deletions", "insertions", "nfe_signal", "words"))
        assert bool(line["si_sdr"] and line["estoi"]) == (line["condition"] != "clean")


def test_kinds_of_errors_and_quality_are_in_the_table(results):
    header = (results / "table.txt").read_text().splitlines()[6]
    for title in ("SI-SDR dB", "PESQ", "STOI", "ESTOI", "NFE signal", "RTF", "sub %", "del %", "ins %", "CER %"):
        assert title in header
    assert main(["report", str(results), "--output-dir", str(results.parent / "page")]) == 0
    page = (results.parent / "page" / "report.md").read_text()
    first = (results / "table.txt").read_text().splitlines()[8]
    quality = page.split("Quality of the enhanced signals")[1].split("## ")[0].splitlines()
    assert [cell.strip() for cell in quality[2].split("|")[1:-1]] == [
        "system", "SI-SDR dB", "PESQ", "STOI", "ESTOI", "CSIG", "CBAK", "COVL", "SSNR dB"]
    assert quality[5].split("|")[2:6] == quality[4].split("|")[2:6], "none leaves the audio as it is"
    assert quality[5].split("|")[2].strip() == first.split()[1]
