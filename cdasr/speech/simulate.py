"""Fixed noisy sets: the same waveforms for everybody, from a manifest of clean utterances and a seed.

What happens to an utterance follows from (seed, ID, condition) alone, so neither order nor selection matters.
Files that are already there are kept: an interrupted run goes on, a finished one has nothing to do.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from cdasr.runtime.atomic import file_key, fingerprint, replacing, write_json
from cdasr.runtime.lock import locked
from cdasr.runtime.outputs import check_outputs
from cdasr.runtime.parallel import ordered_map
from cdasr.runtime.provenance import record
from cdasr.speech.audio import file_format, write_audio
from cdasr.speech.channel import Channel
from cdasr.speech.degrade import degrade
from cdasr.speech.inputs import check_files
from cdasr.speech.manifest import is_stretch, manifest_files, read_manifest, read_row, write_manifest, write_stretch
from cdasr.speech.noise import NoiseSource, find_audio
from cdasr.speech.rooms import RoomSource

LOG = "condition.json"  # settings of a condition and what was drawn for each utterance
SET = ("manifest.csv", "simulate.json")  # of a set: its rows, and how it was made
MADE = (".flac", ".clean.flac")  # a mixture, and its reference where the clean file will not do


def simulate(manifest: str | os.PathLike, noise: str | os.PathLike, snrs: Sequence[float], seed: int,
             output_dir: str | os.PathLike, rir: str | os.PathLike | None = None) -> Path:
    """Mix every utterance of `manifest` with recordings of the folder `noise` at each of `snrs` (dB).

    With `rir`, a folder of room impulse responses, the speech is reverberant. Writes FLAC files at the rate
    of the first utterance, and returns the path of `output_dir/manifest.csv`; `simulate.json` records how.
    Raises ValueError on unusable input, where an output would replace another or an input, where another run writes to
    `output_dir`, and where that holds a set made with other settings.
    """
    output_dir = Path(output_dir)
    conditions = {f"snr{snr:g}": snr for snr in snrs}
    if len(conditions) < max(1, len(snrs)) or not np.isfinite(list(snrs)).all():
        raise ValueError(f"SNRs must be one or more different numbers in dB such as 0,5,10; got {list(snrs)}")
    if seed < 0:
        raise ValueError(f"the seed must not be negative, got {seed}")
    rows = read_manifest(manifest, file_names=True, empty_text=True)
    noises, responses = find_audio(noise), find_audio(rir) if rir else []
    check_files([*noises, *responses])
    check_set(rows, list(conditions), output_dir, [*noises, *responses], manifest_files(manifest))
    rate, _ = file_format(rows[0]["wav"])
    noise_source = NoiseSource(files=noises, rate=rate, warp=False)
    room_source = RoomSource(files=responses, rate=rate) if rir else None
    with locked(output_dir):
        noisy = []
        for condition, snr in conditions.items():
            noisy += simulate_set(rows, condition, noise_source, room_source, snr, seed, output_dir)
        return write_set(output_dir, noisy, manifest=str(manifest), noise=str(noise), rir=str(rir or ""),
                         snrs=list(snrs), seed=seed, rate=rate)


def check_set(rows: Sequence[Mapping[str, str]], conditions: Sequence[str], output_dir: Path,
              sources: Sequence[str | os.PathLike], manifests: Sequence[str | os.PathLike]) -> None:
    """Raise ValueError where a file of the set would replace another one, or what it is made of."""
    for condition in conditions:
        _check_outputs(rows, condition, output_dir, [*(row["wav"] for row in rows), *sources])
    check_outputs([(output_dir / name, name) for name in SET], manifests)


def write_set(output_dir: Path, rows: Sequence[Mapping[str, str]], **settings) -> Path:
    """Write the record and the manifest of a finished set; returns the path of the manifest."""
    manifest, log = (output_dir / name for name in SET)
    write_json(log, record(**settings))
    write_manifest(manifest, rows)
    return manifest


def simulate_set(rows: Sequence[Mapping[str, str]], condition: str, noise_source: NoiseSource | None,
                 room_source: RoomSource | None, snr: float | None, seed: int, output_dir: str | os.PathLike,
                 processes: int = 1, channel: Channel | None = None) -> list[dict[str, str]]:
    """Rows of one condition, made of clean `rows`: `output_dir/condition/ID.flac` and their clean references.

    Noise, room or both may be None (`snr` in dB goes with noise). `channel`: what the mixture goes through. The
    reference is a link to the clean file, in `output_dir/clean`, or a copy beside the mixture where that was scaled to
    avoid clipping. The work is shared by `processes`, whose number changes nothing. Raises
    ValueError on unusable audio and where the condition is there already, made with other settings.
    """
    if seed < 0:
        raise ValueError(f"the seed must not be negative, got {seed}")
    output_dir = Path(output_dir)
    folder = output_dir / condition
    if noise_source is None and room_source is None and channel is None:
        links = [_link(row, output_dir) for row in rows]
        return [_noisy_row(row, condition, link, link) for row, link in zip(rows, links)]
    _check_outputs(rows, condition, output_dir)
    settings = _settings(noise_source, room_source, snr, seed, channel)
    done, sources = _resume(folder, settings), _sources(noise_source, room_source)
    made_from = {row["ID"]: fingerprint([json.dumps([sources, _source(row)])]) for row in rows}
    waiting = [row for row in rows if not _made(row, done.get(row["ID"]), made_from[row["ID"]], folder)]
    if stale := [done[row["ID"]] for row in waiting if row["ID"] in done]:
        for drawn in stale:
            drawn["made_from"] = None
        print(f"{folder}: {len(stale)} mixtures are missing or their audio has changed; mixing them again",
              file=sys.stderr)
        write_json(folder / LOG, {"settings": settings, "utterances": done})  # a crash must not leave them in it
    mix = partial(_mix, condition=condition, noise_source=noise_source, room_source=room_source, snr=snr, seed=seed,
                  folder=folder, channel=channel)
    try:
        for drawn, row in zip(ordered_map(mix, waiting, processes, f"simulate {condition}"), waiting):
            done[row["ID"]] = {**drawn, "made_from": made_from[row["ID"]]}
    finally:
        write_json(folder / LOG, {"settings": settings, "utterances": done})
    result = []
    for row in rows:
        drawn = done[row["ID"]]
        clean = _path(folder, row, ".clean.flac") if drawn["copied"] else _link(row, output_dir)
        made = _noisy_row(row, condition, _path(folder, row, ".flac"), clean, drawn["noise"], drawn["rir"], snr, seed)
        result.append(made if channel is None else {**made, "effect": channel.name})
    return result


def _made(row: Mapping[str, str], drawn: Mapping | None, made_from: str, folder: Path) -> bool:
    """Whether the files of a row are there, as what was `drawn` for it says, and made from what is there now."""
    paths = [_path(folder, row, suffix) for suffix in MADE]
    return (drawn is not None and drawn.get("made_from") == made_from
            and all(path.is_file() for path in paths[:1 + drawn["copied"]]))


def _check_outputs(rows: Sequence[Mapping[str, str]], condition: str, output_dir: Path,
                   inputs: Sequence[str | os.PathLike] = ()) -> None:
    """Raise ValueError where two rows would write one file, or one would replace an input."""
    outputs = [(_path(output_dir / condition, row, suffix), f"the ID {row['ID']!r}") for row in rows for suffix in MADE]
    outputs += [(_path(output_dir / "clean", row, Path(row["wav"]).suffix), f"the ID {row['ID']!r}") for row in rows
                if Path(row["wav"]).parent.resolve() != (output_dir / "clean").resolve()]
    check_outputs(outputs, inputs)


def _sources(noise_source: NoiseSource | None, room_source: RoomSource | None) -> list:
    """Name, size and time of every file that a mixture may be drawn from."""
    files = [] if noise_source is None else [*noise_source.files, *noise_source.speech]
    return [*map(_source, files), *map(_source, room_source.files if room_source else ())]


def _source(audio: Mapping[str, str] | str | os.PathLike) -> list:
    """Name, size and time of a file, or of a row's, and which stretch and channel of it the row is."""
    if not isinstance(audio, Mapping):
        return file_key(audio)
    return [*file_key(audio["wav"]), *(audio.get(column) for column in ("offset", "duration", "channel"))]


