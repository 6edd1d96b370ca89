"""Inputs that go wrong: for each, the exit code, one line that says why, and what is on disk afterwards.

A case is a command as a user types it, in a folder that holds what `material` writes. To add one, add a line to CASES.
"""

from __future__ import annotations

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from cdasr.cli import main

RATE = 16_000
HEADER = "ID,duration,wav,text\n"
TEXTS = {
    "file": "",
    "text.wav": "this is not audio",
    "text.png": "this is not a picture",
    "clean.csv": HEADER + "a,0.5,a.wav,one two\nb,0.6,b.wav,three\n",
    "missing.csv": HEADER + "a,0.5,a.wav,one two\nb,0.6,gone.wav,three\nc,0.5,text.wav,four\nd,0.6,b.wav,one\n",
    "column.csv": HEADER + "a,0.5,a.wav,one two\na.clean,0.6,b.wav,three\n",
    "far.csv": HEADER + "../a,0.5,a.wav,one two\n",
    "long.csv": HEADER + f"{'n' * 300},0.5,a.wav,one two\n",
    "silent.csv": HEADER + "a,0.5,a.wav,\n",
    "clash/a.wav": "",
}
LONG = "n" * 300
ENHANCE, CLASSIFY = "enhance-transcribe", "enhance-classify --model PACKAGE"
SIMULATE = "simulate --manifest clean.csv --noise noise --snr 5"
EVALUATE = "evaluate --manifest clean.csv --model PACKAGE"
PLOT, IMPORT = "plot-trajectory a.wav --model PACKAGE", "import-sgmse file"


@dataclass
class Case:
    """`command` ends with `code`, and each of `words` is in the `lines` lines on stderr; only `new` files are written.

    `loads`: whether a model is loaded; without it the attempt fails the test.
    """

    name: str
    command: str
    words: tuple[str, ...]
    code: int = 2
    lines: int = 1
    new: tuple[str, ...] = ()
    loads: bool = False


