"""What systems win and lose against the frozen recogniser alone."""

from cdasr.evaluation.agreement import gains_and_losses, right_parts
from cdasr.speech.domain import SPEECH
from cdasr.speech.words import found_words, word_errors


def entry(name: str, reference: str, text: str, condition: str = "noisy") -> dict:
    errors, words = word_errors(reference, text)
    return {"ID": name, "condition": condition, "reference": reference, "text": text, "errors": errors, "words": words}


DECODED = {
    "none": [entry("a", "one two three", "one two"), entry("b", "four five", "four five"),
             entry("c", "six", "six", "clean")],
    "enhanced": [entry("a", "one two three", "one two three"), entry("b", "four five", "for hive"),
                 entry("c", "six", "six", "clean")],
    "partly": [entry("c", "six", "", "clean")]}


def test_a_system_is_compared_item_by_item_and_with_an_oracle():
    lines = gains_and_losses(DECODED, SPEECH, ["noisy"], markdown=False).splitlines()
    assert lines[2].split() == ["none", "20.0", "0", "0", "0", "0", "20.0"]
    assert lines[3].split() == ["enhanced", "40.0", "1", "1", "1", "2", "0.0"]
    assert lines[4].split() == ["best", "of", "all", "0.0"] and len(lines) == 5  # `partly` has no noisy items


def test_nothing_to_compare_gives_no_table():
    assert gains_and_losses({"none": DECODED["none"]}, SPEECH, ["noisy"]) == ""
    assert gains_and_losses({"enhanced": DECODED["enhanced"]}, SPEECH, ["noisy"]) == ""
    assert right_parts(DECODED, SPEECH, ["noisy"], ["none", "partly"]) == ""


def test_words_of_the_references_are_counted_by_who_has_them():
    lines = right_parts(DECODED, SPEECH, ["noisy"], ["none", "enhanced"], markdown=False).splitlines()
    assert lines[0].split() == ["none", "enhanced", "words", "%"]
    assert {tuple(line.split()) for line in lines[2:]} == {
        ("right", "right", "2", "40.0"), ("right", "wrong", "2", "40.0"), ("wrong", "right", "1", "20.0")}


def test_words_of_a_reference_are_found_by_alignment():
    assert found_words("One, two three", "two tree") == [False, True, False]
    assert found_words("", "noise") == []
    assert found_words("a b", "") == [False, False]
