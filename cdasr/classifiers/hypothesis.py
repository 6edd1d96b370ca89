"""Words with times and confidences, and a text that a recording may have been: one of the n best of a beam search."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Word:
    """A word with its start and end in seconds, and how sure the recogniser is of it, in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True)
class Hypothesis:
    """A text with the `score` that it is ranked by; that of the audio alone, `acoustic`; and log P(text), `language`.

    `acoustic` and `language` are natural logarithms; `language` is 0 without a language model. What the score is, the
    search says: see `beam_search.py` and `whisper_beams.py`. `words` have times and confidences.
    """

    text: str
    score: float
    acoustic: float
    language: float = 0.0
    words: list[Word] = field(default_factory=list, repr=False)

    def about(self) -> dict:
        """Plain data, without the words."""
        return {"text": self.text, "score": round(self.score, 4), "acoustic": round(self.acoustic, 4),
                "language": round(self.language, 4)}
