"""The small network: identity before training, indifferent to batching and padding, sensitive to time."""

import pytest
import torch

from cdasr.networks import make_network


@pytest.fixture
def network():
    network = make_network({"name": "tf_unet", "bins": 32, "channels": [4, 8], "strides": [2, 2], "dim": 16,
                            "blocks": 4, "attention_every": 2, "heads": 2}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def test_untrained_network_returns_the_degraded_signal():
    network = make_network({"name": "tf_unet", "bins": 32, "channels": [4, 8], "strides": [2, 2], "dim": 16,
                            "blocks": 2})
    y = torch.randn(2, 1, 32, 10, dtype=torch.complex64)
    torch.testing.assert_close(network(torch.randn_like(y), torch.rand(2), y), y)


@torch.no_grad()
def test_padding_and_batching_change_nothing(network):
    lengths = [23, 40, 7]
    items = [torch.randn(2, 1, 1, 32, n, dtype=torch.complex64) for n in lengths]
    t = torch.tensor([0.2, 0.9, 0.5])
    mask = torch.arange(40) < torch.tensor(lengths)[:, None]
    batch = torch.zeros(2, 3, 1, 32, 40, dtype=torch.complex64)
    for row, item in enumerate(items):
        batch[:, row, :, :, :lengths[row]] = item[:, 0]
    together = network(batch[0], t, batch[1], mask)
    for row, (x_t, y) in enumerate(items):
        torch.testing.assert_close(together[row:row + 1, ..., :lengths[row]], network(x_t, t[row:row + 1], y),
                                   atol=1e-5, rtol=1e-4)
        assert together[row, ..., lengths[row]:].abs().max() == 0 if lengths[row] < 40 else True


@torch.no_grad()
def test_the_estimate_depends_on_state_and_time(network):
    y = torch.randn(1, 1, 32, 10, dtype=torch.complex64)
    first = network(y, torch.tensor([0.3]), y)
    assert not torch.allclose(first, network(y, torch.tensor([0.8]), y))
    assert not torch.allclose(first, network(2 * y, torch.tensor([0.3]), y))


def test_gradients_reach_every_weight(network):
    y = torch.randn(2, 1, 32, 10, dtype=torch.complex64)
    network(torch.randn_like(y), torch.rand(2), y).abs().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())


def test_configuration_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown network 'unet9'"):
        make_network({"name": "unet9"})
    with pytest.raises(ValueError, match="do not fit the strides"):
        make_network({"name": "tf_unet", "bins": 257})
    with pytest.raises(ValueError, match="depth"):
        make_network({"name": "tf_unet", "depth": 3})


@torch.no_grad()
def test_injected_logits_start_without_effect_and_none_is_the_plain_network(network):
    options = {"name": "tf_unet", "bins": 32, "channels": [4, 8], "strides": [2, 2], "dim": 16, "blocks": 4,
               "attention_every": 2, "heads": 2}
    told = make_network({**options, "tokens": 6, "condition": 8}).eval()
    missing = told.load_state_dict(network.state_dict(), strict=False).missing_keys
    assert missing and all("inject" in key or key.startswith("embed_logits") for key in missing)
    x_t, y, t = *torch.randn(2, 2, 1, 32, 10, dtype=torch.complex64), torch.rand(2)
    logits = torch.randn(2, 10, 6)
    plain = network(x_t, t, y)
    assert torch.equal(told(x_t, t, y, logits=logits), plain), "bit-identical before coupled training"
    for key, parameter in told.named_parameters():
        if "inject" in key:
            parameter.normal_(std=0.1)
    output = told(x_t, t, y, logits=logits)
    assert (output - plain).abs().max() > 1e-3
    assert torch.equal(told(x_t, t, y), plain)
    torch.testing.assert_close(told(x_t, t, y, logits=torch.stack([logits[0], 0 * logits[1]]))[1], plain[1])
    mask = torch.arange(10) < torch.tensor([[10], [6]])
    padded = told(x_t, t, y, mask, logits)[1:, ..., :6]
    alone = told(x_t[1:, ..., :6], t[1:], y[1:, ..., :6], logits=logits[1:, :6])
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)
