"""Fixed noisy sets: the same waveforms for everybody, from a manifest of clean utterances and a seed.

What happens to an utterance follows from (seed, ID, condition) alone, so neither order nor selection matters.
Files that are already there are kept: an interrupted run goes on, a finished one has nothing to do.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cdasr.runtime.parallel import ordered_map
from cdasr.runtime.provenance import record, write_json
from cdasr.speech.audio import file_format, write_audio
from cdasr.speech.degrade import degrade
from cdasr.speech.manifest import (
    is_stretch,
    read_manifest,
    read_row,
    row_key,
    write_manifest,
    write_stretch,
)
from cdasr.speech.noise import NoiseSource, find_audio
from cdasr.speech.rooms import RoomSource

LOG = "condition.json"  # settings of a condition and what was drawn for each utterance


def simulate(manifest: str | os.PathLike, noise: str | os.PathLike, snrs: Sequence[float], seed: int,
             output_dir: str | os.PathLike, rir: str | os.PathLike | None = None) -> Path:
    """Mix every utterance of `manifest` with recordings of the folder `noise` at each of `snrs` (dB).

    With `rir`, a folder of room impulse responses, the speech is reverberant. Writes FLAC files at the rate
    of the first utterance, and returns the path of `output_dir/manifest.csv`; `simulate.json` records how.
    Raises ValueError on unusable input and where `output_dir` holds a set made with other settings.
    """
    output_dir = Path(output_dir)
    conditions = {f"snr{snr:g}": snr for snr in snrs}
    if not conditions or not np.isfinite(list(snrs)).all():
        raise ValueError(f"SNRs must be one or more numbers in dB such as 0,5,10; got {list(snrs)}")
    rows = read_manifest(manifest, file_names=True, empty_text=True)
    rate, _ = file_format(rows[0]["wav"])
    noise_source = NoiseSource(files=find_audio(noise), rate=rate, warp=False)
    room_source = RoomSource(files=find_audio(rir), rate=rate) if rir else None
    noisy = []
    for condition, snr in conditions.items():
        noisy += simulate_set(rows, condition, noise_source, room_source, snr, seed, output_dir)
    write_json(output_dir / "simulate.json", record(
        manifest=str(manifest), noise=str(noise), rir=str(rir or ""), snrs=list(snrs), seed=seed, rate=rate))
    write_manifest(output_dir / "manifest.csv", noisy)
    return output_dir / "manifest.csv"


def simulate_set(rows: Sequence[Mapping[str, str]], condition: str, noise_source: NoiseSource | None,
                 room_source: RoomSource | None, snr: float | None, seed: int, output_dir: str | os.PathLike,
                 processes: int = 1) -> list[dict[str, str]]:
    """Rows of one condition, made of clean `rows`: `output_dir/condition/ID.flac` and their clean references.

    Noise, room or both may be None (`snr` in dB goes with noise). The reference is a link to the clean file,
    in `output_dir/clean`, or a copy beside the mixture where that was scaled to avoid clipping. The work is
    shared by `processes`, whose number changes nothing. Raises
    ValueError on unusable audio and where the condition is there already, made with other settings.
    """
    if seed < 0:
        raise ValueError(f"the seed must not be negative, got {seed}")
    output_dir = Path(output_dir)
    folder = output_dir / condition
    if noise_source is None and room_source is None:
        links = [_link(row, output_dir) for row in rows]
        return [_noisy_row(row, condition, link, link) for row, link in zip(rows, links)]
    settings = _settings(noise_source, room_source, snr, seed)
    done = _resume(folder, settings)
    waiting = [row for row in rows if not _made(row, done.get(row["ID"]), folder)]
    mix = partial(_mix, condition=condition, noise_source=noise_source, room_source=room_source, snr=snr, seed=seed,
                  folder=folder)
    try:
        for drawn, row in zip(ordered_map(mix, waiting, processes, f"simulate {condition}"), waiting):
            done[row["ID"]] = drawn
    finally:
        write_json(folder / LOG, {"settings": settings, "utterances": done})
    result = []
    for row in rows:
        drawn = done[row["ID"]]
        clean = _path(folder, row, ".clean.flac") if drawn["copied"] else _link(row, output_dir)
        result.append(_noisy_row(row, condition, _path(folder, row, ".flac"), clean, drawn["noise"], drawn["rir"], snr,
                                 seed))
    return result


def _made(row: Mapping[str, str], drawn: Mapping | None, folder: Path) -> bool:
    """Whether the files of a row are there, as what was `drawn` for it says, and no older than the clean one."""
    paths = [_path(folder, row, suffix) for suffix in (".flac", ".clean.flac")]
    if drawn is None or os.path.exists(row["wav"]) and drawn.get("audio") != row_key(row):
        return False
    return all(_fresh(path, row["wav"]) for path in paths[:1 + drawn["copied"]])


def _mix(row: Mapping[str, str], *, condition: str, noise_source: NoiseSource | None, room_source: RoomSource | None,
         snr: float | None, seed: int, folder: Path) -> dict:
    """Write one mixture, and its reference where the clean file will not do; returns what was drawn."""
    noisy, copy = _path(folder, row, ".flac"), _path(folder, row, ".clean.flac")
    rng = np.random.default_rng([seed, *condition.encode(), 0, *row["ID"].encode()])
    rate = (noise_source or room_source).rate
    wave = read_row(row, rate)
    try:
        result = degrade(wave, rng, noise_source, room_source, snr)
    except ValueError as error:
        raise ValueError(f"{row['wav']}: {error}") from None
    copied = result.gain < 1.0 or file_format(row["wav"])[0] != rate or is_stretch(row)
    if copied:
        write_audio(copy, result.clean, rate)
    write_audio(noisy, result.noisy, rate)
    return {"noise": result.noise_name, "rir": result.rir_name, "copied": copied, "audio": row_key(row)}


def _noisy_row(row: Mapping[str, str], condition: str, wav: Path, clean: Path, noise: str = "", rir: str = "",
               snr: float | None = None, seed: int | str = "") -> dict[str, str]:
    return {"ID": f"{row['ID']}_{condition}", "duration": row["duration"], "wav": str(wav),
            "text": row["text"], "spk_id": row.get("spk_id", ""), "clean_wav": str(clean), "noise": noise,
            "rir": rir, "snr": "" if snr is None else f"{snr:g}", "condition": condition, "seed": str(seed)}


def _settings(noise_source: NoiseSource | None, room_source: RoomSource | None, snr: float | None,
              seed: int) -> dict:
    """What decides the waveforms of a condition, apart from the clean ones."""
    settings: dict = {"seed": seed, "snr": snr, "rate": (noise_source or room_source).rate}
    if noise_source is not None:
        settings["noise"] = [Path(path).name for path in noise_source.files] + noise_source.families
        settings["speech"] = len(noise_source.speech)
    if room_source is not None:
        settings["rooms"] = [Path(path).name for path in room_source.files]
        settings["simulated"] = [room_source.simulated, room_source.seed]
    return settings


def _resume(folder: Path, settings: dict) -> dict[str, dict]:
    """Utterances of `folder` that are done. Raises ValueError where they were made with other settings."""
    if not (folder / LOG).is_file():
        return {}
    earlier = json.loads((folder / LOG).read_text(encoding="utf-8"))
    before = earlier["settings"]
    changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if changed:
        raise ValueError(f"{folder}: holds a set made with other settings ({', '.join(changed)}); delete it "
                         "or write to another folder")
    return earlier["utterances"]


def _path(folder: Path, row: Mapping[str, str], suffix: str) -> Path:
    if Path(row["ID"]).is_absolute() or ".." in Path(row["ID"]).parts:
        raise ValueError(f"the ID {row['ID']!r} cannot be a file name; rename the utterance")
    return folder / f"{row['ID']}{suffix}"


def _fresh(path: Path, source: str | os.PathLike) -> bool:
    """Whether `path` is there and not older than `source`, as far as that is known."""
    return path.is_file() and not (
        os.path.exists(source) and os.stat(path).st_mtime_ns < os.stat(source).st_mtime_ns)


def _link(row: Mapping[str, str], output_dir: Path) -> Path:
    """The clean file in `output_dir/clean`: a hard link, or a copy of a stretch or where the file system has none."""
    if is_stretch(row):
        return write_stretch(row, output_dir / "clean")
    source = Path(row["wav"]).resolve()
    target = _path(output_dir / "clean", row, source.suffix)
    if not _fresh(target, source):
        if not source.is_file():
            raise ValueError(f"{row['wav']}: no such file")
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.partial")
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            shutil.copy2(source, partial)
        os.replace(partial, target)
    return target
