"""Fixed noisy sets: mixed once from a seed, described by a manifest, so that everybody scores the same waveforms."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cdasr.provenance import record, write_json
from cdasr.speech.audio import read_audio, write_audio
from cdasr.speech.degrade import degrade
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.noise import NoiseSource, find_audio
from cdasr.speech.rooms import RoomSource


def simulate(manifest: str | os.PathLike, noise: str | os.PathLike, snrs: Sequence[float], seed: int,
             output_dir: str | os.PathLike, rir: str | os.PathLike | None = None, rate: int = 16_000) -> Path:
    """Mix every utterance of `manifest` with recordings of the folder `noise` at every ratio of `snrs` (dB).

    Writes `output_dir/manifest.csv` (condition `snr5`, ...), the noisy and clean audio as 16-bit FLAC at `rate` Hz,
    and `simulate.json`; returns the manifest's path. A second call with the same seed changes nothing. Raises
    ValueError for bad input, before anything is written.
    """
    rows, output_dir = read_manifest(manifest), Path(output_dir)
    source = NoiseSource(files=find_audio(noise), rate=rate, warp=False)
    rooms = RoomSource(files=find_audio(rir), rate=rate) if rir else None
    noisy = []
    for snr in snrs:
        noisy += simulate_set(rows, f"snr{snr:g}", source, rooms, snr, seed, output_dir, rate)
    write_json(output_dir / "simulate.json",
               record(manifest=Path(manifest).name, noise=[path.name for path in find_audio(noise)],
                      snrs=[float(snr) for snr in snrs], seed=seed, rate=rate,
                      rir=[name for _, name in rooms.rooms] if rooms else []))
    write_manifest(output_dir / "manifest.csv", noisy)
    return output_dir / "manifest.csv"


def simulate_set(rows: Sequence[Mapping[str, str]], condition: str, noise_source: NoiseSource | None,
                 room_source: RoomSource | None, snr: float | None, seed: int, output_dir: str | os.PathLike,
                 rate: int = 16_000) -> list[dict]:
    """Degrade every utterance of `rows` in one way; returns the rows of the noisy manifest.

    Each utterance's draws follow from (seed, condition, ID) alone: neither order nor interruption changes a
    waveform. Files that are already there are kept.
    """
    output_dir = Path(output_dir)
    degraded = []
    for row in tqdm(rows, desc=f"simulate {condition}"):
        noisy_path = output_dir / condition / f"{row['ID']}.flac"
        clean_path = output_dir / condition / "clean" / f"{row['ID']}.flac"
        rng = np.random.default_rng([seed, *f"{condition}/{row['ID']}".encode()])
        clean, _ = read_audio(row["wav"], rate)
        mixture = degrade(clean, rng, noise_source, room_source, snr)
        for path, wave in ((clean_path, mixture.clean), (noisy_path, mixture.noisy)):
            if not path.is_file():
                write_audio(path, wave, rate)
        degraded.append({
            **row, "ID": f"{row['ID']}_{condition}", "duration": f"{len(clean) / rate:.4f}", "wav": noisy_path,
            "clean_wav": clean_path, "noise": mixture.noise, "rir": mixture.rir,
            "snr": "" if snr is None or noise_source is None else f"{snr:g}", "condition": condition, "seed": seed})
    return degraded
