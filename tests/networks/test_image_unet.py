"""The pixel U-Net: starts as the identity, logits of zero say nothing, injection reaches every block."""

import pytest
import torch

from cdasr.networks import make_network

CONFIG = {"name": "image_unet", "channels": [8, 8], "blocks": 1, "attention": 2, "embedding": 16, "tokens": 5,
          "condition": 8}


@pytest.fixture
def network():
    made = make_network(CONFIG)
    with torch.no_grad():
        made.last.weight.normal_(std=0.1)
    return made


def inputs(batch=3, size=8, colours=3):
    return torch.randn(batch, colours, size, size), torch.rand(batch), torch.rand(batch, colours, size, size)


@pytest.mark.parametrize("patch, colours, size", [(1, 3, 8), (2, 3, 16), (1, 1, 6)])
def test_untrained_it_returns_the_degraded_image(patch, colours, size):
    x_t, t, y = inputs(size=size, colours=colours)
    network = make_network({**CONFIG, "patch": patch, "colours": colours})
    torch.testing.assert_close(network(x_t, t, y, logits=torch.randn(3, 5)), y)


def test_logits_of_zero_say_nothing_and_others_do(network):
    x_t, t, y = inputs()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "inject" in name:
                parameter.normal_(std=0.3)
    plain = network(x_t, t, y)
    logits = torch.randn(3, 5)
    logits[1] = 0.0
    told = network(x_t, t, y, logits=logits)
    torch.testing.assert_close(told[1], plain[1])
    assert (told[0] - plain[0]).abs().max() > 1e-3
    singles = torch.cat([network(*(part[k:k + 1] for part in (x_t, t, y)), logits=logits[k:k + 1]) for k in range(3)])
    torch.testing.assert_close(singles, told, atol=1e-5, rtol=1e-4)


def test_every_injection_gets_a_gradient_and_none_changes_the_start(network):
    x_t, t, y = inputs()
    logits = torch.randn(3, 5)
    torch.testing.assert_close(network(x_t, t, y, logits=logits), network(x_t, t, y))
    network(x_t, t, y, logits=logits).square().sum().backward()
    injections = [parameter for name, parameter in network.named_parameters() if "inject" in name]
    assert len(injections) == 5 and all(parameter.grad.abs().max() > 0 for parameter in injections)


def test_sizes_that_cannot_be_halved_are_named():
    with pytest.raises(ValueError, match="9 x 9 pixels.*multiples of 2"):
        make_network(CONFIG)(*inputs(size=9))
    with pytest.raises(ValueError, match="network 'image_unet'"):
        make_network({**CONFIG, "depth": 3})
