import math

import pytest
import torch

from cdasr.classifiers.logits import ClassLogits, CTCLogits
from cdasr.coupled.out_of_domain import MEASURES, DomainCheck, fit, measure


class Words(torch.nn.Module):
    """Three words and a blank."""

    blank = 0

    def decode(self, values, lengths):
        names = ("", "one", "two", "three")
        return [" ".join(filter(None, (names[place] for place in row[:length].argmax(dim=-1).tolist())))
                for row, length in zip(values, lengths)]


def logits(*frames: int, sharp: float) -> CTCLogits:
    values = sharp * torch.nn.functional.one_hot(torch.tensor(frames), 4).float()[None]
    return CTCLogits(values, torch.tensor([len(frames)]), classifier=Words())


def test_measures_of_known_logits():
    signal = torch.ones(100)
    sure, unsure = logits(1, 0, 2, sharp=20.0), logits(1, 0, 3, sharp=0.0)
    found = dict(zip(MEASURES, measure(sure, sure, [1.1 * signal], [signal])[0].tolist()))
    assert found["entropy"] == pytest.approx(0.0, abs=1e-5)
    assert found["confidence"] == pytest.approx(1.0, abs=1e-5)
    assert found["disagreement"] == 0.0
    assert found["residual"] == pytest.approx(-20.0, abs=1e-3)
    found = dict(zip(MEASURES, measure(sure, unsure, [signal], [signal])[0].tolist()))
    assert found["entropy_enhanced"] == pytest.approx(math.log(4.0), abs=1e-5)
    assert found["disagreement"] == 1.0, "one two, and nothing"
    assert found["residual"] < -100


def test_padding_is_not_measured():
    short = logits(1, 2, sharp=5.0)
    padded = CTCLogits(torch.cat([short.values, torch.zeros(1, 3, 4)], dim=1), short.lengths, classifier=Words())
    signal = [torch.ones(10)]
    assert torch.equal(measure(short, short, signal, signal), measure(padded, padded, signal, signal))


def test_images_have_one_vector_each():
    class Classes(torch.nn.Module):
        def decode(self, values, lengths=None):
            return [f"class {place}" for place in values.argmax(dim=-1).tolist()]
    values = ClassLogits(10.0 * torch.eye(3), None, classifier=Classes())
    pictures = list(torch.ones(3, 1, 2, 2))
    assert measure(values, values, pictures, pictures).shape == (3, len(MEASURES))


def test_fit_separates_what_can_be_separated():
    generator = torch.Generator().manual_seed(0)
    inside = torch.randn(400, len(MEASURES), generator=generator)
    outside = torch.randn(400, len(MEASURES), generator=generator) + 3.0
    rule = fit(inside[:200], outside[:200], false_alarms=0.05)
    assert (rule.score(inside[200:]) > 0).double().mean() < 0.1
    assert (rule.score(outside[200:]) > 0).double().mean() > 0.95
    again = DomainCheck(**rule.config())
    assert torch.equal(again.score(inside), rule.score(inside))


def test_too_little_data_and_bad_rules_are_refused():
    with pytest.raises(ValueError, match="at least ten"):
        fit(torch.zeros(3, len(MEASURES)), torch.zeros(30, len(MEASURES)))
    good = {"mean": [0.0] * 6, "scale": [1.0] * 6, "weights": [1.0] * 6, "bias": 0.0}
    with pytest.raises(ValueError, match="weights"):
        DomainCheck(**{**good, "weights": [1.0]})
    with pytest.raises(ValueError, match="scale"):
        DomainCheck(**{**good, "scale": [0.0] * 6})
