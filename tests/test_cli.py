"""The command line as a user types it."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from cdasr.cli import main


def test_help_is_instant():
    command = [sys.executable, "-m", "cdasr.cli", "--help"]
    subprocess.run(command, check=True, capture_output=True)  # compiles the byte code
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert time.perf_counter() - started < 0.5
    assert "enhance-transcribe" in done.stdout and "evaluate" in done.stdout


def test_help_loads_nothing_heavy():
    code = "import sys, cdasr.cli; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_json_has_the_documented_fields(package_dir, write_wav, tone, capsys):
    path = write_wav("a.wav", tone(0.5))
    assert main(["enhance-transcribe", str(path), "--model", str(package_dir), "--json", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"file", "text", "text_enhanced", "strategy", "duration", "rtf", "nfe", "words"}
    assert [word["word"] for word in result["words"]] == result["text"].split()
    assert all(set(word) == {"word", "start", "end", "confidence"} for word in result["words"])
    assert result["file"] == str(path) and result["duration"] == 0.5 and result["rtf"] > 0
    assert result["nfe"] == {"signal": 2, "logits": 0, "classifier": 1}


@pytest.mark.parametrize("rate, channels", [(8000, 1), (44_100, 2), (16_000, 3)])
def test_enhanced_audio_has_the_rate_and_length_of_the_input(package_dir, tmp_path, write_wav, tone, rate, channels):
    path = write_wav("in.flac", np.stack([tone(0.613, rate=rate)] * channels, axis=1), rate)
    assert main(["enhance-transcribe", str(path), "--model", str(package_dir), "--output-dir", str(tmp_path / "out"),
                 "--device", "cpu"]) == 0
    info = soundfile.info(tmp_path / "out" / "in.enhanced.wav")
    assert (info.samplerate, info.frames) == (rate, soundfile.info(path).frames)


def test_bad_files_do_not_stop_the_others(package_dir, tmp_path, write_wav, tone, capsys):
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "zero.wav").touch()
    write_wav("empty.wav", np.zeros(0, np.float32))
    write_wav("short.wav", np.zeros(100, np.float32))
    soundfile.write(tmp_path / "nan.wav", np.full(16_000, np.nan, np.float32), 16_000, subtype="FLOAT")
    good = write_wav("good.wav", tone(0.5))
    bad = [tmp_path / f"{name}.wav" for name in ("missing", "text", "zero", "empty", "short", "nan")]
    code = main(["enhance-transcribe", *map(str, [*bad[:3], good, *bad[3:]]), "--model", str(package_dir), "--json",
                 "--device", "cpu", "--output-dir", str(tmp_path / "out")])
    captured = capsys.readouterr()
    assert code == 2 and len(captured.out.splitlines()) == 1 and json.loads(captured.out)["file"] == str(good)
    complaints = [line for line in captured.err.splitlines() if line.startswith("cdasr:")]
    assert len(complaints) == len(bad) and all(str(path) in line for path, line in zip(bad, complaints))
    assert "Traceback" not in captured.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.enhanced.wav"]


def test_a_wrong_model_is_one_line(write_wav, tone, tmp_path, capsys):
    assert main(["enhance-transcribe", str(write_wav("a.wav", tone(0.5))), "--model", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_simulate_then_evaluate(package_dir, tmp_path, write_wav, tone, capsys):
    rows = ["ID,duration,wav,text,spk_id"]
    for number, text in enumerate(("one two", "three", "four four one")):
        write_wav(f"clean/{number}.wav", tone(0.5 + 0.1 * number, 300 + 100 * number))
        rows.append(f"u{number},{0.5 + 0.1 * number},clean/{number}.wav,{text},s")
    (tmp_path / "clean.csv").write_text("\n".join(rows) + "\n")
    write_wav("noise/n.wav", np.random.default_rng(0).standard_normal(16_000).astype(np.float32) * 0.1)
    assert main(["simulate", "--manifest", str(tmp_path / "clean.csv"), "--noise", str(tmp_path / "noise"),
                 "--snr=-5,5", "--seed", "7", "--output-dir", str(tmp_path / "noisy")]) == 0
    assert main(["evaluate", "--manifest", str(tmp_path / "noisy" / "manifest.csv"), "--model", str(package_dir),
                 "--systems", "none,enhanced", "--output-dir", str(tmp_path / "results"), "--device", "cpu"]) == 0
    assert "enhanced" in capsys.readouterr().out
    scored = json.loads((tmp_path / "results" / "wer.json").read_text())
    assert "snr-5" in json.dumps(scored) and "snr5" in json.dumps(scored)
    assert main(["evaluate", "--manifest", str(tmp_path / "noisy" / "manifest.csv"), "--model", str(package_dir),
                 "--systems", "magic", "--output-dir", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_simulate_names_a_folder_without_audio(tmp_path, write_wav, tone, capsys):
    write_wav("a.wav", tone(0.5))
    (tmp_path / "clean.csv").write_text("ID,duration,wav,text\nu,0.5,a.wav,one\n")
    (tmp_path / "noise").mkdir()
    assert main(["simulate", "--manifest", str(tmp_path / "clean.csv"), "--noise", str(tmp_path / "noise"), "--snr",
                 "0", "--output-dir", str(tmp_path / "out")]) == 2
    assert "no audio" in capsys.readouterr().err and not (tmp_path / "out").exists()
