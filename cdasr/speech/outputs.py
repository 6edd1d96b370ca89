"""Where the transcripts of a run go: what is printed, which files are written, and what `--resume` finds finished."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cdasr.runtime.atomic import write_json, write_text
from cdasr.runtime.files import read_text
from cdasr.runtime.outputs import check_folder, check_outputs, check_target, output_names
from cdasr.runtime.terminal import note, printable
from cdasr.speech.formats import FORMATS, jsonl
from cdasr.speech.inputs import MADE, STDIN, Source

if TYPE_CHECKING:
    from cdasr.speech.transcript import Transcript

AUDIO = "wav"  # the format that stands for the enhanced audio
TOGETHER = "transcripts.jsonl"  # one file for all recordings, a line each
SETTINGS = "transcripts.settings.json"  # what the files were made with
MADE_OF = "recordings"  # among these settings: the recording of each output
SEVERAL = ("txt", "json", "jsonl", "ctm", "tsv")  # formats that can be printed one after the other


@dataclass
class Outputs:
    """What is made of each recording.

    `formats` go to `folder`, or to stdout where there is none; with a folder and no formats, it is the enhanced audio.
    `as_json`: stdout gets a JSON line a recording, in place of its text. `settings` are what the results depend on.
    """

    folder: Path | None = None
    formats: Sequence[str] = ()
    as_json: bool = False
    resume: bool = False
    settings: Mapping[str, object] = field(default_factory=dict)
    targets: dict[str, dict[Path, Path]] = field(default_factory=dict, init=False)  # by format, then by name
    lines: set[str] = field(default_factory=set, init=False)  # the files of which TOGETHER has a line

    def __post_init__(self):
        if unknown := [name for name in self.formats if name not in (*FORMATS, AUDIO)]:
            raise ValueError(f"--format {unknown[0]}: expected {', '.join(FORMATS)} or {AUDIO}, with commas between "
                             "several")
        if self.resume and not self.folder:
            raise ValueError("--resume looks for finished files in --output-dir; give that too")
        if not self.folder and (AUDIO in self.formats or len(self.formats) > 1):
            raise ValueError(f"--format {','.join(self.formats)} writes files; say where with --output-dir")
        if self.as_json and self.formats and not self.folder:
            raise ValueError("--json and --format both print on stdout; give one of them, or --output-dir")

    @property
    def audio(self) -> dict[Path, Path]:
        """Where the enhanced audio of each recording goes, by its name; empty where none is written."""
        return self.targets.get(AUDIO, {})

    def check(self, sources: Sequence[Source], faults: dict[Path, str]) -> None:
        """Find a place for every output and add to `faults` the recordings without one. Writes nothing but settings.

        Raises ValueError where no output can be written, or where `resume` finds results of other settings.
        """
        names = [source.name for source in sources]
        if not self.folder:
            if self.formats and self.formats[0] not in SEVERAL and len(names) > 1:
                raise ValueError(f"--format {self.formats[0]} of several recordings needs --output-dir")
            return
        check_folder(self.folder)
        stems = [_file_name(source) for source in sources]
        inputs = [source.path for source in sources if source.path != STDIN]
        for form in self.formats or (AUDIO,):
            if form == "jsonl":
                check_target(self.folder / TOGETHER)
                continue
            places = output_names(stems, self.folder, _suffix(form))
            check_outputs([(places[stem], str(name)) for name, stem in zip(names, stems)], inputs)
            self.targets[form] = {name: places[stem] for name, stem in zip(names, stems)}
            for name, target in self.targets[form].items():
                try:
                    check_target(target)
                except ValueError as error:
                    faults.setdefault(name, f"{name}: {error}")
        if len(faults) < len(names):
            self._announce([source for source in sources if source.name not in faults])
            if self.formats or self.resume:
                self._begin(sources)

    def _announce(self, sources: Sequence[Source]) -> None:
        """Say on stderr that files are replaced, where some are."""
        targets = [places[source.name] for places in self.targets.values() for source in sources]
        targets += [self.folder / TOGETHER] if "jsonl" in self.formats else []
        if not self.resume and (there := [target for target in targets if target.is_file()]):
            files = f"{there[0].name} is" if len(there) == 1 else f"{len(there)} files are"
            note(f"cdasr: {self.folder}: {printable(files)} there already and will be replaced; --resume keeps what is "
                 "finished")

    def _begin(self, sources: Sequence[Source]) -> None:
        """Keep the settings, what outputs are made of and, of an earlier run that goes on, the lines that are whole."""
        settings, path, together = dict(self.settings), self.folder / SETTINGS, self.folder / TOGETHER
        made_of = self._recordings(sources)
        if self.resume and path.is_file():
            before = _settings(path)
            made_of = self._same_recordings(before.pop(MADE_OF, {}), made_of)
            if before != json.loads(json.dumps(settings)):
                other = next((key for key in settings if before.get(key) != settings[key]), "something")
                raise ValueError(f"{self.folder}: the results there were made with another {other}; choose another "
                                 "folder or leave --resume out")
        write_json(path, {**settings, MADE_OF: made_of})
        if "jsonl" in self.formats:
            kept = list(_whole_lines(together)) if self.resume and together.is_file() else []
            self.lines = {name for name, _ in kept}
            write_text(together, "".join(line for _, line in kept))

    def _recordings(self, sources: Sequence[Source]) -> dict[str, str]:
        """The recording of each output, by what its names in all formats begin with."""
        form, places = next(iter(self.targets.items()), (None, {}))
        suffix = "" if form is None else _suffix(form)
        names = {source: os.path.relpath(places[source.name], self.folder) if places else str(source.name)
                 for source in sources if source.path != STDIN}
        return {name.removesuffix(suffix): os.path.abspath(source.path) for source, name in names.items()}

    def _same_recordings(self, before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
        """What all outputs are made of. Raises ValueError for one that was made of another recording of this name."""
        for name, path in now.items():
            other = before.get(name, path)
            there = os.path.exists(other) and os.path.exists(path)  # else the recordings have moved
            if other != path and there and not os.path.samefile(other, path):
                raise ValueError(f"{self.folder / name} was made of {other}, not of {path}; choose another folder or "
                                 "leave --resume out")
        return {**before, **now}

    def finished(self, source: Source) -> bool:
        """Whether `resume` is on and every output of a recording is there and is not older than the recording."""
        if not self.resume or source.path == STDIN:
            return False
        targets = [places[source.name] for places in self.targets.values()]
        changed = source.path.stat().st_mtime
        return (all(target.is_file() and target.stat().st_mtime >= changed for target in targets)
                and ("jsonl" not in self.formats or str(source.name) in self.lines))

    def shown(self, name: Path, result: Transcript, seconds: float, alone: bool) -> str:
        """What is printed of a recording; its name goes before its text unless it is `alone`."""
        if self.as_json:
            return jsonl(name, result, seconds)
        if self.formats and not self.folder and self.formats[0] != "txt":
            return FORMATS[self.formats[0]](name, result, seconds)
        return f"{result.text}\n" if alone else f"{printable(name)}: {result.text}\n"

    def write(self, name: Path, result: Transcript, seconds: float) -> None:
        """Write the files of a recording but its audio, each whole or not at all."""
        for form, places in self.targets.items():
            if form != AUDIO:
                write_text(places[name], FORMATS[form](name, result, seconds))
        if self.folder and "jsonl" in self.formats and str(name) not in self.lines:
            with (self.folder / TOGETHER).open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(jsonl(name, result, seconds))
            self.lines.add(str(name))


def _suffix(form: str) -> str:
    """How the names of a format's files end."""
    return MADE if form == AUDIO else f".{form}"


def _settings(path: Path) -> dict:
    """What an earlier run has kept. Raises ValueError for a damaged file."""
    with suppress(ValueError):
        found = json.loads(read_text(path))
        made_of = found.get(MADE_OF, {}) if isinstance(found, dict) else None
        if isinstance(made_of, dict) and all(isinstance(recording, str) for recording in made_of.values()):
            return found
    raise ValueError(f"{path}: cannot be read; choose another folder or leave --resume out")


def _file_name(source: Source) -> Path:
    """The file that outputs are named after: an ID of a manifest keeps its dots."""
    if source.name == STDIN:
        return Path("stdin")
    return source.name if source.name == source.path else Path(f"{source.name}{source.path.suffix}")


def _whole_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Name and line of each recording in a file of JSON lines; a line that was cut short is left out."""
    for line in read_text(path).splitlines(keepends=True):
        try:
            yield json.loads(line)["file"], line
        except (ValueError, KeyError, TypeError):
            continue
