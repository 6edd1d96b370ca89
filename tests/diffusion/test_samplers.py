"""Samplers against closed forms: with exact denoisers, samples have the posterior's mean and covariance."""

import math

import pytest
import torch

from cdasr.diffusion.processes import OUVE, SBVE, VP
from cdasr.diffusion.samplers import METHODS, Trajectory, gaussian_noise, sample, time_grid
from tests.diffusion.gaussian import DIM, Gaussian, moments

COUNT = 20_000
PROCESSES = [VP(), VP("linear"), OUVE(sigma_max=1.0), SBVE()]
UNEVEN = torch.tensor([1.0, 0.97, 0.6, 0.55, 0.1, 1e-3])


def grids(process):
    yield from (time_grid(process, steps) for steps in (4, 20, 200))
    yield time_grid(process, 20, "quadratic")
    yield torch.cat([UNEVEN[:-1], torch.tensor([process.t_min])]).double()


def assert_moments(x, mean, covariance):
    """Within five standard errors of a sample of COUNT."""
    got_mean, got_covariance = moments(x)
    scale = covariance.diagonal().real.max()
    assert (got_mean - mean).abs().max() < 5 * (scale / COUNT) ** 0.5
    assert (got_covariance - covariance).abs().max() < 5 * scale * (2 / COUNT) ** 0.5


@pytest.mark.parametrize("complex_valued", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: f"{process.name}")
def test_ancestral_sampling_is_exact_on_any_grid(process, complex_valued):
    """With x0 drawn from p(x0 | x_t, y), a step draws from p(x_s | x_t, y): exact with 4 steps as with 200."""
    world, generator = Gaussian(process, complex_valued), torch.Generator().manual_seed(0)
    y = world.degraded(COUNT)
    for grid in grids(process):
        # start at the exact marginal of t_max: the usual prior of OUVE and VP only approximates it
        trajectory = Trajectory(process, world.sampling_denoiser(generator), y, "ancestral",
                                gaussian_noise(generator))
        mean, covariance = world.target(1.0)
        root = torch.linalg.cholesky(covariance + 1e-12 * torch.eye(DIM))
        trajectory.x = mean + torch.randn(COUNT, DIM, dtype=world.dtype, generator=generator) @ root.mT
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
            trajectory.move(t, s)
        assert_moments(trajectory.x, *world.target(float(grid[-1])))
        assert_moments(trajectory.estimate, world.mean, world.covariance)


@pytest.mark.parametrize("complex_valued", [False, True], ids=["real", "complex"])
@pytest.mark.parametrize("method", ["deterministic", "ancestral"])
@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: f"{process.name}")
def test_with_the_posterior_mean_the_mean_is_exact_and_the_covariance_converges(process, method, complex_valued):
    """With x0_hat = E[x0 | x_t, y], every step is affine: its law is known in closed form for any grid.

    The mean is exact for any number of steps; the covariance approaches the posterior's as steps are added,
    except for the deterministic bridge, which starts at the point y and stays a point.
    """
    world, generator = Gaussian(process, complex_valued), torch.Generator().manual_seed(0)
    errors = []
    uneven = torch.cat([UNEVEN[:-1], torch.tensor([process.t_min])]).double()
    for grid in (time_grid(process, 4), uneven, time_grid(process, 200)):
        mean, covariance = world.target(1.0)
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
            mean, covariance = propagate(world, mean, covariance, t, s, method)
        target_mean, target = world.target(float(grid[-1]))
        torch.testing.assert_close(mean, target_mean, atol=1e-6, rtol=1e-6)
        errors.append(float((covariance - target).abs().max() / target.abs().max()))

        y = world.degraded(COUNT)
        trajectory = Trajectory(process, world.denoiser, y, method, gaussian_noise(generator))
        start_mean, start_covariance = world.target(1.0)
        root = torch.linalg.cholesky(start_covariance + 1e-12 * torch.eye(DIM))
        trajectory.x = start_mean + torch.randn(COUNT, DIM, dtype=world.dtype, generator=generator) @ root.mT
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
            trajectory.move(t, s)
        if not (method == "deterministic" and process.name == "sbve"):
            assert_moments(trajectory.x, mean, covariance)
    if method == "deterministic" and process.name == "sbve":
        assert trajectory.x.std(dim=0).max() < 1e-3
    else:
        assert errors[-1] < 0.1 and errors[-1] < errors[0] / 4


