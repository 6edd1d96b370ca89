"""The vote of the strategy `rover` (`cdasr.coupled.voting`), fitted on development speech.

    python -m cdasr.speech.rover_rule PACKAGE MANIFEST [--answers none,enhanced,fused] [--normaliser english]

The development rows are noisy ones of all conditions that matter; their clean versions, where the manifest has them,
are one condition more. How readily a word is left out is chosen by the sum of word and character error rates: leaving
out a doubtful word is no word error more where it is wrong, but what is like it may have been said. The vote goes into
the package's `config.json`, with what it is expected to give.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from tqdm import tqdm

from cdasr.classifiers.hypothesis import Word
from cdasr.coupled.pipeline import candidates
from cdasr.coupled.strategies import answers_of
from cdasr.coupled.voting import Vote, align, fit, truths
from cdasr.evaluation.auto_rule import FOLDS, TOLERANCE, answering_strategy, fit_in_place, with_clean
from cdasr.evaluation.tuning import ITEMS, Rows, groups
from cdasr.speech.normalisers import PLAIN, Normaliser, spellings_of
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.words import error_counts, normalise_text

MARGINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # in log-odds


@dataclass(frozen=True)
class Heard:
    """A development item: the words of each answer, the reference, the condition, and the `group` of its versions."""

    answers: Mapping[str, Sequence[Word]]
    reference: str
    condition: str
    group: str


def add_rover(pipeline: Pipeline, rows: Rows, tolerance: float = TOLERANCE, items: int = ITEMS,
              normalise: Normaliser = PLAIN, answers: Sequence[str] = ()) -> Pipeline:
    """The pipeline with a vote for `rover` in its config, fitted on development rows with their clean versions.

    The `answers` that vote are by default all that its strategy gives. The pipeline stays without a vote, which is
    said, where no answer has a right word, or where some condition would be worse than `none` by more than `tolerance`
    points.
    """
    strategy = answering_strategy(pipeline)
    found = gather(pipeline, rows, strategy, items)
    try:
        vote = fit_vote(found, strategy, answers or list(found[0].answers), normalise)
    except ValueError as reason:  # nothing to learn from
        print(f"rover: {reason}, no vote is stored")
        return pipeline
    for name, rates in vote.measured["expected"].items():
        print(f"rover, {name}: " + ", ".join(f"{system} {rate:.2f}" for system, rate in rates.items()))
    worse = [name for name, rates in vote.measured["expected"].items() if rates["rover"] > rates["none"] + tolerance]
    if worse:
        print(f"rover: worse than none on {', '.join(worse)}, no vote is stored")
        return pipeline
    return pipeline.with_choices(rover=vote.config())


@torch.inference_mode()
def gather(pipeline: Pipeline, rows: Rows, strategy: str, items: int = ITEMS) -> list[Heard]:
    """The words of all answers to all rows, and to the clean version of each item."""
    found = []
    for group in tqdm(groups(with_clean(pipeline, rows), items), desc="answers for rover"):
        batch = pipeline.batch([pipeline.surround(row["signal"]) for row in group])
        _, answers = candidates(pipeline, batch, strategy, None, {"seed": [0] * len(group), "method": None},
                                ["fused", "oa"])
        spoken = {name: logits.words() for name, logits in answers.items()}
        found += [Heard({name: words[place] for name, words in spoken.items()}, row["text"], row["condition"],
                        row["group"]) for place, row in enumerate(group)]
    return found


def fit_vote(found: Sequence[Heard], strategy: str, answers: Sequence[str], normalise: Normaliser = PLAIN) -> Vote:
    """The vote that makes the words of the references most likely, with the margin of the fewest errors.

    The margin, and what the vote is expected to give, are of answers by weights that were fitted on other items.
    """
    known = list(dict.fromkeys(item.group for item in found))
    fold = [known.index(item.group) % FOLDS for item in found]
    networks = [align([item.answers[name] for name in answers], normalise_text) for item in found]
    wanted = [truths(slots, normalise_text(item.reference).split()) for slots, item in zip(networks, found)]

    def weights(left_out: int | None = None) -> list[float]:
        """From all items, or from those of the other folds, if there are any."""
        places = [place for place, number in enumerate(fold) if number != left_out] or range(len(found))
        return fit(list(chain(*(networks[place] for place in places))),
                   list(chain(*(wanted[place] for place in places))), len(answers))

    parts = [weights(left_out) for left_out in range(min(FOLDS, len(known)))]
    best = None
    for margin in MARGINS:
        votes = [Vote(strategy, answers, part, margin) for part in parts]
        decided = [_text(votes[number].winners(slots)) for slots, number in zip(networks, fold)]
        errors = sum(_error_rates(found, decided, normalise))
        if best is None or errors < best[0]:
            best = errors, margin, decided
    texts = {name: [_text(item.answers[name]) for item in found] for name in dict.fromkeys(("none", *answers))}
    _, margin, texts["rover"] = best
    return Vote(strategy, answers, weights(), margin, {
        "items": len(found), "expected": _by_condition(found, texts, normalise)})


def _by_condition(found: Sequence[Heard], texts: Mapping[str, Sequence[str]], normalise: Normaliser) -> dict[str, dict]:
    """The word error rate of each system in each condition, in per cent."""
    rates: dict[str, dict] = {}
    for condition in dict.fromkeys(item.condition for item in found):
        places = [place for place, item in enumerate(found) if item.condition == condition]
        rates[condition] = {system: round(_error_rates([found[place] for place in places],
                                                       [answers[place] for place in places], normalise)[0], 3)
                            for system, answers in texts.items()}
    return rates


def _error_rates(found: Sequence[Heard], texts: Sequence[str], normalise: Normaliser) -> tuple[float, float]:
    """Word and character error rate in per cent."""
    counts = [error_counts(item.reference, text, normalise) for item, text in zip(found, texts)]
    return tuple(100.0 * sum(count[errors] for count in counts) / max(1, sum(count[counted] for count in counts))
                 for errors, counted in (("errors", "words"), ("character_errors", "characters")))


def _text(words: Sequence[Word]) -> str:
    return " ".join(word.word for word in words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the vote of a package as the command line says. Returns 0, or 2 with one line for unusable input."""
    parser = argparse.ArgumentParser(prog="python -m cdasr.speech.rover_rule", description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=lambda text: text.split(","), default=[], metavar="NAME[,NAME...]",
                        help="which vote, of none, enhanced, oa, fused and the package's strategy; default: all")
    parser.add_argument("--normaliser", default="plain", choices=("plain", "basic", "english"),
                        help="of texts before errors are counted; default: %(default)s")

    def add(pipeline: Pipeline, rows: Rows, tolerance: float, options: argparse.Namespace) -> Pipeline:
        if unknown := set(options.answers) - {"oa", *answers_of(answering_strategy(pipeline))}:
            raise ValueError(f"--answers: the package gives none called {', '.join(sorted(unknown))}")
        normalise = Normaliser(options.normaliser, lambda: spellings_of(pipeline.recogniser))
        return add_rover(pipeline, rows, tolerance, normalise=normalise, answers=options.answers)
    return fit_in_place(parser, "rover", add, arguments)


if __name__ == "__main__":
    sys.exit(main())
