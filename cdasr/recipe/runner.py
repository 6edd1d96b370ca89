"""The staged runner of all recipes: what `bash recipes/<corpus>/run.sh [--stage N] [--stop-stage M] ...` does.

A recipe is a folder with `hparams/default.yaml`, further files of changes beside it that `--size` names, and, where the
corpus has a layout of its own, a `prepare.py` with the first stages. All others are functions of a module of the
package (`cdasr.recipe`), whose `main` hands them over. `prepare.py` and, under torchrun, the stages that
train are processes of their own. A marker `exp_dir/done/stageN` says that a stage ended well, and with which settings
and inputs (markers.py).
"""

from __future__ import annotations

import difflib
import gc
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path

import yaml

from cdasr.recipe.hparams import load_hparams
from cdasr.recipe.markers import Markers, Stage, input_paths, keep_package
from cdasr.runtime.errors import explain
from cdasr.runtime.lock import locked
from cdasr.runtime.outputs import check_target

ON_HUB = ("asr", "signal_init")  # may be a name, of a bundled package or on the hub
PATHS = ("/", "./", "../", "~")  # how what is no name begins
OPTIONS = ("recipe", "stage", "stop_stage", "size", "redo", "stale")  # of the runner itself
CAUSE = "CDASR_STAGE_CAUSE"  # environment variable: the file into which a stage's process writes why it failed
HELP = """usage: bash {folder}/run.sh [--stage N] [--stop-stage M] [--size NAME] [--redo true] [--key value ...]

{stages}

--stage and --stop-stage take numbers or names. A finished stage is skipped, unless --redo true, which does it again
from its beginning; an interrupted one goes on where it was.
--stale redo|refuse|keep: what to do with a finished stage whose settings or inputs have changed, or before which
another one was done again: do it again (the default; what it had made goes to exp_dir/old), stop, or keep it as it is
--size: {sizes}; of {folder}/hparams, also several: --size a,b
--key: every setting (`cdasr config {folder}` prints all), a nested one as --outer.inner:
{keys}
{data}"""


def run(stages: Sequence[Stage], functions: Mapping[str, Callable[[dict], None]], module: str,
        arguments: Sequence[str], base: str | None = None) -> int:
    """Run the stages of a recipe, numbered from 0, as `--recipe DIR [--stage N] [--stop-stage M] ...` says.

    `functions` are the stages that the recipe has not itself, by name, and `module` runs one of them alone, as
    `python -m module STAGE --hparams FILE ...`. Returns 0, or the exit code of the stage that failed. Raises ValueError
    for wrong options, before anything is run, and for a stage that failed, with its number and name.
    """
    options, overrides = _split(arguments)
    folder = recipe_folder(arguments)
    if "help" in options:
        print(_help(folder, stages, base))
        return 0
    files = _hparams_files(folder, options.get("size", "default"))
    hparams = load_hparams(files, overrides, base, OPTIONS)
    first = _number("stage", options.get("stage", "0"), stages)
    last = _number("stop-stage", options.get("stop_stage", str(len(stages) - 1)), stages)
    if last < first:
        raise ValueError(f"--stop-stage {last} ({stages[last].name}) comes before --stage {first} "
                         f"({stages[first].name}); nothing would be run")
    redo = _choice("redo", options.get("redo", "false"), ("true", "false")) == "true"
    stale = _choice("stale", options.get("stale", "redo"), ("redo", "refuse", "keep"))
    markers = Markers(stages, hparams["exp_dir"])
    _check_stale(markers, hparams, first, last, redo, stale)
    if not redo and all(markers.state(number, hparams).name == "done" for number in range(first, last + 1)):
        for number in range(first, last + 1):
            print(f"stage {number} ({stages[number].name}): done already", flush=True)
        return 0
    given = [word for file in files for word in ("--hparams", str(file))] + overrides
    _check_inputs(stages[first:last + 1], hparams, stale)
    with locked(hparams["exp_dir"], "run of a recipe"):
        for number in range(first, last + 1):
            stage = stages[number]
            if not _due(markers, number, hparams, redo, stale):
                continue
            command = _command(stage, folder, module, hparams["nproc"] if stage.trains else 1)
            alone = None if command else partial(functions[stage.name], deepcopy(hparams))
            done = False
            try:
                code = _run_stage(f"stage {number} ({stage.name})", command and [*command, *given], alone)
                if code:
                    return code
                markers.end(number)
                done = True
            except KeyboardInterrupt:
                done = True  # the same command goes on from here
                raise
            finally:
                if not done and markers.give_up(number):
                    print(f"stage {number} ({stage.name}): nothing was made; what it had made before is back in its "
                          "place", file=sys.stderr, flush=True)
    return 0


