"""What several transcripts of one recording agree on (minimum Bayes risk; Goel & Byrne 2000)."""

from __future__ import annotations

from collections.abc import Sequence


def consensus(texts: Sequence[str]) -> tuple[int, list[float]]:
    """The transcript nearest to all others by word errors, as its index, and for each of its words the share of the
    transcripts that have it in that place. Among equals the first is taken.
    """
    risks = [sum(_errors(other, text) for other in texts) for text in texts]
    best = min(range(len(texts)), key=lambda index: (risks[index], index))
    votes = [0] * len(texts[best].split())
    for text in texts:
        for place in _shared(texts[best], text):
            votes[place] += 1
    return best, [count / len(texts) for count in votes]


def _errors(reference: str, hypothesis: str) -> int:
    import jiwer

    if not reference.split():
        return len(hypothesis.split())
    output = jiwer.process_words(reference, hypothesis)
    return output.substitutions + output.deletions + output.insertions


def _shared(reference: str, hypothesis: str) -> list[int]:
    """Places of the words of `reference` that an alignment with `hypothesis` finds equal."""
    import jiwer

    if not reference.split():
        return []
    chunks = jiwer.process_words(reference, hypothesis).alignments[0]
    return [place for chunk in chunks if chunk.type == "equal" for place in range(chunk.ref_start_idx,
                                                                                 chunk.ref_end_idx)]
