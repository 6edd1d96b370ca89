"""Inputs that go wrong: for each, the exit code, one line that says why, and what is on disk afterwards.

A case is a command as a user types it, in a folder that holds what `material` writes. To add one, add a line to CASES.
"""

from __future__ import annotations

import os
import shlex
import shutil
import zipfile
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
    "apart.csv": HEADER + "c,0.5,c.wav,four\n",
    "empty.csv": HEADER,
    "twice.csv": HEADER + "a,0.5,a.wav,one\na,0.6,b.wav,two\n",
    "quote.csv": HEADER + 'a,0.5,a.wav,"one\nb,0.6,b.wav,two\n',
    "comma.csv": HEADER + "a,0.5,a.wav,one, two\n",
    "nowav.csv": "ID,duration,text\na,0.5,one\n",
    "outside.jsonl": '{"audio_filepath": "a.wav", "offset": 0.4, "duration": 3.0, "text": "one"}\n',
    "torn.jsonl": '{"audio_filepath": "a.wav", "text": "one"}\n{"audio_fi',
    "kaldi/text": "a one\n",
    "nothing/text": "",
    "taken/run.sh": "mine",
    "mine/hparams/default.yaml": "base: speech\nexp_dir: exp\n",
    "torn/hparams/default.yaml": "base: speech\nsignal: {lr: [\n",
    "odd/hparams/default.yaml": "- a\n",
    "zero.m4a": "",
    "begun/evaluate.json": "{}",
    "zero.csv": "",
    "zero.yaml": "",
    "-dash.wav": "",
    "unsafe/hparams/default.yaml": "base: speech\nexp_dir: !!python/object/apply:os.system [touch ran]\n",
}
MANIFESTS = {  # by what is wrong: a manifest, and what the message has in it
    "gone": ("gone.csv", "no such manifest"), "no rows": ("empty.csv", "no utterances"),
    "an ID twice": ("twice.csv", "line 3 repeats the ID 'a'"), "an open quote": ("quote.csv", "line 2: a quote"),
    "a comma": ("comma.csv", "line 2: 5 fields"), "no audio column": ("nowav.csv", "nowav.csv"),
    "outside the recording": ("outside.jsonl", "line 1: 0.4 to 3.4 s is outside"),
    "torn JSON": ("torn.jsonl", "line 2"), "Kaldi without wav.scp": ("kaldi", "wav.scp"),
    "a folder that is no manifest": ("noise", "noise"), "audio": ("a.wav", "a.wav"),
    "a device": ("/dev/null", "device")}
READERS = {"evaluate": "evaluate --output-dir out --manifest {}",
           "simulate": "simulate --noise noise --snr 5 --output-dir out --manifest {}",
           "new-recipe": "new-recipe corpus --output-dir out --manifest train={} --manifest test=apart.csv"}
