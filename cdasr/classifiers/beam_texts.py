"""The texts of a prefix beam search: how they grow, and what is added to the score of their words."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

from cdasr.classifiers.alphabet import Alphabet
from cdasr.classifiers.ngram import END, NATS, LanguageModel

UNKNOWN = -10.0 * NATS  # added to log P of a word that the language model does not have, as in pyctcdecode


class WordScores:
    """What words add to the score of a text, in nats: language model, bonus for each word, hot words.

    `hot` words are in lower case. One that the language model does not have costs as much as its `<unk>` and no more.
    """

    def __init__(self, lm: LanguageModel | None, lm_weight: float, word_bonus: float, hot: frozenset[str],
                 hotword_weight: float):
        self.lm, self.lm_weight, self.word_bonus = lm, lm_weight, word_bonus
        self.hot, self.hotword_weight = hot, hotword_weight
        self.begun = lru_cache(maxsize=100_000)(self._begun)

    def whole(self, state: object, word: str) -> tuple[float, float, object]:
        """Of a complete word: what it adds, log P(word | state) of the language model, and the state behind it."""
        added = self.word_bonus + (self.hotword_weight if word.lower() in self.hot else 0.0)
        if self.lm is None:
            return added, 0.0, state
        log_prob, behind = self.lm.score(state, word)
        if not self.lm.known(word):
            log_prob = max(log_prob, UNKNOWN) if word.lower() in self.hot else log_prob + UNKNOWN
        return added + self.lm_weight * log_prob, log_prob, behind

    def end(self, state: object) -> tuple[float, float]:
        """Of the end of a text: what it adds, and log P of the language model."""
        if self.lm is None:
            return 0.0, 0.0
        log_prob, _ = self.lm.score(state, END)
        return self.lm_weight * log_prob, log_prob

    def _begun(self, letters: str) -> float:
        """Of the first letters of a word, which it has until the word is complete."""
        if not letters:
            return 0.0
        shares = [len(letters) / len(word) for word in self.hot if word.startswith(letters.lower())]
        if shares:
            return self.hotword_weight * max(shares)
        return self.lm_weight * UNKNOWN if self.lm is not None and not self.lm.begins_word(letters) else 0.0


@dataclass(eq=False, slots=True)
class Text:
    """Complete `words`, the letters of one that has `begun`, and the token that was written `last`.

    `settled` is what the complete words add to the score, `language` their log P by the language model.
    """

    words: tuple[str, ...]
    begun: str
    last: int | None
    settled: float
    language: float
    state: object
    added: float  # to the score, with what has begun
    longer: dict[int, Text] = field(default_factory=dict)


class Texts:
    """All texts that a search has met, each once."""

    def __init__(self, alphabet: Alphabet, scores: WordScores):
        self.alphabet, self.scores = alphabet, scores
        self.empty = Text((), "", None, 0.0, 0.0, scores.lm.start() if scores.lm else None, 0.0)
        self._known: dict[tuple, Text] = {}

    def longer(self, text: Text, token: int) -> Text:
        """A text with one more token."""
        if (found := text.longer.get(token)) is None:
            found = text.longer[token] = self._longer(text, token)
        return found

    def _longer(self, text: Text, token: int) -> Text:
        words, begun = text.words, text.begun
        if token == self.alphabet.delimiter:
            complete, begun = begun, ""
        elif self.alphabet.whole_words:
            complete = self.alphabet.tokens[token]
        else:
            complete, begun = "", begun + self.alphabet.tokens[token]
        words = (*words, complete) if complete else words
        if (found := self._known.get((words, begun, token))) is None:
            settled, language, state = self._settled(text, complete)
            found = Text(words, begun, token, settled, language, state, settled + self.scores.begun(begun))
            self._known[words, begun, token] = found
        return found

    def _settled(self, text: Text, complete: str) -> tuple[float, float, object]:
        if not complete:
            return text.settled, text.language, text.state
        added, log_prob, state = self.scores.whole(text.state, complete)
        return text.settled + added, text.language + log_prob, state

    def ended(self, text: Text) -> tuple[tuple[str, ...], float, float]:
        """All words of a text that ends here, what they add to the score, and their log P."""
        settled, language, state = self._settled(text, text.begun)
        added, log_prob = self.scores.end(state)
        return (*text.words, text.begun) if text.begun else text.words, settled + added, language + log_prob
