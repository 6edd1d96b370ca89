"""Processes: marginals against the public SGMSE code, steps against each other, conversions both ways."""

import json
import math
import os
from pathlib import Path

import pytest
import torch

from cdasr.diffusion.objectives import denoising_loss, draw_times, perturb
from cdasr.diffusion.processes import OUVE, PROCESSES, SBVE, VP, make_process
from cdasr.diffusion.samplers import gaussian_noise

FIXTURE = Path(__file__).parents[1] / "fixtures" / "sgmse_marginals.json"
REFERENCE = Path(os.environ.get("CDASR_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
ALL = [VP(), VP("linear"), OUVE(), SBVE()]


@pytest.fixture(scope="module")
def published():
    """Marginals of one coefficient over 12 times, as the public SGMSE code computes them."""
    numbers = json.loads(FIXTURE.read_text())
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in numbers.items()}


def test_marginals_agree_with_the_public_code(published):
    t, x0, y = (published[name] for name in ("t", "x0", "y"))
    for process in (OUVE(), SBVE()):
        mean, std = process.marginal(x0, y, t)
        torch.testing.assert_close(mean, published[f"{process.name}_mean"], atol=1e-6, rtol=0)
        # the public bridge adds 1e-8 to its variances: a standard deviation of 1e-4 where there is none
        torch.testing.assert_close(std, published[f"{process.name}_std"], atol=1.1e-4, rtol=0)


def test_forward_sde_agrees_with_the_public_code(published):
    t, y = published["t"], published["y"]
    drift, diffusion = OUVE().drift_and_diffusion(published["ouve_mean"], y, t)
    torch.testing.assert_close(drift, published["ouve_drift_at_mean"], atol=1e-6, rtol=0)
    torch.testing.assert_close(diffusion, published["ouve_diffusion"], atol=1e-6, rtol=0)


@pytest.mark.skipif(not (REFERENCE / "sde_marginals.safetensors").is_file(),
                    reason="the folder of SGMSE reference vectors is not here (CDASR_REFERENCE)")
def test_the_fixture_is_part_of_the_whole_reference(published):
    from safetensors.torch import load_file

    whole = load_file(REFERENCE / "sde_marginals.safetensors")
    x0, y = torch.view_as_complex(whole["x0"]), torch.view_as_complex(whole["y"])
    for process in (OUVE(), SBVE()):
        mean, std = process.marginal(x0, y, whole["t"])
        known_mean, known_std = torch.view_as_complex(whole[f"{process.name}_mean"]), whole[f"{process.name}_std"]
        torch.testing.assert_close(mean, known_mean, atol=1e-6, rtol=0)
        torch.testing.assert_close(std.flatten(), known_std, atol=1.1e-4, rtol=0)
        torch.testing.assert_close(published[f"{process.name}_std"], known_std.double(), atol=1e-6, rtol=0)
    drift, diffusion = OUVE().drift_and_diffusion(torch.view_as_complex(whole["ouve_mean"]), y, whole["t"])
    torch.testing.assert_close(drift, torch.view_as_complex(whole["ouve_drift_at_mean"]), atol=1e-5, rtol=0)
    torch.testing.assert_close(diffusion.flatten(), whole["ouve_diffusion"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("t, s", [(0.9, 0.8), (0.6, 0.1), (0.2, 0.19)])
@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
def test_the_ancestral_step_is_bayes_rule_for_the_forward_sde(process, t, s):
    """p(x_s | x_t, x0, y), as the product of p(x_s | x0, y) and of the SDE's transition p(x_t | x_s, y).

    The transition is integrated numerically from drift and diffusion, so nothing here repeats the step's formula.
    """
    one, zero, fine = torch.ones(1, 1).double(), torch.zeros(1, 1).double(), 4000
    short = (t - s) / fine
    middles = s + short * (torch.arange(fine).double() + 0.5)
    rate, diffusion = process.drift_and_diffusion(one.expand(fine, 1), zero.expand(fine, 1), middles)
    pull, _ = process.drift_and_diffusion(zero.expand(fine, 1), one.expand(fine, 1), middles)
    growth = torch.exp(rate * short)
    later = growth.flip(0).cumprod(0).flip(0) / growth  # from the end of each short step to t
    slope = growth.prod()  # x_t = slope x_s + offset y + noise
    offset = (pull * short * growth**0.5 * later).sum()
    variance = (diffusion**2 * short * growth * later**2).sum()
    x_t, x0, y = 0.7 * one, -1.3 * one, 0.4 * one
    mean_s, std_s = process.marginal(x0, y, s)
    precision = 1 / std_s**2 + slope**2 / variance
    mean = (mean_s / std_s**2 + slope * (x_t - offset * y) / variance) / precision
    step = process.step(x_t, x0, y, t, s, zero)
    torch.testing.assert_close(step, mean, atol=1e-5, rtol=1e-5)
    spread = process.step(x_t, x0, y, t, s, one) - step
    torch.testing.assert_close(spread, (precision**-0.5).expand_as(spread), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_steps_agree_with_the_public_bridge_weights(noise):
    """Jukic et al. 2024, eq. 23 (SDE) and 24 (ODE), in the public code's form without its safeguards."""
    process = SBVE()
    x_t, x0, y = (torch.randn(2, 1, 3, 4, dtype=torch.complex128) for _ in range(3))
    for t, s in ((0.99, 0.5), (0.7, 0.69), (0.4, 1e-4)):
        (v_t, v_s, v), log_k = ((process.k ** (2 * u) - 1.0 for u in (t, s, 1.0)), math.log(process.k))
        v_t, v_s, v = (process.c * part / (2 * log_k) for part in (v_t, v_s, v))
        if noise:
            known = v_s / v_t * x_t + (1 - v_s / v_t) * x0 + (v_s * (1 - v_s / v_t)) ** 0.5 * noise
        else:
            sigma_t, sigma_s, bar_t, bar_s = v_t**0.5, v_s**0.5, (v - v_t) ** 0.5, (v - v_s) ** 0.5
            known = (sigma_s * bar_s / (sigma_t * bar_t) * x_t
                     + (bar_s**2 - bar_t * sigma_s * bar_s / sigma_t) / v * x0
                     + (sigma_s**2 - sigma_t * sigma_s * bar_s / bar_t) / v * y)
        drawn = torch.full_like(x_t, noise) if noise else None
        torch.testing.assert_close(process.step(x_t, x0, y, t, s, drawn), known)


@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
@pytest.mark.parametrize("noise", [None, 0.7])
def test_two_steps_are_one_step_in_law(process, noise):
    """p(x_r | x_t, x0) = integral of p(x_r | x_s, x0) p(x_s | x_t, x0): means and variances compose."""
    def law(t, s):
        x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        x0, y = torch.full_like(x, 0.3), torch.full_like(x, -0.4)
        base = process.step(x, x0, y, t, s, None if noise is None else torch.zeros_like(x))
        if noise is None:
            return float(base[0]), float(base[1] - base[0]), 0.0
        spread = process.step(x, x0, y, t, s, torch.ones_like(x))[0] - base[0]
        return float(base[0]), float(base[1] - base[0]), float(spread) ** 2

    (o1, m1, v1), (o2, m2, v2), (o, m, v) = law(0.9, 0.5), law(0.5, 0.2), law(0.9, 0.2)
    assert o == pytest.approx(o2 + m2 * o1, abs=1e-9) and m == pytest.approx(m2 * m1, abs=1e-9)
    assert v == pytest.approx(v2 + m2**2 * v1, abs=1e-9)


@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
def test_score_and_estimate_convert_into_each_other(process):
    x_t, x0, y = (torch.randn(4, 2, 3, dtype=torch.complex128) for _ in range(3))
    t = torch.tensor([0.1, 0.4, 0.7, 0.95])
    torch.testing.assert_close(process.denoised(x_t, process.score(x_t, x0, y, t), y, t), x0)


@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
def test_the_ends_of_time(process):
    x0, y = torch.full((1, 2), 2.0), torch.full((1, 2), -1.0)
    mean, std = process.marginal(x0, y, 0.0)
    torch.testing.assert_close(mean, x0, atol=1e-3, rtol=0)
    assert float(std) < 0.02
    noise = torch.randn_like(y)
    std = process.marginal(x0, y, process.t_max)[1]
    expected = noise if process.name == "vp" else y + std * noise
    torch.testing.assert_close(process.prior(y, noise), expected)
    for drawn in (None, noise):
        assert torch.equal(process.step(noise, x0, y, 0.5, 0.0, drawn), x0), "the last step returns the estimate"


@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
@pytest.mark.parametrize("shape, dtype", [((3,), torch.float64), ((3, 2, 4, 5), torch.complex128)])
def test_every_item_may_have_its_own_time(process, shape, dtype):
    x_t, x0, y, noise = (torch.randn(*shape, dtype=dtype) for _ in range(4))
    t, s = torch.tensor([0.9, 0.5, 0.3]), torch.tensor([0.2, 0.45, 0.0])
    for drawn in (None, noise):
        together = process.step(x_t, x0, y, t, s, drawn)
        for i in range(3):
            part = None if drawn is None else drawn[i:i + 1]
            alone = process.step(x_t[i:i + 1], x0[i:i + 1], y[i:i + 1], float(t[i]), float(s[i]), part)
            torch.testing.assert_close(together[i:i + 1], alone)


def test_the_bridge_starts_exactly_at_the_degraded_signal():
    y = torch.randn(2, 5, dtype=torch.complex64)
    assert torch.equal(SBVE().prior(y, torch.randn_like(y)), y)
    step = SBVE().step(y, 0.5 * y, y, 1.0, 0.4)
    assert torch.isfinite(torch.view_as_real(step)).all()
    torch.testing.assert_close(step, SBVE().marginal(0.5 * y, y, 0.4)[0])
    for k in torch.linspace(1.1, 5.0, 300).tolist():
        ends = SBVE(k=k).coefficients(torch.tensor([0.0, 1.0], dtype=torch.float64))
        assert [part.tolist() for part in ends] == [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], k


@pytest.mark.parametrize("process", ALL, ids=lambda process: process.name)
def test_configuration_round_trip(process):
    assert make_process(json.loads(json.dumps(process.config()))) == process


def test_mistakes_are_named():
    for config, reason in (({"name": "ddpm"}, "unknown process 'ddpm'.*sbve"), ({}, "unknown process None"),
                           ({"name": "ouve", "gamma": 1}, "gamma"), ({"name": "sbve", "k": 0.5}, "k > 1"),
                           ({"name": "ouve", "sigma_min": 1.0}, "sigma_min < sigma_max"),
                           ({"name": "vp", "schedule": "sigmoid"}, "choose cosine or linear")):
        with pytest.raises(ValueError, match=reason):
            make_process(config)
    assert set(PROCESSES) == {"vp", "ouve", "sbve"}


def test_training_states_have_the_marginal():
    generator = torch.Generator().manual_seed(0)
    x0, y, t = torch.full((40_000, 1), 1.0), torch.full((40_000, 1), -1.0), torch.full((40_000,), 0.6)
    x_t = perturb(OUVE(), x0, y, t, gaussian_noise(generator))
    mean, std = OUVE().marginal(x0[:1], y[:1], 0.6)
    assert float(x_t.mean() - mean) == pytest.approx(0.0, abs=5 * float(std) / 200)
    assert float(x_t.std() / std) == pytest.approx(1.0, abs=0.02)


def test_times_cover_the_process_and_start_where_sampling_starts():
    t = draw_times(OUVE(), 10_000, torch.Generator().manual_seed(0), start_prob=0.3)
    assert float(t.min()) >= OUVE.t_min and float((t == 1.0).float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(t[t < 1].mean()) == pytest.approx((1 + OUVE.t_min) / 2, abs=0.02)


def test_loss_ignores_what_is_masked():
    x0 = torch.zeros(2, 1, 3, 4, dtype=torch.complex64)
    estimate = x0.clone()
    estimate[0, ..., :2] = 1 + 1j
    estimate[0, ..., 2:] = 99
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])[:, None, None]
    assert float(denoising_loss(estimate, x0, mask=mask)) == pytest.approx(2.0 * 6 / 18)
    assert float(denoising_loss(estimate, x0, weight=0.0)) == 0.0
