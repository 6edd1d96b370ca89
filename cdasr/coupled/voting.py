"""The strategy `rover`: several answers are put together word by word, and each word is voted on.

Answers to the same input agree where it is clear and differ where it is not. Recogniser output voting error reduction
(ROVER; Fiscus 1997) aligns them into slots, each with the words that the answers have there, or nothing. Here the odds
of each word, of nothing, and of something that no answer has, are a conditional logit model (McFadden 1974) of who says
it and how sure they are. It is fitted on development data (`cdasr.speech.rover_rule`) and stored in the package as
plain numbers. A word's confidence is then its probability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from cdasr.classifiers.hypothesis import Word

NOTHING = ""  # the key of no word
SUBSTITUTION = 1.2  # cost of aligning different words, where leaving one out costs 1

Slot = dict[str, dict[int, Word | None]]  # by the key of a word: the answers that have it there, by their place


@dataclass(frozen=True)
class Vote:
    """What a package stores for `rover`: the `strategy` that is run, the `answers` that vote, and their weights.

    `weights` are of `features`. A word is left out where the odds of nothing are higher by the `margin` in log-odds.
    `measured` says how they were fitted.
    """

    strategy: str
    answers: Sequence[str]
    weights: Sequence[float]
    margin: float = 0.0
    measured: Mapping = field(default_factory=dict)

    def config(self) -> dict:
        """Plain data from which it can be built again."""
        return {"strategy": self.strategy, "answers": list(self.answers), "weights": list(self.weights),
                "margin": self.margin, "measured": dict(self.measured)}

    def decide(self, answers: Sequence[Sequence[Word]], key: Callable[[str], str]) -> list[Word]:
        """The words that win, from the words of each answer in the order of `self.answers`.

        `key` of a word is what it is compared by; words without one are left out, and one with several, such as
        `well-known`, is taken apart.
        """
        return self.winners(align(answers, key))

    def winners(self, slots: Sequence[Slot]) -> list[Word]:
        """The words that win in the slots; a word is written, and has the times, as in the answer that is surest."""
        weights, decided = torch.tensor(list(self.weights), dtype=torch.float64), []
        for slot in slots:
            scores = features(slot, len(self.answers)) @ weights
            shares = F.pad(scores, (0, 1)).softmax(dim=0)  # the last: something else
            scores[list(slot).index(NOTHING)] -= self.margin
            place = int(scores.argmax())
            spoken = [word for word in list(slot.values())[place].values() if word is not None]
            if spoken:
                surest = max(spoken, key=lambda word: word.confidence)
                decided.append(replace(surest, confidence=float(shares[place])))
        return decided


def align(answers: Sequence[Sequence[Word]], key: Callable[[str], str]) -> list[Slot]:
    """The slots of a word transition network: each answer is aligned with the slots of those before it.

    Every slot has the entry NOTHING, with the answers that have no word there.
    """
    slots: list[Slot] = []
    for place, words in enumerate(answers):
        slots = _add(slots, list(_keyed(words, key)), place)
    return slots


def _keyed(words: Sequence[Word], key: Callable[[str], str]) -> Iterator[tuple[str, Word]]:
    """Words with their keys; one whose key is several words (`well-known`) becomes these."""
    for word in words:
        parts = key(word.word).split()
        yield from ((part, word if len(parts) == 1 else replace(word, word=part)) for part in parts)


def _add(slots: Sequence[Slot], words: Sequence[tuple[str, Word]], place: int) -> list[Slot]:
    """The slots with one more answer, the fewest words of which are where nobody has them."""
    merged: list[Slot] = []
    for slot, word in best_path(slots, [name for name, _ in words]):
        entry = {NOTHING: dict.fromkeys(range(place))} if slot is None else slots[slot]
        name, spoken = (NOTHING, None) if word is None else words[word]
        entry.setdefault(name, {})[place] = spoken
        merged.append(entry)
    return merged


def best_path(slots: Sequence[Slot], names: Sequence[str],
              substitution: float = SUBSTITUTION) -> list[tuple[int | None, int | None]]:
    """The cheapest alignment of slots and the keys of words, as pairs of their indices; None where one has no partner.

    A word without a slot costs 1, and so does a slot without a word, but for one where some answer has nothing already.
    """
    skip = [0.0 if slot[NOTHING] else 1.0 for slot in slots]
    cost = [[float(column) for column in range(len(names) + 1)]]
    for row, slot in enumerate(slots):
        before, line = cost[-1], [cost[-1][0] + skip[row]]
        for column, name in enumerate(names):
            line.append(min(before[column] + (0.0 if name in slot else substitution),
                            before[column + 1] + skip[row], line[column] + 1.0))
        cost.append(line)
    row, column, path = len(slots), len(names), []
    while row or column:
        here = cost[row][column]
        if row and column and here == cost[row - 1][column - 1] + (
                0.0 if names[column - 1] in slots[row - 1] else substitution):
            row, column = row - 1, column - 1
            path.append((row, column))
        elif row and here == cost[row - 1][column] + skip[row - 1]:
            row -= 1
            path.append((row, None))
        else:
            column -= 1
            path.append((None, column))
    return path[::-1]


def size(answers: int) -> int:
    """The number of features with so many answers."""
    return 2 * answers + 4


def features(slot: Slot, answers: int) -> Tensor:
    """What speaks for each entry of a slot: (entries, size(answers)) in float64.

    For each answer whether it has the word, and its confidence; then whether the entry is NOTHING, the share of the
    answers that have nothing, and whether all answers or a single one have the word.
    """
    rows = []
    for name, votes in slot.items():
        word, count = float(name != NOTHING), len(votes)
        rows.append([part for place in range(answers) for part in (
            word * (place in votes), votes[place].confidence if word and place in votes else 0.0)]
            + [1.0 - word, (1.0 - word) * count / answers, word * (count == answers), word * (count == 1)])
    return torch.tensor(rows, dtype=torch.float64)


def fit(slots: Sequence[Slot], truths: Sequence[str | None], answers: int, penalty: float = 1e-3) -> list[float]:
    """Weights of `features` that make the true entries most likely; `penalty` is that of the squared weights.

    `truths`: the key of the true entry of each slot; None where it is not there. Raises ValueError where no word of any
    answer is right.
    """
    if not any(truths):
        raise ValueError("no word of any answer is right")
    rows = [features(slot, answers) for slot in slots]
    items = pad_sequence(rows, batch_first=True)
    padding = torch.arange(items.shape[1]) >= torch.tensor(list(map(len, rows)))[:, None]
    other = items.shape[1]  # the place of what no answer has, whose score is 0
    right = torch.tensor([other if truth is None else list(slot).index(truth) for slot, truth in zip(slots, truths)])
    weights = torch.zeros(items.shape[-1], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = F.cross_entropy(F.pad((items @ weights).masked_fill(padding, -torch.inf), (0, 1)), right)
        value = value + penalty * weights.square().sum()
        value.backward()
        return value

    optimiser.step(loss)
    return [round(value, 6) for value in weights.tolist()]


def truths(slots: Sequence[Slot], reference: Sequence[str]) -> list[str | None]:
    """The true entry of each slot, by the alignment of the slots with the keys of the reference's words.

    None where the word that belongs there is in no answer.
    """
    found: list[str | None] = [NOTHING] * len(slots)
    free = [{**slot, NOTHING: slot[NOTHING] or {0: None}} for slot in slots]  # leaving a slot out costs nothing
    for slot, word in best_path(free, reference, substitution=0.9):  # a wrong word is better than one more left out
        if slot is not None and word is not None:
            found[slot] = reference[word] if reference[word] in slots[slot] else None
    return found
