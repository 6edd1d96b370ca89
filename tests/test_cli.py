"""The command line as a user types it."""

import errno
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

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


def test_what_options_and_plain_files_tell_loads_nothing_heavy():
    code = """
import sys
from cdasr.cli import main
print(main(['enhance-transcribe', 'gone.wav', '--nbest', '3', '--json']))
print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["2", "[]"] and "'rover'" in done.stderr


def test_a_transcript_loads_no_more_than_it_takes(tmp_path, write_wav, tone):
    """What transformers' own modules import cannot be helped; neither a package nor cdasr adds to it."""
    code = f"""
import sys
from cdasr.coupled.package import load_models
from cdasr.networks import make_network
from cdasr.runtime.weights import sketch
from cdasr.speech.enhancers import SpeechSignal
for name in ('english', 'digits'):
    load_models(name, 'speech', SpeechSignal)
sketch(lambda: make_network({{'name': 'image_unet'}}), {{'': (10**8,)}})
assert 'torch.nn' in sys.modules
print([m for m in ('torch._dynamo', 'sympy', 'transformers', 'scipy', 'torchaudio') if m in sys.modules])
from cdasr.cli import main
main(['enhance-transcribe', {str(write_wav("a.wav", tone(0.5)))!r}, '--model', 'digits', '--strategy', 'none'])
assert 'transformers' in sys.modules
print([m for m in ('speechbrain', 'librosa', 'jiwer', 'matplotlib', 'pandas', 'sklearn', 'hyperpyyaml', 'scipy.signal',
       'cdasr.training', 'cdasr.evaluation', 'cdasr.recipe') if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("[")] == ["[]", "[]"]


def test_json_has_the_documented_fields(package_dir, write_wav, tone, capsys):
    path = write_wav("a.wav", tone(0.5))
    assert main(["enhance-transcribe", str(path), "--model", str(package_dir), "--json", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result) == {"file", "text", "text_enhanced", "strategy", "out_of_domain", "duration", "rtf", "nfe",
                           "words"}
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


def test_files_of_one_name_have_outputs_of_their_own(package_dir, tmp_path, write_wav, tone, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("p/utt.wav", "q/utt.wav", "same.wav", "same.flac")):
        write_wav(name, tone(0.4 + 0.1 * number))
    assert main(["enhance-transcribe", "p/utt.wav", "q/utt.wav", "same.wav", "same.flac", "--model", str(package_dir),
                 "--device", "cpu", "--output-dir", "out"]) == 0
    assert {str(path.relative_to(tmp_path)): soundfile.info(path).duration for path in tmp_path.glob("out/**/*.wav")} \
        == {"out/p/utt.enhanced.wav": 0.4, "out/q/utt.enhanced.wav": 0.5, "out/same.wav.enhanced.wav": 0.6,
            "out/same.flac.enhanced.wav": 0.7}
    assert capsys.readouterr().err.count("wrote ") == 4


def test_enhanced_audio_is_never_clipped(package_dir, tmp_path, write_wav, tone, capsys):
    soundfile.write(tmp_path / "loud.wav", 30 * tone(0.5), 16_000, subtype="FLOAT")
    square = write_wav("square.wav", np.sign(tone(0.5, 100)))
    assert main(["enhance-transcribe", str(tmp_path / "loud.wav"), str(square), "--model", str(package_dir), "--device",
                 "cpu", "--output-dir", str(tmp_path / "out")]) == 0
    loud = soundfile.read(tmp_path / "out" / "loud.enhanced.wav")[0]
    assert soundfile.info(tmp_path / "out" / "loud.enhanced.wav").subtype == "FLOAT" and np.abs(loud).max() > 2
    scaled = soundfile.read(tmp_path / "out" / "square.enhanced.wav")[0]
    assert 0.9 < np.abs(scaled).max() <= 0.991
    notes = capsys.readouterr().err.splitlines()
    assert notes[0].endswith("in 32-bit float, as the input") and "it would have been clipped" in notes[1]


def test_a_full_disk_costs_one_output_and_no_transcript(package_dir, tmp_path, write_wav, tone, monkeypatch, capsys):
    from cdasr.runtime import atomic

    paths, replace, out = [write_wav(f"{name}.wav", tone(0.5)) for name in "abc"], os.replace, tmp_path / "out"

    def full(source, target):
        if target.name == "b.enhanced.wav":
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        replace(source, target)
    monkeypatch.setattr(atomic.os, "replace", full)
    assert main(["enhance-transcribe", *map(str, paths), "--model", str(package_dir), "--device", "cpu", "--output-dir",
                 str(out)]) == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3 and [line for line in shown.err.splitlines() if "wrote" not in line] == [
        f"cdasr: {paths[1]}: {out / 'b.enhanced.wav'}: the disk is full; free some space and run again"]
    assert sorted(path.name for path in out.iterdir()) == ["a.enhanced.wav", "c.enhanced.wav"]


@pytest.mark.parametrize("error, code, shown", [
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
    (OSError(errno.ENOSPC, "No space left on device"), 2, "cdasr: the disk is full; free some space and run again\n"),
    (MemoryError(), 2, "cdasr: not enough memory"), (KeyboardInterrupt(), 130, "cdasr: interrupted\n")])
def test_what_stops_a_run_is_one_line(tmp_path, monkeypatch, capsys, error, code, shown):
    def fails(*given, **options):
        raise error
    monkeypatch.setattr("cdasr.speech.simulate.simulate", fails)
    assert main(["simulate", "--manifest", "a", "--noise", "b", "--snr", "5", "--output-dir",
                 str(tmp_path / "out")]) == code
    stderr = capsys.readouterr().err
    assert stderr.startswith(shown) and stderr.count("\n") == bool(shown)


def test_a_fault_of_the_code_keeps_its_traceback(tmp_path, monkeypatch):
    def fails(*given, **options):
        raise TypeError("a bug")
    monkeypatch.setattr("cdasr.speech.simulate.simulate", fails)
    with pytest.raises(TypeError, match="a bug"):
        main(["simulate", "--manifest", "a", "--noise", "b", "--snr", "5", "--output-dir", str(tmp_path / "out")])


@pytest.mark.parametrize("end", ["closed", "full"])
def test_output_that_nobody_takes(tmp_path, write_wav, tone, end):
    write_wav("a.wav", tone(0.5))
    write_wav("noise/n.wav", tone(0.5))
    (tmp_path / "clean.csv").write_text("ID,duration,wav,text\nu,0.5,a.wav,one\n")
    command = [sys.executable, "-m", "cdasr.cli", "simulate", "--manifest", "clean.csv", "--noise", "noise", "--snr",
               "-5,5", "--output-dir", "out"]
    if end == "full":
        if not os.path.exists("/dev/full"):
            pytest.skip("no /dev/full here")
        stdout = os.open("/dev/full", os.O_WRONLY)
    else:
        reading, stdout = os.pipe()
        os.close(reading)
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": here})
    os.close(stdout)
    lines = [line for line in done.stderr.splitlines() if "it/s]" not in line and line]
    assert (done.returncode, lines) == ((141, []) if end == "closed" else (
        2, ["cdasr: the disk is full; free some space and run again"]))
    assert (tmp_path / "out" / "manifest.csv").is_file()


def test_json_is_valid_for_every_number(package_dir, write_wav, tone, monkeypatch, capsys):
    from cdasr import Pipeline

    call = Pipeline.__call__

    def odd(self, *given, **options):
        result = call(self, *given, **options)
        result.duration = float("nan")
        return result
    monkeypatch.setattr(Pipeline, "__call__", odd)
    assert main(["enhance-transcribe", str(write_wav("a.wav", tone(0.5))), "--model", str(package_dir), "--json",
                 "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["duration"] is None


def test_a_missing_package_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert main(["enhance-classify", str(tmp_path / "a.png"), "--model", "x"]) == 2
    assert capsys.readouterr().err.startswith("cdasr: the Python package PIL is missing; install it")


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


def test_the_documentation_names_every_verb_and_the_examples_are_accepted():
    from cdasr.cli import _parser

    root, parser = Path(__file__).parents[1], _parser()
    verbs = set(parser._subparsers._group_actions[0].choices)
    listed = (root / "docs" / "command-line.md").read_text(encoding="utf-8").split("## Exit codes")[0]
    assert {line.split("`")[1] for line in listed.splitlines() if line.startswith("| `")} == verbs
    pages = [root / "README.md", *root.glob("docs/*.md"), *root.glob("recipes/*/README.md")]
    examples = [line.split("#")[0] for page in pages
                for block in re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
                for line in block.replace("\\\n", " ").splitlines() if line.startswith("cdasr ")]
    assert len(examples) > 20
    for example in examples:
        arguments = example.split("|")[0].split()[1:]
        parser.parse_args(arguments)


def test_ctrl_c_at_the_very_end_interrupts_nothing():
    code = """
import atexit, os, signal
atexit.register(os.kill, os.getpid(), signal.SIGINT)
from cdasr.cli import main
print(main(["nothing"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n") and "Traceback" not in done.stderr
