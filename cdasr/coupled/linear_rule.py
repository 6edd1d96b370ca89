"""Linear rules over a few standardised measures: logistic regressions, stored in packages as plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn


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
