"""What a stage was done with: `exp_dir/done/stageN` holds the settings and inputs that the stage read.

A stage whose settings or inputs are others now, or that was done before an earlier stage was done again, is stale. A
setting belongs to the first stage that reads it: a change makes that stage stale, and through it all later ones. A
setting that no stage names belongs to the first stage of all. `stageN.started` is the same record of a stage that has
begun and not ended: it may only go on with the same settings.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cdasr.recipe.fingerprints import describe, describe_named, digest
from cdasr.runtime.atomic import write_bytes, write_json

ELSEWHERE = ("exp_dir", "device", "threads", "nproc", "tensorboard", "decode.overwrite")  # where and how fast, not what
ANY_WORKERS = ("workers", "checkpoint_minutes", "tensorboard", "jobs")  # likewise, in every section
CORPORA = ("CDASR_FSDD", "CDASR_LIBRISPEECH", "CDASR_IMAGES")  # stand for an empty data_dir
UNKNOWN = "unrecorded"


@dataclass(frozen=True)
class Stage:
    """A stage: its name on the command line and what it does, in a few words.

    - `own`: the recipe's `prepare.py` has it, where there is one. `trains`: it may run as several processes.
    - `reads`: the settings, as `outer.inner`, of which it is the first reader.
    - `files`: settings that hold paths of files or folders whose content it reads; `key:sub` for a part of a folder.
    - `lists`: settings, of those in `files`, whose files name other files, and the function that gives these: size and
      time of them count, too.
    - `compares`: settings, like those of `files`, whose files it compares itself with what it has made of them: a
      change makes it stale, and what it has made stays in its place.
    - `makes`: what it leaves in `exp_dir`, moved to `exp_dir/old` before it is done again.
    - `needs`: the earlier stages that it depends on; None: all.
    - `keyed`: it reuses its own results only where they are those of the same inputs, so that they may stay where it
      is done again with other settings.
    - `package`: it leaves the package of the recipe, in `exp_dir/<name>/package` and, as the latest, `exp_dir/package`.
    - `check`: raises ValueError where these settings cannot work here; asked before any stage of a run begins.
    """

    name: str
    about: str
    own: bool = False
    trains: bool = False
    reads: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    lists: Mapping[str, Callable[[str], Iterable[str]]] = field(default_factory=dict)
    compares: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    needs: tuple[str, ...] | None = None
    keyed: bool = False
    package: bool = False
    check: Callable[[Mapping], None] = lambda hparams: None

    def also(self, reads: tuple[str, ...], files: tuple[str, ...],
             lists: Mapping[str, Callable[[str], Iterable[str]]]) -> Stage:
        """The same stage, which is the first reader of further settings and files."""
        return replace(self, reads=(*self.reads, *reads), files=(*self.files, *files), lists={**self.lists, **lists})


@dataclass(frozen=True)
class State:
    """Where a stage stands: `done`, `stale`, `started` (it goes on), `changed` (it cannot go on) or `new`; and why."""

    name: str
    why: str = ""
    inputs_changed: bool = False


class Markers:
    """The markers of the `stages` of one `exp_dir`."""

    def __init__(self, stages: Sequence[Stage], exp_dir: str | os.PathLike):
        self.stages, self.exp_dir = stages, Path(exp_dir)
        self._described: dict[str, str] = {}  # large folders are listed once between two stages
        self._before: dict[int, tuple[bytes | None, list[tuple[Path, Path]]]] = {}  # marker, what was moved and where

    def path(self, number: int) -> Path:
        return self.exp_dir / "done" / f"stage{number}"

    def _started(self, number: int) -> Path:
        return self.exp_dir / "done" / f"stage{number}.started"

    def record(self, number: int, hparams: Mapping) -> dict:
        """What a stage would be done with now."""
        stage = self.stages[number]
        settings = {key: value for key, value in _flat(hparams) if _owner(self.stages, key) == number}
        settings |= {f"content of {place}": self._once(path, lambda path: describe(path, self.exp_dir))
                     for _, place, path in input_paths(replace(stage, files=stage.compares), hparams)}
        inputs = {}
        for key, place, path in input_paths(stage, hparams):
            inputs[place] = self._once(path, lambda path: describe(path, self.exp_dir))
            if key in stage.lists:
                inputs[f"audio of {place}"] = self._once(
                    f"audio of {path}", lambda _, key=key, path=path: describe_named(path, stage.lists[key]))
        after = {other.name: self._identity(place) for place, other in enumerate(self.stages[:number])
                 if stage.needs is None or other.name in stage.needs}
        processes = hparams["nproc"] if stage.trains and "nproc" in hparams else 1
        return json.loads(json.dumps({"stage": stage.name, "settings": settings, "inputs": inputs, "after": after,
                                      "processes": processes}))

    def _once(self, name: str, found: Callable[[str], str]) -> str:
        if name not in self._described:
            self._described[name] = found(name)
        return self._described[name]

    def _identity(self, number: int) -> str | None:
        """What tells one run of a stage from another; None where it is not done."""
        if not self.path(number).is_file():
            return None
        return (_read(self.path(number)) or {}).get("id", UNKNOWN)

    def state(self, number: int, hparams: Mapping) -> State:
        """Where a stage stands with these hyper-parameters."""
        if self.path(number).is_file():
            old = _read(self.path(number))
            if old is None:
                return State("stale", "it was done by an earlier version, which did not record its settings")
            why = _differences(old, now := self.record(number, hparams))
            return State("stale", why, not _same(old, now, "inputs", "after")) if why else State("done")
        if self._started(number).is_file():
            old, now = _read(self._started(number)), self.record(number, hparams)
            why = _differences(old, now) if old else "what it was begun with is not recorded"
            if not why and old["processes"] != now["processes"]:
                why = f"nproc was {old['processes']}, is {now['processes']}"
            return State("changed", why, not (old and _same(old, now, "inputs", "after"))) if why else State("started")
        if not self.stages[number].keyed and any(_has_files(self.exp_dir / part) for part in self.stages[number].makes):
            return State("changed", "what it was begun with is not recorded")
        return State("new")

    def begin(self, number: int, hparams: Mapping, redo: bool = False) -> list[Path]:
        """Note that a stage begins: it is not done now, nor are those after it.

        Where it cannot go on from what it has made, or must not (`redo`), that is moved away; returns where to.
        """
        state, stage = self.state(number, hparams), self.stages[number]
        fresh = redo or state.name in ("stale", "changed")
        if stage.keyed:
            fresh = state.inputs_changed
        elif state.name == "done":
            fresh = redo
        record = self.record(number, hparams)
        marker = self.path(number).read_bytes() if self.path(number).is_file() else None
        self.path(number).unlink(missing_ok=True)
        moved = [(self.exp_dir / part, target) for part in stage.makes
                 if (target := set_aside(self.exp_dir, part))] if fresh else []
        self._before[number] = marker, moved
        write_json(self._started(number), record)
        return [target for _, target in moved]

    def give_up(self, number: int) -> bool:
        """Note that a stage has failed. Where it had been done and has made nothing new, all is as before it began.

        A mistyped setting then costs no results. Returns whether it was so.
        """
        marker, moved = self._before.pop(number, (None, []))
        if marker is None or not moved or any(_has_files(source) for source, _ in moved):
            return False
        for source, target in moved:
            if source.is_dir():
                shutil.rmtree(source)  # without files
            os.replace(target, source)
        write_bytes(self.path(number), marker)
        self._started(number).unlink(missing_ok=True)
        return True

    def end(self, number: int) -> None:
        """Note that a stage has ended well."""
        self._described.clear()
        record = _read(self._started(number)) or {}
        record["time"] = time.time_ns()
        record["id"] = digest(json.dumps(record, sort_keys=True).encode())
        write_json(self.path(number), record)
        self._started(number).unlink(missing_ok=True)


def set_aside(exp_dir: Path, part: str) -> Path | None:
    """Move `exp_dir/part` to `exp_dir/old`, its cache of logits excepted, which is deleted; None if it is not there."""
    source = exp_dir / part
    if not os.path.lexists(source):
        return None
    bank = source / "bank"
    if bank.is_symlink():
        bank.unlink()
    elif not source.is_symlink():
        shutil.rmtree(bank, ignore_errors=True)  # as large as all else, and made again from the rest
    name, number = part.replace("/", "-"), 1
    while os.path.lexists(target := exp_dir / "old" / f"{name}-{number}"):
        number += 1
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    return target


def keep_package(exp_dir: Path, name: str) -> None:
    """Make the package of stage `name`, which counts though it is stale, the latest one again."""
    source, target, partial = exp_dir / name / "package", exp_dir / "package", exp_dir / "package.partial"
    if not source.is_dir() or (target.is_dir() and _contents(source) == _contents(target)):
        return
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(partial, target)


def _contents(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): describe(file, folder) for file in folder.rglob("*") if file.is_file()}


def input_paths(stage: Stage, hparams: Mapping) -> Iterator[tuple[str, str, str]]:
    """The files and folders that a stage reads: the setting that names each, the same in words, and the path."""
    for entry in stage.files:
        key, _, sub = entry.partition(":")
        value = hparams
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if key == "data_dir" and not value:
            value = next((os.environ[name] for name in CORPORA if os.environ.get(name)), "")
        parts = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else [
            ("", value)]
        for name, path in parts:
            if isinstance(path, str) and path and (key != "asr" or Path(path).exists()):  # else a name on the hub
                yield key, f"{key}{'.' if name != '' else ''}{name} ({path})", os.path.join(path, sub) if sub else path


def _flat(values: Mapping, outer: str = "") -> Iterator[tuple[str, object]]:
    """The settings that count, as `outer.inner` and a value."""
    for key, value in values.items():
        path = f"{outer}{key}"
        if path in ELSEWHERE or key in ANY_WORKERS:
            continue
        if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
            yield from _flat(value, f"{path}.")
        else:
            yield path, value


def _owner(stages: Sequence[Stage], key: str) -> int:
    """The number of the first stage that reads a setting: the one that names it most closely, else the first."""
    found = [(len(name), number) for number, stage in enumerate(stages) for name in stage.reads
             if key == name or key.startswith(f"{name}.")]
    return max(found)[1] if found else 0


def _differences(old: Mapping, now: Mapping, shown: int = 3) -> str:
    """What is not as it was, in a few words; nothing where all is."""
    before, after = old.get("settings", {}), now["settings"]
    found = [f"{key} was {_short(before, key)}, is {_short(after, key)}" for key in dict.fromkeys((*before, *after))
             if key not in before or key not in after or before[key] != after[key]]
    before, after = old.get("inputs", {}), now["inputs"]
    found += [f"{key} has changed" for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]
    before, after = old.get("after", {}), now["after"]
    found += [f"stage {name} {'is not done' if after.get(name) is None else 'was done again'}"
              for name in dict.fromkeys((*before, *after)) if before.get(name) != after.get(name)]
    more = [f"and {len(found) - shown} more"] if len(found) > shown else []
    return ", ".join(found[:shown] + more)


def _short(values: Mapping, key: str) -> str:
    text = json.dumps(values[key], ensure_ascii=False) if key in values else "not there"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _same(old: Mapping, now: Mapping, *parts: str) -> bool:
    return all(old.get(part) == now.get(part) for part in parts)


def _read(path: Path) -> dict | None:
    """A marker; None for one that is not ours to read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _has_files(path: Path) -> bool:
    """Whether something was written there, links that a user has laid excepted."""
    if path.is_symlink() or not path.exists():
        return False
    return path.is_file() or any(file.is_file() and not file.is_symlink() for file in path.rglob("*"))
