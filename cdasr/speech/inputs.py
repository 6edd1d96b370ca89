"""What `cdasr enhance-transcribe` is to transcribe: files, globs, folders, lists, manifests and standard input.

Whether recordings can be used is asked of their headers alone, before a model is loaded.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path

import numpy as np
import soundfile

from cdasr.runtime.errors import Faults, explain
from cdasr.runtime.files import read_text
from cdasr.speech.audio import UnknownFormat, file_format, read_audio

STDIN = Path("-")
STDIN_FILE = "stdin"  # while it is kept in a file
DECODED = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mkv", ".mov", ".avi", ".amr", ".3gp")  # not by soundfile
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf", *DECODED)
MADE = ".enhanced.wav"  # how the names of enhanced audio end; a folder's are no inputs of the next run
LONG = 120.0  # seconds; longer recordings are read and transcribed in pieces
LARGE = 1 << 20  # bytes of a file whose length only decoding it would tell, and that is taken for long
MISSING = "soundfile cannot read this file; if it is audio of another format, install ffmpeg or the Python package av"


@dataclass(frozen=True)
class Source:
    """A recording: the `path` that is read, the `name` that it is called by and that its outputs are named after.

    Of a manifest's row that is a part of its file, `start` and `stop` are in seconds, `channel` is counted from 0.
    """

    name: Path
    path: Path
    start: float = 0.0
    stop: float | None = None
    channel: int | None = None

    def read(self, rate: int) -> np.ndarray:
        """Mono samples (samples,) at `rate` Hz. Raises ValueError as `read_audio` does."""
        with readable(self.path) as path:
            return read_audio(path, rate, self.channel, self.start, self.stop)[0]

    def format(self) -> tuple[int, int] | None:
        """Rate in Hz and number of samples; None where only decoding the file would tell. Raises ValueError."""
        try:
            rate, samples = file_format(self.path)
        except UnknownFormat:
            if not _may_be_decoded(self.path):
                raise
            if not decoder():
                raise ValueError(f"{self.path}: {MISSING}") from None
            return None
        last = samples if self.stop is None else min(samples, round(self.stop * rate))
        return rate, last - round(self.start * rate)

    def long(self, found: tuple[int, int] | None) -> bool:
        """Whether it is better not read at once, by what `format` has found."""
        return self.path.stat().st_size > LARGE if found is None else found[1] > LONG * found[0]


def gather(files: Sequence[Path], recursive: bool = False, lists: Sequence[Path] = (),
           manifest: Path | None = None) -> tuple[list[Source], dict[Path, str]]:
    """The recordings, each once and in the order given, and what is wrong with any of them by its name.

    `lists` are text files with a path in each line, relative to where the command runs. Raises ValueError where there
    is nothing at all, or where a list or the manifest cannot be used.
    """
    for path in lists:
        lines = [line.strip() for line in read_text(path, "list").splitlines()]
        if not any(lines):
            raise ValueError(f"{path}: the list names no files; write one path in each line")
        files = [*files, *(Path(line) for line in lines if line)]
    if not files and manifest is None:
        raise ValueError("the following arguments are required: FILE, --list or --manifest "
                         "(see cdasr enhance-transcribe --help)")
    faults: dict[Path, str] = {}
    sources = [Source(path, path) for path in dict.fromkeys(_expanded(files, recursive, faults))]
    if manifest is not None:
        sources += _rows(manifest)
    for source in sources:
        if source.path != STDIN and source.name not in faults and (fault := _fault(source)):
            faults[source.name] = fault
    return sources, faults


def _expanded(files: Iterable[Path], recursive: bool, faults: dict[Path, str]) -> Iterator[Path]:
    """Each of `files` with globs and, where `recursive`, folders replaced by what is in them."""
    for path in files:
        if recursive and os.path.isdir(path):
            inside = sorted(found for found in path.rglob("*") if found.suffix.lower() in SUFFIXES and found.is_file()
                            and not found.name.startswith(".") and not found.name.endswith(MADE))
            if not inside:
                faults[path] = f"{path}: no recordings in this folder"
            yield from inside or [path]
        elif glob.has_magic(str(path)) and not os.path.lexists(path):
            matching = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not matching:
                faults[path] = f"{path}: no file matches this pattern"
            yield from matching or [path]
        else:
            if os.path.isdir(path):
                empty = " (or the path is empty)" if path == Path() else ""
                faults[path] = f"{path}: is a folder, not a file{empty}; --recursive takes what is in it"
            yield path


def _rows(manifest: Path) -> list[Source]:
    """The rows of a manifest, which need no texts, named by their IDs."""
    from cdasr.speech.manifest import read_manifest, row_stretch

    return [Source(Path(row["ID"]), Path(row["wav"]), *row_stretch(row))
            for row in read_manifest(manifest, file_names=True, empty_text=True)]


def _fault(source: Source) -> str | None:
    try:
        found = source.format()
        return f"{source.path}: the file has no samples" if found and found[1] <= 0 else None
    except (ValueError, OSError) as error:
        return explain(error)


@contextmanager
def stdin_as_file(sources: Sequence[Source]) -> Iterator[tuple[list[Source], str | None]]:
    """The sources with standard input, where it is one of them, kept in a file as long as the block runs.

    Beside them, what is wrong with standard input, which is then left out.
    """
    if all(source.path != STDIN for source in sources):
        yield list(sources), None
        return
    with tempfile.TemporaryDirectory(prefix="cdasr-") as folder:
        path = Path(folder) / STDIN_FILE
        if (fault := _spool_stdin(path)) is None and (fault := _fault(Source(STDIN, path))) is not None:
            fault = fault.replace(str(path), str(STDIN))
        kept = [Source(source.name, path) if source.path == STDIN else source for source in sources]
        yield [source for source in kept if fault is None or source.path != path], fault


def _spool_stdin(path: Path) -> str | None:
    """Write what comes in on standard input to a file; what is wrong where that is nothing."""
    advice = "pipe an audio file into it"
    if sys.stdin is None:
        return f"{STDIN}: standard input is closed; {advice}"
    if sys.stdin.isatty():
        return f"{STDIN}: standard input is the terminal; {advice}"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return None if path.stat().st_size else f"{STDIN}: nothing came in on standard input; {advice}"


# -- what soundfile does not read -----------------------------------------------------------------------------------


def decoder() -> str | None:
    """What decodes formats that soundfile does not read: ffmpeg, PyAV (`av`), or None."""
    return "ffmpeg" if shutil.which("ffmpeg") else "av" if find_spec("av") else None


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """`path`, or while the block runs a WAV file of the same sound where soundfile does not read the format.

    Raises ValueError in one line where it cannot be decoded.
    """
    path, unknown = Path(path), False
    if _may_be_decoded(path):
        try:
            file_format(path)
        except UnknownFormat:
            unknown = True
    if not unknown:
        yield path
        return
    if not (tool := decoder()):
        raise ValueError(f"{path}: {MISSING}")
    with tempfile.TemporaryDirectory(prefix="cdasr-") as folder:
        target = Path(folder) / "decoded.wav"
        (_by_ffmpeg if tool == "ffmpeg" else _by_av)(path, target)
        yield target


def _may_be_decoded(path: Path) -> bool:
    """Whether a file that soundfile does not know is left to the decoder: by its suffix, and standard input."""
    return path.suffix.lower() in DECODED or path.name == STDIN_FILE


def _by_ffmpeg(path: Path, target: Path) -> None:
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", f"file:{path}", "-vn", "-acodec", "pcm_s16le",
               str(target)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode or not target.is_file():
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"{path}: ffmpeg cannot decode the file ({reason})")


def _by_av(path: Path, target: Path) -> None:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise ValueError(f"{path}: there is no sound in this file")
            rate, samples = container.streams.audio[0].rate, 0
            mono = av.AudioResampler(format="flt", layout="mono", rate=rate)
            with soundfile.SoundFile(target, "w", rate, 1, "FLOAT") as file:
                for frame in chain(container.decode(audio=0), [None]):
                    for part in mono.resample(frame):
                        file.write(part.to_ndarray()[0])
                        samples += part.samples
    except av.FFmpegError as error:
        raise ValueError(f"{path}: av cannot decode the file ({error.strerror})") from None
    if not samples:
        raise ValueError(f"{path}: the file has no samples")


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
