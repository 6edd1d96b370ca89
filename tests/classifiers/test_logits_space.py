"""The logits space: unit variance, invertible but for what softmax does not see, and faithful in decoding."""

import pytest
import torch

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.logits import LogitsSpace


def test_round_trip_keeps_posteriors_and_the_best_class():
    logits = 7.0 * torch.randn(4, 50, 12) + 30.0 * torch.randn(4, 50, 1)
    space = LogitsSpace(3.7)
    back = space.decode(space.encode(logits))
    torch.testing.assert_close(back.softmax(-1), logits.softmax(-1), atol=1e-5, rtol=1e-4)
    assert torch.equal(back.argmax(-1), logits.argmax(-1))
    torch.testing.assert_close(space.encode(back), space.encode(logits), atol=1e-5, rtol=1e-5)


def test_statistics_are_those_of_valid_frames():
    values, lengths = 5.0 * torch.randn(6, 40, 9), torch.tensor([40, 3, 17, 40, 1, 29])
    valid = torch.arange(40) < lengths[:, None]
    values[~valid] = 1e4
    space = LogitsSpace.fit([(values[:2], lengths[:2]), (values[2:], lengths[2:])])
    assert float(space.encode(values)[valid].square().mean()) == pytest.approx(1.0, abs=1e-4)
    assert LogitsSpace(**space.config()) == space
    pictures = 2.0 * torch.randn(100, 10)
    assert float(LogitsSpace.fit([(pictures, None)]).encode(pictures).var(correction=0)) == pytest.approx(1.0, abs=1e-4)


def test_decoding_is_the_recognisers_own(recogniser_dir):
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    logits = recogniser(torch.randn(3, 16_000), torch.tensor([16_000, 9000, 4000]))
    space = LogitsSpace.fit([(logits.values, logits.lengths)])
    decoded = recogniser.decode(space.decode(space.encode(logits.values)), logits.lengths)
    assert decoded == recogniser.decode(logits.values, logits.lengths) and any(decoded)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="positive and finite, got 0"):
        LogitsSpace(0)
    with pytest.raises(ValueError, match="all equal or none"):
        LogitsSpace.fit([(torch.ones(1, 2, 3), torch.tensor([2]))])
