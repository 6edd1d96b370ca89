"""One reverse trajectory of one process, step by step or whole.

A denoiser is any callable D(x_t, t, y, condition) -> x0_hat with t of shape (B,). Every move evaluates it
once (the predictor-corrector: once per corrector step and once for the predictor; guidance with another weight than 0
and 1: twice as often); `nfe` counts evaluations.

What is exact when all is linear and Gaussian, on every time grid: ancestral sampling with x0_hat drawn from
p(x0 | x_t, y) has the posterior's law. With x0_hat = E[x0 | x_t, y], ancestral and deterministic sampling
have its mean, and a covariance that follows an affine recursion and converges to the posterior's as steps are
added (deterministic SB-VE: stays 0). tests/diffusion/test_samplers.py tests each of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from cdasr.diffusion.processes import Process

Denoiser = Callable[[Tensor, Tensor, Tensor, object], Tensor]
Noise = Callable[[Tensor], Tensor]  # noise(like) -> standard noise of the shape and type of `like`

METHODS = ("deterministic", "ancestral", "pc")
SPACINGS = {"uniform": lambda u: u, "quadratic": lambda u: u**2}


def gaussian_noise(generator: torch.Generator) -> Noise:
    """Standard noise, real or complex (total variance 1), drawn from `generator` on its own device."""
    if not isinstance(generator, torch.Generator):
        raise ValueError(f"noise needs a torch.Generator, got {generator!r}: seed one at the entry point")
    device = generator.device

    def draw(like: Tensor) -> Tensor:
        return torch.randn(like.shape, dtype=like.dtype, device=device, generator=generator).to(like.device)
    return draw


def time_grid(process: Process, steps: int, spacing: str = "uniform") -> Tensor:
    """Decreasing times (steps + 1,) from t_max to t_min; `quadratic` spends more steps near the clean end.

    `to_zero` comes to t_min evenly with one step less and goes to 0 with the last, as the public SGMSE code's `pc`.

    Raises ValueError for an unknown spacing or fewer than one step.
    """
    if spacing not in SPACINGS and spacing != "to_zero":
        raise ValueError(f"unknown spacing {spacing!r}; known: {', '.join((*SPACINGS, 'to_zero'))}")
    if steps < 1:
        raise ValueError(f"the number of steps must be at least 1, got {steps}")
    if spacing == "to_zero":
        times = torch.linspace(process.t_max, process.t_min, steps, dtype=torch.float64)
        return torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    unit = SPACINGS[spacing](torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float64))
    return process.t_min + (process.t_max - process.t_min) * unit


class Trajectory:
    """The state of one reverse trajectory given the degraded y, moved from t to s by `move`.

    `x` is the current state, `estimate` the latest x0_hat. Methods: `deterministic` and `ancestral` (see
    `processes`), `pc` (reverse-diffusion predictor after `corrector_steps` of annealed Langevin dynamics with
    signal-to-noise ratio `snr`; Song et al. 2021, algorithms 2 and 5). Stochastic methods need `noise`. Where
    `mask` (broadcastable against y) is 0, y, state and estimate are held at 0: padding stays out of sight.

    `guidance` w is the weight of classifier-free guidance (Ho & Salimans 2022): D(none) + w (D(given) - D(none)), two
    evaluations where w is neither 0 nor 1.

    Raises ValueError for an unknown method, for missing noise, and for `pc` where x_T is a point.
    """

    def __init__(self, process: Process, denoiser: Denoiser, y: Tensor, method: str = "deterministic",
                 noise: Noise | None = None, mask: Tensor | None = None, snr: float = 0.5,
                 corrector_steps: int = 1, guidance: float = 1.0):
        if method not in METHODS:
            raise ValueError(f"unknown sampling method {method!r}; known: {', '.join(METHODS)}")
        sigma = float(process.marginal(y, y, process.t_max)[1])
        if noise is None and (method != "deterministic" or sigma > 0):
            raise ValueError(f"sampling {process.name} with method {method!r} draws noise: give noise=")
        if method == "pc" and not sigma > 0:
            raise ValueError(f"method 'pc' needs a score at t_max, where {process.name} is a point: "
                             "choose deterministic or ancestral")
        self.process, self.denoiser, self.mask, self.guidance = process, denoiser, mask, guidance
        self.method, self.noise, self.snr, self.corrector_steps = method, noise, snr, corrector_steps
        self.y = self._valid(y)
        self.x = self._valid(process.prior(self.y, noise(y) if sigma > 0 else torch.zeros_like(y)))
        self.estimate: Tensor | None = None
        self.nfe = 0

    def move(self, t: float, s: float, given: object = None) -> None:
        """Move the state from t to s < t; `given` is what the denoiser is conditioned on."""
        if self.method == "pc":
            self._correct(t, given)
            self._predict(t, s, given)
            return
        x0_hat = self._denoise(t, given)
        noise = self.noise(self.x) if self.method == "ancestral" else None
        self.x = self._valid(self.process.step(self.x, x0_hat, self.y, t, s, noise))

    def _denoise(self, t: float, given: object) -> Tensor:
        times = torch.full((len(self.x),), float(t), device=self.x.device)
        if given is None or self.guidance == 1.0:
            x0_hat = self._evaluate(times, given)
        elif self.guidance == 0.0:
            x0_hat = self._evaluate(times, None)
        else:
            plain = self._evaluate(times, None)
            x0_hat = plain + self.guidance * (self._evaluate(times, given) - plain)
        self.estimate = self._valid(x0_hat)
        return self.estimate

    def _evaluate(self, times: Tensor, given: object) -> Tensor:
        self.nfe += 1
        return self.denoiser(self.x, times, self.y, given)

    def _valid(self, x: Tensor) -> Tensor:
        return x if self.mask is None else x.masked_fill(self.mask == 0, 0)

    def _correct(self, t: float, given: object) -> None:
        """Annealed Langevin dynamics at the noise level of t."""
        std = self.process.marginal(self.x, self.y, t)[1]
        size = 2.0 * (self.snr * std) ** 2
        for _ in range(self.corrector_steps):
            score = self.process.score(self.x, self._denoise(t, given), self.y, t)
            self.x = self._valid(self.x + size * score + (2.0 * size).sqrt() * self.noise(self.x))

    def _predict(self, t: float, s: float, given: object) -> None:
        """One Euler-Maruyama step of the reverse SDE; at s = 0 its mean, as no noise is left there."""
        score = self.process.score(self.x, self._denoise(t, given), self.y, t)
        drift, diffusion = self.process.drift_and_diffusion(self.x, self.y, t)
        mean = self.x - (drift - diffusion**2 * score) * (t - s)
        spread = diffusion * (t - s) ** 0.5 * self.noise(self.x) if s > 0 else 0.0
        self.x = self._valid(mean + spread)


@dataclass
class Sample:
    """The end of a trajectory: its state `x`, the latest `estimate` of x0, and the number of evaluations."""

    x: Tensor
    estimate: Tensor
    nfe: int


def sample(process: Process, denoiser: Denoiser, y: Tensor, grid: Tensor, method: str = "deterministic",
           noise: Noise | None = None, condition: object = None,
           on_step: Callable[[int, float, float, Trajectory], None] | None = None, **options) -> Sample:
    """Run one trajectory over the decreasing times of `grid`; `on_step(i, t, s, trajectory)` watches it.

    `options` go to `Trajectory`. Raises ValueError for a grid that does not decrease to a time >= 0.
    """
    times = grid.tolist()
    if len(times) < 2 or times[-1] < 0 or any(s >= t for t, s in pairwise(times)):
        raise ValueError(f"the grid must decrease over at least two times >= 0, got {times}: see time_grid")
    trajectory = Trajectory(process, denoiser, y, method, noise, **options)
    for i, (t, s) in enumerate(pairwise(times)):
        trajectory.move(t, s, condition)
        if on_step is not None:
            on_step(i, t, s, trajectory)
    return Sample(trajectory.x, trajectory.estimate, trajectory.nfe)
