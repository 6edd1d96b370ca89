"""What the output of a network means: it wraps the network as a denoiser, as k-diffusion does.

A network F may have been trained to predict x0, the score or the mean of the state, from scaled inputs and for a scaled
output (Karras et al. 2022, eq. 7; Richter et al. 2024, "Investigating Training Objectives", eq. 7 to 10). All of these
are one affine map away from x0_hat, which is what samplers and training take.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from cdasr.diffusion.processes import Process

TARGETS = ("x0", "score", "mean")
SCALINGS = {  # of sigma(t) and sigma_data
    "0": lambda sigma, data: 0.0,
    "1": lambda sigma, data: 1.0,
    "sigma": lambda sigma, data: sigma,
    "1/sigma": lambda sigma, data: 1.0 / sigma,
}
EDM = {  # the one of each place (Karras et al. 2022, table 1)
    "c_in": lambda sigma, data: torch.rsqrt(sigma**2 + data**2),
    "c_out": lambda sigma, data: sigma * data * torch.rsqrt(sigma**2 + data**2),
    "c_skip": lambda sigma, data: data**2 / (sigma**2 + data**2),
}


@dataclass(frozen=True)
class Preconditioning:
    """c_skip x_t + c_out F(c_in x_t, c_in y, t) is an estimate of the `target`: x0, score or mean of x_t.

    The c's are names of `SCALINGS` or "edm", `sigma_data` is the data's standard deviation for the latter. F itself is
    divided by sigma(t) or t where `network_scaling` is "1/sigma" or "1/t", and comes with the `sign` 1 or -1.
    Raises ValueError for unknown names.
    """

    target: str = "x0"
    c_in: str = "1"
    c_out: str = "1"
    c_skip: str = "0"
    network_scaling: str | None = None
    sigma_data: float = 0.1
    sign: int = 1

    def __post_init__(self):
        choices = {"target": TARGETS, "c_in": ("1", "edm"), "c_out": ("1", "sigma", "1/sigma", "edm"),
                   "c_skip": ("0", "edm"), "network_scaling": (None, "1/sigma", "1/t"), "sign": (1, -1)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(f"prediction: {name} {getattr(self, name)!r}; known: {', '.join(map(str, known))}")

    def input_scale(self, process: Process, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor | float:
        """c_in at the times t (B,), to broadcast against the state x_t (B, ...)."""
        return 1.0 if self.c_in == "1" else self._scale("c_in", process.marginal(x_t, y, t)[1])

    def x0_hat(self, output: Tensor, process: Process, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """x0_hat (B, ...) from the network's `output` (B, ...) at the state x_t and times t (B,)."""
        if self == Preconditioning():
            return output
        sigma = process.marginal(x_t, y, t)[1]
        output = self.sign * output
        if self.network_scaling is not None:
            output = output / (sigma if self.network_scaling == "1/sigma" else t.view(sigma.shape))
        output = self._scale("c_skip", sigma) * x_t + self._scale("c_out", sigma) * output
        if self.target == "x0":
            return output
        return process.denoised(x_t, output if self.target == "score" else (output - x_t) / sigma**2, y, t)

    def _scale(self, place: str, sigma: Tensor) -> Tensor | float:
        name = getattr(self, place)
        return (EDM[place] if name == "edm" else SCALINGS[name])(sigma, self.sigma_data)


@dataclass(frozen=True)
class NetworkDenoiser:
    """A network as a denoiser: D(x_t, t, y, given) -> x0_hat (B, ...), as trajectories and training take it.

    `condition(given)` gives further arguments of the network by name; without it there are none. The network is
    evaluated in `dtype` (torch.bfloat16 or torch.float16) where that is safe; None: in the surroundings' precision.
    """

    network: Callable[..., Tensor]
    process: Process
    preconditioning: Preconditioning = Preconditioning()
    condition: Callable[[object], dict] = lambda given: {}
    dtype: torch.dtype | None = None

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor, given: object = None) -> Tensor:
        """x0_hat at the state x_t (B, ...) and times t (B,), beside the degraded y (B, ...)."""
        c_in, options = self.preconditioning.input_scale(self.process, x_t, t, y), self.condition(given)
        with _autocast(self.dtype, x_t.device):
            output = self.network(c_in * x_t, t, c_in * y, **options)
        return self.preconditioning.x0_hat(output, self.process, x_t, t, y)


def _autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager:
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)