def propagate(world, mean, covariance, t, s, method):
    """The law of one step, from the affine map x_t -> x_s that the denoiser's posterior mean makes of it."""
    basis = torch.cat([torch.zeros(1, DIM), torch.eye(DIM)]).to(world.dtype)
    y, zero = world.degraded(DIM + 1), torch.zeros(DIM + 1, DIM, dtype=world.dtype)
    x0_hat = world.denoiser(basis, torch.full((DIM + 1,), t), y)
    noise = zero if method == "ancestral" else None
    mapped = world.process.step(basis, x0_hat, y, t, s, noise)
    offset, matrix = mapped[0], (mapped[1:] - mapped[0]).mT
    spread = 0.0
    if method == "ancestral":
        one = world.process.step(basis, x0_hat, y, t, s, torch.ones_like(zero)) - mapped
        spread = float(one[0, 0]) ** 2
    eye = torch.eye(DIM, dtype=world.dtype)
    return offset + matrix @ mean, matrix @ covariance @ matrix.mH + spread * eye


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: f"{process.name}")
def test_a_perfect_denoiser_keeps_the_noise_of_deterministic_sampling_on_every_grid(process):
    """x_s = mean_s + sigma_s z with the z that the trajectory started from, to rounding, for any grid."""
    x0, y = (torch.randn(2, 3, 4, dtype=torch.complex128) for _ in range(2))
    z = torch.randn_like(y)
    for grid in (time_grid(process, 1), time_grid(process, 7, "quadratic"), UNEVEN.double()):
        trajectory = Trajectory(process, lambda x_t, t, y, given: x0, y, noise=lambda like: z)
        mean, std = process.marginal(x0, y, float(grid[0]))
        trajectory.x = mean + std * z
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
            trajectory.move(t, s)
            mean, std = process.marginal(x0, y, s)
            carried = z if process.name != "sbve" else torch.zeros_like(z)  # the bridge starts without noise
            torch.testing.assert_close(trajectory.x, mean + std * carried)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: f"{process.name}")
def test_a_perfect_denoiser_gives_the_marginal_at_every_time(process):
    x0, y = torch.tensor([1.0, -2.0]).double(), torch.tensor([0.5, 0.5]).double()
    generator, count = torch.Generator().manual_seed(1), 50_000
    for grid in (time_grid(process, 3), UNEVEN[:4].double()):
        trajectory = Trajectory(process, lambda x_t, t, y, given: x0.expand_as(x_t), y.expand(count, 2),
                                "ancestral", gaussian_noise(generator))
        mean, std = process.marginal(x0, y, float(grid[0]))
        trajectory.x = mean + std * torch.randn(count, 2, generator=generator, dtype=torch.float64)
        for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
            trajectory.move(t, s)
            mean, std = process.marginal(x0, y, s)
            assert (trajectory.x.mean(dim=0) - mean).abs().max() < 5 * float(std) / count**0.5 + 1e-9
            assert abs(float(trajectory.x.std(dim=0).max()) - float(std)) < 0.02 * float(std) + 1e-9


def test_predictor_corrector_reaches_the_posterior():
    process = OUVE(sigma_max=1.0)
    world, generator = Gaussian(process, complex_valued=True), torch.Generator().manual_seed(0)
    grid = time_grid(process, 200)
    mean, covariance = world.target(1.0)
    trajectory = Trajectory(process, world.denoiser, world.degraded(COUNT), "pc", gaussian_noise(generator),
                            snr=0.1)
    root = torch.linalg.cholesky(covariance)
    trajectory.x = mean + torch.randn(COUNT, DIM, dtype=world.dtype, generator=generator) @ root.mT
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
        trajectory.move(t, s)
    got_mean, got = moments(trajectory.x)
    target_mean, target = world.target(process.t_min)
    assert (got_mean - target_mean).abs().max() < 0.03 * target.diagonal().real.max() ** 0.5
    assert (got - target).abs().max() < 0.05 * target.abs().max()


