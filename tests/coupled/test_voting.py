"""Votes on words: alignment into slots, the truth of a slot, and the fit of the weights."""

import pytest
import torch

from cdasr.classifiers.hypothesis import Word
from cdasr.coupled.schema import Package
from cdasr.coupled.voting import NOTHING, Vote, align, features, fit, size, truths
from cdasr.runtime.plain_data import checked

PLAIN_SUM = [0, 1, 0, 1, 0, 1, 0, 1.5, 0, 0]  # of three answers: the sum of confidences, 0.5 for each that has nothing


def said(text: str, confidence: float = 0.8) -> list[Word]:
    return [Word(word, float(place), place + 1.0, confidence) for place, word in enumerate(text.split())]


def names(slots) -> list[set[str]]:
    return [set(slot) for slot in slots]


def test_answers_are_aligned_word_by_word():
    slots = align([said("the cat sat"), said("a cat sat down"), said("cat sat")], str.lower)
    assert names(slots) == [{"the", "a", NOTHING}, {"cat", NOTHING}, {"sat", NOTHING}, {"down", NOTHING}]
    assert [set(slot[NOTHING]) for slot in slots] == [{2}, set(), set(), {0, 2}]
    assert slots[1]["cat"].keys() == {0, 1, 2}
    assert align([[], said("a")], str.lower) == [{NOTHING: {0: None}, "a": {1: Word("a", 0.0, 1.0, 0.8)}}]
    assert align([[], []], str.lower) == []


def test_words_are_compared_by_their_keys():
    slots = align([said("Doctor, ..."), said("doctor")], lambda word: word.strip(",.").lower())
    assert len(slots) == 1 and slots[0]["doctor"][0].word == "Doctor,"
    slots = align([said("a well-known man"), said("well known man")], lambda word: word.replace("-", " "))
    assert [slot.keys() - {NOTHING} for slot in slots] == [{"a"}, {"well"}, {"known"}, {"man"}]
    assert [word.word for word in slots[1]["well"].values()] == ["well", "well"]


def test_the_majority_wins_and_is_written_as_by_the_surest():
    vote = Vote("fused", ["none", "enhanced", "fused"], PLAIN_SUM)
    words = vote.decide([said("Red bus now", 0.6), said("bed bus", 0.5), said("red bus", 0.9)], str.lower)
    assert [word.word for word in words] == ["red", "bus"]
    shares = torch.tensor([0.6 + 0.9, 0.5, 0.0, 0.0]).softmax(dim=0)  # of red, bed, nothing and something else
    assert words[0].confidence == pytest.approx(float(shares[0])) and words[0].start == 0.0
    assert vote.decide([[], [], []], str.lower) == []


def test_a_doubtful_word_of_one_answer_can_be_left_out():
    alone = Vote("enhanced", ["none"], [0.0, 1.0, 0.5, 0.0, 0.0, 0.0])
    assert [word.word for word in alone.decide([[*said("sure", 0.9), *said("doubt", 0.3)]], str)] == ["sure"]


def test_the_truth_of_a_slot_is_by_alignment_with_the_reference():
    slots = align([said("the cat sat on"), said("a cat")], str)
    assert truths(slots, ["a", "cat", "ran", "on"]) == ["a", "cat", None, "on"]
    assert truths(slots, ["cat", "sat"]) == [NOTHING, "cat", "sat", NOTHING]
    assert truths(slots, []) == [NOTHING] * 4


def test_features_say_who_has_a_word_and_how_sure():
    slot = align([said("a", 0.7), said("b", 0.4)], str)[0]
    assert list(slot) == [NOTHING, "a", "b"]
    assert features(slot, 2).tolist() == [
        [0, 0, 0, 0, 1, 0, 0, 0], [1, 0.7, 0, 0, 0, 0, 0, 1], [0, 0, 1, 0.4, 0, 0, 0, 1]]


def test_the_fit_learns_whom_to_believe():
    """The first answer is always right, the second never: with any confidences the first then wins."""
    generator = torch.Generator().manual_seed(0)
    slots, right = [], []
    for number in range(200):
        sure = torch.rand(2, generator=generator).tolist()
        slots += align([said(f"good{number}", sure[0]), said(f"bad{number}", sure[1])], str)
        right.append(f"good{number}")
    vote = Vote("enhanced", ["none", "enhanced"], fit(slots, right, 2))
    assert len(vote.weights) == size(2)
    words = vote.decide([said("yes", 0.05), said("no", 0.95)], str)
    assert [word.word for word in words] == ["yes"] and words[0].confidence > 0.9
    with pytest.raises(ValueError, match="no word of any answer is right"):
        fit(slots, [None] * len(slots), 2)


def test_confidences_are_shares_of_right_words():
    """One answer, sure or not: of its words a known share is right, the others are something else or nothing."""
    slots = [align([said("word", sure)], str)[0] for sure in [0.9] * 200 + [0.2] * 200]
    right = ["word"] * 180 + [None] * 20 + ["word"] * 60 + [None] * 80 + [NOTHING] * 60
    weights = fit(slots, right, 1, penalty=0.0)
    careful, bold = (Vote("enhanced", ["none"], weights, margin) for margin in (0.5, -0.5))
    assert [word.confidence for word in careful.decide([said("word", 0.9)], str)] == [pytest.approx(0.9, abs=0.01)]
    ties = [vote.decide([said("word", 0.2)], str) for vote in (careful, bold)]
    assert [len(words) for words in ties] == [1, 0], "a margin decides where both are as likely"


@pytest.mark.parametrize("change, message", [
    ({"answers": ["none", "cascade"], "weights": [0.0] * 8}, "answers.cascade: there are answers for none, enhanced"),
    ({"strategy": "enhanced", "answers": ["fused"]}, "answers.fused: there are answers for none, enhanced"),
    ({"weights": [1.0]}, "weights: expected 6 numbers for 1 answers, got 1"),
    ({"answers": ["none", "none"], "weights": [0.0] * 8}, "each votes once"),
    ({"strategy": "auto"}, "'auto': expected"), ({"weights": [float("nan")] * 6}, "weights")])
def test_a_vote_that_cannot_be_used_is_refused(change, message):
    package = {"format": 1, "signal": {}, "rover": {"strategy": "fused", "answers": ["none"], "weights": [0.0] * 6,
                                                    **change}}
    with pytest.raises(ValueError, match=message):
        checked(Package, package)
