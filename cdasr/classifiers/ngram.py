"""Word n-gram language models: ARPA files, read here, and KenLM's binary files, where KenLM is installed.

An ARPA file lists log10 P(w | h) of the n-grams that were seen, and a log10 back-off weight b(h) of each context. Those
that are not listed follow in closed form, P(w | h) = b(h) P(w | h'), with h' the context without its first word and
b(h) = 1 where it has none. Words that the model does not have are scored as `<unk>`.
"""

from __future__ import annotations

import gzip
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cdasr.runtime.files import check_file
from cdasr.runtime.plain_data import one_line

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
NATS = math.log(10.0)  # of one unit of log10
NOT_LISTED = -100.0 * NATS  # of `<unk>` where a file has none, as in KenLM
MOST_ORDER = 10
BINARY = b"mmap lm http://kheafield.com/code"  # how KenLM's files begin

State = object
Entry = tuple[float, float]


class LanguageModel(Protocol):
    """P(word | words before); scores are in nats."""

    def start(self) -> State:
        """The state at the beginning of a sentence."""

    def score(self, state: State, word: str) -> tuple[float, State]:
        """log P(word | state), and the state behind the word. `</s>` ends the sentence."""

    def known(self, word: str) -> bool:
        """Whether the model has the word."""

    def begins_word(self, letters: str) -> bool:
        """Whether one of its words begins with `letters`; True where that is not known."""


class NGramModel:
    """A back-off model: `ngrams` map words to (log P of the last one given the others, log back-off weight) in nats."""

    def __init__(self, ngrams: Mapping[tuple[str, ...], Entry]):
        self.ngrams, self.context = ngrams, max(map(len, ngrams)) - 1
        words = [words[0] for words in ngrams if len(words) == 1 and words[0] not in (START, END, UNKNOWN)]
        self.spelled = spelling(words)
        self._beginnings = {word[:length] for word in words for length in range(1, len(word) + 1)}

    def start(self) -> State:
        return (START,) if self.context else ()

    def score(self, state: State, word: str) -> tuple[float, State]:
        word = word if word == END else self.spelled(word)
        word = word if (word,) in self.ngrams else UNKNOWN
        behind = (*state, word)[-self.context:] if self.context else ()
        weights, history = 0.0, state
        while (found := self.ngrams.get((*history, word))) is None and history:
            weights += self.ngrams.get(history, (0.0, 0.0))[1]
            history = history[1:]
        return weights + (NOT_LISTED if found is None else found[0]), behind

    def known(self, word: str) -> bool:
        return (self.spelled(word),) in self.ngrams

    def begins_word(self, letters: str) -> bool:
        return self.spelled(letters) in self._beginnings


class KenLM:
    """A binary file of KenLM. It does not list its words, so no beginning of a word is ruled out."""

    def __init__(self, path: str | os.PathLike):
        import kenlm

        self._kenlm, self.model = kenlm, kenlm.Model(str(path))
        self.spelled = next((form for form in (str.lower, str.upper) if form("the") in self.model), str)

    def start(self) -> State:
        state = self._kenlm.State()
        self.model.BeginSentenceWrite(state)
        return state

    def score(self, state: State, word: str) -> tuple[float, State]:
        behind = self._kenlm.State()
        return NATS * self.model.BaseScore(state, word if word == END else self.spelled(word), behind), behind

    def known(self, word: str) -> bool:
        return self.spelled(word) in self.model

    def begins_word(self, letters: str) -> bool:
        return True


def spelling(words: Sequence[str]) -> Callable[[str], str]:
    """How a model of these words spells: all in lower case, all in capitals, or as they are."""
    if all(word == word.lower() for word in words):
        return str.lower
    return str.upper if all(word == word.upper() for word in words) else str


def load_language_model(path: str | os.PathLike) -> LanguageModel:
    """An ARPA file, also one compressed with gzip, or a binary file of KenLM.

    Raises ValueError in one line for a file that is neither, is not whole, or needs KenLM where that is not installed.
    """
    path = check_file(path, "language model")
    with path.open("rb") as file:
        begin = file.read(len(BINARY))
    if begin == BINARY:
        return _kenlm(path)
    try:
        packed = begin[:2] == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            return NGramModel(read_arpa(file))
    except (ValueError, OSError, EOFError) as error:
        reason = "it is not text in UTF-8" if isinstance(error, UnicodeDecodeError) else one_line(error)
        raise ValueError(f"{path}: not a language model in ARPA format: {reason}") from None


def _kenlm(path: Path) -> KenLM:
    try:
        return KenLM(path)
    except ModuleNotFoundError:
        raise ValueError(f"{path}: a binary file of KenLM, which is not installed; pip install cdasr[kenlm], or give "
                         "the model in ARPA format") from None
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{path}: KenLM cannot read it: {one_line(error)}") from None


def read_arpa(lines: Iterable[str]) -> dict[tuple[str, ...], Entry]:
    """The n-grams of an ARPA file, by their words. Raises ValueError where something is missing or has no meaning."""
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    counts = _counts(numbered)
    ngrams: dict[tuple[str, ...], Entry] = {}
    for order, count in enumerate(counts, start=1):
        before = len(ngrams)
        for number, line in numbered:
            if line.startswith("\\"):
                following = "\\end\\" if order == len(counts) else f"\\{order + 1}-grams:"
                if line != following:
                    raise ValueError(f"line {number}: expected {following} behind the {order}-grams, got "
                                     f"{one_line(repr(line), 60)}")
                break
            if line:
                words, entry = _entry(number, line, order)
                ngrams[words] = entry
        else:
            raise ValueError(f"it ends among the {order}-grams; it has to end with \\end\\")
        if len(ngrams) - before != count:
            raise ValueError(f"it promises {count} {order}-grams and has {len(ngrams) - before}")
    return ngrams


def _counts(numbered: Iterator[tuple[int, str]]) -> list[int]:
    """The number of n-grams of each order, up to where the first are listed."""
    if not any(line == "\\data\\" for _, line in numbered):
        raise ValueError("there is no line \\data\\")
    counts: list[int] = []
    for number, line in numbered:
        if line == "\\1-grams:" and counts:
            return counts
        if not line:
            continue
        order, equals, count = line.removeprefix("ngram ").partition("=")
        if not (equals and order.strip() == str(len(counts) + 1) and count.strip().isdigit()):
            raise ValueError(f"line {number}: expected ngram {len(counts) + 1}=COUNT, got {one_line(repr(line), 60)}")
        counts.append(int(count))
        if len(counts) > MOST_ORDER:
            raise ValueError(f"line {number}: n-grams of more than {MOST_ORDER} words")
    raise ValueError("there is no line \\1-grams: behind the counts")


def _entry(number: int, line: str, order: int) -> tuple[tuple[str, ...], Entry]:
    """`log10 P, words, log10 back-off weight`; the last is 0 where it is left out."""
    parts = line.split()
    if len(parts) not in (order + 1, order + 2):
        raise ValueError(f"line {number}: expected a number, {order} words and perhaps a number, got "
                         f"{one_line(repr(line), 60)}")
    try:
        values = [float(text) for text in (parts[0], *parts[order + 1:])]
    except ValueError:
        values = [math.nan]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"line {number}: {one_line(repr(line), 60)} has no finite number where one belongs")
    return tuple(parts[1:order + 1]), (NATS * values[0], NATS * values[1] if len(values) > 1 else 0.0)
