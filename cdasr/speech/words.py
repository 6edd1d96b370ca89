"""Transcripts against each other, word by word: errors, right words, and what several transcripts agree on."""

from __future__ import annotations

from collections.abc import Sequence


def normalise_text(text: str) -> str:
    """Lower case, single spaces: what counts as the same word."""
    return " ".join(text.casefold().split())


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Substitutions, deletions and insertions (jiwer), and the number of words of the reference."""
    import jiwer

    reference, hypothesis = normalise_text(reference), normalise_text(hypothesis)
    if not reference:
        return len(hypothesis.split()), 0
    output = jiwer.process_words(reference, hypothesis)
    return output.substitutions + output.deletions + output.insertions, len(reference.split())


def correct_words(reference: str, hypothesis: str) -> list[bool]:
    """Whether each word of the hypothesis is right, by its alignment with the reference (jiwer)."""
    import jiwer

    reference, hypothesis = normalise_text(reference), normalise_text(hypothesis)
    right = [False] * len(hypothesis.split())
    for chunk in jiwer.process_words(reference, hypothesis).alignments[0] if reference else ():
        if chunk.type == "equal":
            right[chunk.hyp_start_idx:chunk.hyp_end_idx] = [True] * (chunk.hyp_end_idx - chunk.hyp_start_idx)
    return right


def consensus(texts: Sequence[str]) -> tuple[int, list[float]]:
    """The transcript nearest to all others by word errors (minimum Bayes risk; Goel & Byrne 2000), as its index, and
    for each of its words the share of the transcripts that have it in that place. Among equals the first is taken.
    """
    risks = [sum(word_errors(other, text)[0] for other in texts) for text in texts]
    best = min(range(len(texts)), key=lambda index: (risks[index], index))
    votes = zip(*(correct_words(text, texts[best]) for text in texts))
    return best, [sum(vote) / len(texts) for vote in votes]
