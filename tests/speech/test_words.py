"""Word errors are counted as by hand; the consensus has the least of them, and votes are counted by alignment."""

import pytest

from cdasr.speech.words import consensus, correct_words, word_errors


def test_majority_wins_and_words_are_voted_on():
    best, shares = consensus(["one two four", "one two three", "one three", "one two three"])
    assert best == 1 and shares == [1.0, 0.75, 0.75]
    assert consensus(["nine"]) == (0, [1.0])


def test_empty_transcripts():
    assert consensus(["", "", "one"]) == (0, [])
    assert consensus(["one", "", "one"]) == (0, [2 / 3])


@pytest.mark.parametrize("reference, hypothesis, expected", [
    ("one two three", "one two three", (0, 3)), ("one two three", "ONE  two\tthree", (0, 3)),
    ("one two three", "one three", (1, 3)), ("one two", "one five two six", (2, 2)), ("one two", "", (2, 2)),
    ("", "one", (1, 0)), ("", "", (0, 0)), ("one two", "two one", (2, 2))])
def test_word_errors(reference, hypothesis, expected):
    assert word_errors(reference, hypothesis) == expected


def test_correct_words_are_found_by_alignment():
    assert correct_words("one two three", "ONE three three") == [True, False, True]
    assert correct_words("one two", "nine one two") == [False, True, True]
    assert correct_words("one", "") == [] and correct_words("", "one") == [False]
