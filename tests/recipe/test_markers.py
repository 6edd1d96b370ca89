"""Stages know what they were done with: a change of settings or inputs makes them and the later ones stale."""

import errno
import multiprocessing
import os
import re
from contextlib import suppress
from pathlib import Path

import pytest

from cdasr.recipe.markers import Markers, Stage, describe
from cdasr.recipe.runner import CAUSE, run, tell_cause
from cdasr.runtime.lock import locked
from cdasr.speech.recipe import recordings_in

STAGES = (Stage("fetch", "get it", reads=("source",)),
          Stage("build", "make it", reads=("net", "files"), files=("files",), lists={"files": recordings_in},
                makes=("build",)),
          Stage("side", "beside", reads=("side",), needs=("fetch",), makes=("side",)),
          Stage("decode", "say it", reads=("decode", "beside"), makes=("results",), keyed=True,
                compares=("beside",)),
          Stage("score", "count it", reads=("score",)))
YAML = ("exp_dir: exp\nsource: a\nnet: {size: 3, workers: 1}\nside: 1\nfiles: {train: t.csv}\ndecode: 1\nscore: 1\n"
        "own: 1\nbeside: ''\n")


@pytest.fixture
def home(tmp_path, monkeypatch):
    (tmp_path / "mine" / "hparams").mkdir(parents=True)
    (tmp_path / "mine" / "hparams" / "default.yaml").write_text(YAML)
    (tmp_path / "t.csv").write_text("one\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gc.collect", lambda: 0)  # slow where all libraries are loaded
    return tmp_path


class Stopped(Exception):
    pass


def go(*options, stop=None):
    """Run the recipe; what ran, in order. Each stage counts in its folder how often it went on; `stop` kills one."""
    ran = []

    def function(name):
        def work(hparams):
            ran.append(name)
            file = Path("exp") / ("results" if name == "decode" else name) / "checkpoints"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text((file.read_text() if file.exists() else "") + name[0])
            if name == "build":
                Path("exp/package").write_text("build")
            if name == stop:
                raise Stopped
        return work
    functions = {stage.name: function(stage.name) for stage in STAGES}
    with suppress(Stopped):
        assert run(STAGES, functions, "none", ["--recipe", "mine", *options]) == 0
    return ran


ALL = [stage.name for stage in STAGES]


def test_a_change_makes_this_and_later_stages_stale(home, capsys):
    assert go() == ALL and go() == []
    capsys.readouterr()
    assert go("--net.size", "5") == ["build", "decode", "score"], "side does not depend on build"
    said = capsys.readouterr().out
    assert "stage 1 (build): stale (net.size was 3, is 5), done from its beginning" in said
    assert "stage 3 (decode): stale (stage build was done again)" in said and "stage 2 (side): done already" in said
    assert (home / "exp" / "build" / "checkpoints").read_text() == "b", "from its beginning"
    assert (home / "exp" / "old" / "build-1" / "checkpoints").is_file(), "and nothing is lost"
    assert go("--net.size", "5", "--net.workers", "9") == [], "how fast is no matter"
    assert go("--net.size", "5", "--own", "2") == ALL, "what no stage names belongs to the first"


def test_a_stale_stage_is_refused_or_kept_as_the_user_says(home, capsys):
    go()
    before = {path: path.read_bytes() for path in (home / "exp").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"stage 1 \(build\) is stale: net.size was 3, is 5; give --stale redo"):
        go("--net.size", "5", "--stale", "refuse")
    assert go("--net.size", "5", "--stale", "keep") == []
    assert "kept as it is" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in (home / "exp").rglob("*") if path.is_file()} == before
    assert go("--net.size", "5", "--stage", "score", "--score", "2") == ["score"]
    assert "stage 1 (build): stale (net.size was 3, is 5), but used as it is" in capsys.readouterr().err


def test_later_stages_are_stale_in_the_moment_a_middle_one_begins(home):
    go()
    go("--stage", "build", "--stop-stage", "build", "--redo", "true", stop="build")
    assert not (home / "exp" / "done" / "stage1").exists()
    markers = Markers(STAGES, "exp")
    from cdasr.recipe.hparams import load_hparams
    state = markers.state(4, load_hparams(["mine/hparams/default.yaml"]))
    assert (state.name, state.why) == ("stale", "stage build is not done")
    assert go() == ["build", "decode", "score"]


