"""A linear-Gaussian world in which the exact denoiser is known in closed form.

x0 ~ N(m, S) given y, with correlated components (real, or circular complex). Then x0 given x_t and y is Gaussian:
E[x0 | x_t, y] = m + K (x_t - a m - b y) with K = a S (a^2 S + sigma^2 I)^-1, and covariance (I - a K) S.
"""

from __future__ import annotations

import torch

DIM = 3


class Gaussian:
    """The posterior of x0 given one degraded y, in double precision, and its exact denoisers for a process."""

    def __init__(self, process, complex_valued: bool):
        self.process, self.dtype = process, torch.complex128 if complex_valued else torch.float64
        generator = torch.Generator().manual_seed(3)
        root = torch.randn(DIM, DIM, dtype=self.dtype, generator=generator)
        self.covariance = root @ root.mH / DIM + 0.1 * torch.eye(DIM, dtype=self.dtype)
        self.mean = torch.randn(DIM, dtype=self.dtype, generator=generator)
        self.y = torch.randn(DIM, dtype=self.dtype, generator=generator)

    def gain(self, t: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        a, b, sigma = (part.to(self.dtype) for part in
                       self.process.coefficients(torch.tensor(t, dtype=torch.float64)))
        eye = torch.eye(DIM, dtype=self.dtype)
        # solve from the right; at sigma = a = 0 the state says nothing about x0
        spread = a**2 * self.covariance + sigma**2 * eye + 1e-30 * eye
        return a * torch.linalg.solve(spread, self.covariance).mH, a, b, sigma

    def denoiser(self, x_t, t, y, condition=None):
        """E[x0 | x_t, y] for states (B, DIM)."""
        k, a, b, _ = self.gain(float(t[0]))
        return self.mean + (x_t - a * self.mean - b * y) @ k.mT

    def sampling_denoiser(self, generator):
        """Draws x0 from p(x0 | x_t, y): the exact denoiser with its posterior spread."""
        def draw(x_t, t, y, condition=None):
            k, a, _, _ = self.gain(float(t[0]))
            covariance = self.covariance - a * k @ self.covariance
            values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.mH))
            root = vectors * values.clamp_min(0).sqrt()
            z = torch.randn(x_t.shape, dtype=self.dtype, generator=generator)
            return self.denoiser(x_t, t, y) + z @ root.mT
        return draw

    def degraded(self, count: int) -> torch.Tensor:
        return self.y.expand(count, DIM)

    def target(self, t: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and covariance of x_t given y."""
        _, a, b, sigma = self.gain(t)
        return a * self.mean + b * self.y, a**2 * self.covariance + sigma**2 * torch.eye(DIM, dtype=self.dtype)


def moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (DIM,) and covariance (DIM, DIM), E[(x - m)(x - m)^H], of samples (B, DIM)."""
    mean = x.mean(dim=0)
    centred = x - mean
    return mean, centred.mT @ centred.conj() / len(x)
