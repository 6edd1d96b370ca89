"""`cdasr profile`: where the time and the memory of one signal go, from the file to the words.

A `Stopwatch` is hooked into the modules and methods of a loaded pipeline while it is watched, and taken out afterwards:
the code that is measured knows nothing of it and is as fast as ever without. Each second is counted once, for the
innermost part that is running, so that the parts add up to the total.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cdasr.classifiers.parts import decoding_methods, parts_of
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.diffusion.samplers import Trajectory
from cdasr.evaluation.benchmark import BATCH_SECONDS
from cdasr.evaluation.report import render

OTHER = "other"  # what no part of its own has
INTERVAL = 0.005  # seconds between two looks at the memory of the process
STATM = Path("/proc/self/statm")


@dataclass
class Part:
    """Seconds and calls of a part, and the most memory in use while it ran, in GB; None where that is not known."""

    seconds: float = 0.0
    calls: int = 0
    memory: float | None = None

    def used(self, memory: float | None) -> None:
        """Take note of what is in use."""
        if memory is not None:
            self.memory = max(self.memory or 0.0, memory)


class Stopwatch:
    """Time and memory by part: `with stopwatch: ... with stopwatch.part(name): ...`.

    The time of an inner part is not in the outer one; all that is in none is `other`. On a GPU every change of parts
    waits for it. Memory is what the process has or, on a GPU, what torch has allocated there.
    """

    def __init__(self, device: str):
        self.parts: dict[str, Part] = {}
        self.running, self.gpu = [OTHER], device if device.startswith("cuda") else None
        self._since = 0.0

    def __enter__(self) -> Stopwatch:
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._watch, daemon=True)
        if self.gpu is None and STATM.exists():
            self._thread.start()
        self._since = self._now()
        return self

    def __exit__(self, *error) -> None:
        self._switch()
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside for the part `name`."""
        self.begin(name)
        try:
            yield
        finally:
            self.end()

    def begin(self, name: str) -> None:
        """From now on the part `name` is running; a part within itself is one call."""
        self._switch()
        self._at(name).calls += name != self.running[-1]
        self.running.append(name)

    def end(self) -> None:
        """The innermost part is done."""
        self._switch()
        self.running.pop()

    def _switch(self) -> None:
        """Give the time since the last change to the part that is running."""
        now = self._now()
        part, before, self._since = self._at(self.running[-1]), self._since, now
        part.seconds += now - before
        part.used(torch.cuda.max_memory_allocated(self.gpu) / 1e9 if self.gpu else process_memory())
        if self.gpu:
            torch.cuda.reset_peak_memory_stats(self.gpu)

    def _at(self, name: str) -> Part:
        return self.parts.setdefault(name, Part())

    def _now(self) -> float:
        if self.gpu:
            torch.cuda.synchronize(self.gpu)
        return time.perf_counter()

    def _watch(self) -> None:
        while not self._stop.wait(INTERVAL):
            self._at(self.running[-1]).used(process_memory())


def process_memory() -> float | None:
    """What the process has in memory, in GB; None where the system does not say."""
    if not STATM.exists():
        return None
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


# -- a pipeline under the stopwatch -------------------------------------------------------------------------------


@contextmanager
def watched(pipeline: CoupledPipeline, stopwatch: Stopwatch, classifier: str, analysis: str) -> Iterator[None]:
    """Hook the stopwatch into a pipeline, and take it out at the end; what the parts call classifier and analysis."""
    with ExitStack() as stack:
        for name in ("analyse", "synthesise"):
            stack.enter_context(_method(pipeline.signal, name, stopwatch, analysis))
        stack.enter_context(_method(Trajectory, "move", stopwatch, "sampler steps"))
        modules = {"signal network": [getattr(pipeline.signal, "network", None)],
                   "logits network": [getattr(pipeline.logits, "network", None)],
                   **{f"{classifier}, {name}": found for name, found in parts_of(pipeline.classifier).items()},
                   f"{classifier}, rest": [pipeline.classifier]}
        for name, found in modules.items():
            for module in (module for module in found if module is not None):
                compiled = getattr(module, "_compiled_call_impl", None)  # torch.compile: it would not see new hooks
                stack.enter_context(_module(module, stopwatch, name) if compiled is None else
                                    _method(module, "_compiled_call_impl", stopwatch, name))
        for owner, name in decoding_methods(pipeline.classifier):
            stack.enter_context(_method(owner, name, stopwatch, "decoding"))
        yield


