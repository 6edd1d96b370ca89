"""Quality of enhanced speech: SI-SDR, and PESQ and STOI from the packages of the extra `metrics`."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

PESQ_RATE = 16_000
SHORTEST = 0.4  # seconds that STOI needs


def si_sdr(estimate: Tensor | np.ndarray, reference: Tensor | np.ndarray) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB over the last dimension (Le Roux et al. 2019, eq. 3).

    Both are taken with zero mean. Silent estimates and references give very low, finite values.
    """
    estimate, reference = torch.as_tensor(estimate).double(), torch.as_tensor(reference).double()
    estimate = estimate - estimate.mean(dim=-1, keepdim=True)
    reference = reference - reference.mean(dim=-1, keepdim=True)
    tiny = 1e-12
    scale = (estimate * reference).sum(-1, keepdim=True) / reference.square().sum(-1, keepdim=True).clamp_min(tiny)
    target = scale * reference
    signal, distortion = target.square().sum(-1), (estimate - target).square().sum(-1)
    return 10.0 * torch.log10((signal + tiny) / (distortion + tiny))


def pesq_wb(estimate: np.ndarray, reference: np.ndarray) -> float | None:
    """Wide-band PESQ (ITU-T P.862.2) of `(samples,)` at 16 kHz; None where no speech is found in the reference.

    Raises ValueError where the package is not installed.
    """
    pesq = metric_package("pesq")
    try:
        return float(pesq.pesq(PESQ_RATE, reference, estimate, "wb"))
    except (pesq.NoUtterancesError, pesq.BufferTooShortError):
        return None


def stoi(estimate: np.ndarray, reference: np.ndarray, rate: int = 16_000, extended: bool = False) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011) of `(samples,)`; `extended`: ESTOI (Jensen & Taal 2016).

    None where less than `SHORTEST` of speech is left without its pauses. Raises ValueError where the package is not
    installed.
    """
    pystoi = metric_package("pystoi")
    if len(reference) < SHORTEST * rate:
        return None  # pystoi has no frame at all in what is shorter than 26 ms
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(pystoi.stoi(reference, estimate, rate, extended))
        except RuntimeWarning:
            return None


def metric_package(package: str) -> ModuleType:
    """A package of the extra `metrics`. Raises ValueError where it is not installed."""
    try:
        return import_module(package)
    except ImportError:
        raise ValueError(f"{package} is not installed: pip install 'cdasr[metrics]'") from None
