"""What is said on stderr, and files that are done one by one: one that cannot be used does not stop the others."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from cdasr.runtime.errors import explain
from cdasr.runtime.outputs import check_folder, check_target, output_names


def note(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr)


def printable(name: object) -> str:
    """A name in one line: line breaks and what else is no character to print are written as in Python."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(name))


def naming(message: str, name: object) -> str:
    """A message with the `name` in it printable, also where the message was brought into one line before."""
    for found in (str(name), " ".join(str(name).split())):
        if found:  # a name can be a blank
            message = message.replace(found, printable(name))
    return message


def complain(fault: object) -> None:
    """Print what is wrong on stderr, each line after the program's name."""
    for line in str(fault).splitlines():
        note(f"cdasr: {line}")


def introduced(pipeline, name: str):
    """The pipeline; stderr says what its package is for."""
    if pipeline.about:
        note(f"cdasr: package {name}: {pipeline.about}")
    return pipeline


def process_files(files: Sequence[Path], faults: dict[Path, str], output_dir: Path | None, suffix: str,
                  load: Callable, process: Callable) -> int:
    """`process(model, path, target)` for each file that has no fault. Returns the exit code.

    `faults` says what is wrong with a file. `target` is the file in `output_dir` that what is made of `path` goes to,
    None without a folder. The model is `load()`; it is only loaded where there is something to do. `process` returns a
    result that says whether it is out of domain.
    """
    targets = _targets(files, faults, output_dir, suffix)
    for fault in faults.values():
        complain(fault)
    usable = [path for path in files if path not in faults]
    if not usable:
        return 2
    model, failed = load(), bool(faults)
    for path in usable:
        try:
            if process(model, path, targets.get(path)).out_of_domain:
                note(f"cdasr: {path}: unlike what the package was trained for; its answer means little")
        except BrokenPipeError:
            raise
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            complain(message if message.startswith(str(path)) else f"{path}: {message}")
            failed = True
    return 2 if failed else 0


def _targets(files: Iterable[Path], faults: dict[Path, str], output_dir: Path | None, suffix: str) -> dict[Path, Path]:
    """Where the output of each file goes, checked; adds to `faults` the files of which the output has no place."""
    if not output_dir:
        return {}
    check_folder(output_dir)
    targets = output_names(files, output_dir, suffix)
    for path, target in targets.items():
        try:
            check_target(target)
        except ValueError as error:
            faults.setdefault(path, f"{path}: {error}")
    return targets


def quieten_libraries() -> None:
    """Keep loading bars and advice of the libraries out of the user's terminal."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    transformers.utils.logging.disable_progress_bar()


def leave_stdout() -> None:
    """Have what is left in the buffer of stdout go nowhere, where the interpreter would complain of it at its end."""
    with suppress(OSError, ValueError):  # where stdout is not a file of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ignore_interrupts() -> None:
    """Let Ctrl-C do nothing any more: at the end of a process it would only interrupt the libraries' tidying up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
