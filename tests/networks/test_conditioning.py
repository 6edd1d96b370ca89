"""Alignment of logits with other frames goes by times in seconds; what is told is what changes over the frames."""

import pytest
import torch

from cdasr.networks.layers import LogitsEmbedding, align_frames


def test_a_line_over_time_stays_that_line():
    times, new_times = 0.0125 + 0.02 * torch.arange(40).double(), 0.016 * torch.arange(60).double()
    values = torch.stack([3.0 * times - 1.0, -times], dim=1)[None]
    aligned = align_frames(values, torch.tensor([40]), times, new_times)
    inside = (new_times >= times[0]) & (new_times <= times[-1])
    known = torch.stack([3.0 * new_times - 1.0, -new_times], dim=1)
    torch.testing.assert_close(aligned[0, inside], known[inside])
    assert torch.equal(aligned[0, new_times < times[0]], values[0, :1])
    assert torch.equal(aligned[0, new_times > times[-1]], values[0, -1:].expand(int((new_times > times[-1]).sum()), 2))


@pytest.mark.parametrize("length", [1, 2, 7])
def test_padding_is_never_looked_at(length):
    times, new_times = 0.01 + 0.02 * torch.arange(10), 0.016 * torch.arange(14)
    values = torch.randn(1, 10, 3)
    values[:, length:] = float("nan")
    alone = align_frames(values[:, :length], torch.tensor([length]), times[:length], new_times)
    torch.testing.assert_close(align_frames(values, torch.tensor([length]), times, new_times), alone)


@torch.no_grad()
def test_only_what_changes_over_the_frames_is_heard():
    """A constant in all frames, as blank nearly is, says nothing about the content."""
    embed = LogitsEmbedding(6, 8, centred=True)
    logits, frames = torch.randn(2, 6, 20), torch.ones(2, 20)
    frames[1, 12:] = 0
    logits = logits * frames[:, None]
    constant = torch.randn(2, 6, 1) * frames[:, None]
    torch.testing.assert_close(embed(logits + constant, frames), embed(logits, frames), atol=1e-5, rtol=1e-4)
    assert embed(constant, frames).abs().max() < 1e-5
    torch.testing.assert_close(embed(logits, frames)[1:, :, :12], embed(logits[1:, :, :12], frames[1:, :12]))
    assert LogitsEmbedding(6, 8)(constant, frames).abs().max() > 0.01, "not unless it is asked for"
