"""Reflection of batches agrees with torch's, at each item's own end and for any length."""

import numpy as np
import torch

from cdasr.networks.reflect_pad import reflect_pad


def test_reflects_each_item_at_its_own_end():
    x, lengths = torch.randn(3, 2, 9), torch.tensor([9, 4, 6])
    got = reflect_pad(x, lengths, -3, 12)
    for row, length in enumerate(lengths.tolist()):
        known = np.pad(x[row, :, :length].numpy(), ((0, 0), (3, 12 - length)), mode="reflect")
        np.testing.assert_array_equal(got[row].numpy(), known)


def test_short_items_and_no_item():
    x = torch.tensor([[5.0, 1.0], [7.0, 2.0], [3.0, 4.0]])
    got = reflect_pad(x, torch.tensor([1, 2, 0]), -2, 3)
    assert got[0].tolist() == [5.0] * 5 and got[1].tolist() == [7.0, 2.0, 7.0, 2.0, 7.0] and got.isfinite().all()
