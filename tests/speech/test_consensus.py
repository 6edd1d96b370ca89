"""The consensus is the transcript with the least expected word errors, and votes are counted by alignment."""

from cdasr.speech.consensus import consensus


def test_majority_wins_and_words_are_voted_on():
    best, shares = consensus(["one two four", "one two three", "one three", "one two three"])
    assert best == 1 and shares == [1.0, 0.75, 0.75]
    assert consensus(["nine"]) == (0, [1.0])


def test_empty_transcripts():
    assert consensus(["", "", "one"]) == (0, [])
    assert consensus(["one", "", "one"]) == (0, [2 / 3])