LONG = "n" * 300
ENHANCE, CLASSIFY = "enhance-transcribe", "enhance-classify --model PACKAGE"
SIMULATE = "simulate --manifest clean.csv --noise noise --snr 5"
EVALUATE = "evaluate --manifest clean.csv --model PACKAGE"
NEW = "new-recipe corpus --output-dir out --manifest train=clean.csv --manifest test=apart.csv"
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
    Case("empty files", f"{ENHANCE} file zero.m4a", ("file: the file is empty (0 bytes)", "zero.m4a: the file is"),
         lines=2),
    Case("an empty path", f"{ENHANCE} ''", ("or the path is empty",)),
    Case("a name that begins with a dash", f"{ENHANCE} -dash.wav", ("write ./-dash.wav",)),
    *(Case(f"--compare with {option}", f"{ENHANCE} a.wav --compare {option}", (option.split()[0], "leave", "out"))
      for option in ("--strategy none", "--output-dir out", "--format srt", "--output-dir out --resume")),
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
    *(Case(f"an unwritable folder: {command.split()[0]}", f"{command} --output-dir /proc/out",
           ("/proc", "cannot be written to"))
      for command in (f"{ENHANCE} a.wav", SIMULATE, EVALUATE) if os.path.isdir("/proc/self")),
    Case("a report of what is not finished", "report begun --output-dir out", ("begun", "not finished")),
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
    *(Case(f"an empty manifest: {command.split()[0]}", f"{command} --manifest zero.csv", ("zero.csv", "0 bytes"))
      for command in (ENHANCE, "evaluate --output-dir out", "simulate --noise noise --snr 5 --output-dir out")),
    Case("an empty grid", "simulate clean.csv --grid zero.yaml --output-dir out", ("zero.yaml: the file is empty",)),
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
    *(Case(f"manifest, {what}: {verb}", command.format(name), (words,))
      for verb, command in READERS.items() for what, (name, words) in MANIFESTS.items()),
    # -- recipes
    *(Case(f"new-recipe {name!r}", f"{NEW.replace('corpus', shlex.quote(name))}", ("cannot be a recipe's name", name))
      for name in ("../up", "a/b", ".hidden", "two words")),
    Case("new-recipe where there is one", NEW.replace("corpus", "taken").replace(" out", " ."),
         ("taken is there already",)),
    Case("new-recipe below a file", NEW.replace(" out", " file"), ("file", "is a file")),
    Case("new-recipe with a name too long", NEW.replace("corpus", LONG), ("300 bytes", "shorten it")),
    Case("new-recipe without a test set", "new-recipe corpus --manifest train=clean.csv", ("needs a test set",)),
    Case("new-recipe without manifests", "new-recipe corpus", ("required: --manifest",)),
    Case("new-recipe with an unknown set", f"{NEW} --manifest dev=clean.csv", ("--manifest dev=", "train, valid, te")),
    Case("new-recipe with a set twice", f"{NEW} --manifest train=apart.csv", ("--manifest train=", "twice")),
    Case("new-recipe with no path", "new-recipe corpus --manifest train=", ("'train='", "train=PATH")),
    Case("new-recipe with several faults", "new-recipe corpus --output-dir out --manifest train=gone.csv "
         "--manifest test=empty.csv", ("gone.csv", "empty.csv"), lines=2),
    *(Case(f"config {what}", f"config {command}", words) for what, command, words in (
        ("of no recipe", "gone", ("gone: no recipe there",)),
        ("of a file", "file", ("file: no recipe there",)),
        ("of torn YAML", "torn", ("torn/hparams/default.yaml",)),
        ("of a list", "odd", ("odd/hparams/default.yaml",)),
        ("of YAML that would run code", "unsafe", ("unsafe/hparams/default.yaml",)),
        ("of no size", "mine --size huge", ("'huge'", "default")),
        ("with no such key", "mine --signal.lrr 1", ("'signal.lrr'", "did you mean signal.lr?")),
        ("with a word", "mine --signal.epochs two", ("signal.epochs must be a whole number, got 'two'",)),
        ("with NaN", "mine --signal.lr .nan", ("signal.lr must be finite",)),
        ("with a list for a number", "mine --signal.lr '[1]'", ("signal.lr must be a number",)),
        ("with a negative number", "mine --seed -1", ("seed must not be negative",)),
        ("with a share above 1", "mine --signal.clean-prob 2", ("clean_prob is a share from 0 to 1",)),
        ("with nothing after a key", "mine --signal.lr", ("--signal.lr needs a value",)),
        ("with what is no key", "mine signal.lr", ("expected --option value",)))),
    # -- packages and checkpoints
    *(Case(f"no package: {command.split()[0]}", f"{command} --model gone --output-dir out".replace(
        "--output-dir out", "" if command.split()[0] in ("benchmark", "plot-trajectory") else "--output-dir out"),
           ("gone: no such model package",), loads=True)
      for command in (f"{ENHANCE} a.wav", "enhance-classify a.png", "evaluate --manifest clean.csv", "benchmark",
                      "plot-trajectory a.wav")),
    *(Case(f"a file as package: {command.split()[0]}", f"{command} --model a.wav", ("a.wav", "package"), loads=True)
      for command in (f"{ENHANCE} a.wav", "enhance-classify a.png", "benchmark", "plot-trajectory a.wav")),
    *(Case(f"a folder as package: {command.split()[0]}", f"{command} --model noise", ("noise", "package"), loads=True)
      for command in (f"{ENHANCE} a.wav", "enhance-classify a.png", "benchmark", "plot-trajectory a.wav")),
    Case("a package of speech for images", "enhance-classify a.png --model PACKAGE", ("package",), loads=True),
    *(Case(f"a checkpoint that is {what}", f"import-sgmse {name} --output-dir out", (name,)) for what, name in (
        ("empty", "file"), ("audio", "a.wav"), ("a folder", "noise"), ("a device", "/dev/null"),
        ("text", "clean.csv"), ("a half archive", "half.ckpt"))),
    *(Case(f"import-sgmse {option}", f"import-sgmse file --output-dir out {option}", tuple(option.split()))
      for option in ("--steps 0", "--steps x", "--snr nan", "--snr loud")),
    Case("import-sgmse without a place", "import-sgmse file", ("required: --output-dir",)),
    # -- values of options
    *(Case(f"{option} {value}: {command.split()[0]}", f"{command} {option} {value}", (option, value))
      for option, value in (("--steps", "1e3"), ("--steps", "999999999"), ("--samples", "999999999"))
      for command in (f"{ENHANCE} a.wav", f"{CLASSIFY} a.png", f"{EVALUATE} --output-dir out")),
    *(Case(f"--device {device}: {command.split()[0]}", f"{command} --device {device}", (device, "try cpu"))
      for device in ("tpu9", "cuda:77", "meta", "''")
      for command in (f"{ENHANCE} a.wav", f"{CLASSIFY} a.png", "benchmark", PLOT, "demo --output-dir out")),
    *(Case(f"plot-trajectory {option}", f"{PLOT} {option}", tuple(option.split()))
      for option in ("--steps 0", "--strategy enhanced", "--precision fp8")),
    Case("a picture without a name", f"{PLOT} --output ''", ("give the name of a file",)),
    Case("benchmark of an endless recording", "benchmark --seconds 1e12", ("--seconds", "1e12")),
    Case("benchmark of too many runs", "benchmark --repeats 999999999", ("--repeats", "999999999")),
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
    Case("--remember -1", f"{EVALUATE} --output-dir out --remember -1", ("--remember", "-1")),
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
                          ("a.enhanced.wav", 0.5), ("c.wav", 0.5)):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, 0.1 * draw.standard_normal(int(seconds * RATE)), RATE)
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    with zipfile.ZipFile(folder / "half.ckpt", "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}")
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
