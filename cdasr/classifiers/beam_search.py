"""CTC prefix beam search, with a language model, hot words and n best hypotheses (Hannun et al. 2014, arXiv 1408.2873).

A hypothesis is a text. Its acoustic score is the log-probability of all alignments that are read as it, which the
search sums over; greedy decoding takes the text of the one best alignment. Hypotheses are ranked by

    log P(text | audio) + lm_weight log P(text) + word_bonus (number of words) + hotword_weight (number of hot words)

in nats, where the language model ends the text with `</s>`. A word that has only begun has a share of the weight of a
hot word that begins so, and the cost of an unknown word where no word of the language model begins so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cdasr.classifiers.alphabet import Alphabet
from cdasr.classifiers.beam_texts import Text, Texts, WordScores
from cdasr.classifiers.hypothesis import Hypothesis, Word
from cdasr.classifiers.logits import CTCLogits
from cdasr.classifiers.ngram import LanguageModel

NEVER = -math.inf
LM_WEIGHT, WORD_BONUS, HOTWORD_WEIGHT = 0.5, 1.5, 10.0  # with a language model; pyctcdecode's

Span = tuple[int, int, float, int]  # of a word: its first frame, the one behind it, sum and count of its posteriors
Trace = tuple  # (trace of the words before, span of the last word), or () before the first one


@dataclass(frozen=True)
class BeamSearch:
    """Logits of a CTC recogniser to the `nbest` hypotheses of each item.

    `beam_size` texts are kept after each frame, but none that is `beam_prune_logp` behind the best; tokens below
    `token_min_logp` are not followed in a frame. Both are natural logarithms, as in pyctcdecode; -inf: no limit.
    A hot word of several words stands for each of them.
    """

    beam_size: int = 10
    lm: LanguageModel | None = None
    lm_weight: float = LM_WEIGHT
    word_bonus: float = 0.0
    hotwords: tuple[str, ...] = ()
    hotword_weight: float = HOTWORD_WEIGHT
    nbest: int = 1
    token_min_logp: float = -5.0
    beam_prune_logp: float = -10.0

    def check(self, alphabet: Alphabet) -> None:
        """Raise ValueError for a hot word that a recogniser of this alphabet cannot write."""
        for word in self.hot:
            parts = [word] if alphabet.whole_words else word
            if lacking := [part for part in parts if part not in alphabet.written]:
                what, known = ("word", "words") if alphabet.whole_words else ("letter", "letters")
                listed = " ".join(sorted(alphabet.written)[:40])
                raise ValueError(f"hot word {word!r}: the recogniser has no {what} {lacking[0]!r}; its {known}: "
                                 f"{listed}")

    @property
    def hot(self) -> list[str]:
        """The hot words one by one, in lower case."""
        return [word for phrase in self.hotwords for word in phrase.lower().split()]

    def __call__(self, logits: CTCLogits) -> list[list[Hypothesis]]:
        """The hypotheses of each item, the best first."""
        recogniser = logits.classifier
        rows = logits.log_posterior(logits.values).cpu().numpy()
        found = [self.search(row[:length], recogniser.alphabet) for row, length in zip(rows, logits.lengths.tolist())]
        return [[_hypothesis(ended, recogniser) for ended in ranked[:self.nbest]] for ranked in found]

    def search(self, log_probs: np.ndarray, alphabet: Alphabet) -> list[Ended]:
        """All texts that are left at the end of log-posteriors (M, V), the best first."""
        texts = Texts(alphabet, WordScores(self.lm, self.lm_weight, self.word_bonus, frozenset(self.hot),
                                           self.hotword_weight))
        written = np.arange(log_probs.shape[1]) < len(alphabet.tokens)
        written[[alphabet.blank, *alphabet.silent]] = False
        beam = {texts.empty: Scored(blank=0.0)}
        for frame, scores in enumerate(log_probs.astype(np.float64)):
            tokens = ((scores >= self.token_min_logp) & written).nonzero()[0].tolist()
            beam = self._pruned(_next_beam(beam, texts, frame, scores.tolist(), tokens))
        return _ended(beam, texts)

    def _pruned(self, beam: dict[Text, Scored]) -> dict[Text, Scored]:
        ranked = sorted(((scored.total() + text.added, text, scored) for text, scored in beam.items()),
                        key=lambda entry: -entry[0])
        least = ranked[0][0] + self.beam_prune_logp
        return {text: scored for score, text, scored in ranked[:self.beam_size] if score >= least}


@dataclass(slots=True)
class Scored:
    """Log-probabilities of the alignments of a text: of those that end in a `blank`, and in its last `label`.

    `trace`: where the words are, in the alignment of the most probable way (`best`) into the latest frame.
    """

    blank: float = NEVER
    label: float = NEVER
    best: float = NEVER
    trace: Trace = ()

    def total(self) -> float:
        return log_add(self.blank, self.label)


@dataclass(frozen=True)
class Ended:
    """A text at the end of the audio; as `Hypothesis`, with the `spans` of its words in frames."""

    words: tuple[str, ...]
    score: float
    acoustic: float
    language: float
    spans: Sequence[Span]


def _next_beam(beam: dict[Text, Scored], texts: Texts, frame: int, scores: Sequence[float], tokens: Sequence[int]
               ) -> dict[Text, Scored]:
    """The texts after one more frame with log-posteriors `scores` (V,), of which `tokens` can be written."""
    alphabet, following = texts.alphabet, {}
    for text, before in beam.items():
        total, last, trace = before.total(), text.last, before.trace
        same = following.get(text) or following.setdefault(text, Scored())
        _arrive(same, total + scores[alphabet.blank], trace, in_blank=True)
        if last is not None:
            again = (total if alphabet.whole_words else before.label) + scores[last]
            if again > NEVER:
                kept = trace if last == alphabet.delimiter else _heard_on(trace, frame, scores[last])
                _arrive(same, again, kept)
        for token in tokens:
            if token != last:
                score = total + scores[token]
            elif alphabet.whole_words or before.blank == NEVER:
                continue
            else:
                score = before.blank + scores[token]
            longer = texts.longer(text, token)
            if token == alphabet.delimiter:
                found = trace
            elif text.begun and not alphabet.whole_words:
                found = _heard_on(trace, frame, scores[token])
            else:
                found = (trace, (frame, frame + 1, math.exp(scores[token]), 1))
            _arrive(following.get(longer) or following.setdefault(longer, Scored()), score, found)
    return following


def _arrive(scored: Scored, score: float, trace: Trace, in_blank: bool = False) -> None:
    """Add alignments with log-probability `score` to a text's."""
    if in_blank:
        scored.blank = log_add(scored.blank, score)
    else:
        scored.label = log_add(scored.label, score)
    if score > scored.best:
        scored.best, scored.trace = score, trace


