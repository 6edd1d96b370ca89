"""Robustness grids: a YAML file that says which noise, rooms, levels, channels and codecs a clean set goes through.

Each entry of its `conditions` stands for all combinations of what it lists. A condition is named by what is done:
`city_0dB`, `reverb_city_5dB`, `mp3_32k`, `gsm_babble_10dB`. The mixtures are those of `simulate.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

from cdasr.coupled.rows import take_evenly
from cdasr.runtime.files import read_text
from cdasr.runtime.lock import locked
from cdasr.runtime.plain_data import Many, Strict, checked, one_line
from cdasr.speech.audio import file_format
from cdasr.speech.channel import Channel, parse_effect
from cdasr.speech.inputs import check_files
from cdasr.speech.manifest import manifest_files, read_manifest
from cdasr.speech.noise import NoiseSource, find_audio
from cdasr.speech.noise_families import FAMILIES
from cdasr.speech.rooms import RoomSource
from cdasr.speech.simulate import check_set, simulate_set, write_set

BUNDLED = Path(__file__).parent / "grids"
TALKERS = 100  # utterances of the set from which babble and speech-shaped noise are made

Item = TypeVar("Item")
OneOrMore = Annotated[list[Item], BeforeValidator(lambda value: value if isinstance(value, list) else [value])]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]


def _folder(value: Any) -> Any:
    return {"files": value} if isinstance(value, str) else value


class Noise(Strict):
    """Recordings of the folder `files`, generated noise of some `families`, or both, half of each."""

    files: str | None = None
    families: OneOrMore[str] = []


class Room(Strict):
    """Responses in the folder `files`, so many `simulated` rooms, or both."""

    files: str | None = None
    simulated: int = Field(0, ge=0, le=10_000)


class Block(Strict):
    """Conditions: every combination of a room, a noise at an SNR in dB, and an effect, of those that are listed."""

    room: OneOrMore[str] = []
    noise: OneOrMore[str] = []
    snr: OneOrMore[Annotated[float, Field(ge=-100, le=100)]] = []
    effect: OneOrMore[str] = []


class Grid(Strict):
    """A whole grid; `clean` adds the recordings as they are."""

    noise: dict[Name, Annotated[Noise, BeforeValidator(_folder)]] = {}
    room: dict[Name, Annotated[Room, BeforeValidator(_folder)]] = {}
    clean: bool = True
    conditions: Many[Block]


@dataclass(frozen=True)
class Condition:
    """One condition: names of a room, of noise and of an effect, each None where there is none; `snr` in dB."""

    room: str | None = None
    noise: str | None = None
    snr: float | None = None
    effect: str | None = None

    @property
    def name(self) -> str:
        """What is done to the recordings; an SNR stands at the end, where tables and figures look for it."""
        noise = None if self.noise is None else f"{self.noise}_{self.snr:g}dB"
        return "_".join(filter(None, (self.effect, self.room, noise))) or "clean"


def read_grid(path: Path) -> Grid:
    """The grid in a YAML file. Raises ValueError in one line for what is none."""
    import yaml

    try:
        found = yaml.safe_load(read_text(path, "grid"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path}: not YAML ({one_line(error)})") from None
    if not isinstance(found, dict):
        what = "the file is empty" if found is None else "no grid"
        raise ValueError(f"{path}: {what}; expected the keys {', '.join(Grid.model_fields)}, of which only conditions "
                         "has to be there")
    return checked(Grid, found, str(path))


def find_grid(source: str | os.PathLike) -> Path:
    """The file of a grid. Raises ValueError where there is none."""
    path, bundled = Path(source), BUNDLED / f"{source}.yaml"
    if path.is_file() or path.suffix:
        return path
    if not bundled.is_file():
        known = ", ".join(sorted(found.stem for found in BUNDLED.glob("*.yaml")))
        raise ValueError(f"{source}: no such grid; give a YAML file, or the name of a bundled one: {known}")
    return bundled


def conditions_of(grid: Grid) -> dict[str, Condition]:
    """The conditions by name, in the order of the file. Raises ValueError for those that cannot be made."""
    found = {"clean": Condition()} if grid.clean else {}
    for place, block in enumerate(grid.conditions):
        _check_block(grid, block, f"conditions.{place}")
        noises = list(product(block.noise, block.snr)) or [(None, None)]
        for effect, room, (noise, snr) in product(block.effect or [None], block.room or [None], noises):
            condition = Condition(room, noise, snr, effect)
            if condition.name in found:
                raise ValueError(f"conditions.{place}: there are two conditions {condition.name}; leave one out")
            found[condition.name] = condition
    return found


def simulate_grid(manifest: str | os.PathLike, grid: str | os.PathLike, seed: int, output_dir: str | os.PathLike,
                  processes: int = 1) -> tuple[Path, int]:
    """Put every utterance of `manifest` through every condition of `grid`, a YAML file or a bundled grid's name.

    Writes FLAC files at the rate of the first utterance into one folder a condition; returns the path of
    `output_dir/manifest.csv` and the number of conditions. `processes` share the work and change nothing. Raises
    ValueError for a grid that cannot be used, and as `simulate` does, before anything is written.
    """
    output_dir, path = Path(output_dir), find_grid(grid)
    settings = read_grid(path)
    conditions = _named(path, lambda: conditions_of(settings))
    rows = read_manifest(manifest, file_names=True, empty_text=True)
    rate, _ = file_format(rows[0]["wav"])
    noises, rooms = _named(path, lambda: _sources(settings, path.parent, rows, rate, seed))
    files = [path for source in (*noises.values(), *rooms.values()) for path in source.files]
    check_files(files)
    check_set(rows, list(conditions), output_dir, files, [*manifest_files(manifest), path])
    with locked(output_dir):
        made = []
        for name, condition in conditions.items():
            channel = Channel(condition.effect, rate) if condition.effect else None
            made += simulate_set(rows, name, noises.get(condition.noise), rooms.get(condition.room), condition.snr,
                                 seed, output_dir, processes, channel)
        return write_set(output_dir, made, manifest=str(manifest), grid=settings.model_dump(), seed=seed,
                         rate=rate), len(conditions)


def _check_block(grid: Grid, block: Block, place: str) -> None:
    """Raise ValueError for names that the grid does not have, effects that there are not, and noise without an SNR."""
    noises = [*grid.noise, *(family for family in FAMILIES if family not in grid.noise)]
    for kind, names, known in (("noise", block.noise, noises), ("room", block.room, list(grid.room))):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"{place}: no {kind} is called {unknown[0]!r}; the grid has {', '.join(known) or 'none'}")
    if bool(block.noise) != bool(block.snr):
        raise ValueError(f"{place}: noise and snr go together; give both, such as {{noise: babble, snr: [0, 10]}}")
    if not (block.noise or block.room or block.effect):
        raise ValueError(f"{place}: nothing is done there; give noise and snr, room or effect")
    for effect in block.effect:
        for part in effect.split("+"):
            try:
                parse_effect(part)
            except ValueError as error:
                raise ValueError(f"{place}: {error}") from None


def _sources(grid: Grid, folder: Path, rows: Sequence[Mapping[str, str]], rate: int,
             seed: int) -> tuple[dict[str, NoiseSource], dict[str, RoomSource]]:
    """The sources of noise and of rooms that conditions use, by name. Raises ValueError for what cannot be one."""
    used = {name for block in grid.conditions for name in (*block.noise, *block.room)}
    talkers, noises, rooms = take_evenly(rows, TALKERS), {}, {}
    found = {**{family: Noise(families=[family]) for family in FAMILIES}, **grid.noise}
    for name, noise in found.items():
        if name in used:
            noises[name] = _named(f"noise.{name}", lambda noise=noise: NoiseSource(
                _files(folder, noise.files), noise.families, talkers, rate, warp=False))
    for name, room in grid.room.items():
        if name in used:
            rooms[name] = _named(f"room.{name}", lambda room=room: RoomSource(
                _files(folder, room.files), room.simulated, seed, rate))
    return noises, rooms


def _files(folder: Path, files: str | None) -> list[Path]:
    return [] if files is None else find_audio(folder / files)


def _named(place: object, make: Callable[[], Item]) -> Item:
    """What `make` makes; its ValueError then says at which place."""
    try:
        return make()
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
