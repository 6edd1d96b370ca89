"""Strategies against closed forms: in a linear-Gaussian world the joint posterior of signal and logits is known."""

from functools import partial

import pytest
import torch

from cdasr.diffusion.coupling import (
    STRATEGIES,
    Observation,
    ReverseProcess,
    alternating,
    card,
    cascade,
    enhanced,
    nested,
    parallel,
)
from cdasr.diffusion.processes import OUVE, SBVE, VP
from cdasr.diffusion.samplers import time_grid
from tests.diffusion.gaussian import moments
from tests.diffusion.joint import Joint, X

COUNT = 20_000
EXACT = {"cascade": cascade, "parallel": partial(parallel, switch=1.0, first="none"),
         "alternating": partial(alternating, rounds=3, first="none"), "nested": partial(nested, first="none")}
GRIDS = {"one": lambda process: time_grid(process, 1), "four": lambda process: time_grid(process, 4),
         "uneven": lambda process: torch.tensor([1.0, 0.97, 0.6, 0.1, process.t_min])}


def run(strategy, world, grid, method="ancestral", processes=None):
    signal, logits = processes or (SBVE(), VP())
    return strategy(world.signal(signal, grid(signal), method), world.logits(logits, grid(logits), method),
                    world.observe)


def joint_moments(result):
    return moments(torch.cat([result.signal, result.logits], dim=1))


def assert_law(got, law, scale=1.0):
    """Within five standard errors of COUNT samples."""
    (mean, covariance), (known_mean, known_covariance) = got, law
    top = known_covariance.diagonal().max()
    assert (mean - known_mean).abs().max() < 5 * scale * (top / COUNT) ** 0.5
    assert (covariance - known_covariance).abs().max() < 5 * scale * top * (2 / COUNT) ** 0.5


