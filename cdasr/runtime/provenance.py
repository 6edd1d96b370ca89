"""Where a result comes from: the command, settings, versions and seed that every result file records."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

PACKAGES = ("cdasr", "torch", "torchaudio", "speechbrain", "transformers", "jiwer", "numpy", "torchvision")


def record(**settings) -> dict:
    """A record of this run: command, time (UTC), versions, commit, machine, and `settings` without its folders."""
    return {"command": command_line(), "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            "commit": commit(), "machine": machine(), "settings": _without_folders(settings)}


def machine() -> dict:
    """System, processor, number of cores and, where this run has used one, the GPU."""
    found = {"system": platform.system(), "processor": platform.machine(), "cores": os.cpu_count()}
    torch = sys.modules.get("torch")  # not imported for this alone
    if torch is not None and torch.cuda.is_initialized():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def command_line() -> str:
    """The command as typed, without the folders of this machine."""
    return " ".join([program_name(), *map(_without_folders, sys.argv[1:])])


def program_name() -> str:
    """The name of the program that runs: of its file, or of the package that `python -m` was given."""
    path = Path(sys.argv[0])
    return path.parent.name if path.name == "__main__.py" else path.name


def _without_folders(value):
    """`value` with paths cut to what is below the working directory, else to their names.

    Paths may also follow a `=` or `,`, as in `--noise=/a/b` or a list.
    """
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        return value
    return "".join(_relative(part) if os.path.isabs(part) or part.startswith("../") else part
                   for part in re.split(r"([=,])", value))


def _relative(path: str) -> str:
    here = Path.cwd()
    path = os.path.abspath(path)
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else Path(path).name


def commit() -> str | None:
    """The commit of the repository that this code runs from, with `+changes` if it differs; None outside one."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True,
                              check=True, timeout=10).stdout.strip()
    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # else an environment inside somebody's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
