"""Whatever a network was trained to predict, a perfect one gives back x0."""

import pytest
import torch

from cdasr.diffusion.preconditioning import NetworkDenoiser, Preconditioning
from cdasr.diffusion.processes import OUVE, SBVE

CONVENTIONS = [
    {"target": "score", "sign": -1},  # SGMSE+ (ncsnpp)
    {"target": "score", "network_scaling": "1/sigma"}, {"target": "score", "network_scaling": "1/t"},
    {"target": "score", "c_in": "edm", "c_out": "1/sigma", "sigma_data": 0.2},
    {"target": "mean"}, {"target": "x0"}, {"target": "x0", "c_in": "edm", "c_out": "edm", "c_skip": "edm"},
    {"target": "x0", "c_out": "sigma", "sign": -1}]


@pytest.mark.parametrize("process", [OUVE(), SBVE()], ids=lambda process: process.name)
@pytest.mark.parametrize("convention", CONVENTIONS, ids=str)
def test_a_perfect_network_is_a_perfect_denoiser(convention, process):
    x0, y, noise = torch.randn(3, 4, 1, 5, 6, dtype=torch.complex128)
    t = torch.tensor([0.1, 0.4, 0.7, 0.95], dtype=torch.float64)
    prediction = Preconditioning(**convention)
    mean, std = process.marginal(x0, y, t)
    x_t, data = mean + std * noise, prediction.sigma_data
    norm = (std**2 + data**2) ** 0.5
    c_in = 1 / norm if prediction.c_in == "edm" else torch.ones_like(std)
    c_out = {"1": 1.0, "sigma": std, "1/sigma": 1 / std, "edm": std * data / norm}[prediction.c_out]
    c_skip = data**2 / norm**2 if prediction.c_skip == "edm" else 0.0
    scaling = {None: 1.0, "1/sigma": 1 / std, "1/t": 1 / t.view(std.shape)}[prediction.network_scaling]
    target = {"x0": x0, "score": -noise / std, "mean": mean}[prediction.target]

    def network(x, time, given):
        torch.testing.assert_close(x, c_in * x_t)
        torch.testing.assert_close(given, c_in * y)
        return prediction.sign * (target - c_skip * x_t) / (c_out * scaling)

    torch.testing.assert_close(NetworkDenoiser(network, process, prediction)(x_t, t, y), x0)


def test_unknown_conventions_are_named():
    for options, name in (({"target": "flow"}, "target 'flow'"), ({"c_in": "2"}, "c_in '2'"),
                          ({"network_scaling": "t"}, "network_scaling 't'")):
        with pytest.raises(ValueError, match=name):
            Preconditioning(**options)
