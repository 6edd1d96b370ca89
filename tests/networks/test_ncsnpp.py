"""NCSN++ v2: the public SGMSE code's weights, outputs and samples; any number of frames; logits; gradients; mistakes.

The reference vectors are searched for in the folder CDASR_REFERENCE.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from cdasr.diffusion.processes import OUVE, SBVE
from cdasr.diffusion.samplers import sample, time_grid
from cdasr.networks.ncsnpp import NCSNpp
from cdasr.networks.ncsnpp_layers import Resample

REFERENCE = Path(os.environ.get("CDASR_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "ncsnpp_v2_tiny.safetensors").is_file(),
    reason="the folder of SGMSE reference vectors is not here (CDASR_REFERENCE)")


def load(name: str) -> dict[str, torch.Tensor]:
    """A file of reference vectors; a last axis of (real, imaginary) becomes complex numbers."""
    from safetensors.torch import load_file

    tensors = load_file(REFERENCE / f"{name}.safetensors")
    return {key: torch.view_as_complex(value) if value.dim() > 3 and value.shape[-1] == 2 else value
            for key, value in tensors.items()}


def noise_like(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.complex64)


@pytest.fixture
def small():
    """A network of three levels (frames in multiples of 4) whose branches all contribute."""
    return NCSNpp(bins=16, nf=8, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(8,),
                  init_scale=1.0).eval()


@pytest.fixture
def public():
    """The small network of the reference, with its weights."""
    from safetensors.torch import load_file

    network = NCSNpp(bins=64, nf=16, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(16,)).eval()
    network.load_state_dict(load_file(REFERENCE / "ncsnpp_v2_tiny.safetensors"), strict=True)
    return network


@needs_reference
@torch.no_grad()
def test_public_weights_give_the_public_output(public):
    known = load("ncsnpp_v2_tiny_io")
    output = public(known["x_t"], known["t"], known["y"])
    torch.testing.assert_close(output, known["output"], atol=1e-6, rtol=0)
    whole = torch.ones(len(output), output.shape[-1], dtype=torch.bool)
    torch.testing.assert_close(public(known["x_t"], known["t"], known["y"], whole), output, atol=1e-6, rtol=0)


class PublicFirstStep(SBVE):
    """The bridge with the public code's first step, from t = 1, where its safeguard eps = 1e-8 is felt.

    The exact process has no noise there; the public weights divide by a standard deviation of 1e-4, and eps
    leaves about 5 percent of y too much in the state, of which the last step keeps some 1e-3. Later steps are
    those of `SBVE`.
    """

    def step(self, x_t, x0_hat, y, t, s, noise=None):
        if t < 1.0:
            return super().step(x_t, x0_hat, y, t, s, noise)
        eps, total = 1e-8, self._variance(1.0)
        sigma_t, rest_t = total.sqrt(), torch.tensor(eps).sqrt()
        sigma_s, rest_s = self._variance(s).sqrt(), (total - self._variance(s) + eps).sqrt()
        keep = sigma_s * rest_s
        return (keep / (sigma_t * rest_t + eps) * x_t
                + (rest_s**2 - rest_t * keep / (sigma_t + eps)) / (total + eps) * x0_hat
                + (sigma_s**2 - sigma_t * keep / (rest_t + eps)) / (total + eps) * y)

    def _variance(self, t):
        return self.c * (self.k ** (2 * torch.tensor(t)) - 1.0) / (2 * torch.log(torch.tensor(self.k)))


def looking_ahead(network, grid):
    """The denoiser as the public bridge sampler asks it: with the time to which the step leads."""
    following = dict(zip(grid[:-1].float().tolist(), grid[1:].tolist()))
    return lambda x_t, t, y, condition: network(x_t, torch.full_like(t, following[float(t[0])]), y)


@needs_reference
@pytest.mark.parametrize("steps", [4, 10])
@torch.no_grad()
def test_bridge_samples_agree_with_the_public_code(public, steps):
    known = load(f"sb_ode_{steps}steps")
    grid = time_grid(SBVE(), steps)
    result = sample(PublicFirstStep(), looking_ahead(public, grid), known["y"], grid)
    torch.testing.assert_close(result.x, known["result"], atol=1e-4, rtol=0)
    exact = sample(SBVE(), looking_ahead(public, grid), known["y"], grid)
    torch.testing.assert_close(exact.x, known["result"], atol=5e-3, rtol=0)


@needs_reference
@torch.no_grad()
def test_predictor_corrector_samples_agree_with_the_public_code(public):
    known, process = load("ouve_pc_6steps"), OUVE()

    def denoiser(x_t, t, y, condition):
        score = -public(x_t, t, y) / process.marginal(x_t, y, t)[1]
        return process.denoised(x_t, score, y, t)

    grid = torch.cat([torch.linspace(1.0, 0.03, 6, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    draws = iter(known["noise"])
    result = sample(process, denoiser, known["y"], grid, "pc", noise=lambda like: next(draws), snr=0.5)
    torch.testing.assert_close(result.x, known["result"], atol=1e-4, rtol=0)
    assert result.nfe == 12 and len(list(draws)) == 1  # the public code draws noise for the last step in vain


@pytest.mark.parametrize("frames", [1, 2, 3, 7, 8, 13])
@torch.no_grad()
def test_any_number_of_frames(small, frames):
    x_t, y, t = noise_like(2, 1, 16, frames), noise_like(2, 1, 16, frames), torch.tensor([0.1, 1.0])
    output = small(x_t, t, y)
    assert output.shape == y.shape and output.dtype == torch.complex64 and output.isfinite().all()
    mirrored = torch.arange(-(-frames // 4) * 4) % max(2 * frames - 2, 1)
    mirrored = torch.where(mirrored < frames, mirrored, 2 * frames - 2 - mirrored)
    filled = small(x_t[..., mirrored], t, y[..., mirrored])
    torch.testing.assert_close(output, filled[..., :frames])


@torch.no_grad()
def test_padding_and_batching_change_nothing(small):
    lengths, t = [13, 20, 3, 15], torch.tensor([0.2, 0.9, 0.5, 0.4])
    mask = torch.arange(21) < torch.tensor(lengths)[:, None]
    x_t, y = noise_like(2, 4, 1, 16, 21)
    together = small(x_t, t, y, mask)
    for row, length in enumerate(lengths):
        item = slice(row, row + 1)
        alone = small(x_t[item, ..., :length], t[item], y[item, ..., :length])
        torch.testing.assert_close(together[item, ..., :length], alone, atol=1e-5, rtol=1e-4)
        assert together[item, ..., length:].abs().max() == 0


@torch.no_grad()
def test_an_empty_item_is_zero(small):
    mask = torch.tensor([[True] * 6, [False] * 6])
    output = small(noise_like(2, 1, 16, 6), torch.ones(2), noise_like(2, 1, 16, 6), mask)
    assert output[0].abs().min() > 0 and output[1].abs().max() == 0


@torch.no_grad()
def test_the_estimate_depends_on_state_degraded_signal_and_time(small):
    x_t, y, t = noise_like(1, 1, 16, 8), noise_like(1, 1, 16, 8), torch.tensor([0.3])
    first = small(x_t, t, y)
    for other in (small(y, t, y), small(x_t, t, x_t), small(x_t, 2 * t, y)):
        assert (other - first).abs().max() > 1e-3


@pytest.mark.parametrize("mask", [None, torch.arange(9) < torch.tensor([[9], [4]])])
def test_gradients_reach_every_trainable_weight(small, mask):
    output = small(noise_like(2, 1, 16, 9), torch.rand(2) + 0.01, noise_like(2, 1, 16, 9), mask)
    output.abs().square().sum().backward()
    parameters = {name: parameter for name, parameter in small.named_parameters() if parameter.requires_grad}
    assert set(dict(small.named_parameters())) - set(parameters) == {"all_modules.0.W"}
    silent = {name for name, parameter in parameters.items()
              if parameter.grad is None or parameter.grad.abs().max() == 0}
    # a bias of the keys shifts all attention scores of a query alike
    assert {name for name in silent if not name.endswith("NIN_1.b")} == set()


def with_logits(small, tokens=5):
    """The same network with an injection of logits that does nothing yet."""
    guided = NCSNpp(bins=16, nf=8, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(8,), tokens=tokens,
                    condition=6).eval()
    missing, unexpected = guided.load_state_dict(small.state_dict(), strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"embed_logits", "inject"}
    assert [name for name in guided.state_dict() if name in small.state_dict()] == list(small.state_dict())
    return guided


def awake(network):
    """The network with injections that do something."""
    with torch.no_grad():
        for injection in network.inject:
            injection.project.weight.normal_(std=0.3)
    return network


@torch.no_grad()
def test_untrained_injection_is_the_plain_network_bit_for_bit(small):
    guided, mask = with_logits(small), torch.arange(13) < torch.tensor([[13], [6]])
    x_t, y, logits, t = noise_like(2, 1, 16, 13), noise_like(2, 1, 16, 13), torch.randn(2, 13, 5), torch.tensor([.2, 1])
    for frames in (None, mask):
        plain = small(x_t, t, y, frames)
        assert torch.equal(guided(x_t, t, y, frames, logits), plain) and torch.equal(guided(x_t, t, y, frames), plain)


@torch.no_grad()
def test_logits_of_zero_say_nothing_and_others_change_the_estimate(small):
    guided, t = awake(with_logits(small)), torch.tensor([0.3, 0.6])
    x_t, y, logits = noise_like(2, 1, 16, 8), noise_like(2, 1, 16, 8), torch.randn(2, 8, 5)
    logits[1] = 0.0
    told, plain = guided(x_t, t, y, logits=logits), small(x_t, t, y)
    assert (told[0] - plain[0]).abs().max() > 1e-3
    torch.testing.assert_close(told[1], plain[1], atol=1e-6, rtol=1e-5)
    assert len(guided.inject) == 4, "the middle and each level"


@torch.no_grad()
def test_padding_and_batching_change_nothing_with_logits(small):
    guided, lengths, t = awake(with_logits(small)), [13, 20, 3], torch.tensor([0.2, 0.9, 0.5])
    mask = torch.arange(21) < torch.tensor(lengths)[:, None]
    x_t, y = noise_like(2, 3, 1, 16, 21)
    logits = torch.randn(3, 21, 5)
    together = guided(x_t, t, y, mask, logits)
    for row, length in enumerate(lengths):
        item = slice(row, row + 1)
        alone = guided(x_t[item, ..., :length], t[item], y[item, ..., :length], logits=logits[item, :length])
        torch.testing.assert_close(together[item, ..., :length], alone, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_injection_from_its_first_step_on(small):
    guided = with_logits(small)
    guided(noise_like(1, 1, 16, 8), torch.ones(1), noise_like(1, 1, 16, 8), logits=torch.randn(1, 8, 5)
           ).abs().square().sum().backward()
    assert all(injection.project.weight.grad.abs().max() > 0 for injection in guided.inject)


@torch.no_grad()
def test_the_first_version_divides_by_the_time_before_its_last_layer(small):
    first = NCSNpp(bins=16, nf=8, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(8,),
                   scale_by_sigma=True).eval()
    first.load_state_dict(small.state_dict())
    x_t, y, t = noise_like(2, 1, 16, 8), noise_like(2, 1, 16, 8), torch.tensor([0.25, 0.5])
    bias = torch.complex(*small.output_layer.bias)
    expected = (small(x_t, t, y) - bias) / t.view(-1, 1, 1, 1) + bias
    torch.testing.assert_close(first(x_t, t, y), expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_channels_last_gives_the_same(small):
    x_t, y, t = noise_like(2, 1, 16, 9), noise_like(2, 1, 16, 9), torch.tensor([0.1, 1.0])
    plain = small(x_t, t, y)
    torch.testing.assert_close(small.to(memory_format=torch.channels_last)(x_t, t, y), plain, atol=1e-5, rtol=1e-4)


def test_resampling_keeps_constants_and_mirrors_itself():
    x = torch.ones(1, 3, 8, 12)
    inner = (..., slice(1, -1), slice(1, -1))
    for direction, shape in (("down", (1, 3, 4, 6)), ("up", (1, 3, 16, 24))):
        resampled = Resample(direction)(x)
        assert resampled.shape == shape
        torch.testing.assert_close(resampled[inner], torch.ones_like(resampled[inner]))
    wide, narrow = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 4, 4)
    up, down = Resample("up")(narrow), Resample("down")(wide)
    # up is four times the adjoint of down
    torch.testing.assert_close((up * wide).sum(), 4 * (narrow * down).sum())


def test_configuration_mistakes_are_named(small):
    with pytest.raises(ValueError, match="257 frequency bins cannot be halved 6 times"):
        NCSNpp(bins=257)
    with pytest.raises(ValueError, match="built for 16 bins, the spectrum has 20"):
        small(noise_like(1, 1, 20, 4), torch.ones(1), noise_like(1, 1, 20, 4))


def test_default_size():
    with torch.device("meta"):
        network = NCSNpp()
    assert sum(parameter.numel() for parameter in network.parameters()) == pytest.approx(65.6e6, rel=0.01)
