"""Where a result comes from: the command, settings, versions and seed that every result file records."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path

PACKAGES = ("cdasr", "torch", "torchaudio", "speechbrain", "transformers", "jiwer", "numpy")


def record(**settings) -> dict:
    """A record of this run: command, time (UTC), versions, commit, threads, and `settings` as given."""
    return {"command": command_line(), "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
            "commit": commit(), "machine": {"system": platform.system(), "processor": platform.machine(),
                                            "cores": os.cpu_count()}, "settings": settings}


def command_line() -> str:
    """The command as typed, without the folders of this machine."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    here = f"{Path.cwd()}{os.sep}"
    return " ".join(Path(word).name if os.path.isabs(word) and not word.startswith(here) else word.replace(here, "")
                    for word in words)


def commit() -> str | None:
    """The commit of the repository that this code runs from, with `+changes` if it differs; None outside one."""
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(Path(__file__).parent), *words], capture_output=True, text=True,
                              check=True, timeout=10).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def write_json(path: str | os.PathLike, data: object) -> None:
    """Write JSON atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
