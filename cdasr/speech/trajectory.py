"""`cdasr plot-trajectory`: how the estimates of signal and logits come into being together, step by step."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdasr.coupled.models import CoupledRun
from cdasr.coupled.pipeline import coupling_function, stored_options
from cdasr.coupled.strategies import with_both_processes
from cdasr.diffusion.coupling import ReverseProcess
from cdasr.speech.audio import file_format, read_audio
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.signal_model import compress

LONGEST = 20  # seconds in a picture
SHOWN = 24  # at most so many tokens, where there are too many to show
LEAST = 0.05  # probability that a token has somewhere, to get a row of the picture
NAMES = {"|": "between words"}  # of tokens whose sign says little


@dataclass
class Estimate:
    """One estimate at `time`: of the `signal`, compressed spectra (F, N), or of the `logits` (M, V) in their space."""

    kind: str
    time: float
    value: Tensor


@torch.inference_mode()
def trace(pipeline: Pipeline, wave: Tensor, strategy: str = "parallel", steps: int | None = None,
          seed: int = 0) -> tuple[list[Estimate], CoupledRun]:
    """Every estimate that a coupled strategy makes of one waveform (samples,), in the order of evaluation.

    Guidance and options of the strategy are those that the package stores for it, and so are the steps if not given.
    """
    pipeline.check([strategy])
    if strategy not in with_both_processes():
        raise ValueError(f"the strategy {strategy!r} has no signal and logits trajectories to show; choose one of "
                         f"{', '.join(with_both_processes())}")
    lengths = torch.tensor([len(wave)], device=pipeline.device)
    counts, guidance, options = stored_options(pipeline, strategy, steps)
    run = CoupledRun(pipeline.recogniser, pipeline.signal, pipeline.logits, wave[None].to(pipeline.device), lengths,
                     *counts, seed=seed, guidance=guidance)
    found: list[Estimate] = []
    coupling_function(strategy)(
        _watched(run.signal, "signal", found),
        lambda noisy_obs: _watched(run.start_logits(noisy_obs), "logits", found), run.observe, **options)
    return found, run


def check_duration(path: str | os.PathLike) -> None:
    """Raise ValueError for a recording that is too long for a picture."""
    rate, samples = file_format(path)
    if samples > LONGEST * rate:
        raise ValueError(f"{path}: a picture shows at most {LONGEST} s of audio; cut the recording")


def plot_trajectory(path: str | os.PathLike, pipeline: Pipeline, target: str | os.PathLike,
                    strategy: str = "parallel", steps: int | None = None, seed: int = 0) -> None:
    """A picture of the degraded input and of each estimate, numbered in their order, for the recording at `path`."""
    from cdasr.speech.plots import plot_estimates

    check_duration(path)
    samples, _ = read_audio(path, pipeline.sample_rate)
    found, run = trace(pipeline, torch.from_numpy(samples), strategy, steps, seed)
    signals = [("noisy signal y", _decibels(pipeline, run.signal.y[0, 0]))]
    logits = [("logits C(y)", run.logits.y[0])]  # where the logits process starts
    for number, estimate in enumerate(found, start=1):
        if estimate.kind == "signal":
            signals.append((f"{number}. signal, t = {estimate.time:.2f}", _decibels(pipeline, estimate.value)))
        else:
            logits.append((f"{number}. logits, s = {estimate.time:.2f}", estimate.value))
    posteriors = [_posterior(pipeline, run, value) for _, value in logits]
    rows = rows_with_mass(run, torch.cat(posteriors))
    panels = [(title, posterior.T[rows].cpu().numpy(), run.noisy.with_values(pipeline.logits.space.decode(value)[None])
               .words()[0]) for (title, value), posterior in zip(logits, posteriors)]
    names = [NAMES.get(pipeline.recogniser.tokens[row], pipeline.recogniser.tokens[row]) for row in rows]
    plot_estimates(signals, panels, names, len(samples) / pipeline.sample_rate, pipeline.sample_rate / 2, Path(target))


def rows_with_mass(run: CoupledRun, posteriors: Tensor) -> list[int]:
    """The classes that are shown of `posteriors` (M, V) of all estimates: those that are ever likely, or the likeliest.
    """
    highest, shown = posteriors.amax(dim=0), run.noisy.shown(posteriors, SHOWN)
    return [row for row in shown if highest[row] > LEAST] or [max(shown, key=lambda row: float(highest[row]))]


def _watched(process: ReverseProcess, kind: str, found: list[Estimate]) -> ReverseProcess:
    """The process with its estimates written down."""
    def watching(state: Tensor, t: Tensor, y: Tensor, given: object) -> Tensor:
        estimate = process.denoiser(state, t, y, given)
        found.append(Estimate(kind, float(t[0]), estimate[0, 0] if kind == "signal" else estimate[0]))
        return estimate
    return replace(process, denoiser=watching)


def _decibels(pipeline: Pipeline, spectra: Tensor) -> np.ndarray:
    """Levels (F, N) in dB of compressed spectra."""
    stft = pipeline.signal.stft
    return (20 * torch.log10(compress(spectra / stft.scale, 1.0 / stft.exponent).abs() + 1e-6)).cpu().numpy()


def _posterior(pipeline: Pipeline, run: CoupledRun, logits: Tensor) -> Tensor:
    """Posteriors (N, V) of an estimate (M, V), at the frames in which its kind of logits is shown."""
    return run.noisy.picture(pipeline.logits.space.decode(logits)[None], run.align)[0]
