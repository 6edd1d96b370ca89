"""What type of model a recogniser is, told by its files of plain data alone: this file loads no torch."""

from __future__ import annotations

import os
from pathlib import Path

from cdasr.classifiers.schema import Options, Reference
from cdasr.runtime.plain_data import checked, read_json

REFERENCE = "recogniser.json"  # in place of a copy: where a recogniser is, and the options to load it with
LONGEST = 8  # references one after another


def model_type(name_or_dir: str | os.PathLike) -> str | None:
    """The `model_type` of a recogniser's configuration, such as whisper or wav2vec2.

    None where nothing on this machine tells it, or where a file is damaged: loading the recogniser says what is wrong.
    """
    revision = None
    try:
        for _ in range(LONGEST + 1):
            if not os.path.isfile(reference := Path(name_or_dir) / REFERENCE):
                config = Path(name_or_dir) / "config.json" if os.path.isdir(name_or_dir) else _cached(
                    os.fspath(name_or_dir), revision)
                found = None if config is None else read_json(config).get("model_type")
                return found if isinstance(found, str) else None
            stored = checked(Reference, read_json(reference))
            name_or_dir = stored.name
            revision = stored.options.get("revision") and checked(Options, stored.options).revision
    except (ValueError, OSError):
        pass
    return None


def _cached(name: str, revision: str | None) -> Path | None:
    """The configuration of a model in the hub's cache, where it is there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(found) if isinstance(found, str) else None
