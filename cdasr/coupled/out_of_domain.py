"""Whether an input looks unlike what a model package was trained for.

A package for ten words answers music, noise and other speech with confident words. What gives such inputs away is in
what was computed anyway: the posteriors of the answer and of C(x_hat) are less sharp, the two disagree more often, and
more of the input is taken for noise. A logistic regression on these measures is fitted on development data
(`cdasr.speech.domain_check`) and stored in the package as plain numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from difflib import SequenceMatcher

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits

MEASURES = ("entropy", "confidence", "entropy_enhanced", "confidence_enhanced", "disagreement", "residual")


@dataclass(frozen=True)
class LinearRule:
    """`mean` and `scale` standardise the measures; the score is their sum with `weights`, plus `bias`."""

    mean: Sequence[float]
    scale: Sequence[float]
    weights: Sequence[float]
    bias: float

    def check(self, count: int, name: str, measures: Sequence[str]) -> None:
        """Raise ValueError where it is not over `count` `measures` with positive scales; `name` is what it is of."""
        for part in ("mean", "scale", "weights"):
            if len(getattr(self, part)) != count:
                raise ValueError(f"{name}.{part}: expected {count} numbers, for {', '.join(measures)}; "
                                 f"got {len(getattr(self, part))}")
        if not all(value > 0 for value in self.scale):
            raise ValueError(f"{name}.scale: expected positive numbers, got {list(self.scale)}")

    def score(self, measured: Tensor) -> Tensor:
        """Scores (B,) of items (B, measures)."""
        mean, scale, weights = (torch.tensor(list(row), dtype=torch.float64)
                                for row in (self.mean, self.scale, self.weights))
        return ((measured.double() - mean) / scale) @ weights + self.bias

    def config(self) -> dict:
        """Plain data from which the rule can be built again."""
        return asdict(self)


@dataclass(frozen=True)
class DomainCheck(LinearRule):
    """A linear rule over `MEASURES`: an input is out of domain where its score is above 0; `bias` holds the threshold.
    """

    def __post_init__(self):
        self.check(len(MEASURES), "out_of_domain", MEASURES)


@torch.no_grad()
def measure(answer: Logits, enhanced: Logits, degraded: Sequence[Tensor], cleaned: Sequence[Tensor]) -> Tensor:
    """`MEASURES` of a batch (B, len(MEASURES)), float64.

    `answer` are the logits that are decoded, `enhanced` C(x_hat). `degraded` and `cleaned` are the signals y and x_hat
    of each item. Entropies are in nats, means over the positions. Confidences are the mean posterior of the best class
    where it is no blank. `disagreement` is the share of words in which the two transcripts differ. `residual` is the
    level of y - x_hat relative to x_hat in dB.
    """
    columns = [*_sharpness(answer), *_sharpness(enhanced)]
    texts = zip(answer.texts(), enhanced.texts())
    columns.append([1.0 - SequenceMatcher(None, first.split(), second.split()).ratio() for first, second in texts])
    columns.append([level(noisy - clean) - level(clean) for noisy, clean in zip(degraded, cleaned)])
    return torch.tensor(columns, dtype=torch.float64).T


def _sharpness(logits: Logits) -> tuple[list[float], list[float]]:
    """Mean entropy and mean confidence of each item."""
    entropies, confidences = [], []
    for values in logits.items():
        scores = logits.log_posterior(values)
        entropies.append(float(-(scores.exp() * scores).sum(dim=-1).mean()))
        best, place = scores.exp().max(dim=-1)
        spoken = best[logits.spoken(place)]
        confidences.append(float(spoken.mean()) if len(spoken) else 0.0)
    return entropies, confidences


def level(signal: Tensor) -> float:
    """Mean power in dB."""
    return float(10.0 * torch.log10(signal.double().square().mean() + 1e-12))


def fit(inside: Tensor, outside: Tensor, false_alarms: float = 0.03, penalty: float = 1e-2) -> DomainCheck:
    """A rule from measured items of both kinds, (N, len(MEASURES)) and (M, len(MEASURES)).

    Logistic regression with both kinds of equal weight and an L2 `penalty`; the threshold is set so that a share
    `false_alarms` of the `inside` items is above it. Raises ValueError for fewer than ten items of a kind.
    """
    if min(len(inside), len(outside)) < 10:
        raise ValueError(f"a domain check needs at least ten items of each kind, got {len(inside)} and {len(outside)}")
    truth = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))]).double()
    balance = torch.where(truth > 0, 0.5 / len(outside), 0.5 / len(inside)).double()
    rule = logistic_regression(torch.cat([inside, outside]), truth, balance, penalty)
    threshold = float(torch.quantile(rule.score(inside), 1.0 - false_alarms))
    return DomainCheck(rule.mean, rule.scale, rule.weights, rule.bias - threshold)


def logistic_regression(items: Tensor, truth: Tensor, importance: Tensor, penalty: float) -> LinearRule:
    """A rule whose score is the log-odds of `truth` (N,), 0 or 1, given `items` (N, measures).

    `importance` (N,) weighs the cross-entropy of each item; `penalty` is that of the squared weights.
    """
    items, truth, importance = items.double(), truth.double(), importance.double()
    mean, scale = items.mean(dim=0), items.std(dim=0).clamp_min(1e-6)
    items = (items - mean) / scale
    weights, bias = torch.zeros(items.shape[1], dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    weights.requires_grad_(), bias.requires_grad_()
    optimiser = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = nn.functional.binary_cross_entropy_with_logits(items @ weights + bias, truth, importance,
                                                               reduction="sum")
        found = found + penalty * weights.square().sum()
        found.backward()
        return found
    optimiser.step(loss)
    return LinearRule(mean.tolist(), scale.tolist(), weights.detach().tolist(), float(bias.detach()))