CASES = [
    # -- files of enhance-transcribe and enhance-classify
    Case("no file", f"{ENHANCE} gone.wav", ("gone.wav", "no such file")),
    Case("no files at all", f"{ENHANCE} gone.wav text.wav", ("gone.wav", "text.wav", "not an audio file"), lines=2),
    Case("a folder", f"{ENHANCE} noise", ("noise", "a folder")),
    Case("a pipe", f"{ENHANCE} /dev/null", ("/dev/null", "is a device")),
    Case("no samples", f"{ENHANCE} empty.wav", ("empty.wav", "no samples")),
    Case("a name too long", f"{ENHANCE} {LONG}.wav", ("File name too long",)),
    Case("no options", ENHANCE, ("required: FILE",)),
    Case("one of three", f"{ENHANCE} a.wav gone.wav text.wav --model PACKAGE --output-dir out",
         ("gone.wav", "text.wav", "wrote out/a.enhanced.wav"), lines=3, new=("out/a.enhanced.wav",), loads=True),
    Case("no image", f"{CLASSIFY} gone.png", ("gone.png", "no such file")),
    Case("not an image", f"{CLASSIFY} text.png a.wav", ("text.png", "not an image"), lines=2),
    Case("a folder of images", f"{CLASSIFY} noise", ("noise", "a folder")),
    # -- where results go
    *(Case(f"a file as output folder: {command.split()[0]}", f"{command} --output-dir file",
           ("file: results cannot be written there, it is a file",))
      for command in (f"{ENHANCE} a.wav", f"{CLASSIFY} a.png", SIMULATE, EVALUATE, IMPORT, "demo")),
    *(Case(f"below a file: {command.split()[0]}", f"{command} --output-dir file/deep/er", ("file", "is a file"))
      for command in (f"{ENHANCE} a.wav", f"{CLASSIFY} a.png", SIMULATE, EVALUATE, IMPORT, "demo")),
    *(Case(f"output folder's name too long: {command.split()[0]}", f"{command} --output-dir {LONG}",
           ("300 bytes", "shorten it"))
      for command in (f"{ENHANCE} a.wav", f"{CLASSIFY} a.png", SIMULATE, EVALUATE, IMPORT, "demo")),
    *(Case(f"a link to nowhere: {command.split()[0]}", f"{command} --output-dir nowhere", ("a link to nowhere",))
      for command in (f"{ENHANCE} a.wav", SIMULATE, EVALUATE)),
    Case("an output that is an input", f"{ENHANCE} a.wav a.enhanced.wav --output-dir .",
         ("a.wav", "would replace the input a.enhanced.wav")),
    Case("an output that is a folder", f"{ENHANCE} a.wav --output-dir clash", ("clash/a.enhanced.wav: a folder",)),
    Case("IDs that write one file", "simulate --manifest column.csv --noise noise --snr 5 --output-dir out",
         ("'a' and the ID 'a.clean'", "a.clean.flac", "rename")),
    Case("an ID that leaves the folder", "simulate --manifest far.csv --noise noise --snr 5 --output-dir out",
         ("'../a'", "rename")),
    Case("an ID too long", "simulate --manifest long.csv --noise noise --snr 5 --output-dir out",
         ("long.csv: line 2", "rename")),
    Case("a manifest that would be replaced", "simulate --manifest clean/manifest.csv --noise noise --snr 5 "
         "--output-dir clean", ("would replace the input clean/manifest.csv",)),
    Case("a picture of no kind", f"{PLOT} --output out.xyz", ("out.xyz", "xyz is not a kind of picture")),
    Case("a picture that is a folder", f"{PLOT} --output noise", ("noise: a folder",)),
    Case("a picture below a file", f"{PLOT} --output file/a.png", ("file", "is a file")),
    # -- manifests and folders
    Case("no manifest", "evaluate --manifest gone.csv --output-dir out", ("gone.csv", "no such manifest")),
    Case("recordings missing from a manifest: evaluate", "evaluate --manifest missing.csv --output-dir out",
         ("gone.wav: no such file", "text.wav: not an audio file"), lines=2),
    Case("recordings missing from a manifest: simulate", "simulate --manifest missing.csv --noise noise --snr 5 "
         "--output-dir out", ("gone.wav: no such file", "text.wav: not an audio file"), lines=2),
    Case("noise that is none", "simulate --manifest clean.csv --noise bad --snr 5 --output-dir out",
         ("bad/noise.wav: not an audio file",)),
    Case("no words", "evaluate --manifest silent.csv --output-dir out", ("silent.csv", "no words")),
    Case("no such condition", f"{EVALUATE} --output-dir out --conditions loud", ("no condition loud",)),
    Case("no such system", f"{EVALUATE} --output-dir out --systems none,magic", ("unknown strategy 'magic'",)),
    Case("no noise folder", "simulate --manifest clean.csv --noise gone --snr 5 --output-dir out", ("no such folder",)),
    Case("a package where there is something", f"{IMPORT} --output-dir noise", ("noise", "not empty")),
    Case("no checkpoint", "import-sgmse gone.ckpt --output-dir out", ("gone.ckpt: no such file",)),
    Case("too long for a picture", "plot-trajectory long.wav --output out.png", ("long.wav", "at most 20 s")),
    Case("no file for a picture", "plot-trajectory gone.wav --output out.png", ("gone.wav: no such file",)),
    # -- values of options
    *(Case(f"--guidance {value}: {command.split()[0]}", f"{command} --guidance {value}", ("--guidance", value))
      for value in ("nan", "-inf", "much")
      for command in (f"{ENHANCE} a.wav", f"{CLASSIFY} a.png", f"{EVALUATE} --output-dir out")),
    *(Case(f"{option} {value}: {command.split()[0]}", f"{command} {option} {value}", (option, value))
      for option, value in (("--steps", "0"), ("--steps", "-3"), ("--steps", "two"), ("--samples", "0"),
                            ("--seed", "-1"), ("--seed", "99999999999"), ("--seed", "1.5"))
      for command in (f"{ENHANCE} a.wav", f"{EVALUATE} --output-dir out")),
    *(Case(f"--seed {value}: {command.split()[0]}", f"{command} --seed {value}", ("--seed", value))
      for value in ("-1", "x") for command in (f"{SIMULATE} --output-dir out", PLOT, "demo --output-dir out")),
    *(Case(f"--batch-seconds {value}", f"{EVALUATE} --output-dir out --batch-seconds {value}",
           ("--batch-seconds", value)) for value in ("nan", "0", "-1", "inf")),
    *(Case(f"benchmark {option}", f"benchmark {option}", tuple(option.split()))
      for option in ("--threads -1", "--threads 0", "--threads 99999999", "--seconds nan", "--seconds 0",
                     "--repeats 0", "--steps 0")),
    *(Case(f"--snr {value}", f"simulate --manifest clean.csv --noise noise --snr {value} --output-dir out",
           ("--snr", value)) for value in ("nan", "5,inf", "-5,x", "5,,6", "5,5", "-5,nan")),
    *(Case(f"nothing in {option}", f"{EVALUATE} --output-dir out {option} ''", (option, "at least one"))
      for option in ("--conditions", "--systems")),
    Case("no such device", f"{ENHANCE} a.wav --device tpu9", ("'tpu9'", "cpu")),
    Case("no such verb", "enhance a.wav", ("invalid choice: 'enhance'",)),
    Case("no such option", f"{ENHANCE} a.wav --loud", ("--loud",)),
]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A folder with recordings, noise, a picture and manifests, good and bad ones."""
    folder = tmp_path_factory.mktemp("material")
    draw = np.random.default_rng(0)
    for name, seconds in (("a.wav", 0.5), ("b.wav", 0.6), ("empty.wav", 0.0), ("long.wav", 21.0), ("noise/n.wav", 1.0),
                          ("a.enhanced.wav", 0.5)):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, 0.1 * draw.standard_normal(int(seconds * RATE)), RATE)
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "bad").mkdir()
    shutil.copy(folder / "text.wav", folder / "bad" / "noise.wav")
    (folder / "clean").mkdir()
    (folder / "clean" / "manifest.csv").write_text(TEXTS["clean.csv"].replace(",a.wav", ",../a.wav").replace(
        ",b.wav", ",../b.wav"))
    (folder / "clash" / "a.enhanced.wav").mkdir()
    (folder / "nowhere").symlink_to("gone")
    pytest.importorskip("PIL.Image").new("RGB", (8, 8)).save(folder / "a.png")
    return folder


@pytest.fixture
def no_models(monkeypatch):
    """Loading a model fails the test."""
    from cdasr.classifiers import load
    from cdasr.coupled import package

    def refuse(*given, **options):
        raise AssertionError("a model is loaded before the input is checked")
    monkeypatch.setattr(package, "find_package", refuse)  # where reading any package begins
    monkeypatch.setattr(load, "load_recogniser", refuse)


def files_in(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
            for path in folder.rglob("*") if path.name != ".lock"}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input(case, material, package_dir, tmp_path, monkeypatch, capsys, request):
    if not case.loads:
        request.getfixturevalue("no_models")
    folder = tmp_path / "here"
    shutil.copytree(material, folder, symlinks=True)
    monkeypatch.chdir(folder)
    before = files_in(folder)
    assert main(shlex.split(case.command.replace("PACKAGE", str(package_dir)))) == case.code
    shown = [line for line in capsys.readouterr().err.splitlines() if "it/s]" not in line and "utt/s]" not in line]
    assert len(shown) == case.lines, shown
    assert all(word in " ".join(shown) for word in case.words), shown
    assert all(line.startswith(("cdasr: ", "wrote ")) for line in shown)
    after = files_in(folder)
    made = {os.path.dirname(name) for name in case.new} - {""}
    assert after.keys() - before.keys() == {*case.new, *made} and before.items() <= after.items()