def _heard_on(trace: Trace, frame: int, score: float) -> Trace:
    """The last word is heard in this frame as well."""
    earlier, (start, _, total, count) = trace
    return earlier, (start, frame + 1, total + math.exp(score), count + 1)


def _ended(beam: dict[Text, Scored], texts: Texts) -> list[Ended]:
    """The texts when nothing follows, each once, the best first."""
    found: dict[tuple[str, ...], Ended] = {}
    for text, scored in sorted(beam.items(), key=lambda pair: -pair[1].total()):
        words, added, language = texts.ended(text)
        total = scored.total()
        if words in found:  # such as with and without a delimiter at the end
            acoustic, spans = log_add(found[words].acoustic, total), found[words].spans
        else:
            acoustic, spans = total, _spans(scored.trace)
        found[words] = Ended(words, acoustic + added, acoustic, language, spans)
    return sorted(found.values(), key=lambda ended: -ended.score)


def _spans(trace: Trace) -> list[Span]:
    spans: list[Span] = []
    while trace:
        trace, span = trace
        spans.append(span)
    return spans[::-1]


def _hypothesis(ended: Ended, recogniser) -> Hypothesis:
    words = [Word(word.lower(), *recogniser.span_seconds(start, end), total / count)
             for word, (start, end, total, count) in zip(ended.words, ended.spans)]
    return Hypothesis(" ".join(ended.words).lower(), ended.score, ended.acoustic, ended.language, words)


def log_add(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    if one < other:
        one, other = other, one
    return one if other == NEVER else one + math.log1p(math.exp(other - one))
