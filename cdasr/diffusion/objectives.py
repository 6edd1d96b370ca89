"""Training of a denoiser: times, noisy states, and the loss whose minimiser is the posterior mean."""

from __future__ import annotations

import torch
from torch import Tensor

from cdasr.diffusion.processes import Process
from cdasr.diffusion.samplers import Noise


def draw_times(process: Process, batch: int, generator: torch.Generator, start_prob: float = 0.0) -> Tensor:
    """Times (batch,), uniform in [t_min, t_max], but for a share at t_max, where every trajectory starts."""
    uniform = torch.rand(2, batch, generator=generator, device=generator.device)
    t = process.t_min + (process.t_max - process.t_min) * uniform[0]
    return torch.where(uniform[1] < start_prob, torch.full_like(t, process.t_max), t)


def perturb(process: Process, x0: Tensor, y: Tensor, t: Tensor, noise: Noise) -> Tensor:
    """A draw of x_t given the clean x0 and the degraded y, at times t (B,)."""
    mean, std = process.marginal(x0, y, t)
    return mean + std * noise(x0)


def denoising_loss(x0_hat: Tensor, x0: Tensor, weight: Tensor | float = 1.0,
                   mask: Tensor | None = None) -> Tensor:
    """Mean of weight * |x0_hat - x0|^2 over the elements that `mask` (broadcastable, 1 = valid) keeps."""
    error = x0_hat - x0
    error = weight * (error.real.square() + error.imag.square() if error.is_complex() else error.square())
    if mask is None:
        return error.mean()
    kept = mask.expand_as(error)
    return (error * kept).sum() / kept.sum().clamp_min(1)


def categorical_loss(l_hat: Tensor, l0: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean Kullback-Leibler divergence in nats of the posteriors softmax(l0) from softmax(l_hat), over (..., V).

    `mask` (...) keeps the valid frames.
    """
    known, estimated = l0.log_softmax(dim=-1), l_hat.log_softmax(dim=-1)
    divergence = (known.exp() * (known - estimated)).sum(dim=-1)
    return divergence.mean() if mask is None else (divergence * mask).sum() / mask.sum().clamp_min(1)
