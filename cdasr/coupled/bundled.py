"""Where a model package is: a bundled one by its name, or a folder. This file loads neither torch nor pydantic."""

from __future__ import annotations

import os
from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "bundled"


def find_package(name_or_dir: str | os.PathLike) -> Path:
    """The folder of a model package: a bundled one by name, or a path. Raises ValueError when there is none."""
    for folder in (Path(name_or_dir), BUNDLED / str(name_or_dir)):
        if (folder / "config.json").is_file():
            return folder
    bundled = sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))
    raise ValueError(f"{name_or_dir}: no such model package; give a folder that save_pretrained wrote, or a bundled "
                     f"name ({', '.join(bundled) or 'none is bundled'})")


def inside(folder: Path, name: object) -> Path:
    """The folder that a package names, which lies in it. Raises ValueError for any other name."""
    parts = Path(name).parts if isinstance(name, str) else ()
    if not parts or Path(name).is_absolute() or ".." in parts or "\0" in name or not (folder / name).is_dir():
        raise ValueError(f"{folder}: not a usable cdasr model package (recogniser {name!r} is no folder inside it)")
    return folder / name
