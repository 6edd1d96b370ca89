"""The strategy `auto`: for each item the answer that most likely has the fewest errors, else the classifier's own.

A coupled strategy computes C(y) and C(x_hat) on its way, so that several answers are at hand: `none` reads C(y),
`enhanced` reads C(x_hat), and the strategy reads its logits. Which of them is right cannot be seen, but how likely each
is given either signal can. For each answer other than `none` a logistic regression on `SCORES` gives the odds that it
has fewer errors than `none`. The best answer is taken where its odds exceed a margin, else `none`. Rules and margin are
fitted on development data, noisy and clean (`cdasr.evaluation.auto_rule`), so that no condition there becomes worse
than `none` by more than a tolerance, and stored in the package as plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

import torch
from torch import Tensor

from cdasr.classifiers.logits import Logits
from cdasr.coupled.out_of_domain import LinearRule, level

SCORES = ("likelihood", "likelihood_enhanced", "confidence", "confidence_none", "difference", "agreement", "length",
          "residual")
MOST = 20.0  # nats a label; beyond that one likelihood says no more than another


@dataclass(frozen=True)
class AutoRule:
    """What a package stores for `auto`: the `strategy` that is run, and a rule over `SCORES` for each of the answers.

    An answer is better than that of `none` where the score of its rule is above 0; the bias holds the margin.
    `measured` says how the rules were fitted. Raises ValueError for rules of another number of scores.
    """

    strategy: str
    rules: Mapping[str, LinearRule]
    measured: Mapping = field(default_factory=dict)

    def __post_init__(self):
        for name, rule in self.rules.items():
            rule.check(len(SCORES), f"auto.rules.{name}", SCORES)

    @classmethod
    def from_config(cls, config: Mapping) -> AutoRule:
        """Of plain data."""
        rules = {name: LinearRule(**rule) for name, rule in config["rules"].items()}
        return cls(config["strategy"], rules, config.get("measured", {}))

    def config(self) -> dict:
        """Plain data from which it can be built again."""
        return {"strategy": self.strategy, "rules": {name: rule.config() for name, rule in self.rules.items()},
                "measured": dict(self.measured)}

    def choose(self, compared: Compared) -> list[str]:
        """The name of the answer that is taken for each item."""
        odds = {name: rule.score(compared.scores[name]).masked_fill(~compared.differs[name], -torch.inf)
                for name, rule in self.rules.items()}
        return best_of(odds, len(compared))


def best_of(odds: Mapping[str, Tensor], items: int, margin: float = 0.0) -> list[str]:
    """The answer of the highest odds (B,) where they are above the margin, else `none`."""
    if not odds:
        return ["none"] * items
    best, index = torch.stack(list(odds.values())).max(dim=0)
    names = list(odds)
    return [names[place] if value > margin else "none" for value, place in zip(best.tolist(), index.tolist())]


@dataclass(frozen=True)
class Compared:
    """How the answers of a batch compare with that of `none`, by the name of the answer.

    `scores` are `SCORES` (B, len(SCORES)) in float64; `differs` (B,): whether another text is read, and can be taken.
    """

    scores: Mapping[str, Tensor]
    differs: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.differs.values())))


@torch.no_grad()
def compare(answers: Mapping[str, Logits], degraded: Sequence[Tensor], cleaned: Sequence[Tensor],
            out_of_domain: Sequence[bool] | None = None) -> Compared:
    """The `answers` (`none`: C(y), `enhanced`: C(x_hat), others as they are decoded) against that of `none`.

    `degraded` and `cleaned` are the signals y and x_hat of each item. Items that are known to be `out_of_domain` do
    not differ: the package was not trained for them, and `none` is the safe answer. Scores are 0 where no text differs.
    Likelihoods are in nats a label:
    - `likelihood` and `likelihood_enhanced`: of the answer minus that of `none`, by C(y) and by C(x_hat);
    - `confidence` and `confidence_none`: of the answer by its own logits, of `none` by C(y);
    - `difference`: share of words in which the two differ; `length`: by how much the answer has more labels;
    - `agreement`: share of words in which the answer agrees with the others but `none`;
    - `residual`: level of y - x_hat relative to x_hat in dB.
    """
    texts = {name: answer.texts() for name, answer in answers.items()}
    others = [name for name in answers if name != "none"]
    differs = {name: torch.tensor([text != own for text, own in zip(texts[name], texts["none"])]) for name in others}
    if out_of_domain is not None:
        differs = {name: found & ~torch.tensor(out_of_domain) for name, found in differs.items()}
    if not any(bool(found.any()) for found in differs.values()):
        empty = torch.zeros(len(texts["none"]), len(SCORES), dtype=torch.float64)
        return Compared(dict.fromkeys(others, empty), differs)
    noisy, enhanced = answers["none"], answers["enhanced"]
    counts = {name: answer.label_counts().double() for name, answer in answers.items()}
    by_noisy = {name: noisy.log_likelihood(answer).double() for name, answer in answers.items()}
    by_enhanced = {name: enhanced.log_likelihood(answer).double() for name, answer in answers.items()}
    residual = torch.tensor([level(y - x) - level(x) for y, x in zip(degraded, cleaned)], dtype=torch.float64)
    found = {}
    for name in others:
        most = counts[name].maximum(counts["none"]).clamp_min(1.0)
        own = by_enhanced[name] if name == "enhanced" else answers[name].log_likelihood(answers[name]).double()
        rest = [texts[other] for other in others if other != name]
        found[name] = torch.stack([
            _bounded((by_noisy[name] - by_noisy["none"]) / most),
            _bounded((by_enhanced[name] - by_enhanced["none"]) / most),
            _bounded(own / counts[name].clamp_min(1.0)),
            _bounded(by_noisy["none"] / counts["none"].clamp_min(1.0)),
            1.0 - _alike(texts[name], texts["none"]),
            torch.stack([_alike(texts[name], other) for other in rest]).mean(dim=0) if rest else torch.ones(len(most)),
            (counts[name] - counts["none"]).to("cpu") / most.to("cpu"),
            residual], dim=1)
    return Compared(found, differs)


def _bounded(values: Tensor) -> Tensor:
    return values.nan_to_num(nan=0.0).clamp(-MOST, MOST).cpu()


def _alike(texts: Sequence[str], others: Sequence[str]) -> Tensor:
    """Share of words (B,) in which the texts agree."""
    return torch.tensor([SequenceMatcher(None, one.split(), other.split()).ratio()
                         for one, other in zip(texts, others)], dtype=torch.float64)
