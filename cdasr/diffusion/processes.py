"""Forward diffusion processes: how a clean x0 turns, over t in [0, 1], into noise or into the degraded y.

Every process here is linear and Gaussian, x_t = a(t) x0 + b(t) y + sigma(t) z with standard noise z, and
Markov given y. One pair of reverse steps then serves them all, for any two times t > s:

- deterministic: keep the realised noise, x_s = mean_s + sigma_s / sigma_t (x_t - mean_t). This is DDIM for VP
  and the ODE sampler of Jukic et al. (2024, eq. 24) for SB-VE.
- ancestral: draw from p(x_s | x_t, x0 = x0_hat, y), which is exact for any step size. The forward transition
  from s to t is x_t = r x_s + (b_t - r b_s) y + noise of variance sigma_t^2 - r^2 sigma_s^2, r = a_t / a_s;
  Bayes' rule gives the mean mean_s + r sigma_s^2 / sigma_t^2 (x_t - mean_t) and the variance
  sigma_s^2 (1 - r^2 sigma_s^2 / sigma_t^2).

Tensors may be real or complex and of any shape, batch first; a time is a float or a tensor (B,). Complex
standard noise has total variance 1.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor

Time = float | Tensor


class Process:
    """A linear-Gaussian process; subclasses give `coefficients` and their limits of time."""

    name: ClassVar[str]
    t_max: ClassVar[float] = 1.0
    t_min: float = 1e-4

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a(t), b(t) and sigma(t), each of the shape of t, in double precision."""
        raise NotImplementedError

    def marginal(self, x0: Tensor, y: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """Mean of x_t given x0 and y, and its standard deviation, which broadcasts against it."""
        a, b, sigma = self._at(t, x0)
        return a * x0 + b * y, sigma

    def prior(self, y: Tensor, noise: Tensor) -> Tensor:
        """A draw of x at t_max given y, with x0 replaced by y where the marginal still depends on it."""
        mean, std = self.marginal(y, y, self.t_max)
        return mean + std * noise

    def step(self, x_t: Tensor, x0_hat: Tensor, y: Tensor, t: Time, s: Time,
             noise: Tensor | None = None) -> Tensor:
        """One reverse step from t to s < t given the estimate `x0_hat`; at s = 0 that is `x0_hat`.

        Without `noise` the deterministic step, with standard `noise` the exact ancestral one: where x0_hat is
        drawn from p(x0 | x_t, y), x_s is a draw from p(x_s | x_t, y), however far s is from t.
        """
        a_t, b_t, sigma_t = self._at(t, x_t)
        a_s, b_s, sigma_s = self._at(s, x_t)
        residual = x_t - a_t * x0_hat - b_t * y
        mean = a_s * x0_hat + b_s * y
        if noise is None:
            return mean + _ratio(sigma_s, sigma_t) * residual
        gain = _ratio(sigma_s**2, sigma_t**2) * a_t / a_s
        variance = (sigma_s**2 * (1.0 - gain * a_t / a_s)).clamp_min(0.0)
        return mean + gain * residual + variance.sqrt() * noise

    def drift_and_diffusion(self, x: Tensor, y: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """f and g of the forward SDE dx = f(x, y, t) dt + g(t) dw with this marginal, for a(t), sigma(t) > 0.

        From x_t = a x0 + b y + sigma z: f = (a'/a) x + (b' - a'/a b) y, g^2 = (sigma^2)' - 2 (a'/a) sigma^2
        (Song et al. 2021, section 3).
        """
        t = torch.as_tensor(t, dtype=torch.float64, device=x.device)
        (a, b, sigma), (da, db, dsigma) = torch.func.jvp(self.coefficients, (t,), (torch.ones_like(t),))
        rate = da / a
        parts = (rate, db - rate * b, (2 * sigma * dsigma - 2 * rate * sigma**2).clamp_min(0.0).sqrt())
        rate, pull, diffusion = (_shape(part, x) for part in parts)
        return rate * x + pull * y, diffusion

    def score(self, x_t: Tensor, x0_hat: Tensor, y: Tensor, t: Time) -> Tensor:
        """The score grad log p_t(x_t | y) that an estimate of x0 implies (Tweedie); needs sigma(t) > 0."""
        mean, std = self.marginal(x0_hat, y, t)
        return (mean - x_t) / std**2

    def denoised(self, x_t: Tensor, score: Tensor, y: Tensor, t: Time) -> Tensor:
        """The estimate of x0 that a score implies: the inverse of `score`; needs a(t) > 0."""
        a, b, sigma = self._at(t, x_t)
        return (x_t + sigma**2 * score - b * y) / a

    def config(self) -> dict:
        """Plain data from which `make_process` builds the process again."""
        return {"name": self.name, **asdict(self)}

    def _at(self, t: Time, like: Tensor) -> tuple[Tensor, ...]:
        """The coefficients at t, shaped to broadcast against `like` (B, ...)."""
        t = torch.as_tensor(t, dtype=torch.float64, device=like.device)
        return tuple(_shape(part, like) for part in self.coefficients(t))


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving, a^2 + sigma^2 = 1 (Ho et al. 2020).

    Schedules: `cosine` (Nichol & Dhariwal 2021) or `linear` betas. The degraded y enters through the denoiser
    only: b = 0.
    """

    schedule: str = "cosine"
    name: ClassVar[str] = "vp"
    t_min: ClassVar[float] = 1e-3

    def __post_init__(self):
        _expect(self.schedule in ("cosine", "linear"),
                f"VP schedule {self.schedule!r}: choose cosine or linear")

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.schedule == "cosine":
            start = math.cos(0.008 / 1.008 * math.pi / 2)
            signal = torch.cos((t + 0.008) / 1.008 * math.pi / 2) / start
            alpha_bar = (signal**2).clamp(1e-8, 1.0)
        else:
            alpha_bar = torch.exp(-(0.1 * t + 0.5 * (20.0 - 0.1) * t**2))
        return alpha_bar.sqrt(), torch.zeros_like(t), (1.0 - alpha_bar).clamp_min(0.0).sqrt()

    def prior(self, y: Tensor, noise: Tensor) -> Tensor:
        """Standard noise: nothing of y is left in the state at t_max."""
        return noise


@dataclass(frozen=True)
class OUVE(Process):
    """Ornstein-Uhlenbeck drift to y with exploding variance (SGMSE+; Richter et al. 2023, eq. 10 to 12).

    `t_min`: earliest time of training and sampling; below it the state is almost clean and its score blows up.
    """

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5
    t_min: float = 0.03
    name: ClassVar[str] = "ouve"

    def __post_init__(self):
        _expect(self.theta > 0 and 0 < self.sigma_min < self.sigma_max and 0 < self.t_min < 1,
                f"OUVE needs theta > 0, 0 < sigma_min < sigma_max and 0 < t_min < 1, got {self}")

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_ratio = math.log(self.sigma_max / self.sigma_min)
        decay = torch.exp(-self.theta * t)
        grown = self.sigma_min**2 * (torch.exp(2 * log_ratio * t) - decay**2)
        variance = grown * log_ratio / (self.theta + log_ratio)
        return decay, 1.0 - decay, variance.clamp_min(0.0).sqrt()


@dataclass(frozen=True)
class SBVE(Process):
    """Schroedinger bridge from y to x0 with variance-exploding noise (Jukic et al. 2024, table 1).

    A Brownian motion with clock sigma^2(t) = c (k^2t - 1) / (2 log k), pinned at x0 and at y. It starts
    exactly at y, so the deterministic step has no noise to keep: its covariance is 0 for any number of steps,
    it is a point estimator, and only the ancestral step spreads over the posterior.
    """

    k: float = 2.6
    c: float = 0.4
    name: ClassVar[str] = "sbve"

    def __post_init__(self):
        _expect(self.k > 1 and self.c > 0, f"SB-VE needs k > 1 and c > 0, got {self}")

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rate = 2 * math.log(self.k)
        total = self.c * math.expm1(rate) / rate
        # in proportion to sigma^2 and sigma_bar^2; unlike differences, these are exactly 0 at the pinned ends
        passed, remaining = torch.expm1(rate * t), torch.exp(rate * t) * torch.expm1(rate * (1.0 - t))
        a, b = remaining / (passed + remaining), passed / (passed + remaining)
        return a, b, (total * a * b).clamp_min(0.0).sqrt()


PROCESSES: dict[str, type[Process]] = {"vp": VP, "ouve": OUVE, "sbve": SBVE}


def make_process(config: dict) -> Process:
    """The process that `{"name": ..., parameter: value}` describes.

    Raises ValueError for an unknown name or parameter, or for values out of range.
    """
    options = dict(config)
    name = options.pop("name", None)
    _expect(name in PROCESSES, f"unknown process {name!r}; known: {', '.join(PROCESSES)}")
    try:
        return PROCESSES[name](**options)
    except TypeError as error:
        raise ValueError(f"process {name!r}: {error}") from None


def _shape(part: Tensor, like: Tensor) -> Tensor:
    """A coefficient () or (B,) in the precision of `like` (B, ...), to broadcast against it."""
    part = part.to(like.real.dtype if like.is_complex() else like.dtype)
    return part.reshape((-1,) + (1,) * (like.dim() - 1)) if part.dim() else part


def _ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is 0: there is no noise to carry over."""
    return torch.where(denominator > 0, numerator / denominator.clamp_min(1e-30), torch.zeros_like(numerator))


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
