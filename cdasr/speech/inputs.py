"""Whether recordings can be used, by their headers alone: asked before a model is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterable

from cdasr.runtime.errors import Faults, explain
from cdasr.speech.audio import file_format


def unusable(paths: Iterable[str | os.PathLike]) -> dict[str | os.PathLike, str]:
    """What is wrong, in one line that names the file, with each of `paths` that cannot be used."""
    faults = {}
    for path in dict.fromkeys(paths):
        try:
            if file_format(path)[1] == 0:
                faults[path] = f"{path}: the file has no samples"
        except (ValueError, OSError) as error:
            faults[path] = explain(error)
    return faults


def check_files(paths: Iterable[str | os.PathLike]) -> None:
    """Raise `Faults`, all at once, for recordings that cannot be used."""
    if faults := unusable(paths):
        raise Faults(list(faults.values()))