@pytest.mark.parametrize("corrector_steps", [0, 1, 3])
def test_predictor_corrector_agrees_with_the_formulas_of_the_public_code(corrector_steps):
    """SGMSE's annealed Langevin corrector and reverse-diffusion predictor, with every corrector step taken."""
    theta, low, high, snr = 1.5, 0.05, 0.5, 0.5
    y, draws = torch.randn(2, 1, 3, 4, dtype=torch.complex128), torch.randn(30, 2, 1, 3, 4, dtype=torch.complex128)
    grid = torch.cat([torch.linspace(1.0, 0.03, 6), torch.zeros(1)]).double()

    def estimate(x_t, t, y, condition=None):
        return torch.tanh(x_t.real) + 0.3j * t.reshape(-1, 1, 1, 1) * y

    def std(t):
        log_ratio = math.log(high / low)
        return (low**2 * ((high / low) ** (2 * t) - math.exp(-2 * theta * t)) * log_ratio / (theta + log_ratio)) ** 0.5

    def score(x, t):
        x0_hat = estimate(x, torch.full((2,), t), y)
        decay = math.exp(-theta * t)
        return (decay * x0_hat + (1 - decay) * y - x) / std(t) ** 2

    noise = iter(draws)
    x = y + std(1.0) * next(noise)
    for t, s in zip(grid[:-1].tolist(), grid[1:].tolist()):
        for _ in range(corrector_steps):
            size = 2 * (snr * std(t)) ** 2
            x = x + size * score(x, t) + (2 * size) ** 0.5 * next(noise)
        diffusion = low * (high / low) ** t * (2 * math.log(high / low)) ** 0.5
        last = estimate(x, torch.full((2,), t), y)
        mean = x - (theta * (y - x) - diffusion**2 * score(x, t)) * (t - s)
        x = mean + diffusion * (t - s) ** 0.5 * next(noise)

    noise = iter(draws)
    result = sample(OUVE(theta, low, high), estimate, y, grid, "pc", lambda like: next(noise), snr=snr,
                    corrector_steps=corrector_steps)
    # the times that a denoiser sees are in single precision; the public code returns the mean of the last step
    torch.testing.assert_close(result.x, mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(result.estimate, last, atol=1e-5, rtol=1e-5)
    assert result.nfe == 6 * (1 + corrector_steps)


@pytest.mark.parametrize("method", METHODS)
def test_padding_stays_out_of_sight(method):
    """A padded item with a mask takes the steps of the item alone, though what is in the padding is absurd."""
    y, draws = torch.randn(1, 2, 7, dtype=torch.complex64), torch.randn(40, 1, 2, 7, dtype=torch.complex64)
    padded, mask = y.clone(), torch.tensor([1, 1, 1, 1, 0, 0, 0])
    padded[..., 4:] = float("nan")

    def denoiser(x_t, t, y, condition):  # mixes all frames: a leak would show
        return 0.5 * x_t + 0.1 * y.sum(dim=-1, keepdim=True) + 0.1 * x_t.sum(dim=-1, keepdim=True)

    def run(y, frames, **options):
        noise = iter(draws)
        return sample(OUVE(), denoiser, y, time_grid(OUVE(), 4), method, lambda like: next(noise)[..., :frames],
                      **options)

    together, alone = run(padded, 7, mask=mask), run(y[..., :4], 4)
    for got, expected in ((together.x, alone.x), (together.estimate, alone.estimate)):
        torch.testing.assert_close(got[..., :4], expected)
        assert torch.equal(got[..., 4:], torch.zeros(1, 2, 3, dtype=torch.complex64))


@pytest.mark.parametrize("method, per_step", [("deterministic", 1), ("ancestral", 1), ("pc", 3)])
def test_evaluations_are_counted_and_never_repeated(method, per_step):
    seen = []

    def denoiser(x_t, t, y, condition):
        seen.append((float(t[0]), x_t.clone()))
        return 0.5 * (x_t + y)

    result = sample(OUVE(), denoiser, torch.ones(2, 3), time_grid(OUVE(), 5), method,
                    gaussian_noise(torch.Generator().manual_seed(0)), corrector_steps=2)
    assert result.nfe == len(seen) == 5 * per_step
    assert all(not (t == u and torch.equal(x, z)) for i, (t, x) in enumerate(seen) for u, z in seen[:i])


def test_items_of_a_batch_do_not_meet():
    y = torch.randn(3, 4, dtype=torch.complex64)
    together = sample(SBVE(), lambda x_t, t, y, given: 0.3 * x_t + 0.1j, y, time_grid(SBVE(), 4)).x
    alone = sample(SBVE(), lambda x_t, t, y, given: 0.3 * x_t + 0.1j, y[1:2], time_grid(SBVE(), 4)).x
    torch.testing.assert_close(together[1:2], alone)


def test_a_seed_gives_the_same_sample():
    def run(seed):
        noise = gaussian_noise(torch.Generator().manual_seed(seed))
        y, grid = torch.ones(2, 3), time_grid(OUVE(), 4)
        return sample(OUVE(), lambda x_t, t, y, given: y, y, grid, "ancestral", noise).x
    assert torch.equal(run(5), run(5)) and not torch.equal(run(5), run(6))


def test_complex_noise_has_variance_one():
    noise = gaussian_noise(torch.Generator().manual_seed(0))
    for like in (torch.empty(100_000), torch.empty(100_000, dtype=torch.complex64)):
        assert float(noise(like).abs().square().mean()) == pytest.approx(1.0, abs=0.02)


def test_condition_and_watcher_are_called():
    seen = []
    sample(SBVE(), lambda x_t, t, y, given: given * y, torch.ones(1, 2), time_grid(SBVE(), 3), condition=2.0,
           on_step=lambda i, t, s, trajectory: seen.append((i, t > s, float(trajectory.estimate[0, 0]))))
    assert seen == [(0, True, 2.0), (1, True, 2.0), (2, True, 2.0)]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown sampling method 'ddim'"):
        Trajectory(SBVE(), None, torch.ones(1, 2), "ddim")
    with pytest.raises(ValueError, match="draws noise"):
        Trajectory(SBVE(), None, torch.ones(1, 2), "ancestral")
    with pytest.raises(ValueError, match="draws noise"):
        Trajectory(OUVE(), None, torch.ones(1, 2))
    noise = gaussian_noise(torch.Generator())
    with pytest.raises(ValueError, match="'pc' needs a score.*sbve is a point.*choose deterministic"):
        Trajectory(SBVE(), None, torch.ones(1, 2), "pc", noise)
    with pytest.raises(ValueError, match="needs a torch.Generator, got None"):
        gaussian_noise(None)
    for times in ([0.5], [0.2, 0.8], [1.0, 0.5, 0.5], [1.0, -0.1]):
        with pytest.raises(ValueError, match="grid must decrease"):
            sample(SBVE(), None, torch.ones(1, 2), torch.tensor(times))
    with pytest.raises(ValueError, match="at least 1"):
        time_grid(SBVE(), 0)
    with pytest.raises(ValueError, match="unknown spacing"):
        time_grid(SBVE(), 2, "log")


@pytest.mark.parametrize("weight, evaluations", [(0.0, 1), (0.5, 2), (1.0, 1), (2.0, 2)])
def test_guidance_weighs_what_the_condition_changes(weight, evaluations):
    y, process = torch.randn(3, 4, dtype=torch.float64), SBVE()

    def denoiser(x, t, y, given):
        return 0.5 * y if given is None else 0.5 * y + given

    trajectory = Trajectory(process, denoiser, y, guidance=weight)
    trajectory.move(1.0, 0.5, given=torch.ones_like(y))
    torch.testing.assert_close(trajectory.estimate, 0.5 * y + weight)
    assert trajectory.nfe == evaluations
    trajectory.move(0.5, 0.0, given=None)
    assert trajectory.nfe == evaluations + 1
