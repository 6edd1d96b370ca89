"""The staged runner of all recipes: what `bash recipes/<corpus>/run.sh [--stage N] [--stop-stage M] ...` does.

A recipe is a folder with `hparams/default.yaml`, further files of changes beside it that `--size` names, and, where the
corpus has a layout of its own, a `prepare.py` with the first stages. All others are functions of a module of the
package (`cdasr.recipe` for speech), whose `main` hands them over. `prepare.py` and, under torchrun, the stages that
train are processes of their own. A marker `exp_dir/done/stageN` says that a stage ended well.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from cdasr.recipe.hparams import load_hparams

OPTIONS = ("recipe", "stage", "stop_stage", "size", "redo", "stale")  # of the runner itself
HELP = """usage: bash {folder}/run.sh [--stage N] [--stop-stage M] [--size NAME] [--redo true] [--key value ...]

{stages}

A finished stage is skipped, unless --redo true; an interrupted one goes on where it was.
--size: {sizes}; of {folder}/hparams, also several: --size a,b
--key: every setting (`cdasr config {folder}` prints all), a nested one as --outer.inner:
{keys}
"""


@dataclass(frozen=True)
class Stage:
    """A stage: its name on the command line and what it does, in a few words.

    `own`: the recipe's `prepare.py` has it, where there is one. `trains`: it may run as several processes.
    """

    name: str
    about: str
    own: bool = False
    trains: bool = False


def run(stages: Sequence[Stage], functions: Mapping[str, Callable[[dict], None]], module: str,
        arguments: Sequence[str], base: str | None = None) -> int:
    """Run the stages of a recipe, numbered from 0, as `--recipe DIR [--stage N] [--stop-stage M] ...` says.

    `functions` are the stages that the recipe has not itself, by name, and `module` runs one of them alone, as
    `python -m module STAGE --hparams FILE ...`. Returns 0, or the exit code of the stage that failed. Raises ValueError
    for wrong options, before anything is run.
    """
    options, overrides = _split(arguments)
    if "recipe" not in options:
        raise ValueError("run needs --recipe DIR, the recipe's folder")
    folder = Path(options["recipe"])
    if "help" in options:
        print(_help(folder, stages, base))
        return 0
    files = _hparams_files(folder, options.get("size", "default"))
    hparams = load_hparams(files, overrides, base, OPTIONS)
    first = _number("stage", options.get("stage", "0"), len(stages))
    last = _number("stop-stage", options.get("stop_stage", str(len(stages) - 1)), len(stages))
    redo = {"true": True, "false": False}.get(options.get("redo", "false"))
    if redo is None:
        raise ValueError(f"--redo is true or false, got {options['redo']!r}")
    given = [word for file in files for word in ("--hparams", str(file))] + overrides
    nproc = hparams.get("nproc", 1)
    for number, stage in enumerate(stages):
        if first <= number <= last:
            marker = Path(hparams["exp_dir"]) / "done" / f"stage{number}"
            if marker.is_file() and not redo:
                print(f"stage {number} ({stage.name}): done already", flush=True)
                continue
            print(f"stage {number} ({stage.name}): {stage.about}", flush=True)
            marker.unlink(missing_ok=True)
            if command := _command(stage, folder, module, nproc):
                if code := subprocess.call([*command, *given]):
                    return code
            else:
                functions[stage.name](load_hparams(files, overrides, base))
                gc.collect()  # a stage's networks do not outlive it
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.touch()
    return 0


def config(folder: Path, arguments: Sequence[str]) -> str:
    """The settings of the recipe in `folder` as YAML, as `[--size NAME] [--key value ...]` make them."""
    options, overrides = _split(arguments)
    hparams = load_hparams(_hparams_files(folder, options.get("size", "default")), overrides, "speech", OPTIONS)
    return yaml.safe_dump(hparams, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def _command(stage: Stage, folder: Path, module: str, nproc: int) -> list[str]:
    """The command of a stage that is a process of its own, without its options; none where it is not."""
    if stage.own and (folder / "prepare.py").is_file():
        return [sys.executable, str(folder / "prepare.py"), stage.name]
    if stage.trains and nproc > 1:
        launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={nproc}"]
        return [sys.executable, "-m", *launcher, "-m", "--", module, stage.name]  # --: what follows is not torchrun's
    return []


def _split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The runner's own options, and the `--key value` pairs that are left for the hyper-parameters."""
    options: dict[str, str] = {}
    rest, words = [], list(arguments)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            options["help"] = "true"
            continue
        if not word.startswith("--"):
            raise ValueError(f"expected --option value, got {word!r}")
        name, equals, value = word.partition("=")
        if not equals:
            if not words:
                raise ValueError(f"{name} needs a value")
            value = words.pop(0)
        key = name[2:].replace("-", "_")
        if key in ("recipe", "stage", "stop_stage", "size", "redo"):
            options[key] = value
        else:
            rest += [name, value]
    return options, rest


def _hparams_files(folder: Path, size: str) -> list[Path]:
    """`hparams/default.yaml` of the recipe and the files of changes that `size` names, separated by commas."""
    known = _sizes(folder)
    names = [name for name in size.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no hparams for --size {unknown[0]!r} in {folder / 'hparams'}; known: {', '.join(known)}")
    return [folder / "hparams" / f"{name}.yaml" for name in ("default", *(name for name in names if name != "default"))]


def _sizes(folder: Path) -> list[str]:
    sizes = sorted(path.stem for path in (folder / "hparams").glob("*.yaml"))
    if "default" not in sizes:
        raise ValueError(f"{folder}: no recipe there (it has no hparams/default.yaml)")
    return sizes


def _number(name: str, text: str, count: int) -> int:
    if not text.isdecimal() or int(text) >= count:
        raise ValueError(f"--{name} is the number of a stage, 0 to {count - 1}; got {text!r}")
    return int(text)


def _help(folder: Path, stages: Sequence[Stage], base: str | None) -> str:
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    width = max(len(stage.name) for stage in stages)
    lines = [f"  {number} {stage.name:<{width}}  {stage.about}" for number, stage in enumerate(stages)]
    keys = load_hparams([folder / "hparams" / "default.yaml"], (), base)
    options = textwrap.fill(", ".join(f"--{key.replace('_', '-')}" for key in keys), 100, break_on_hyphens=False)
    return HELP.format(folder=folder, sizes=", ".join(_sizes(folder)), stages="\n".join(lines), keys=options)