def _mix(row: Mapping[str, str], *, condition: str, noise_source: NoiseSource | None, room_source: RoomSource | None,
         snr: float | None, seed: int, folder: Path, channel: Channel | None = None) -> dict:
    """Write one mixture, and its reference where the clean file will not do; returns what was drawn."""
    noisy, copy = _path(folder, row, ".flac"), _path(folder, row, ".clean.flac")
    rng = np.random.default_rng([seed, *condition.encode(), 0, *row["ID"].encode()])
    rate = (noise_source or room_source or channel).rate
    wave = read_row(row, rate)
    try:
        result = degrade(wave, rng, noise_source, room_source, snr)
        heard = result.noisy if channel is None else channel(result.noisy, rng)
    except ValueError as error:
        raise ValueError(f"{row['wav']}: {error}") from None
    copied = result.gain < 1.0 or file_format(row["wav"])[0] != rate or is_stretch(row)
    if copied:
        write_audio(copy, result.clean, rate)
    write_audio(noisy, heard, rate)
    return {"noise": result.noise_name, "rir": result.rir_name, "copied": copied}


def _noisy_row(row: Mapping[str, str], condition: str, wav: Path, clean: Path, noise: str = "", rir: str = "",
               snr: float | None = None, seed: int | str = "") -> dict[str, str]:
    return {"ID": f"{row['ID']}_{condition}", "duration": row["duration"], "wav": str(wav),
            "text": row["text"], "spk_id": row.get("spk_id", ""), "clean_wav": str(clean), "noise": noise,
            "rir": rir, "snr": "" if snr is None else f"{snr:g}", "condition": condition, "seed": str(seed)}


