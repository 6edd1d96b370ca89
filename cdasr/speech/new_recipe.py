"""`cdasr new-recipe`: a recipe for a corpus that there is a manifest of, without any Python to write."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from cdasr.runtime.atomic import replacing_folder, write_text
from cdasr.runtime.outputs import check_folder
from cdasr.speech.corpus import read_manifests

TEMPLATES = Path(__file__).parents[1] / "recipe" / "templates"
FILES = {"run.sh": "run.sh", "README.md": "README.md", "default.yaml": "hparams/default.yaml",
         "tiny.yaml": "hparams/tiny.yaml"}
SETS = ("train", "valid", "test")


def new_recipe(name: str, manifests: Mapping[str, str | os.PathLike], output_dir: str | os.PathLike,
               asr: str) -> Path:
    """Write `output_dir/name`: run.sh, hparams and README for the `manifests` of train, test and perhaps valid.

    Raises ValueError, before anything is written, for an unusable name, a folder that is there already, and manifests
    that cannot be used, with the faults of all of them (`read_manifest`).
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"{name!r} cannot be a recipe's name; use letters, digits, - and _")
    if unknown := sorted(set(manifests) - set(SETS)):
        raise ValueError(f"--manifest {unknown[0]}=...: unknown set; known: {', '.join(SETS)}")
    if missing := [part for part in ("train", "test") if part not in manifests]:
        raise ValueError(f"a recipe needs a {missing[0]} set; give --manifest {missing[0]}=PATH")
    folder = Path(output_dir) / name
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another name, or delete it")
    check_folder(folder)
    read_manifests(manifests)
    values = {"NAME": name, "FOLDER": os.path.relpath(folder), "ASR": _quoted(asr),
              **{part.upper(): _quoted(os.path.abspath(manifests[part]) if part in manifests else "") for part in SETS}}
    with replacing_folder(folder) as partial:  # whole or not at all
        for source, target in FILES.items():
            text = (TEMPLATES / source).read_text(encoding="utf-8")
            for key, value in values.items():
                text = text.replace(f"@{key}@", value)
            write_text(partial / target, text)
    return folder


def _quoted(text: str) -> str:
    """A string for YAML, whatever is in it."""
    return json.dumps(text)