def recipe_folder(arguments: Sequence[str]) -> Path:
    """The folder that `--recipe` names."""
    options, _ = _split(arguments)
    if "recipe" not in options:
        raise ValueError("run needs --recipe DIR, the recipe's folder")
    return Path(options["recipe"])


def _check_stale(markers: Markers, hparams: Mapping, first: int, last: int, redo: bool, stale: str) -> None:
    """Say which stages before the first to run are stale; with `refuse` raise ValueError for any."""
    for number in range(last + 1):
        state = markers.state(number, hparams)
        name = f"stage {number} ({markers.stages[number].name})"
        if state.name not in ("stale", "changed") or (redo and number >= first):
            continue
        if stale == "refuse":
            raise ValueError(f"{name} is stale: {state.why}; give --stale redo to do it again, or --stale keep")
        if number < first and state.name == "stale":
            print(f"{name}: stale ({state.why}), but used as it is: it comes before --stage {first}", file=sys.stderr,
                  flush=True)


def _check_inputs(stages: Sequence[Stage], hparams: Mapping, stale: str) -> None:
    """Raise ValueError for a device, inputs and a place of results that cannot be, before anything is moved away."""
    if hparams.get("device"):
        from cdasr.runtime.device import resolve_device

        resolve_device(hparams["device"])
    if hparams.get("results"):
        check_target(hparams["results"])
    missing = {path: key for stage in stages for key, _, path in input_paths(stage, hparams)
               if not os.path.exists(path) and (key not in ON_HUB or path.startswith(PATHS))}
    if isinstance(name := hparams.get("asr"), str) and name.startswith(PATHS) and not os.path.exists(name):
        missing[name] = "asr"
    if missing and stale != "keep":
        raise ValueError("\n".join(f"{path}: no such file or folder; change --{key.replace('_', '-')}"
                                   for path, key in missing.items()))
    for stage in stages:
        stage.check(hparams)


def _due(markers: Markers, number: int, hparams: Mapping, redo: bool, stale: str) -> bool:
    """Whether a stage is to be run; says so, and prepares its place."""
    stage, state = markers.stages[number], markers.state(number, hparams)
    name = f"stage {number} ({stage.name})"
    if state.name == "done" and not redo:
        print(f"{name}: done already", flush=True)
        return False
    if state.name == "stale" and stale == "keep" and not redo:
        print(f"{name}: stale ({state.why}), kept as it is", flush=True)
        if stage.package:  # an earlier stage that was done again has put its own in this one's place
            keep_package(markers.exp_dir, stage.name)
        return False
    if state.name in ("stale", "changed"):
        print(f"{name}: {'stale' if state.name == 'stale' else 'cannot go on'} ({state.why}), done from its beginning",
              flush=True)
    for place in markers.begin(number, hparams, redo):
        print(f"{name}: what it had made is now {place}", flush=True)
    print(f"{name}: {stage.about}", flush=True)
    return True


def _run_stage(name: str, command: Sequence[str], function: Callable[[], None] | None) -> int:
    """Run a stage, by its command if it has one. Returns its exit code; raises ValueError with its cause."""
    if function is not None:
        try:
            function()
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            raise ValueError(f"{name}: {message}") from None
        gc.collect()  # a stage's networks do not outlive it
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        os.environ[CAUSE] = str(Path(scratch) / "cause")
        try:
            code = subprocess.call(command)
        finally:
            cause = Path(os.environ.pop(CAUSE))
        if code and cause.is_file():
            raise ValueError(f"{name}: {cause.read_text(encoding='utf-8').strip()}")
    if code and code != 130:  # interrupted by the user, who knows
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}, see above"
        print(f"{name}: {how}", file=sys.stderr, flush=True)
    return code


