"""The runner of all recipes: which stages it runs, as which commands, and that it stops where one fails."""

import os
import subprocess
import sys

import pytest

from cdasr.recipe.runner import Stage, run

STAGES = (Stage("fetch", "get it", own=True), Stage("build", "make it", trains=True), Stage("check", "look at it"))
PREPARE = """
import pathlib, sys
with open("ran.txt", "a") as file:
    print(*sys.argv[1:], file=file)
sys.exit(3 if pathlib.Path("fail").exists() else 0)
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe whose stages write down how they were called; returns a function that gives those lines."""
    (tmp_path / "mine" / "hparams").mkdir(parents=True)
    (tmp_path / "mine" / "hparams" / "default.yaml").write_text("exp_dir: exp/mine\nnproc: 1\nnet: {size: 3}\n")
    (tmp_path / "mine" / "hparams" / "tiny.yaml").write_text("exp_dir: exp/tiny\n")
    (tmp_path / "mine" / "prepare.py").write_text(PREPARE)
    monkeypatch.chdir(tmp_path)

    def ran():
        lines = (tmp_path / "ran.txt").read_text().splitlines() if (tmp_path / "ran.txt").exists() else []
        (tmp_path / "ran.txt").unlink(missing_ok=True)
        return lines
    return ran


def go(*options):
    def write_down(stage):
        def function(hparams):
            with open("ran.txt", "a") as file:
                print(stage, hparams["net"]["size"], file=file)
            if os.path.exists("fail"):
                raise ValueError("failed")
        return function
    return run(STAGES, {name: write_down(name) for name in ("build", "check")}, "stages_of_mine", options)


def test_stages_run_once_in_their_order(recipe, tmp_path, capfd):
    assert go("--recipe", "mine", "--size", "tiny", "--net.size", "5") == 0
    given = "--hparams mine/hparams/default.yaml --hparams mine/hparams/tiny.yaml --net.size 5"
    assert recipe() == [f"fetch {given}", "build 5", "check 5"]
    assert {path.name for path in (tmp_path / "exp" / "tiny" / "done").iterdir()} == {"stage0", "stage1", "stage2"}
    assert go("--recipe", "mine", "--size=tiny", "--net.size=5") == 0
    assert recipe() == [] and capfd.readouterr().out.count("done already") == 3
    assert go("--recipe=mine", "--size=tiny", "--net.size=5", "--stage", "check", "--redo", "true") == 0
    assert recipe() == ["check 5"]


def test_a_failed_stage_ends_the_run_and_is_not_done(recipe, tmp_path):
    (tmp_path / "fail").touch()
    assert go("--recipe", "mine") == 3 and len(recipe()) == 1
    (tmp_path / "fail").unlink()
    assert go("--recipe", "mine", "--stop_stage", "1") == 0 and len(recipe()) == 2
    (tmp_path / "fail").touch()
    with pytest.raises(ValueError, match=r"^stage 1 \(build\): failed$"):
        go("--recipe", "mine", "--stage", "1", "--redo", "true")
    assert not (tmp_path / "exp" / "mine" / "done" / "stage1").exists(), "a stage that failed again is not done"


def test_several_processes_are_started_by_torchrun(recipe, monkeypatch):
    from torch.distributed.run import get_args_parser

    commands = []
    monkeypatch.setattr(subprocess, "call", lambda command: commands.append(command) or 0)
    assert go("--recipe", "mine", "--nproc", "4") == 0
    assert ["torch.distributed.run" in command for command in commands] == [False, True]
    understood = get_args_parser().parse_args(commands[1][3:])
    assert understood.nproc_per_node == "4" and understood.training_script == "stages_of_mine" and understood.module
    assert understood.training_script_args == ["build", "--hparams", "mine/hparams/default.yaml", "--nproc", "4"]
    assert recipe() == ["check 3"] and all(command[0] == sys.executable for command in commands)


@pytest.mark.parametrize("options, reason", [
    (["--recipe", "mine", "--no-such-key", "1"], "no key 'no_such_key'"), (["--recipe", "mine", "--stage"], "a value"),
    (["--recipe", "mine", "--stage", "3"], "0 to 2"), (["--recipe", "mine", "--size", "huge"], "default, tiny"),
    (["--recipe", "other"], "no recipe there"), (["--recipe", "mine", "--redo", "yes"], "true or false"),
    (["--recipe", "mine", "--stage", "chek"], "did you mean check"),
    (["--recipe", "mine", "--stag", "1"], "mean stage"),
    (["--recipe", "mine", "--stage", "2", "--stop-stage", "1"], "comes before"),
    (["--recipe", "mine", "--size", "tny"], "did you mean tiny"),
    (["--recipe", "mine", "--stale", "no"], "redo, refuse or keep"),
    (["--recipe", "mine", "--net.size", "two"], "net.size must be a whole number, got 'two'"), ([], "--recipe DIR"),
    (["--recipe", "mine", "4"], "expected --option value")])
def test_wrong_options_are_named_before_anything_runs(recipe, options, reason):
    with pytest.raises(ValueError, match=reason):
        go(*options)
    assert recipe() == []


def test_help_names_stages_sizes_and_keys(recipe, capsys):
    assert go("--recipe", "mine", "--help") == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("1 build", "make it", "default, tiny", "--exp-dir", "--nproc"))
