"""How fast a system is and how much memory it takes: real-time factors, processor time, peak memory."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from cdasr.coupled.models import SignalModel
from cdasr.coupled.pipeline import CoupledPipeline

BATCH_SECONDS = 20.0  # as `Pipeline` cuts long recordings


def real_time_factors(pipeline: CoupledPipeline, rows: Sequence[Mapping[str, object]], systems: Sequence[str],
                      warm_up: int = 3) -> dict:
    """Compute seconds by seconds of signal, one item at a time, over `rows`, with the number of threads.

    The duration of an item is what its entry says; an image counts as 1.
    """
    how = pipeline.domain.evaluation
    signals = [how.read_noisy(row, pipeline.classifier) for row in rows]
    total, factors = sum(float(row["duration"]) for row in rows), {}

    def run(signal: torch.Tensor, system: str) -> None:
        how.recognise(pipeline, [signal], system, BATCH_SECONDS)
    for system in tqdm(systems, desc="measure real-time factors"):
        for signal in signals[:warm_up]:
            run(signal, system)
        started = time.perf_counter()
        for signal in signals:
            run(signal, system)
        factors[system] = (time.perf_counter() - started) / total
    return {"rtf": factors, "utterances": len(signals), "audio_seconds": round(total, 1), "device": pipeline.device,
            "threads": torch.get_num_threads()}


def benchmark_package(pipeline: CoupledPipeline, steps: int | None = None, seconds: float = 4.0,
                      repeats: int = 3) -> list[dict]:
    """`measure` for each strategy of a package, on made-up noise of its domain, classifier included."""
    how = pipeline.domain.evaluation
    signal = how.example(pipeline, seconds)

    def run(strategy: str) -> int:
        nfe = how.recognise(pipeline, [signal], strategy, BATCH_SECONDS, steps=steps)[0].nfe
        return sum(count for name, count in nfe.items() if name != "classifier")
    found = []
    for name in tqdm(pipeline.strategies, desc="measure"):
        run(name)
        found.append({"system": name, "precision": pipeline.signal.precision or "fp32",
                      **measure(lambda name=name: run(name), seconds, repeats, pipeline.device)})
    return found


def benchmark_models(models: Mapping[str, Callable[[], tuple[SignalModel, torch.Tensor, torch.Tensor]]],
                     device: str, seconds: float, repeats: int = 3) -> list[dict]:
    """`measure` for signal processes alone, by name: functions that make a model and a batch of `seconds` for it."""
    found = []
    for name, make in tqdm(models.items(), desc="measure"):
        model, signals, lengths = make()
        with torch.inference_mode():
            model.enhance(signals, lengths, steps=1)
        found.append({"system": name, "precision": model.precision, **measure(
            lambda model=model, batch=(signals, lengths): model.enhance(*batch)[1], seconds, repeats, device)})
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
