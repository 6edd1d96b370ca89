"""What the output of a network means, so that it can be used as a denoiser.

A network F may have been trained to predict x0, the score or the mean of the state, from scaled inputs and for a scaled
output (Karras et al. 2022, eq. 7; Richter et al. 2024, "Investigating Training Objectives", eq. 7 to 10). All of these
are one affine map away from x0_hat, which is what samplers and training take.
"""

from __future__ import annotations

from collections.abc import Callable
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
class Prediction:
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

    def estimate(self, network: Callable[[Tensor, Tensor, Tensor], Tensor], process: Process, x_t: Tensor, t: Tensor,
                 y: Tensor) -> Tensor:
        """x0_hat from `network(x, t, y)` at the state x_t (B, ...) and times t (B,)."""
        if self == Prediction():
            return network(x_t, t, y)
        sigma = process.marginal(x_t, y, t)[1]
        c_in, c_out, c_skip = (self._scale(place, sigma) for place in ("c_in", "c_out", "c_skip"))
        output = self.sign * network(c_in * x_t, t, c_in * y)
        if self.network_scaling is not None:
            output = output / (sigma if self.network_scaling == "1/sigma" else t.view(sigma.shape))
        output = c_skip * x_t + c_out * output
        if self.target == "x0":
            return output
        return process.denoised(x_t, output if self.target == "score" else (output - x_t) / sigma**2, y, t)

    def _scale(self, place: str, sigma: Tensor) -> Tensor | float:
        name = getattr(self, place)
        return (EDM[place] if name == "edm" else SCALINGS[name])(sigma, self.sigma_data)