def _settings(noise_source: NoiseSource | None, room_source: RoomSource | None, snr: float | None,
              seed: int, channel: Channel | None) -> dict:
    """What decides the waveforms of a condition, apart from the clean ones."""
    settings: dict = {"seed": seed, "snr": snr, "rate": (noise_source or room_source or channel).rate}
    if channel is not None:
        settings["effect"] = channel.name
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
    try:
        earlier = json.loads((folder / LOG).read_bytes())
        before, utterances = dict(earlier["settings"]), dict(earlier["utterances"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{folder / LOG}: does not say how this set was made; delete {folder}") from None
    changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
    if changed:
        raise ValueError(f"{folder}: holds a set made with other settings ({', '.join(changed)}); delete it "
                         "or write to another folder")
    return utterances


def _path(folder: Path, row: Mapping[str, str], suffix: str) -> Path:
    if Path(row["ID"]).is_absolute() or ".." in Path(row["ID"]).parts:
        raise ValueError(f"the ID {row['ID']!r} cannot be a file name; rename the utterance")
    return folder / f"{row['ID']}{suffix}"


def _link(row: Mapping[str, str], output_dir: Path) -> Path:
    """The clean file in `output_dir/clean`: a hard link, or a copy of a stretch or where the file system has none."""
    if is_stretch(row):
        return write_stretch(row, output_dir / "clean")
    source = Path(row["wav"]).resolve()
    target = _path(output_dir / "clean", row, source.suffix)
    if not source.is_file():
        raise ValueError(f"{row['wav']}: no such file")
    if not target.is_file() or file_key(target)[1:] != file_key(source)[1:]:  # equal for links and copies
        with replacing(target) as partial:
            try:
                os.link(source, partial)
            except OSError:
                shutil.copy2(source, partial)
    return target
