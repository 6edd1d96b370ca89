"""Whisper's normalisers count as its authors do, by name, for all systems alike; the default counts as before."""

import json

import pytest

from cdasr.speech.normalisers import Normaliser, _say_once, about_normaliser, spellings_in, spellings_of
from cdasr.speech.words import correct_words, error_counts, word_errors

ENGLISH = Normaliser("english", lambda: {"colour": "color"})


@pytest.mark.parametrize("reference, hypothesis", [
    ("TWENTY ONE DOLLARS", "$21"), ("MR SMITH IS NOT HERE", "Mr. Smith isn't here."), ("the colour", "The color!"),
    ("well, um, I will", "well I'll"), ("nine hundred and ten", "910")])
def test_the_english_normaliser_writes_alike_what_sounds_alike(reference, hypothesis):
    assert word_errors(reference, hypothesis, ENGLISH)[0] == 0 < word_errors(reference, hypothesis)[0]
    assert error_counts(reference, hypothesis, ENGLISH)["character_errors"] == 0
    assert correct_words(reference, hypothesis, ENGLISH) == [True] * len(hypothesis.split())


def test_words_that_are_one_after_normalisation_are_right_together():
    assert correct_words("21 men and a dog", "twenty one men and the dog", ENGLISH) == [
        True, True, True, True, False, True]
    assert correct_words("22 men", "twenty one men", ENGLISH) == [False, False, True]
    assert correct_words("a dog", "um a dog", ENGLISH) == [True, True, True], "no word, no error"
    assert correct_words("isn't it", "is not it", ENGLISH) == [True, True, True]
    assert correct_words("", "one", ENGLISH) == [False] and correct_words("one", "", ENGLISH) == []


def test_the_basic_normaliser_keeps_numbers_as_they_are():
    assert word_errors("twenty one", "21", Normaliser("basic"))[0] == 2
    assert word_errors("two, three", "TWO THREE", Normaliser("basic")) == (0, 2)


def test_spellings_come_with_the_recogniser_and_their_lack_is_told_once(tmp_path, capsys, whisper_dir):
    (tmp_path / "normalizer.json").write_text(json.dumps({"colour": "color", "grey": "gray"}))
    assert spellings_in(tmp_path) == {"colour": "color", "grey": "gray"}
    found = Normaliser("english", lambda: spellings_in(tmp_path))
    assert found.setting == "english, 2 spellings" and found("Grey colour") == "gray color"
    assert about_normaliser(found.setting) == "Whisper's English normaliser of transformers, with 2 spellings"
    assert spellings_in(whisper_dir) == spellings_in("") == spellings_in("nobody/nothing-at-all") == {}
    capsys.readouterr()
    _say_once.cache_clear()
    for _ in range(2):
        bare = Normaliser("english", lambda: spellings_in(whisper_dir))
        assert bare("grey Colour") == "grey colour" and bare.setting == "english, 0 spellings"
    assert capsys.readouterr().err.count("normalizer.json") == 1
    assert about_normaliser(bare.setting).endswith("without its table of spellings")

    class Recogniser:
        encoder_source, source = {"name": str(tmp_path), "options": {}}, {"name": str(whisper_dir), "options": {}}
    assert len(spellings_of(Recogniser())) == 2 and spellings_of(object()) == {}


def test_what_is_no_normaliser_or_no_table_is_named(tmp_path):
    with pytest.raises(ValueError, match="no normaliser 'french'; known: plain, basic, english"):
        Normaliser("french")
    (tmp_path / "normalizer.json").write_text('{"colour": 1}')
    with pytest.raises(ValueError, match="normalizer.json: expected a table of spellings"):
        spellings_in(tmp_path)
