"""Where results go: checked before the work, each to a file of its own."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

NAME_LIMIT = 255  # bytes, where the system does not say


def check_folder(folder: str | os.PathLike) -> None:
    """Raise ValueError where results cannot be written to `folder`, which need not be there yet. Makes nothing."""
    found = _check_place(folder)
    try:
        tempfile.TemporaryFile(dir=found).close()  # /proc lets root believe that it may write
    except OSError as error:
        raise ValueError(f"{found}: this folder cannot be written to ({error.strerror}); choose another one") from None


def _check_place(folder: str | os.PathLike) -> Path:
    """The folder that is there, of `folder` and those above it. Raises ValueError as `check_folder` does."""
    folder = Path(os.path.abspath(folder))
    found = next(part for part in (folder, *folder.parents) if os.path.lexists(part))
    if not found.is_dir():
        what = "a link to nowhere" if not os.path.exists(found) else "a file"
        raise ValueError(f"{found}: results cannot be written there, it is {what} and not a folder")
    if not os.access(found, os.W_OK | os.X_OK):
        raise ValueError(f"{found}: this folder cannot be written to; choose another one")
    for part in folder.relative_to(found).parts:
        _check_name(part, found, folder)
    return found


def check_target(path: str | os.PathLike) -> None:
    """Raise ValueError where the file `path` cannot be written, as far as that is known before. Makes nothing."""
    path = Path(path)
    _check_place(path.parent)
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give the name of a file")
    _check_name(path.name, next(part for part in Path(os.path.abspath(path)).parents if part.is_dir()), path)


def output_names(files: Sequence[Path], folder: Path, suffix: str) -> dict[Path, Path]:
    """A file of its own in `folder` for what is made of each of `files`: its name with `suffix` in place of its own.

    Of files with one name, in several folders or of several formats, as much of the folders and of the old suffix is
    kept as tells them apart. Raises ValueError where that does not help, or an output would replace one of `files`.
    """
    groups = defaultdict(list)
    for file in dict.fromkeys(files):
        groups[_same_name(file.stem)].append(file)
    targets = {}
    for group in groups.values():
        places = {file: Path(os.path.abspath(file)) for file in group}
        if len(set(places.values())) == 1:
            targets |= {file: folder / f"{file.stem}{suffix}" for file in group}
            continue
        shared = os.path.commonpath([place.parent for place in places.values()])
        inside = {file: place.relative_to(shared) for file, place in places.items()}
        stems = [_same_name(str(place.with_suffix(""))) for place in dict.fromkeys(inside.values())]
        for file, place in inside.items():
            name = place.stem if len(set(stems)) == len(stems) else place.name
            targets[file] = folder / place.parent / f"{name}{suffix}"
    check_outputs([(target, str(os.path.abspath(file))) for file, target in targets.items()], files)
    return targets


def check_outputs(outputs: Iterable[tuple[Path, str]], inputs: Iterable[str | os.PathLike] = ()) -> None:
    """Raise ValueError where two of `outputs`, each with the name of what it is made of, are one file or an input.

    Names that differ only in case or in the form of their Unicode are one where the file system takes them for one.
    """
    outputs, blind, owners = list(outputs), {}, {}
    taken = {os.path.realpath(path): path for path in inputs}
    for path, owner in outputs:
        if path.parent not in blind:
            blind[path.parent] = ignores_case(path.parent), os.path.realpath(path.parent)
        ignores, parent = blind[path.parent]
        _check_name(path.name, path.parent, path)
        place = os.path.join(parent, path.name)
        if place in taken:
            raise ValueError(f"{owner}: what is made of it would replace the input {taken[place]}; choose another "
                             "output folder")
        first = owners.setdefault(_same_name(place) if ignores else place, owner)
        if first != owner:
            raise ValueError(f"{first} and {owner} would both be written to {path}; rename one of them")


def ignores_case(folder: str | os.PathLike) -> bool:
    """Whether the file system of `folder`, which need not be there yet, takes `a` and `A` for one name."""
    for part in (place := Path(os.path.abspath(folder)), *place.parents):
        other = part.with_name(part.name.swapcase()) if part.name else part
        if other != part and part.exists():
            return other.exists() and os.path.samefile(part, other)
    return False


def _same_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _check_name(name: str, folder: Path, path: Path) -> None:
    """Raise ValueError for a name that the file system of `folder` does not take."""
    try:
        limit = os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        limit = NAME_LIMIT
    if (length := len(os.fsencode(name))) > limit:
        raise ValueError(f"{str(path)[:80]}...: the name has {length} bytes, the file system takes {limit}; shorten it")