@pytest.mark.parametrize("processes", [(SBVE(), VP()), (VP(), SBVE())], ids=["sbve-vp", "vp-sbve"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("strategy", EXACT.values(), ids=EXACT)
def test_with_denoisers_that_draw_the_joint_posterior_is_exact_on_any_grid(strategy, grid, processes):
    world = Joint(COUNT, draws=True)
    assert_law(joint_moments(run(strategy, world, grid, processes=processes)), world.law)


def test_one_sided_strategies_have_their_marginals():
    world = Joint(COUNT, draws=True)
    mean, covariance = world.law
    assert_law(moments(run(enhanced, world, GRIDS["four"]).signal), (mean[:X], covariance[:X, :X]))
    result = run(card, world, GRIDS["four"])
    assert_law(moments(result.logits), (mean[X:], covariance[X:, X:]))
    assert result.signal is None and torch.equal(result.observed.logits, world.y @ world.view.mT)


@pytest.mark.parametrize("method", ["ancestral", "deterministic"])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("strategy", [*EXACT.values(), partial(parallel, first="none"),
                                      partial(nested, inner=2, first="none")],
                         ids=[*EXACT, "parallel, late switch", "nested, inner steps"])
def test_with_posterior_means_the_mean_is_exact_and_the_spread_is_at_most_the_posteriors(strategy, grid, method):
    world = Joint(COUNT, draws=False)
    mean, covariance = joint_moments(run(strategy, world, grid, method))
    known_mean, known = world.law
    top = known.diagonal().max()
    assert (mean - known_mean).abs().max() < 5 * (top / COUNT) ** 0.5
    assert torch.linalg.eigvalsh(known - covariance).min() > -5 * top * (2 / COUNT) ** 0.5


def test_alternating_from_the_degraded_logits_forgets_them_geometrically():
    """Given l = C(y) first, round k has mean m + (G A)^(k-1) G (A y - A m) with G the gain of E[x0 | l0, y]."""
    world = Joint(COUNT, draws=True)
    known_mean, known = world.law
    step, start = world.gain @ world.view, world.gain @ world.view @ (world.y[0] - world.mean)
    root = torch.linalg.cholesky(known[X:, X:])
    canonical = torch.linalg.svdvals(torch.linalg.solve(torch.linalg.cholesky(known[:X, :X]), known[:X, X:])
                                     @ torch.linalg.inv(root).mT)
    rate = float(canonical.max() ** 2)
    assert float(torch.linalg.eigvals(step).abs().max()) == pytest.approx(rate) and rate < 1
    for rounds in (1, 2, 4, 8):
        result = run(partial(alternating, rounds=rounds), world, GRIDS["four"])
        deviation = torch.linalg.matrix_power(step, rounds - 1) @ start
        scale = (known.diagonal().max() / COUNT) ** 0.5
        assert (result.signal.mean(dim=0) - world.mean - deviation).abs().max() < 5 * scale
        whiten = torch.linalg.inv(torch.linalg.cholesky(known[:X, :X]))
        assert (whiten @ deviation).norm() <= rate ** (rounds - 1) * (whiten @ start).norm() * (1 + 1e-9)


def test_feedback_brings_what_the_cascade_lacks():
    """Given its logits, the signal of a coupled strategy is nearer to x0 than Enhanced when logits know more than y."""
    world = Joint(COUNT, draws=False)
    world.spread = 0.01 * torch.eye(2, dtype=torch.float64)
    x0 = world.mean + torch.randn(COUNT, X, dtype=torch.float64) @ torch.linalg.cholesky(world.covariance).mT
    told = x0 @ world.view.mT
    signal = world.signal(SBVE(), time_grid(SBVE(), 4), "deterministic")
    alone, guided = (x0 - signal.sample(given) for given in (None, told))
    assert guided.square().mean() < 0.7 * alone.square().mean()


# -- counting, and what must not change a result ------------------------------------------------------------------

COUNTS = {"enhanced": (4, 0, 1), "card": (0, 4, 1), "cascade": (4, 4, 2), "parallel": (4, 4, 4),
          "alternating": (8, 8, 3), "nested": (20, 4, 6)}  # signal, logits, classifier; 4 steps, defaults


@pytest.mark.parametrize("name", STRATEGIES)
def test_evaluations_are_counted_and_never_repeated(name):
    world, sides = Joint(3, draws=True), []
    make = world.logits(VP(), time_grid(VP(), 4))
    signal = world.signal(VP(), time_grid(VP(), 4))

    def logits(heard):
        sides.append(make(heard))
        return sides[-1]

    STRATEGIES[name](signal, logits, world.observe)
    counted = [sum(kind == name for kind, _ in world.evaluated) for name in ("signal", "logits", "classifier")]
    assert tuple(counted) == COUNTS[name]
    assert signal.nfe == counted[0] and sum(side.nfe for side in sides) == counted[1]
    states = [(kind, tuple(x.flatten().tolist())) for kind, x in world.evaluated]
    assert len(set(states)) == len(states), "no network and no classifier sees the same input twice"


def blind_world(y, mask=None):
    """Sides whose denoisers work on each element of (B, N) alone, and C that halves; deterministic bridges."""
    def denoise(x_t, t, y, given):
        told = 0.0 if given is None else given.logits if isinstance(given, Observation) else given
        return torch.tanh(0.5 * x_t + 0.3 * y + 0.2 * told + t[:, None])

    def side(y):
        return ReverseProcess(SBVE(), denoise, y, time_grid(SBVE(), 3), mask=mask)
    return side(y), lambda heard: side(heard.logits), lambda x: Observation(0.5 * x)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_batch_and_padding_change_nothing(strategy):
    y, lengths = torch.randn(3, 7), torch.tensor([7, 4, 5])
    mask = (torch.arange(7) < lengths[:, None]).float()
    together = strategy(*blind_world(y, mask))
    for row, length in enumerate(lengths.tolist()):
        alone = strategy(*blind_world(y[row:row + 1, :length]))
        for whole, single in ((together.signal, alone.signal), (together.logits, alone.logits)):
            if whole is not None:
                torch.testing.assert_close(whole[row:row + 1, :length], single)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_a_seed_gives_the_same_numbers(strategy):
    first, again, other = (run(strategy, Joint(5, draws=True, seed=seed), GRIDS["four"]).logits for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("process", [SBVE(), VP(), OUVE()], ids=lambda process: process.name)
def test_a_perfect_denoiser_makes_the_number_of_steps_irrelevant(process, steps):
    x0, l0 = torch.randn(2, 5), torch.randn(2, 4)

    def side(y, clean):
        return ReverseProcess(process, lambda state, t, y, given: clean, y, time_grid(process, steps),
                              noise=torch.randn_like)

    for strategy in (cascade, parallel, alternating, nested):
        result = strategy(side(torch.zeros(2, 5), x0), lambda heard: side(heard.logits, l0),
                          lambda x: Observation(x[:, :4]))
        assert torch.equal(result.signal, x0) and torch.equal(result.logits, l0)


def test_mistakes_are_named():
    world = Joint(2, draws=True)
    with pytest.raises(ValueError, match="given 'magic'; choose heard or none"):
        run(partial(alternating, first="magic"), world, GRIDS["four"])
    with pytest.raises(ValueError, match="at least 1 round, got 0"):
        run(partial(alternating, rounds=0), world, GRIDS["four"])
    with pytest.raises(ValueError, match="take 4 and 1 steps"):
        parallel(world.signal(VP(), GRIDS["four"](VP())), world.logits(VP(), GRIDS["one"](VP())), world.observe)
