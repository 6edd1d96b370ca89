"""Real-time factor: how long a strategy takes for one recording at a time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from tqdm import tqdm

from cdasr.speech.audio import read_audio


def real_time_factors(pipeline, rows: Sequence[Mapping[str, str]], systems: Sequence[str], warm_up: int = 3) -> dict:
    """Compute seconds by seconds of audio at batch size 1, over `rows` of a manifest, with the number of threads."""
    waves = [torch.from_numpy(read_audio(row["wav"], pipeline.sample_rate)[0]) for row in rows]
    audio, factors = sum(map(len, waves)) / pipeline.sample_rate, {}
    for system in tqdm(systems, desc="measure real-time factors"):
        for wave in waves[:warm_up]:
            pipeline.transcribe([wave], system)
        started = time.perf_counter()
        for wave in waves:
            pipeline.transcribe([wave], system)
        factors[system] = (time.perf_counter() - started) / audio
    return {"rtf": factors, "utterances": len(waves), "audio_seconds": round(audio, 1), "device": pipeline.device,
            "threads": torch.get_num_threads()}
