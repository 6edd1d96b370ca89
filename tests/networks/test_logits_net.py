"""The logits network: starts as C(x_hat0), ignores padding, takes each condition or none, serves (B, V) as well."""

import pytest
import torch

from cdasr.networks import make_network

V, H = 7, 5


@pytest.fixture
def network():
    network = make_network({"name": "logits_net", "tokens": V, "hidden": H, "dim": 16, "blocks": 4, "heads": 2,
                            "attention_every": 2}).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(batch=2, frames=9):
    return {"l_s": torch.randn(batch, frames, V), "s": torch.rand(batch), "noisy": torch.randn(batch, frames, V),
            "enhanced": torch.randn(batch, frames, V), "noisy_hidden": torch.randn(batch, frames, H),
            "enhanced_hidden": torch.randn(batch, frames, H)}


def test_untrained_it_returns_the_logits_of_the_signal_estimate():
    network, given = make_network({"name": "logits_net", "tokens": V, "hidden": H, "dim": 16, "blocks": 2}), inputs()
    torch.testing.assert_close(network(**given), given["enhanced"])


@torch.no_grad()
def test_padding_and_batching_change_nothing(network):
    given, lengths = inputs(3, 11), [11, 4, 8]
    together = network(**given, mask=torch.arange(11) < torch.tensor(lengths)[:, None])
    for row, length in enumerate(lengths):
        alone = network(**{key: value[row:row + 1] if key == "s" else value[row:row + 1, :length]
                           for key, value in given.items()})
        torch.testing.assert_close(together[row:row + 1, :length], alone, atol=1e-5, rtol=1e-4)
        assert together[row, length:].abs().sum() == 0


@torch.no_grad()
def test_each_input_matters_and_a_dropped_condition_is_one_of_zeros(network):
    given = inputs()
    output = network(**given)
    for key, value in given.items():
        changed = network(**{**given, key: 0.5 * value + 0.1})
        assert (changed - output).abs().max() > 1e-4, key
    for key in ("noisy_hidden", "enhanced_hidden"):
        dropped = network(**{**given, key: None})
        torch.testing.assert_close(network(**{**given, key: torch.zeros_like(given[key])}), dropped)


@torch.no_grad()
def test_the_whole_utterance_is_seen(network):
    given = inputs(1, 60)
    changed = {**given, "enhanced": given["enhanced"].clone()}
    changed["enhanced"][:, 0] += 5.0
    assert (network(**changed) - network(**given))[:, -1].abs().max() > 1e-5


@torch.no_grad()
def test_logits_without_frames(network):
    given = inputs(3, 1)
    flat = network(**{key: value if key == "s" else value[:, 0] for key, value in given.items()})
    torch.testing.assert_close(flat, network(**given)[:, 0])