@contextmanager
def _module(module: nn.Module, stopwatch: Stopwatch, name: str) -> Iterator[None]:
    """Count the calls of a module for the part `name`."""
    hooks = [module.register_forward_pre_hook(lambda *given: stopwatch.begin(name), prepend=True),
             module.register_forward_hook(lambda *given: stopwatch.end(), always_call=True)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _method(owner: object, method: str, stopwatch: Stopwatch, name: str) -> Iterator[None]:
    """Count the calls of an object's or a class's method for the part `name`."""
    original, own = getattr(owner, method), method in vars(owner)

    def timed(*given, **options):
        with stopwatch.part(name):
            return original(*given, **options)
    setattr(owner, method, timed)
    try:
        yield
    finally:
        if own:
            setattr(owner, method, original)
        else:
            delattr(owner, method)


def profile(pipeline: CoupledPipeline, read: Callable[[], Tensor], strategy: str | None = None, repeats: int = 3,
            classifier: str = "classifier", analysis: str = "analysis and synthesis", **sampling) -> dict:
    """Time and memory by part of what `strategy` makes of the signal that `read` gives; means over `repeats` runs.

    Seconds of the parts add up to those of the `total`. A run before is not counted but told, as `first_seconds`.
    `classifier` and `analysis`: what the domain calls these parts.
    """
    how = pipeline.domain.evaluation
    strategy = strategy or pipeline.default_strategy
    stopwatch = Stopwatch(pipeline.device)

    def run():
        with stopwatch.part("reading the file"):
            signal = read()
        return how.recognise(pipeline, [signal], strategy, BATCH_SECONDS, **sampling)[0]
    started = time.perf_counter()
    run()
    first = time.perf_counter() - started
    stopwatch = Stopwatch(pipeline.device)
    with watched(pipeline, stopwatch, classifier, analysis), stopwatch:
        for _ in range(repeats):
            result = run()
    parts, total = stopwatch.parts, sum(part.seconds for part in stopwatch.parts.values()) / repeats
    ordered = {name: parts[name] for name in (*(name for name in parts if name != OTHER), OTHER)}
    memory = [part.memory for part in parts.values() if part.memory is not None]
    return {"strategy": strategy, "duration": result.duration, "text": result.text, "nfe": result.nfe,
            "first_seconds": first, "repeats": repeats, "device": pipeline.device, "threads": torch.get_num_threads(),
            "parts": [_line(name, part.seconds / repeats, part.calls / repeats, part.memory, total, result.duration)
                      for name, part in ordered.items()],
            "total": _line("total", total, 1, max(memory, default=None), total, result.duration)}


def _line(name: str, seconds: float, calls: float, memory: float | None, total: float, duration: float) -> dict:
    return {"part": name, "seconds": seconds, "share": seconds / total, "calls": calls, "rtf": seconds / duration,
            "memory": memory}


def profile_table(found: dict) -> str:
    """What `profile` found as a table, the most expensive part first."""
    parts: Sequence[dict] = sorted(found["parts"], key=lambda line: (line["part"] == OTHER, -line["seconds"]))
    lines = [["part", "seconds", "share %", "calls", "RTF", "memory (GB)"]]
    lines += [[line["part"], f"{line['seconds']:.4f}", f"{100 * line['share']:.1f}",
               "-" if line["part"] == OTHER else f"{line['calls']:g}", f"{line['rtf']:.4f}",
               "-" if line["memory"] is None else f"{line['memory']:.2f}"] for line in (*parts, found["total"])]
    nfe = ", ".join(f"{name} {count}" for name, count in found["nfe"].items())
    loaded = f"; the model was loaded in {found['load_seconds']:.2f} s" if "load_seconds" in found else ""
    return "\n".join([
        render(lines, markdown=False), "",
        f"Strategy {found['strategy']}, {found['duration']:.2f} s of audio, evaluations: {nfe}. Mean of "
        f"{found['repeats']} runs after a first one of {found['first_seconds']:.2f} s, on {found['device']}, "
        f"{found['threads']} CPU threads{loaded}.",
        "Memory is the most that was in use while a part ran, models included."])
