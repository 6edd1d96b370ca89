"""A linear-Gaussian world of signal and logits: x0 ~ N(m, S) given y, l0 = A x0 + e with e ~ N(0, E), C(x) = A x.

All conditionals are Gaussian and known, so are the exact denoisers: those that draw from p(x0 | x_t, l0, y) and
p(l0 | l_s, x0, y), and those that return these laws' means.
"""

from __future__ import annotations

import torch

from cdasr.diffusion.coupling import Observation, ReverseProcess
from cdasr.diffusion.samplers import gaussian_noise

X, L = 3, 2


def _covariance(size: int, generator: torch.Generator, floor: float) -> torch.Tensor:
    root = torch.randn(size, size, dtype=torch.float64, generator=generator)
    return root @ root.mT / size + floor * torch.eye(size, dtype=torch.float64)


class Joint:
    """The world given one y, for `count` samples at once; `draws` says which kind of denoisers the sides have."""

    def __init__(self, count: int, draws: bool, seed: int = 0):
        constants = torch.Generator().manual_seed(11)
        self.covariance = _covariance(X, constants, 0.2)
        self.view = torch.randn(L, X, dtype=torch.float64, generator=constants)
        self.spread = _covariance(L, constants, 0.3)
        self.mean, y = torch.randn(2, X, dtype=torch.float64, generator=constants)
        self.y, self.draws = y.expand(count, X), draws
        self.generator = torch.Generator().manual_seed(seed)
        self.evaluated: list[tuple[str, torch.Tensor]] = []

    @property
    def logits_law(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and covariance of l0 given y."""
        return self.view @ self.mean, self.view @ self.covariance @ self.view.mT + self.spread

    @property
    def gain(self) -> torch.Tensor:
        """E[x0 | l0, y] = m + gain (l0 - A m)."""
        return torch.linalg.solve(self.logits_law[1], self.view @ self.covariance).mT

    @property
    def law(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean (X + L,) and covariance of (x0, l0) given y."""
        cross = self.covariance @ self.view.mT
        rows = [torch.cat([self.covariance, cross], 1), torch.cat([cross.mT, self.logits_law[1]], 1)]
        return torch.cat([self.mean, self.logits_law[0]]), torch.cat(rows)

    def observe(self, x: torch.Tensor) -> Observation:
        self.evaluated.append(("classifier", x))
        return Observation(x @ self.view.mT, context="y" if x is self.y else "x")

    def signal(self, process, grid: torch.Tensor, method: str = "ancestral") -> ReverseProcess:
        def denoise(x_t, t, y, given):
            self.evaluated.append(("signal", x_t))
            mean, covariance = self.mean, self.covariance
            if given is not None:
                mean = mean + (given - self.logits_law[0]) @ self.gain.mT
                covariance = covariance - self.gain @ self.view @ covariance
            return self._estimate(process, x_t, t, y, mean, covariance)
        return ReverseProcess(process, denoise, self.y, grid, method, gaussian_noise(self.generator))

    def logits(self, process, grid: torch.Tensor, method: str = "ancestral"):
        def denoise(l_s, s, heard, given):
            self.evaluated.append(("logits", l_s))
            mean, covariance = self.logits_law if given.context == "y" else (given.logits, self.spread)
            return self._estimate(process, l_s, s, heard, mean, covariance)
        return lambda heard: ReverseProcess(process, denoise, heard.logits, grid, method,
                                            gaussian_noise(self.generator))

    def _estimate(self, process, state, t, y, mean, covariance) -> torch.Tensor:
        """A draw of, or the mean of, v given state = a v + b y + sigma z, for v ~ N(mean, covariance)."""
        a, b, sigma = process.coefficients(t[0].double())
        eye = torch.eye(len(covariance), dtype=torch.float64)
        gain = a * torch.linalg.solve(a**2 * covariance + (sigma**2 + 1e-30) * eye, covariance).mT
        mean = mean + (state - a * mean - b * y) @ gain.mT
        if not self.draws:
            return mean
        values, vectors = torch.linalg.eigh(covariance - a * gain @ covariance)
        root = vectors * values.clamp_min(0).sqrt()
        return mean + torch.randn(state.shape, dtype=torch.float64, generator=self.generator) @ root.mT
