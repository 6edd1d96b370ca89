"""Quality of enhanced speech: SI-SDR, and PESQ and STOI from the packages of the extra `metrics`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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


def pesq_wb(estimate: np.ndarray, reference: np.ndarray, rate: int = 16_000) -> float:
    """Wide-band PESQ (ITU-T P.862.2) of `(samples,)` at 16 kHz."""
    return float(_metric("pesq").pesq(rate, reference, estimate, "wb"))


def stoi(estimate: np.ndarray, reference: np.ndarray, rate: int = 16_000) -> float:
    """Short-time objective intelligibility (Taal et al. 2011) of `(samples,)`."""
    return float(_metric("pystoi").stoi(reference, estimate, rate))


def _metric(package: str):
    from importlib import import_module

    try:
        return import_module(package)
    except ImportError:
        raise ImportError(f"{package} is not installed: pip install 'cdasr[metrics]'") from None
