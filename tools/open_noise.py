"""Openly licensed noise recordings from public repositories, for `--noise-dir` of the recipes.

    python tools/open_noise.py data/open_noise

Three hours of machines, traffic, weather, tools, animals, crowds and music, none of which forbids commercial use: CC0,
public domain or CC BY. `SOURCES` says where each comes from and where its licence is stated. Each repository is taken
at the commit named there (git is needed; about 1.5 GB on the way). A recording becomes OUT_DIR/<source>/<name>.flac, 16
kHz, mono, in parts of about twelve seconds, and OUT_DIR/ATTRIBUTION.md names all. A source that is there is skipped.

The bundled package `english` was trained on these and on ESC-10. Recordings whose credits name a Freesound sound that
UrbanSound8K holds too were left out, so that the one can be trained on and the other measured.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from zlib import crc32

import numpy as np
from tqdm import tqdm

from cdasr.runtime.atomic import write_text
from cdasr.runtime.errors import explain
from cdasr.speech.audio import read_audio, write_audio

RATE = 16_000  # Hz
PART = 12.0  # seconds
SHORTEST = 0.15  # seconds; shorter sounds are left out
SILENCE = 1e-3  # of full scale; what never is louder is left out
SUFFIXES = (".ogg", ".wav", ".mp3", ".flac")
CITY = ("siren|engine|drill|car|train|saw|truck|motor|horn|machine|compress|vacuum|fan|hammer|dog|bark|water|door|"
        "metal|shot|gun|crowd|traffic|bell|glass|printer|washer")
VOICES = "vocal|laugh|baby|voice|talk|speech|sing|scream|yell|cough"


@dataclass(frozen=True)
class Source:
    """Recordings of a repository `owner/name` at a `commit`: files that fit `patterns`, but for names like `without`.

    `licence` says what they may be used for and where that is stated. Of files whose names are not like `wanted`, one
    in `every` is taken; all, where it is 1.
    """

    repository: str
    commit: str
    licence: str
    patterns: tuple[str, ...]
    without: str = ""
    wanted: str = ""
    every: int = 1

    def takes(self, path: str) -> bool:
        """Whether a file of the repository belongs to the recordings."""
        if not path.lower().endswith(SUFFIXES) or not any(fnmatchcase(path, pattern) for pattern in self.patterns):
            return False
        if self.without and re.search(self.without, path, re.IGNORECASE):
            return False
        return (self.every == 1 or re.search(self.wanted, path, re.IGNORECASE) is not None
                or crc32(f"{flat(path)}.flac".encode()) % self.every == 0)


SOURCES = {
    "berklee": Source(
        "Tonejs/audio", "efd8296360f9526e379bfbe5c1698ff54d6a1d34",
        "CC BY 3.0, OLPC Berklee Sound Library (berklee/README.md)", ("berklee/*",), VOICES, CITY, 4),
    "cdda": Source(
        "Fris0uman/CDDA-Soundpacks", "88586bb600eae4b053a8928bddbd5371d0b1ecc6",
        "CC0 and CC BY, per file (credits.md in each folder)", ("sound/CC-Sounds/*",),
        "deal_damage|melee_swing|menu_|mon_|radio|speech|police_siren"),
    "ambientsounds": Source(
        "Muges/ambientsounds", "7ef9aefeeed93c37bca3cdb246a982dd1afce2f0",
        "CC0 and CC BY, per file (readme.md)", ("*",)),
    "clue-cards": Source(
        "1olegshev/clue-cards", "69a674ca61088bdabc7a635a34a3755cb363e4c4",
        "CC0 (public/sounds/music/ATTRIBUTION.md)", ("public/sounds/music/*",)),
    "blanket": Source(
        "rafaelmardojai/blanket", "8b1c27aedde1d6ad8053ce5ad351a2924bcdb766",
        "CC0, CC BY and public domain, per file (SOUNDS_LICENSING.md)", tuple(
            f"data/resources/sounds/{name}.ogg" for name in (
                "birds", "boat", "city", "coffee-shop", "fireplace", "rain", "storm", "summer-night", "train", "waves",
                "wind"))),
    "modern-alarm-clock": Source(
        "jtgsystems/modern-alarm-clock", "552ffc6f2ae65a0933ff983a0ba15db07488be67",
        "CC0 (docs/soundscape-assets.md)", ("public/sfx/*",)),
    "gui-project": Source(
        "DrunkenToast/gui-project", "52d6f58b32c44ef118428c1ef801785a8981fea4",
        "CC BY and CC0 (sounds/sound_licensing_blanket.md)", tuple(
            f"sounds/{name}.ogg" for name in ("construction", "farm", "leaves", "owls"))),
    "librosa": Source(
        "librosa/data", "450cdd8a002c98e7bdbfebb309fc1ed024001f77",
        "CC BY 3.0 and public domain (the .txt beside each file)", (
            "audio/Hungarian_Dance*.hq.ogg", "audio/Karissa_Hobbs*.hq.ogg", "audio/Kevin_MacLeod*.hq.ogg",
            "audio/glacier-bay-humpback.hq.ogg")),
    "sonic-pi": Source(
        "sonic-pi-net/sonic-pi", "c0002065a976b1355e7889f4aa96a1804e2b8119", "CC0 (etc/samples/README.md)",
        ("etc/samples/*",)),
    "tandemonium": Source(
        "petegordon/Tandemonium", "99579f44fa2d95759d5a7d3b2c88a1c603e3d4b4",
        "CC BY 4.0, Kevin MacLeod (assets/README.md)", ("assets/Gold*", "assets/Krampus*")),
    "openrct2": Source(
        "OpenRCT2/OpenSoundEffects", "0918c4828d47d7bf6c8ce5ff10523651f7e3e60d",
        "CC BY 4.0 (LICENSE.ASSETS, Credits.txt)", ("*",)),
    "ambient-engine": Source(
        "hsbakshi/ambient-engine", "52201daba8ea2ea4b703d6ec9eb04c6781013197",
        "public domain and CC BY 4.0 (ATTRIBUTION.md)", ("packages/web/public/assets/*",))}


def flat(path: str) -> str:
    """A path in a repository as one name, without its suffix."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "__".join(Path(path).with_suffix("").parts))


