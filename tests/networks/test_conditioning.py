"""Alignment of logits with other frames goes by times in seconds."""

import pytest
import torch

from cdasr.networks.conditioning import align_frames


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
