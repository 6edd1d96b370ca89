"""Audio of other enhancers is scored beside the package's systems: found by name, fitted, mixed, cached by content."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.coupled.pipeline import observe_both
from cdasr.evaluation.evaluate import evaluate, read_decoded
from cdasr.evaluation.external import VARIANTS, Variant
from cdasr.speech.audio import read_audio
from cdasr.speech.external import external_files
from cdasr.speech.manifest import read_manifest, write_manifest

CONDITIONS = ("clean", "city_5dB")


@pytest.fixture(scope="module")
def pipeline(package_dir):
    return Pipeline.from_pretrained(package_dir, device="cpu")


@pytest.fixture
def noisy(tmp_path, write_wav, tone):
    """A manifest of three utterances in two conditions, whose files have the same names in two folders."""
    rows = []
    for condition in CONDITIONS:
        for number in range(3):
            wave = tone(0.4 + 0.05 * number, 200 + 60 * number)
            clean = write_wav(f"noisy/clean/{number}.wav", wave)
            path = clean if condition == "clean" else write_wav(f"noisy/{condition}/{number}.wav",
                                                                wave + 0.2 * tone(len(wave) / 16_000, 2500))
            rows.append({"ID": f"{number}_{condition}", "duration": len(wave) / 16_000, "wav": path, "text": "one two",
                         "spk_id": "s", "clean_wav": clean, "condition": condition})
    write_manifest(tmp_path / "set.csv", rows)
    return tmp_path / "set.csv"


@pytest.fixture
def peer(tmp_path, noisy):
    """What another enhancer made of it: brighter and softer, by ID."""
    (tmp_path / "peer").mkdir()
    for row in read_manifest(noisy):
        wave = read_audio(row["wav"])[0]
        soundfile.write(tmp_path / "peer" / f"{row['ID']}.wav", 0.5 * wave - 0.3 * np.roll(wave, 1), 16_000, "FLOAT")
    return tmp_path / "peer"


def scores_of(folder):
    return json.loads((folder / "wer.json").read_text())


def _read_together(recogniser, batch, other):
    noisy, made = observe_both(recogniser, batch, other.signals)
    return made.fused(noisy, 0.5)


def test_external_audio_is_scored_alone_and_mixed(noisy, peer, pipeline, tmp_path):
    evaluate(noisy, pipeline, ["none", "enhanced"], tmp_path / "out", external={"peer": peer}, external_weight=0.4)
    scores = scores_of(tmp_path / "out")
    assert scores["systems"] == ["none", "peer", "peer_oa", "peer_fused", "enhanced"]
    assert scores["record"]["settings"]["external_weight"] == 0.4
    assert scores["record"]["settings"]["external"]["peer"]["signals"] == 6
    assert set(scores["conditions"]["city_5dB"]["enhanced"]["p_values"]) == {"none", "peer", "peer_oa", "peer_fused"}
    found = {name: {entry["ID"]: entry for entry in read_decoded(tmp_path / "out" / "decode" / f"{name}.jsonl")}
             for name in scores["systems"]}
    for row in read_manifest(noisy):
        made, given = (torch.from_numpy(read_audio(path)[0]) for path in (peer / f"{row['ID']}.wav", row["wav"]))
        for name, wave in (("peer", made), ("peer_oa", 0.6 * made + 0.4 * given)):
            entry = found[name][row["ID"]]
            assert entry["text"] == pipeline(wave, "none").text
            assert entry["nfe"] == {"signal": 0, "logits": 0, "classifier": 1}
        batch, other = (pipeline.batch([wave]) for wave in (given, made))
        entry = found["peer_fused"][row["ID"]]
        assert entry["text"] == pipeline.decode(_read_together(pipeline.recogniser, batch, other))[0]
        assert entry["nfe"] == {"signal": 0, "logits": 0, "classifier": 2}
    some = found["peer"]["0_city_5dB"]
    assert some["si_sdr"] != some["si_sdr_input"] == found["none"]["0_city_5dB"]["si_sdr_input"]


def test_changed_audio_is_decoded_again_and_nothing_else(noisy, peer, pipeline, tmp_path, capsys, monkeypatch):
    decoded, transcribe = [], pipeline.transcribe
    monkeypatch.setattr(pipeline, "transcribe", lambda waves, **options: decoded.append(len(waves)) or transcribe(
        waves, **options))
    out = tmp_path / "out"
    evaluate(noisy, pipeline, ["none"], out)
    evaluate(noisy, pipeline, ["none"], out, external={"peer": peer})
    assert sum(decoded) == 18, "six of none, six of peer, six of peer_oa"
    evaluate(noisy, pipeline, ["none"], out, external={"peer": peer})
    assert sum(decoded) == 18
    evaluate(noisy, pipeline, ["none"], out, external={"peer": peer}, external_weight=0.5)
    assert sum(decoded) == 24, "another weight is another mix"
    wave, rate = soundfile.read(peer / "1_clean.wav")
    soundfile.write(peer / "1_clean.wav", -wave, rate, "FLOAT")
    evaluate(noisy, pipeline, ["none", "peer"], out, external={"peer": peer})
    assert sum(decoded) == 25 and scores_of(out)["systems"] == ["none", "peer"], "those that are named, and no other"
    assert "1 of 6 recordings have changed" in capsys.readouterr().err


def test_a_weight_of_zero_is_said_and_not_decoded_twice(noisy, peer, pipeline, tmp_path, capsys):
    evaluate(noisy, pipeline, ["none"], tmp_path / "out", external={"peer": peer}, external_weight=0.0)
    assert scores_of(tmp_path / "out")["systems"] == ["none", "peer", "peer_fused"]
    assert "peer_oa: the weight of the degraded signal is 0" in capsys.readouterr().err


def test_names_may_be_those_of_the_degraded_files(noisy, peer, tmp_path):
    rows = read_manifest(noisy)
    other = tmp_path / "other"
    for row in rows:
        (other / row["condition"]).mkdir(parents=True, exist_ok=True)
        wave, rate = soundfile.read(peer / f"{row['ID']}.wav")
        soundfile.write(other / row["condition"] / f"{row['ID'][0]}.flac", wave, rate)
        soundfile.write(other / f"{row['ID'][0]}.wav", wave, rate)
    found = external_files(other, rows)
    assert found == {row["ID"]: other / row["condition"] / f"{row['ID'][0]}.flac" for row in rows}
    city = [row for row in rows if row["condition"] == "city_5dB"]
    shutil.rmtree(other / "clean")
    shutil.rmtree(other / "city_5dB")
    assert external_files(other, rows) == {}, "a name that stands for two recordings is taken for neither"
    assert external_files(other, city) == {row["ID"]: other / f"{row['ID'][0]}.wav" for row in city}
    assert external_files(other, [{**city[0], "ID": "../peer/0_clean", "wav": "/nowhere/a.wav"}]) == {}


def test_conditions_without_audio_are_left_out_and_said(noisy, peer, pipeline, tmp_path, capsys):
    for path in peer.glob("*_clean.wav"):
        path.unlink()
    shown = evaluate(noisy, pipeline, ["none"], tmp_path / "out", external={"peer": peer})
    assert "external peer: nothing of clean is there; not scored on it" in capsys.readouterr().err
    assert list(scores_of(tmp_path / "out")["conditions"]["clean"]) == ["none"] and "-" in shown


def test_rates_and_small_differences_of_length_are_made_up_for_and_said(noisy, peer, pipeline, tmp_path, capsys):
    from cdasr.speech.audio import resample

    evaluate(noisy, pipeline, ["none", "peer"], tmp_path / "exact", external={"peer": peer})
    for path in peer.glob("*.wav"):
        wave, _ = read_audio(path)
        soundfile.write(path, resample(np.pad(wave, (0, 320)), 16_000, 48_000), 48_000, "FLOAT")
    capsys.readouterr()
    evaluate(noisy, pipeline, ["none", "peer"], tmp_path / "out", external={"peer": peer})
    told = capsys.readouterr().err
    assert told.count("6 of 6 recordings are up to 20 ms longer or shorter than the degraded ones; cut") == 1
    assert told.count("recordings at 48000 Hz, the degraded ones at 16000 Hz; resampled") == 1
    exact, found = ({entry["ID"]: entry for entry in read_decoded(tmp_path / name / "decode" / "peer.jsonl")}
                    for name in ("exact", "out"))
    for name in exact:
        assert found[name]["duration"] == exact[name]["duration"]
        assert found[name].get("si_sdr", 0.0) == pytest.approx(exact[name].get("si_sdr", 0.0), abs=0.3), "aligned"


def test_what_cannot_be_used_is_named_before_any_work(noisy, peer, pipeline, tmp_path, package_dir):
    def refused(match, **options):
        with pytest.raises(ValueError, match=match):
            evaluate(noisy, pipeline, **{"systems": ["none"], "output_dir": tmp_path / "out",
                                         "external": {"peer": peer}, **options})
    (tmp_path / "empty").mkdir()
    refused("external gone: .*gone is no folder", external={"gone": tmp_path / "gone"})
    refused("external peer: 5 is no folder", external={"peer": 5})
    refused("external e: .*empty has none of the 6 recordings.*0_clean.wav", external={"e": tmp_path / "empty"})
    refused("external none: a strategy has this name", external={"none": peer})
    refused("external short: a control has this name", external={"short": peer}, others={"short": (pipeline, "none")})
    refused("external 'a/b': a name is of letters", external={"a/b": peer})
    refused("two systems would have one name", external={"a": peer, "a_oa": peer})
    refused("external_weight: expected a share from 0 to 1, got 1.5", external_weight=1.5)
    refused("unknown strategy 'peer_x'", systems=["none", "peer_x"])
    (peer / "1_clean.wav").rename(tmp_path / "kept.wav")
    refused("external peer: 1 of 6 enhanced signals are missing, the first is 1_clean")
    soundfile.write(peer / "1_clean.wav", np.zeros(16_000), 16_000)
    refused("1_clean.wav: lasts 1.00 s and the degraded recording 1_clean 0.45 s; expected at most 50 ms")
    (peer / "1_clean.wav").write_bytes(b"no audio")
    refused("1_clean.wav: not an audio file")
    assert not (tmp_path / "out").exists()


def test_a_further_variant_is_one_function(noisy, peer, pipeline, tmp_path, monkeypatch):
    def last(frozen, degraded, external, weight):
        assert frozen.pipeline is pipeline and len(degraded) == len(external)
        return frozen(degraded), external
    monkeypatch.setitem(VARIANTS, "_last", Variant(last, weighted=True))
    evaluate(noisy, pipeline, ["none"], tmp_path / "out", external={"peer": peer})
    assert scores_of(tmp_path / "out")["systems"] == ["none", "peer", "peer_oa", "peer_fused", "peer_last"]


def test_the_command_takes_several(noisy, peer, package_dir, tmp_path, capsys):
    command = ["evaluate", "--manifest", str(noisy), "--model", str(package_dir), "--systems", "none", "--device",
               "cpu", "--output-dir", str(tmp_path / "out"), "--external", f"peer={peer}"]
    assert main([*command, "--external", f"same={peer}", "--external-weight", "0.5"]) == 0
    assert scores_of(tmp_path / "out")["systems"] == [
        "none", "peer", "peer_oa", "peer_fused", "same", "same_oa", "same_fused"]
    assert main([*command, "--external", f"peer={peer}"]) == 2
    assert "--external peer= is given twice" in capsys.readouterr().err
    assert main([*command[:-1], "peer"]) == 2
