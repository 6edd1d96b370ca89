"""Word errors are counted as by hand; the consensus has the least of them, and votes are counted by alignment."""

import pytest

from cdasr.speech.words import consensus, correct_words, error_counts, normalise_text, word_errors


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


HINDI = "\u0939\u093f\u0928\u094d\u0926\u0940"  # its vowel signs are no letters to a regular expression


@pytest.mark.parametrize("text, same", [
    ("DON\u2019T  STOP", "don't stop"), ("Well-known, 'he said'.", "well known he said"),
    ("a\tb\u00a0c -- d", "a b c d"), (f"{HINDI}!", HINDI), ("Stra\u00dfe", "strasse"), ("caf\u0065\u0301", "caf\u00e9"),
    ("Caf\u00c9", "cafe\u0301".replace("e\u0301", "\u00e9")), ("zero\u200bwidth \ufeffone", "zerowidth one"),
    ("Zei\u00adtung", "zeitung"), ("\u200etwo\u200f\u202fthree", "two three"), ("\u2060it\u2019s\ufe0f", "it's"),
    ("\u212bngstr\u00f6m", "\u00e5ngstr\u00f6m")])
def test_texts_are_compared_without_case_and_punctuation(text, same):
    assert normalise_text(text) == same == normalise_text(same)
    assert word_errors(text, same)[0] == 0 == word_errors(same, text)[0]


def test_correct_words_are_found_by_alignment():
    assert correct_words("one two three", "ONE three three") == [True, False, True]
    assert correct_words("one two", "nine one two") == [False, True, True]
    assert correct_words("A WELL KNOWN MAN", "A well-known man, -- no!") == [True, True, True, True, False]
    assert correct_words("one", "") == [] and correct_words("", "one") == [False]


def test_kinds_of_errors_and_characters_are_counted():
    assert error_counts("one two three", "one too three four") == {
        "errors": 2, "words": 3, "substitutions": 1, "deletions": 0, "insertions": 1, "character_errors": 6,
        "characters": 13}
    assert error_counts("", "so it") == {"errors": 2, "words": 0, "substitutions": 0, "deletions": 0, "insertions": 2,
                                         "character_errors": 5, "characters": 0}