def test_an_interrupted_stage_goes_on_with_the_same_settings_only(home, capsys):
    go(stop="build")
    assert go() == ALL[1:] and (home / "exp" / "build" / "checkpoints").read_text() == "bb"
    go("--net.size", "4", stop="build")
    capsys.readouterr()
    assert "build" in go("--net.size", "5") and (home / "exp" / "build" / "checkpoints").read_text() == "b"
    assert "stage 1 (build): cannot go on (net.size was 4, is 5)" in capsys.readouterr().out
    go("--stage", "build", "--net.size", "5", "--redo", "true")
    assert (home / "exp" / "build" / "checkpoints").read_text() == "b", "redo really does it again"
    assert (home / "exp" / "results" / "checkpoints").read_text() == "d", "of a stage before it that was done again"
    go("--stage", "decode", "--net.size", "5", "--redo", "true")
    assert (home / "exp" / "results" / "checkpoints").read_text() == "dd", "keyed by content: it knows by itself"


def test_inputs_count_by_content(home, capsys):
    go()
    os.utime(home / "t.csv", ns=(1, 1))
    assert go() == []
    (home / "t.csv").write_text("two\n")
    assert go() == ["build", "decode", "score"]
    assert "files.train (t.csv) has changed" in capsys.readouterr().out


def test_recordings_that_a_manifest_names_count_by_size_and_time(home, capsys, write_wav, tone):
    write_wav("a.wav", tone(0.5))
    (home / "t.csv").write_text("ID,duration,wav,text\na,0.5,a.wav,one\n")
    go()
    os.utime(home / "t.csv", ns=(1, 1))
    assert go() == []
    write_wav("a.wav", tone(0.5, 300))
    capsys.readouterr()
    assert go() == ["build", "decode", "score"]
    assert "stale (audio of files.train (t.csv) has changed)" in capsys.readouterr().out
    (home / "kaldi").mkdir()
    (home / "kaldi" / "wav.scp").write_text("a ../a.wav\n")
    (home / "kaldi" / "text").write_text("a one\n")
    assert go("--files.train", "kaldi") == ["build", "decode", "score"] and go("--files.train", "kaldi") == []
    write_wav("a.wav", tone(0.6))
    assert go("--files.train", "kaldi") == ["build", "decode", "score"]
    (home / "a.wav").unlink()
    assert go("--files.train", "kaldi") == ["build", "decode", "score"], "which then says that it is gone"


def test_linked_folders_are_listed_each_once(home):
    folder, other = home / "audio", home / "other"
    folder.mkdir(), other.mkdir()
    (folder / "linked").symlink_to(other)
    (other / "back").symlink_to(folder)
    first = describe(folder, home)
    (other / "a.wav").write_bytes(b"1")
    assert describe(folder, home) != first


@pytest.mark.parametrize("change", [("--files.train", "gone.csv"), ("--device", "tpu9")])
def test_a_mistyped_setting_moves_nothing_away(home, change):
    with (home / "mine" / "hparams" / "default.yaml").open("a") as file:
        file.write("device: cpu\n")
    go()
    before = sorted(home.rglob("*"))
    with pytest.raises(ValueError, match="gone.csv: no such file or folder; change --files|'tpu9' cannot be used"):
        go(*change, "--redo", "true")
    assert sorted(home.rglob("*")) == before and go() == []
    if "--files.train" in change:
        assert go(*change, "--stale", "keep") == [], "what is kept is not asked for"


@pytest.mark.parametrize("options", [("--net.size", "9"), ("--redo", "true")])
def test_a_stage_that_fails_before_it_makes_anything_is_done_as_before(home, capsys, options):
    go()
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}

    def fail(hparams):
        Path("exp/build/empty").mkdir(parents=True)
        raise ValueError("no such recogniser")
    functions = dict.fromkeys(ALL, fail)
    with pytest.raises(ValueError, match=r"stage 1 \(build\): no such recogniser"):
        run(STAGES, functions, "none", ["--recipe", "mine", "--stage", "build", *options])
    assert "what it had made before is back in its place" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file()} == before and go() == []


@pytest.mark.parametrize("error, said", [
    (OSError(errno.ENOSPC, "No space", "exp/x"), "exp/x: the disk is full"),
    (FileNotFoundError(errno.ENOENT, "No such file", "exp/r.json"), "exp/r.json: no such file or folder"),
    (MemoryError(), "not enough memory"), (re.error("missing )", "("), "'\\(' is not a regular expression")])
def test_what_a_person_can_mend_is_one_line(home, error, said):
    def fail(hparams):
        raise error
    with pytest.raises(ValueError, match=f"stage 1 .build.: {said}"):
        run(STAGES, {**dict.fromkeys(ALL, fail), "fetch": print}, "none", ["--recipe", "mine"])


def test_a_fault_of_the_code_keeps_its_traceback(home):
    def fail(hparams):
        raise KeyError("a")
    with pytest.raises(KeyError):
        run(STAGES, dict.fromkeys(ALL, fail), "none", ["--recipe", "mine"])


