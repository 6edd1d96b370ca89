"""How fast a system is and how much memory it takes: real-time factors, processor time, peak memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from cdasr.runtime.device import resolve_device, resolve_precision
from cdasr.speech.manifest import read_row
from cdasr.speech.segments import transcribe_recordings
from cdasr.speech.signal_model import SpectrogramModel

PUBLISHED = {  # name: process and sampler of NCSN++ v2 at its published size
    "NCSN++ v2, bridge, 4 steps": {
        "process": {"name": "sbve"}, "sampling": {"steps": 4, "method": "deterministic", "spacing": "uniform"}},
    "NCSN++ v2, public sampler (OUVE, 30 steps, predictor-corrector)": {
        "process": {"name": "ouve"}, "prediction": {"target": "score", "sign": -1},
        "sampling": {"steps": 30, "method": "pc", "spacing": "to_zero"}}}
PUBLIC_STFT = {"n_fft": 510, "hop": 128, "scale": 0.15, "edges": "reflect"}


def real_time_factors(pipeline, rows: Sequence[Mapping[str, str]], systems: Sequence[str], warm_up: int = 3) -> dict:
    """Compute seconds by seconds of audio at batch size 1, over `rows` of a manifest, with the number of threads."""
    waves = [torch.from_numpy(read_row(row, pipeline.sample_rate)) for row in rows]
    audio, factors = sum(map(len, waves)) / pipeline.sample_rate, {}
    for system in tqdm(systems, desc="measure real-time factors"):
        for wave in waves[:warm_up]:
            transcribe_recordings(pipeline, [wave], system)
        started = time.perf_counter()
        for wave in waves:
            transcribe_recordings(pipeline, [wave], system)
        factors[system] = (time.perf_counter() - started) / audio
    return {"rtf": factors, "utterances": len(waves), "audio_seconds": round(audio, 1), "device": pipeline.device,
            "threads": torch.get_num_threads()}


def benchmark_package(pipeline, steps: int | None = None, seconds: float = 4.0, repeats: int = 3) -> list[dict]:
    """`measure` for each strategy of a package, on noise, recogniser included."""
    wave = _noise(seconds, pipeline.sample_rate)

    def run(strategy: str) -> int:
        nfe = transcribe_recordings(pipeline, [wave], strategy, steps)[0].nfe
        return sum(count for name, count in nfe.items() if name != "classifier")
    found = []
    for name in tqdm(pipeline.strategies, desc="measure"):
        run(name)
        found.append({"system": name, "precision": pipeline.precision,
                      **measure(lambda name=name: run(name), seconds, repeats, pipeline.device)})
    return found


def benchmark_published(device: str = "auto", precision: str = "fp32", compile: bool = False,
                        channels_last: bool = False, seconds: float = 4.0, repeats: int = 3,
                        network: Mapping[str, object] | None = None) -> list[dict]:
    """`measure` for the signal process alone with the network of the public checkpoints, under each of PUBLISHED.

    Weights are random, which speed does not depend on. `network`: options of `NCSNpp`, by default the published size.
    """
    device, found = resolve_device(device), []
    wave = _noise(seconds, 16_000).to(device)
    batch = wave[None], torch.tensor([len(wave)], device=device)
    for name, config in tqdm(PUBLISHED.items(), desc="measure"):
        model = SpectrogramModel.from_config({"stft": PUBLIC_STFT, "level": "peak", **config,
                                         "padding": {"multiple": 64, "mode": "reflect"},
                                         "network": {"name": "ncsnpp", **(network or {})}}).to(device).eval()
        model = model.optimised(resolve_precision(precision, device), compile, channels_last)
        with torch.inference_mode():
            model.enhance(*batch, steps=1)
        found.append({"system": name, "precision": model.precision,
                      **measure(lambda model=model: model.enhance(*batch)[1], seconds, repeats, device)})
    return found


@torch.inference_mode()
def measure(run: Callable[[], int], seconds: float, repeats: int, device: str) -> dict:
    """Time and memory of `run`, which treats `seconds` of audio and returns its network evaluations; warm it up before.

    `rtf`: elapsed time, `cpu`: processor time of all threads, both over the audio's; `memory`: peak, in GB, of the
    process or, on a GPU, of what torch has allocated there.
    """
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    wait()
    with PeakMemory(device) as memory:
        elapsed, busy = time.perf_counter(), time.process_time()
        for _ in range(repeats):
            evaluations = run()
        wait()
        elapsed, busy = time.perf_counter() - elapsed, time.process_time() - busy
    return {"evaluations": evaluations, "rtf": elapsed / repeats / seconds, "cpu": busy / repeats / seconds,
            "memory": memory.peak, "seconds": seconds, "device": device, "threads": torch.get_num_threads()}


class PeakMemory:
    """The largest memory in use inside a `with` block, in GB: `peak`, None where the system does not say."""

    def __init__(self, device: str, interval: float = 0.02):
        self.on_gpu, self.interval, self.peak = device.startswith("cuda"), interval, None

    def __enter__(self) -> PeakMemory:
        self.stop = threading.Event()
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        else:
            self.thread = threading.Thread(target=self._watch, daemon=True)
            self.thread.start()
        return self

    def __exit__(self, *error) -> None:
        if self.on_gpu:
            self.peak = torch.cuda.max_memory_allocated() / 1e9
        else:
            self.stop.set()
            self.thread.join()

    def _watch(self) -> None:
        statm = Path("/proc/self/statm")
        while statm.exists():
            used = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9
            self.peak = max(self.peak or 0.0, used)
            if self.stop.wait(self.interval):
                return


def markdown(found: Sequence[Mapping[str, object]]) -> str:
    """The measurements as a table."""
    rows, first = [["system", "precision", "evaluations", "RTF", "CPU s / s", "memory (GB)"], ["---"] * 6], found[0]
    for row in found:
        rows.append([row["system"], row["precision"], str(row["evaluations"]), f"{row['rtf']:.3g}", f"{row['cpu']:.3g}",
                     "-" if row["memory"] is None else f"{row['memory']:.2f}"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", f"{first['seconds']:g} s of audio, one recording at a time, on {first['device']}, "
                      f"{first['threads']} CPU threads."])


def _noise(seconds: float, rate: int) -> torch.Tensor:
    return 0.1 * torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(0))
