"""Transcripts against each other, word by word: errors, right words, and what several transcripts agree on."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from itertools import islice

APOSTROPHES = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc`", "'"))


def normalise_text(text: str) -> str:
    """Lower case, no punctuation or symbols, single spaces: what counts as the same word.

    Apostrophes within a word stay (`don't`), written one way. How a character is encoded makes no difference: one of a
    letter and its accent in two (Unicode's NFD) is the composed one (NFC), and what nobody sees (soft hyphens,
    zero-width characters, marks of direction, variation selectors) is left out. References and hypotheses both go
    through this, so that a recogniser that writes cases and commas pays for neither.

    The normalisers of jiwer and transformers count otherwise. That of jiwer makes one word of `well-known` and `dont`
    of `don't`. Those of Whisper in transformers (`normalisers.py` has them by name) leave out what is in brackets; the
    basic one makes two words of `don't` and takes the vowel signs from Hindi; the English one writes numbers as digits,
    `one two` as 12, and `mr` as `mister`.
    """
    if not text.isascii():
        text = "".join(char for char in text if not _unseen(char))
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold()).translate(APOSTROPHES)
    kept = "".join(char if char == "'" or unicodedata.category(char)[0] not in "PS" else " " for char in text)
    return " ".join(word for word in (word.strip("'") for word in kept.split()) if word)


def _unseen(char: str) -> bool:
    return unicodedata.category(char) == "Cf" or char == "\u034f" or "\ufe00" <= char <= "\ufe0f"


Normalise = Callable[[str], str]  # text to words with single spaces between them


def word_errors(reference: str, hypothesis: str, normalise: Normalise = normalise_text) -> tuple[int, int]:
    """Substitutions, deletions and insertions (jiwer), and the number of words of the reference."""
    import jiwer

    reference, hypothesis = normalise(reference), normalise(hypothesis)
    if not reference:
        return len(hypothesis.split()), 0
    output = jiwer.process_words(reference, hypothesis)
    return output.substitutions + output.deletions + output.insertions, len(reference.split())


def error_counts(reference: str, hypothesis: str, normalise: Normalise = normalise_text) -> dict[str, int]:
    """Errors of each kind for `words` of the reference, and character errors for its `characters` (jiwer).

    `errors`, the sum of `substitutions`, `deletions` and `insertions`, is that of `word_errors`.
    """
    import jiwer

    reference, hypothesis = normalise(reference), normalise(hypothesis)
    if not reference:
        words, characters = len(hypothesis.split()), len(hypothesis)
        return {"errors": words, "words": 0, "substitutions": 0, "deletions": 0, "insertions": words,
                "character_errors": characters, "characters": 0}
    words, characters = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
    return {"errors": words.substitutions + words.deletions + words.insertions, "words": len(reference.split()),
            "substitutions": words.substitutions, "deletions": words.deletions, "insertions": words.insertions,
            "character_errors": characters.substitutions + characters.deletions + characters.insertions,
            "characters": len(reference)}


def correct_words(reference: str, hypothesis: str, normalise: Normalise = normalise_text) -> list[bool]:
    """Whether each word of the hypothesis is right, by its alignment with the reference (jiwer).

    A written word that is several after normalisation (`well-known`) is right where all of them are. Words that are one
    after normalisation (`twenty one` as 21) are right together.
    """
    import jiwer

    reference, parts = normalise(reference), [normalise(word).split() for word in hypothesis.split()]
    alone = [part for word in parts for part in word]
    whole = normalise(hypothesis).split()
    right = [False] * len(whole)
    for chunk in jiwer.process_words(reference, " ".join(whole)).alignments[0] if reference else ():
        if chunk.type == "equal":
            right[chunk.hyp_start_idx:chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
    found = iter(right if alone == whole else _right_alone(alone, whole, right))
    return [all(list(islice(found, len(word)))) for word in parts]


def found_words(reference: str, hypothesis: str, normalise: Normalise = normalise_text) -> list[bool]:
    """Whether each word of the normalised reference is in the hypothesis, by their alignment (jiwer)."""
    import jiwer

    reference, hypothesis = normalise(reference), normalise(hypothesis)
    found = [False] * len(reference.split())
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0] if reference else ():
        if chunk.type == "equal":
            found[chunk.ref_start_idx:chunk.ref_end_idx] = [True] * (chunk.ref_end_idx - chunk.ref_start_idx)
    return found


def _right_alone(alone: Sequence[str], whole: Sequence[str], right: Sequence[bool]) -> list[bool]:
    """Whether each word is right, where words were normalised one by one (`alone`), from that of the `whole` text.

    Where both differ, all words of the stretch are right if the stretch of the whole text is.
    """
    from difflib import SequenceMatcher

    found = [False] * len(alone)
    for kind, start, stop, first, last in SequenceMatcher(None, alone, whole, autojunk=False).get_opcodes():
        found[start:stop] = right[first:last] if kind == "equal" else [all(right[first:last])] * (stop - start)
    return found


def consensus(texts: Sequence[str]) -> tuple[int, list[float]]:
    """The transcript nearest to all others by word errors (minimum Bayes risk; Goel & Byrne 2000), as its index, and
    for each of its words the share of the transcripts that have it in that place. Among equals the first is taken.
    """
    risks = [sum(word_errors(other, text)[0] for other in texts) for text in texts]
    best = min(range(len(texts)), key=lambda index: (risks[index], index))
    votes = zip(*(correct_words(text, texts[best]) for text in texts))
    return best, [sum(vote) / len(texts) for vote in votes]