def test_a_stage_that_fails_later_keeps_what_it_has_made(home):
    go()

    def fail(hparams):
        Path("exp/build").mkdir()
        Path("exp/build/checkpoints").write_text("half")
        raise ValueError("the loss is not finite")
    with pytest.raises(ValueError, match="not finite"):
        run(STAGES, dict.fromkeys(ALL, fail), "none", ["--recipe", "mine", "--stage", "build", "--net.size", "9"])
    assert Path("exp/build/checkpoints").read_text() == "half" and not Path("exp/done/stage1").exists()
    assert go("--net.size", "9") == ["build", "decode", "score"]
    assert Path("exp/build/checkpoints").read_text() == "halfb", "it goes on"


def test_folders_count_by_their_listing_and_kaldi_tables_by_content(home):
    folder = home / "audio"
    (folder / "exp").mkdir(parents=True)
    (folder / "a.wav").write_bytes(b"1")
    first = describe(folder, folder / "exp")
    (folder / "exp" / "mine.txt").write_text("a recipe that writes into its corpus")
    assert describe(folder, folder / "exp") == first != describe(folder, home / "other")
    os.utime(folder / "a.wav", ns=(1, 1))
    assert describe(folder, folder / "exp") != first
    for name in ("wav.scp", "segments"):
        (folder / name).write_text("u1 rec 0 1\n")
    first = describe(folder, home)
    os.utime(folder / "segments", ns=(1, 1))
    (folder / "feats.ark").write_bytes(b"not read")
    assert describe(folder, home) == first
    (folder / "segments").write_text("u1 rec 0 2\n")
    assert describe(folder, home) != first


def test_markers_of_earlier_versions_and_unknown_leftovers_are_stale(home, capsys):
    go()
    (home / "exp" / "done" / "stage1").write_text("")
    assert go() == ["build", "decode", "score"]
    assert "stage 1 (build): stale (it was done by an earlier version" in capsys.readouterr().out
    (home / "exp" / "done" / "stage1").unlink()
    assert "build" in go() and (home / "exp" / "build" / "checkpoints").read_text() == "b"
    assert "cannot go on (what it was begun with is not recorded)" in capsys.readouterr().out


def test_a_middle_stage_does_not_replace_the_package_of_a_later_one_that_is_kept(home):
    stages = (Stage("early", "", reads=("net",), makes=("early",), package=True),
              Stage("late", "", reads=("side",), makes=("late",), package=True))

    def write(name):
        def work(hparams):
            for folder in (Path("exp") / name / "package", Path("exp/package")):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / "config.json").write_text(name)
        return work

    def latest(*options):
        run(stages, {stage.name: write(stage.name) for stage in stages}, "none", ["--recipe", "mine", *options])
        return Path("exp/package/config.json").read_text()

    assert latest() == "late"
    assert latest("--stop-stage", "early", "--redo", "true") == "early", "late is stale now"
    assert latest("--stale", "keep") == "late"
    assert latest("--stale", "redo", "--net.size", "2", "--stop-stage", "early") == "early" and latest() == "late"


def test_links_that_a_user_laid_are_used_and_never_emptied(home):
    (home / "shared").mkdir()
    (home / "shared" / "kept").write_text("kept")
    (home / "exp" / "build").mkdir(parents=True)
    (home / "exp" / "build" / "bank").symlink_to(home / "shared")
    assert go() == ALL and (home / "exp" / "build" / "bank" / "kept").is_file()
    assert "build" in go("--net.size", "7") and (home / "shared" / "kept").read_text() == "kept"


def hold(folder, held, done):
    with locked(folder, "run"):
        held.set()
        done.wait(20)


def test_a_second_run_in_one_folder_is_refused(home):
    spawn = multiprocessing.get_context("spawn")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=hold, args=("exp", held, done))
    other.start()
    assert held.wait(20)
    with pytest.raises(ValueError, match="exp: another run of a recipe is writing there"):
        go()
    other.kill()
    other.join()
    assert go() == ALL, "the lock of a killed process is gone"
    (home / "file").write_text("")
    with pytest.raises(ValueError, match="file: results cannot be written there, it is a file"):
        go("--exp-dir", "file")


def test_the_first_process_that_fails_tells_the_cause(home, monkeypatch):
    assert not tell_cause(ValueError("alone"))
    monkeypatch.setenv(CAUSE, str(home / "cause"))
    assert tell_cause(ValueError("first\nline")) and tell_cause(ValueError("second"))
    assert (home / "cause").read_text() == "first line\n"


def test_files_that_a_stage_compares_itself_make_it_stale_and_leave_what_it_made(home):
    (home / "peer").mkdir()
    (home / "peer" / "a.wav").write_bytes(b"one")
    beside = ("--beside", "peer")
    assert go() == ALL
    assert go(*beside) == ["decode", "score"] and go(*beside) == []
    (home / "peer" / "a.wav").write_bytes(b"other")
    assert go(*beside) == ["decode", "score"] and go(*beside) == []
    assert (home / "exp" / "results" / "checkpoints").read_text() == "ddd", "it went on from what it had"
