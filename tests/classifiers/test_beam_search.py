"""The prefix beam search against all alignments, one by one; language model, hot words, n best, and greedy decoding."""

import itertools
import math
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from cdasr.classifiers.alphabet import Alphabet
from cdasr.classifiers.beam_search import BeamSearch
from cdasr.classifiers.ctc import CTCRecogniser, fill_blanks
from cdasr.classifiers.logits import CTCLogits
from cdasr.classifiers.ngram import NATS, NGramModel

LETTERS = Alphabet(("<pad>", "|", "a", "b", "<unk>"), 0, 1, silent=frozenset({4}))
WORDS = Alphabet(("<pad>", "|", "one", "two"), 0, 1, whole_words=True)
EXACT = BeamSearch(beam_size=10_000, nbest=10_000, token_min_logp=-math.inf, beam_prune_logp=-math.inf)


def log_posteriors(frames, alphabet, seed=0):
    values = 2.0 * np.random.default_rng(seed).standard_normal((frames, len(alphabet.tokens)))
    values[:, list(alphabet.silent)] = -30.0
    return values - np.logaddexp.reduce(values, axis=1, keepdims=True)


def read(path, alphabet):
    """The words of an alignment, by the rules of CTC and nothing else."""
    if alphabet.whole_words:
        path = fill_blanks(torch.tensor([path]), alphabet.blank)[0].tolist()
    labels = [label for label, _ in itertools.groupby(path) if label != alphabet.blank]
    tokens = [" " if label == alphabet.delimiter else alphabet.tokens[label] for label in labels]
    return tuple((" " if alphabet.whole_words else "").join(tokens).split())


def all_texts(log_probs, alphabet):
    """log P of every text, summed over its alignments."""
    found = defaultdict(lambda: -math.inf)
    classes = [label for label in range(len(alphabet.tokens)) if label not in alphabet.silent]
    for path in itertools.product(classes, repeat=len(log_probs)):
        score = sum(row[label] for row, label in zip(log_probs, path))
        words = read(path, alphabet)
        found[words] = np.logaddexp(found[words], score)
    return found


@pytest.mark.parametrize("alphabet", [LETTERS, WORDS], ids=["letters", "words"])
@pytest.mark.parametrize("seed", range(3))
def test_it_sums_over_all_alignments(alphabet, seed):
    log_probs = log_posteriors(6, alphabet, seed)
    expected, found = all_texts(log_probs, alphabet), EXACT.search(log_probs, alphabet)
    assert {ended.words for ended in found} == set(expected)
    for ended in found:
        assert ended.acoustic == pytest.approx(expected[ended.words], abs=1e-9) == ended.score
    assert [ended.score for ended in found] == pytest.approx(sorted(expected.values(), reverse=True)), "the best first"


