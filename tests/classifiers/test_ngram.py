"""Back-off language models: hand-computed values, the values of KenLM, and files that are not whole."""

import gzip
import importlib.util
import math
import re
import sys

import pytest

from cdasr.classifiers.ngram import NATS, NOT_LISTED, load_language_model

ARPA = """
\\data\\
ngram 1=6
ngram 2=4
ngram 3=1

\\1-grams:
-1.0 <unk>
-99 <s> -0.5
-0.7 </s>
-0.4 the -0.3
-0.6 cat -0.2
-0.9 sat

\\2-grams:
-0.2 <s> the -0.1
-0.3 the cat -0.15
-0.25 cat sat
-0.35 sat </s>

\\3-grams:
-0.05 <s> the cat

\\end\\
"""


@pytest.fixture
def arpa(tmp_path):
    path = tmp_path / "lm.arpa"
    path.write_text(ARPA)
    return path


def log10s(model, words):
    state, scores = model.start(), []
    for word in words.split():
        score, state = model.score(state, word)
        scores.append(score / NATS)
    return scores


BY_HAND = {
    "the cat sat </s>": [-0.2, -0.05, -0.15 - 0.25, 0.0 - 0.35],  # b(the cat) P(sat | cat); b(cat sat) is 1
    "cat the": [-0.5 - 0.6, -0.2 - 0.4],                          # b(<s>) P(cat); b(<s> cat) = 1, b(cat) P(the)
    "the sat cat": [-0.2, -0.1 - 0.3 - 0.9, -0.6],                # b(<s> the) b(the) P(sat); sat has no back-off
    "dog the": [-0.5 - 1.0, -0.4],                                # b(<s>) P(<unk>); <unk> has no back-off
    "the the the": [-0.2, -0.1 - 0.3 - 0.4, -0.3 - 0.4],
}


@pytest.mark.parametrize("words", BY_HAND)
def test_back_off_in_closed_form(arpa, words):
    assert log10s(load_language_model(arpa), words) == pytest.approx(BY_HAND[words])


@pytest.mark.parametrize("words", BY_HAND)
def test_kenlm_gives_the_same(arpa, words):
    kenlm = pytest.importorskip("kenlm")
    ours = log10s(load_language_model(arpa), words)
    arpa.write_text(re.sub(r"(?m)^(-\S+) (\D+?)(?: (-\S+))?$", r"\1\t\2\t\3", ARPA).replace("\t\n", "\n"))
    theirs = kenlm.Model(str(arpa)).full_scores(words.removesuffix(" </s>"), eos=words.endswith("</s>"))
    assert ours == pytest.approx([score for score, *_ in theirs], abs=1e-5)


def test_which_words_it_has(arpa):
    model = load_language_model(arpa)
    assert model.known("cat") and model.known("CAT"), "all its words are in lower case"
    assert not model.known("dog") and model.begins_word("ca") and model.begins_word("CAT")
    assert not model.begins_word("at") and not model.begins_word("cats")


def test_words_in_capitals_and_of_both_kinds(arpa):
    arpa.write_text(ARPA.replace("the", "THE").replace("cat", "CAT").replace("sat", "SAT"))
    assert load_language_model(arpa).known("the")
    arpa.write_text(ARPA.replace("cat", "Cat"))
    model = load_language_model(arpa)
    assert model.known("Cat") and not model.known("cat")


def test_unigrams_alone_without_unknown(tmp_path):
    path = tmp_path / "one.arpa.gz"
    path.write_bytes(gzip.compress(b"\\data\\\nngram 1=2\n\n\\1-grams:\n-0.5 a\n-0.7\tb\n\n\\end\\\n"))
    model = load_language_model(path)
    assert log10s(model, "b a c") == pytest.approx([-0.7, -0.5, NOT_LISTED / NATS])
    assert math.isfinite(model.score(model.start(), "</s>")[0])


@pytest.mark.parametrize("change, reason", [
    (("\\data\\", ""), r"there is no line \\data\\"),
    (("ngram 2=4", "ngram 3=4"), r"line 4: expected ngram 2=COUNT, got 'ngram 3=4'"),
    (("ngram 2=4", "ngram 2=5"), "it promises 5 2-grams and has 4"),
    (("\\3-grams:", "\\4-grams:"), r"expected .3-grams: behind the 2-grams"),
    (("-0.3 the cat -0.15", "-0.3 the"), "expected a number, 2 words and perhaps a number, got '-0.3 the'"),
    (("-0.3 the cat", "nan the cat"), "has no finite number where one belongs"),
    (("\\end\\", ""), "it ends among the 3-grams"),
    (("-0.9 sat", "-0.9 cat"), "it promises 6 1-grams and has 5"),
    ((ARPA, ""), r"there is no line \\data\\"),
    ((ARPA, "RIFF\x00\x00WAVE"), r"there is no line \\data\\")])
def test_a_file_that_is_not_whole_is_refused_in_a_line(arpa, change, reason):
    arpa.write_text(ARPA.replace(*change))
    with pytest.raises(ValueError, match=reason) as refused:
        load_language_model(arpa)
    message = str(refused.value)
    assert message.startswith(f"{arpa}: not a language model in ARPA format") and "\n" not in message


def test_no_file_no_text_and_torn_gzip(tmp_path, arpa):
    with pytest.raises(ValueError, match="no such language model"):
        load_language_model(tmp_path / "nothing.arpa")
    (tmp_path / "bytes.arpa").write_bytes(b"\\data\\\n\xff\xfe")
    with pytest.raises(ValueError, match="not text in UTF-8"):
        load_language_model(tmp_path / "bytes.arpa")
    (tmp_path / "torn.arpa").write_bytes(gzip.compress(ARPA.encode())[:60])
    with pytest.raises(ValueError, match="not a language model in ARPA format"):
        load_language_model(tmp_path / "torn.arpa")


def test_binary_files_of_kenlm(tmp_path, monkeypatch):
    path = tmp_path / "lm.binary"
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n")
    if importlib.util.find_spec("kenlm"):
        with pytest.raises(ValueError, match="KenLM cannot read it"):
            load_language_model(path)
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ValueError, match=r"pip install cdasr\[kenlm\]"):
        load_language_model(path)