def collect(source: Source, folder: Path, place: str) -> int:
    """Write the recordings of a source into `folder`, from `place` + its repository's name. Returns how many parts."""
    with tempfile.TemporaryDirectory() as checkout:
        _git("init", "--quiet", checkout)
        _git("-C", checkout, "fetch", "--quiet", "--depth", "1", f"{place}{source.repository}", source.commit)
        _git("-C", checkout, "checkout", "--quiet", "FETCH_HEAD")
        paths = sorted(path for path in Path(checkout).rglob("*")
                       if path.is_file() and source.takes(path.relative_to(checkout).as_posix()))
        if not paths:
            raise ValueError(f"{source.repository}: none of its recordings is there")
        unfinished, count = folder.with_name(f".{folder.name}"), 0
        unfinished.mkdir(parents=True, exist_ok=True)
        for path in tqdm(paths, desc=source.repository, unit="recordings"):
            for name, wave in parts(path, checkout):
                write_audio(unfinished / name, wave, RATE)
                count += 1
    unfinished.rename(folder)
    return count


def parts(path: Path, checkout: str) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of a recording with their names; none of one that is too short or silent."""
    wave, _ = read_audio(path, RATE)
    if len(wave) < SHORTEST * RATE:
        return
    name = flat(path.relative_to(checkout).as_posix())
    for number, part in enumerate(np.array_split(wave, max(1, round(len(wave) / RATE / PART)))):
        if np.abs(part).max() >= SILENCE:
            yield f"{name}_{number:02d}.flac", part


def _git(*arguments: str) -> None:
    try:
        subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise ValueError("git is not installed; the recordings are in git repositories") from None
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ValueError(f"git {' '.join(arguments[-2:])}: {reason}") from None


def attribution(names: Sequence[str]) -> str:
    """Where the recordings come from and what they may be used for, as Markdown."""
    lines = ["# Noise recordings and their licences", "", "| folder | source | licence, and where it is stated |",
             "| --- | --- | --- |"]
    lines += [f"| {name} | github.com/{SOURCES[name].repository}, commit {SOURCES[name].commit[:12]} | "
              f"{SOURCES[name].licence} |" for name in names]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect the recordings as the command line says. Returns 0, or 2 with one line for what cannot be had."""
    parser = argparse.ArgumentParser(prog="python tools/open_noise.py", description=__doc__.splitlines()[0])
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--sources", type=lambda text: text.split(","), default=list(SOURCES), metavar="NAME[,NAME...]",
                        help=f"of {', '.join(SOURCES)}; default: all")
    parser.add_argument("--clone-from", default="https://github.com/", metavar="PREFIX",
                        help="where the repositories are, up to their owner; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        if unknown := set(options.sources) - SOURCES.keys():
            raise ValueError(f"--sources: no source is called {', '.join(sorted(unknown))}; use {', '.join(SOURCES)}")
        for name in options.sources:
            if (folder := options.output_dir / name).is_dir():
                print(f"{folder} is there")
            else:
                print(f"{folder}: {collect(SOURCES[name], folder, options.clone_from)} recordings")
        there = [name for name in SOURCES if (options.output_dir / name).is_dir()]
        write_text(options.output_dir / "ATTRIBUTION.md", attribution(there))
    except (ValueError, OSError) as error:
        print(f"cdasr: {explain(error)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