def test_total_probability_is_one():
    found = EXACT.search(log_posteriors(7, WORDS), WORDS)
    assert np.logaddexp.reduce([ended.acoustic for ended in found]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("alphabet", [LETTERS, WORDS], ids=["letters", "words"])
def test_a_beam_of_ten_finds_a_text_as_good_as_the_best(alphabet):
    for seed in range(5):
        log_probs = log_posteriors(8, alphabet, seed)
        exact = EXACT.search(log_probs, alphabet)
        found = BeamSearch(beam_size=10).search(log_probs, alphabet)
        scores = {ended.words: ended.score for ended in exact}
        assert scores[found[0].words] == pytest.approx(exact[0].score, abs=0.7), "of these nearly flat posteriors"
        assert all(ended.score <= scores[ended.words] + 1e-9 for ended in found), "alignments are only left out"


def test_a_larger_beam_finds_no_worse_text():
    log_probs = log_posteriors(20, LETTERS, 3)
    scores = [BeamSearch(beam_size=size, token_min_logp=-20.0).search(log_probs, LETTERS)[0].score
              for size in (1, 3, 10, 30, 100)]
    assert scores == pytest.approx(sorted(scores), abs=1e-6)


# -- words ------------------------------------------------------------------------------------------------------------


def peaky(path, size, peak=0.9):
    """Log-posteriors of an alignment that is nearly sure."""
    probs = np.full((len(path), size), (1.0 - peak) / (size - 1))
    probs[range(len(path)), path] = peak
    return np.log(probs)


def test_words_begin_and_end_where_they_are_heard():
    path = [0, 2, 2, 0, 3, 3, 0, 1, 1, 0, 2, 0]  # _aa_bb_||_a_
    best = BeamSearch().search(peaky(path, 5), LETTERS)[0]
    assert best.words == ("ab", "a")
    assert [span[:2] for span in best.spans] == [(1, 6), (10, 11)]
    assert [span[2] / span[3] for span in best.spans] == pytest.approx([0.9, 0.9])
    best = BeamSearch().search(peaky([0, 2, 0, 2, 3, 0, 1, 3, 0], 4), WORDS)[0]
    assert best.words == ("one", "two", "two"), "a blank does not tell two equal words apart, a delimiter does"
    assert [span[:2] for span in best.spans] == [(1, 4), (4, 5), (7, 8)]


# -- language model and hot words -------------------------------------------------------------------------------------


def bigrams(**probs):
    """A model with these unigrams in per cent, and `a b` as its only bigram."""
    unigrams = {(word,): (math.log(percent / 100), 0.0) for word, percent in probs.items()}
    return NGramModel({**unigrams, ("</s>",): (math.log(0.1), 0.0), ("<s>",): (-99.0, 0.0), ("a", "b"): (-0.01, 0.0)})


def ambiguous():
    """`a a` is a little more likely than `a b`."""
    log_probs = peaky([2, 1, 2], 5)
    log_probs[2, [2, 3]] = np.log([0.47, 0.43])
    return log_probs


def test_a_language_model_decides_where_the_audio_does_not():
    lm, log_probs = bigrams(a=40, b=40), ambiguous()
    assert BeamSearch().search(log_probs, LETTERS)[0].words == ("a", "a")
    found = BeamSearch(lm=lm, lm_weight=1.0).search(log_probs, LETTERS)
    assert found[0].words == ("a", "b")
    assert found[0].language == pytest.approx(math.log(0.4) - 0.01 + math.log(0.1))
    assert found[0].score == pytest.approx(found[0].acoustic + found[0].language)
    for weight in (0.0, 0.01):
        assert BeamSearch(lm=lm, lm_weight=weight).search(log_probs, LETTERS)[0].words == ("a", "a")


def test_it_is_exact_with_a_language_model_too():
    lm, log_probs = bigrams(a=60, b=10, ab=20), log_posteriors(6, LETTERS, 4)
    search = replace(EXACT, lm=lm, lm_weight=0.7, word_bonus=0.4)
    expected = {}
    for words, acoustic in all_texts(log_probs, LETTERS).items():
        state, total = lm.start(), 0.0
        for word in (*words, "</s>"):
            log_prob, state = lm.score(state, word)
            total += log_prob - (0 if word == "</s>" or lm.known(word) else 10 * NATS)
        expected[words] = acoustic + 0.7 * total + 0.4 * len(words)
    found = {ended.words: ended.score for ended in search.search(log_probs, LETTERS)}
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_bonus_for_each_word_makes_more_of_them():
    log_probs = peaky([2, 1, 3], 5)
    log_probs[1, [0, 1]] = np.log([0.55, 0.4])
    assert BeamSearch().search(log_probs, LETTERS)[0].words == ("ab",)
    assert BeamSearch(word_bonus=0.5).search(log_probs, LETTERS)[0].words == ("a", "b")


@pytest.mark.parametrize("lm", [None, bigrams(a=40, aa=50, **{"<unk>": 1})], ids=["alone", "unknown to the model"])
def test_hot_words_are_preferred(lm):
    log_probs = peaky([2, 0, 3], 5)
    log_probs[2, [2, 3]] = np.log([0.7, 0.25])
    plain = BeamSearch(lm=lm)
    assert plain.search(log_probs, LETTERS)[0].words == ("aa",)
    found = replace(plain, hotwords=("AB",)).search(log_probs, LETTERS)
    assert found[0].words == ("ab",)
    assert replace(plain, hotwords=("ab",), hotword_weight=0.1).search(log_probs, LETTERS)[0].words == ("aa",)


def test_hot_words_that_cannot_be_written_are_refused():
    with pytest.raises(ValueError, match="hot word 'cab': the recogniser has no letter 'c'; its letters: a b"):
        BeamSearch(hotwords=("ab cab",)).check(LETTERS)
    with pytest.raises(ValueError, match="hot word 'six': the recogniser has no word 'six'; its words: one two"):
        BeamSearch(hotwords=("one six",)).check(WORDS)
    BeamSearch(hotwords=("Ab", "b a")).check(LETTERS)


# -- of a recogniser --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    from cdasr import Pipeline

    return Pipeline.from_pretrained("digits", "cpu").recogniser


@pytest.fixture(params=["letters", "words"])
def recogniser(request, recogniser_dir):
    return CTCRecogniser.from_pretrained(recogniser_dir) if request.param == "letters" else (
        request.getfixturevalue("digits"))


def test_its_alphabet(recogniser, digits):
    alphabet = recogniser.alphabet
    assert alphabet.whole_words == (recogniser is digits) and alphabet.blank == recogniser.blank
    assert alphabet.tokens[alphabet.delimiter] == "|"
    assert {alphabet.tokens[place] for place in alphabet.silent} == {"<s>", "</s>", "<unk>"}
    assert ("seven" in alphabet.written) == (recogniser is digits)


def test_sure_logits_are_read_as_greedy_decoding_reads_them(recogniser):
    generator = torch.Generator().manual_seed(0)
    alphabet = recogniser.alphabet
    spoken = [place for place in range(len(alphabet.tokens)) if place not in alphabet.silent]
    best = torch.tensor(spoken)[torch.randint(len(spoken), (4, 30), generator=generator)]
    best = torch.where(torch.rand(4, 30, generator=generator) < 0.5, alphabet.blank, best)
    values = torch.zeros(4, 30, len(alphabet.tokens)).scatter(2, best[..., None], 15.0)
    lengths = torch.tensor([30, 25, 8, 2])
    logits = CTCLogits(values, lengths, None, recogniser)
    found = BeamSearch(nbest=3)(logits)
    assert [row[0].text for row in found] == [text.lower() for text in logits.texts()]
    assert all(len(row) <= 3 and [one.score for one in row] == sorted((one.score for one in row), reverse=True)
               and len({one.text for one in row}) == len(row) for row in found)
    for row, greedy in zip(found, logits.words()):
        words = row[0].words
        assert [word.word for word in words] == [word.word for word in greedy]
        for name in ("start", "end", "confidence"):
            assert [getattr(word, name) for word in words] == pytest.approx(
                [getattr(word, name) for word in greedy], abs=1e-3), name
