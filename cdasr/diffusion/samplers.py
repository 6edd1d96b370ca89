"""One reverse trajectory of one process, step by step or whole.

A denoiser is any callable D(x_t, t, y, given) -> x0_hat with t of shape (B,); that of a network is a `NetworkDenoiser`
(`preconditioning.py`). Three calls lead from a move to the network: `Trajectory.move`, `Trajectory.denoise`, the
denoiser. Every move evaluates it once (the predictor-corrector: once per corrector step and once for the predictor;
guidance with another weight than 0 and 1: twice as often); `nfe` counts evaluations.

What is exact when all is linear and Gaussian, on every time grid: ancestral sampling with x0_hat drawn from
p(x0 | x_t, y) has the posterior's law. With x0_hat = E[x0 | x_t, y], ancestral and deterministic sampling
have its mean, and a covariance that follows an affine recursion and converges to the posterior's as steps are
added (deterministic SB-VE: stays 0). tests/diffusion/test_samplers.py tests each of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from cdasr.diffusion.processes import Process

Denoiser = Callable[[Tensor, Tensor, Tensor, object], Tensor]
Noise = Callable[[Tensor], Tensor]  # noise(like) -> standard noise of the shape and type of `like`
Seed = int | Sequence[int]  # for all items of a batch, or one for each

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


class FrameNoise:
    """Standard noise, real or complex as the state is, that depends on neither batching nor padding.

    Every item has its own generator, seeded alike or with its own seed, and draws for its own `frames` (B,) only, along
    `axis` of the batch.
    """

    def __init__(self, seed: Seed, frames: Tensor, axis: int = -1):
        self.frames, self.axis = frames.tolist(), axis
        seeds = [seed] * len(self.frames) if isinstance(seed, int) else seed
        self.generators = [torch.Generator().manual_seed(item) for item in seeds]

    def __call__(self, like: Tensor) -> Tensor:
        noise = torch.zeros(like.shape, dtype=like.dtype).movedim(self.axis, -1)
        for row, frames, generator in zip(noise, self.frames, self.generators):
            row[..., :frames] = torch.randn(*row.shape[:-1], frames, dtype=like.dtype, generator=generator)
        return noise.movedim(-1, self.axis).to(like.device)


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
        process, y = self.process, self.y
        if self.method == "pc":
            for _ in range(self.corrector_steps):
                self.x = self._valid(langevin_step(process, self.x, self.denoise(t, given), y, t, self.snr, self.noise))
            self.x = self._valid(euler_step(process, self.x, self.denoise(t, given), y, t, s, self.noise))
        else:
            x0_hat = self.denoise(t, given)
            noise = self.noise(self.x) if self.method == "ancestral" else None
            self.x = self._valid(process.step(self.x, x0_hat, y, t, s, noise))

    def denoise(self, t: float, given: object = None) -> Tensor:
        """x0_hat (B, ...) of the current state, with guidance; it becomes the `estimate`."""
        times = torch.full((len(self.x),), float(t), device=self.x.device)
        weight = 1.0 if given is None else self.guidance
        if weight != 1.0:
            x0_hat = plain = self.denoiser(self.x, times, self.y, None)
        if weight != 0.0:
            x0_hat = self.denoiser(self.x, times, self.y, given)
        if weight not in (0.0, 1.0):
            x0_hat = plain + weight * (x0_hat - plain)
        self.nfe += 1 if weight in (0.0, 1.0) else 2
        self.estimate = self._valid(x0_hat)
        return self.estimate

    def run(self, grid: Tensor, given: object = None,
            on_step: Callable[[int, float, float, Trajectory], None] | None = None) -> Trajectory:
        """Move over all decreasing times of `grid`; `on_step(i, t, s, trajectory)` watches. Returns itself.

        Raises ValueError for a grid that does not decrease to a time >= 0.
        """
        times = grid.tolist()
        if len(times) < 2 or times[-1] < 0 or any(s >= t for t, s in pairwise(times)):
            raise ValueError(f"the grid must decrease over at least two times >= 0, got {times}: see time_grid")
        for i, (t, s) in enumerate(pairwise(times)):
            self.move(t, s, given)
            if on_step is not None:
                on_step(i, t, s, self)
        return self

    def _valid(self, x: Tensor) -> Tensor:
        return x if self.mask is None else x.masked_fill(self.mask == 0, 0)


def langevin_step(process: Process, x: Tensor, x0_hat: Tensor, y: Tensor, t: float, snr: float, noise: Noise) -> Tensor:
    """The corrector: annealed Langevin dynamics at the noise level of t (Song et al. 2021, algorithm 5)."""
    std = process.marginal(x, y, t)[1]
    size = 2.0 * (snr * std) ** 2
    return x + size * process.score(x, x0_hat, y, t) + (2.0 * size).sqrt() * noise(x)


def euler_step(process: Process, x: Tensor, x0_hat: Tensor, y: Tensor, t: float, s: float, noise: Noise) -> Tensor:
    """The predictor: one Euler-Maruyama step of the reverse SDE; at s = 0 its mean, as no noise is left there."""
    score = process.score(x, x0_hat, y, t)
    drift, diffusion = process.drift_and_diffusion(x, y, t)
    mean = x - (drift - diffusion**2 * score) * (t - s)
    return mean + diffusion * (t - s) ** 0.5 * noise(x) if s > 0 else mean


@dataclass
class ReverseProcess:
    """A process with its denoiser, ready to be sampled from `y` (B, ...) over the decreasing times of `grid`.

    `method`, `noise`, `mask`, `guidance` and the `corrector`'s `snr` and `corrector_steps` as in `Trajectory`.
    """

    process: Process
    denoiser: Denoiser
    y: Tensor
    grid: Tensor
    method: str = "deterministic"
    noise: Noise | None = None
    mask: Tensor | None = None
    guidance: float = 1.0
    corrector: dict = field(default_factory=dict)
    trajectories: list[Trajectory] = field(default_factory=list, repr=False)

    @property
    def moves(self) -> list[tuple[float, float]]:
        """The steps (t, s) of the grid."""
        return list(pairwise(self.grid.tolist()))

    @property
    def nfe(self) -> int:
        """Network evaluations of all trajectories so far."""
        return sum(trajectory.nfe for trajectory in self.trajectories)

    def begin(self) -> Trajectory:
        """A new trajectory at the start of the grid."""
        self.trajectories.append(Trajectory(self.process, self.denoiser, self.y, self.method, self.noise, self.mask,
                                            guidance=self.guidance, **self.corrector))
        return self.trajectories[-1]

    def sample(self, given: object) -> Tensor:
        """The estimate at the end of one whole trajectory: its state, where the grid goes down to 0."""
        trajectory = self.begin().run(self.grid, given)
        return trajectory.x if self.grid[-1] == 0.0 else trajectory.estimate


def sample(process: Process, denoiser: Denoiser, y: Tensor, grid: Tensor, method: str = "deterministic",
           noise: Noise | None = None, condition: object = None,
           on_step: Callable[[int, float, float, Trajectory], None] | None = None, **options) -> Trajectory:
    """One trajectory at the end of `grid`, with its state `x`, the latest `estimate` and the evaluations `nfe`.

    `condition` and `on_step` as in `Trajectory.run`; `options` go to `Trajectory`.
    """
    return Trajectory(process, denoiser, y, method, noise, **options).run(grid, condition, on_step)
