"""`cdasr plot-trajectory`: how the estimates of signal and logits come into being together, step by step."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdasr.coupled.pipeline import coupling_function, stored_options
from cdasr.coupled.sides import Sides
from cdasr.coupled.strategies import with_both_processes
from cdasr.diffusion.coupling import Side
from cdasr.speech.audio import file_format, read_audio
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.stft import compress

LONGEST = 20  # seconds in a picture


@dataclass
class Estimate:
    """One estimate at `time`: of the `signal`, compressed spectra (F, N), or of the `logits` (M, V) in their space."""

    kind: str
    time: float
    value: Tensor


@torch.inference_mode()
def trace(pipeline: Pipeline, wave: Tensor, strategy: str = "parallel", steps: int | None = None,
          seed: int = 0) -> tuple[list[Estimate], Sides]:
    """Every estimate that a coupled strategy makes of one waveform (samples,), in the order of evaluation.

    Guidance and options of the strategy are those that the package stores for it, and so are the steps if not given.
    """
    pipeline.check([strategy])
    if strategy not in with_both_processes():
        raise ValueError(f"the strategy {strategy!r} has no signal and logits trajectories to show; choose one of "
                         f"{', '.join(with_both_processes())}")
    lengths = torch.tensor([len(wave)], device=pipeline.device)
    counts, guidance, options = stored_options(pipeline, strategy, steps)
    options.pop("passes", None)  # the picture is of the first
    sides = Sides(pipeline.recogniser, pipeline.signal, pipeline.logits, wave[None].to(pipeline.device), lengths,
                  *counts, seed=seed, guidance=guidance)
    found: list[Estimate] = []
    coupling_function(strategy)(_watched(sides.signal, "signal", found),
                                lambda heard: _watched(sides.logits(heard), "logits", found), sides.observe,
                                **options)
    return found, sides


def check_duration(path: str | os.PathLike) -> None:
    """Raise ValueError for a recording that is too long for a picture."""
    rate, samples = file_format(path)
    if samples > LONGEST * rate:
        raise ValueError(f"{path}: a picture shows at most {LONGEST} s of audio; cut the recording")


def plot_trajectory(path: str | os.PathLike, pipeline: Pipeline, target: str | os.PathLike,
                    strategy: str = "parallel", steps: int | None = None, seed: int = 0) -> None:
    """A picture of the degraded input and of each pair of estimates for the recording at `path`."""
    from cdasr.evaluation.plots import plot_estimates

    check_duration(path)
    samples, _ = read_audio(path, pipeline.sample_rate)
    found, sides = trace(pipeline, torch.from_numpy(samples), strategy, steps, seed)
    heard = sides.logits_side.y[0]  # C(y), where the logits process starts
    signals = [("noisy", _decibels(pipeline, sides.signal.y[0, 0]))]
    logits = [("C(y)", _posterior(pipeline, sides, heard))]
    for estimate in found:
        title = f"t = {estimate.time:.2f}"
        if estimate.kind == "signal":
            signals.append((title, _decibels(pipeline, estimate.value)))
        else:
            logits.append((title.replace("t", "s"), _posterior(pipeline, sides, estimate.value)))
    tokens = pipeline.recogniser.processor.tokenizer.convert_ids_to_tokens(range(len(logits[0][1])))
    rows = _rows(pipeline, [posterior for _, posterior in logits])
    plot_estimates(signals, logits, [tokens[index] for index in rows], rows, len(samples) / pipeline.sample_rate,
                   pipeline.sample_rate / 2, Path(target))


def _watched(side: Side, kind: str, found: list[Estimate]) -> Side:
    """The side, with its estimates written down."""
    denoiser = side.denoiser

    def watching(state: Tensor, t: Tensor, y: Tensor, given: object) -> Tensor:
        estimate = denoiser(state, t, y, given)
        found.append(Estimate(kind, float(t[0]), estimate[0, 0] if kind == "signal" else estimate[0]))
        return estimate
    side.denoiser = watching
    return side


def _decibels(pipeline: Pipeline, spectra: Tensor) -> np.ndarray:
    """Levels (F, N) in dB of compressed spectra."""
    stft = pipeline.signal.stft
    return (20 * torch.log10(compress(spectra / stft.scale, 1.0 / stft.exponent).abs() + 1e-6)).cpu().numpy()


def _posterior(pipeline: Pipeline, sides: Sides, logits: Tensor) -> np.ndarray:
    """Posteriors (V, M) of an estimate (M, V); of coordinates, those of all tokens, at the frames of the spectra."""
    if pipeline.recogniser.blank is None:
        logits = pipeline.recogniser.logits(sides.align(pipeline.logits.space.decode(logits)[None])[0])
    else:
        logits = pipeline.logits.space.decode(logits)
    return logits.softmax(dim=-1).T.cpu().numpy()


def _rows(pipeline: Pipeline, posteriors: list[np.ndarray], most: int = 24) -> list[int]:
    """The tokens to show: all but the blank, or of a decoder's those `most` that come nearest to being heard."""
    if pipeline.recogniser.blank is not None:
        return [index for index in range(len(posteriors[0])) if index != pipeline.recogniser.blank]
    peaks = np.max([posterior.max(axis=1) for posterior in posteriors], axis=0)
    return sorted(np.argsort(-peaks)[:most].tolist())