def tell_cause(error: BaseException) -> bool:
    """Write why a stage failed where the runner that started this process reads it; whether one did."""
    place = os.environ.get(CAUSE)
    if not place:
        return False
    text = explain(error) or f"{type(error).__name__}: {error}"
    try:
        with open(place, "x", encoding="utf-8") as file:  # of several processes the first tells
            file.write(" ".join(text.split()) + "\n")
    except OSError:
        pass
    return True


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
        if key in OPTIONS:
            options[key] = value
        else:
            rest += [name, value]
    return options, rest


def _hparams_files(folder: Path, size: str) -> list[Path]:
    """`hparams/default.yaml` of the recipe and the files of changes that `size` names, separated by commas."""
    known = _sizes(folder)
    names = [name for name in size.split(",") if name]
    if unknown := [name for name in names if name not in known]:
        near = difflib.get_close_matches(unknown[0], known, 1)
        raise ValueError(f"no hparams for --size {unknown[0]!r} in {folder / 'hparams'}; known: {', '.join(known)}"
                         + (f"; did you mean {near[0]}?" if near else ""))
    return [folder / "hparams" / f"{name}.yaml" for name in ("default", *(name for name in names if name != "default"))]


def _sizes(folder: Path) -> list[str]:
    sizes = sorted(path.stem for path in (folder / "hparams").glob("*.yaml"))
    if "default" not in sizes:
        raise ValueError(f"{folder}: no recipe there (it has no hparams/default.yaml)")
    return sizes


def _number(name: str, text: str, stages: Sequence[Stage]) -> int:
    """The number of a stage, given by number or name."""
    names = [stage.name for stage in stages]
    if text in names:
        return names.index(text)
    if text.isdecimal() and int(text) < len(stages):
        return int(text)
    near = difflib.get_close_matches(text, names, 1)
    raise ValueError(f"--{name} is the number or name of a stage, 0 to {len(stages) - 1} or {', '.join(names)}; got "
                     f"{text!r}" + (f"; did you mean {near[0]}?" if near else ""))


def _choice(name: str, text: str, known: Sequence[str]) -> str:
    if text not in known:
        raise ValueError(f"--{name} is {', '.join(known[:-1])} or {known[-1]}, got {text!r}")
    return text


def _help(folder: Path, stages: Sequence[Stage], base: str | None) -> str:
    folder = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    width = max(len(stage.name) for stage in stages)
    lines = [f"  {number} {stage.name:<{width}}  {stage.about}" for number, stage in enumerate(stages)]
    keys = load_hparams([folder / "hparams" / "default.yaml"], (), base)
    options = textwrap.fill(", ".join(f"--{key.replace('_', '-')}" for key in keys), 100, break_on_hyphens=False)
    own = _data_settings((folder / "hparams" / "default.yaml").read_text(encoding="utf-8"))
    data = "\nof this corpus, with their defaults:\n" + "\n".join(own) + "\n" if own else ""
    return HELP.format(folder=folder, sizes=", ".join(_sizes(folder)), stages="\n".join(lines), keys=options, data=data)


def _data_settings(text: str) -> list[str]:
    """A line for each setting in the section `data` of a default.yaml: option, default and the file's own comment."""
    section = re.search(r"^data:[ ]*\n((?:[ ]+.*\n?|\n)*)", text, re.MULTILINE)
    found = re.findall(r"^  (\w+):[ ]*(.*?)[ ]*(?:#[ ]*(.*))?$", section[1] if section else "", re.MULTILINE)
    options = [(f"--data.{key.replace('_', '-')} {value}", about) for key, value, about in found]
    width = max((len(option) for option, _ in options), default=0)
    return [f"  {option:<{width}}  {about}".rstrip() for option, about in options]
