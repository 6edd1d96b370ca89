"""The segments of a long recording put together again: words that two of them heard count once, waveforms fade over.

Segments overlap where the recording had no pause to cut it at. Words near the end of a segment may be cut off there,
but are whole in the other one. The words of both are aligned by text and time; at the match nearest to the middle of
the overlap, those of the first segment end and those of the second go on.

The n best texts of the recording are made of those of its segments, each combination joined in the same way. Its scores
are the sums of theirs: what two segments heard counts in both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest

import torch
from torch import Tensor

from cdasr.classifiers.hypothesis import Hypothesis, Word
from cdasr.speech.transcript import Transcript
from cdasr.speech.word_times import tidy
from cdasr.speech.words import normalise_text

FADE = 0.02  # seconds over which the enhanced waveforms of two segments are mixed
SAME = 0.5  # seconds between the places at which two segments hear a word, at most


@dataclass
class Part:
    """The transcript of a segment that begins at sample `start` of the recording."""

    start: int
    transcript: Transcript


def join(parts: Iterable[Part], rate: int, keep: Callable[[Tensor], None] | None = None,
         nbest: int = 1) -> Transcript:
    """One transcript of the consecutive segments of a recording at `rate` Hz, with its `nbest` hypotheses if several.

    With `keep` the enhanced waveform goes there in pieces (samples,), in order, and is not in the result.
    """
    texts, enhanced, waves, best = _Texts(), _Texts(), _Waves(rate, keep), _Best(nbest)
    nfe, chosen, strange, first, end = Counter(), {}, [], None, 0.0
    for part in parts:
        found, start = part.transcript, part.start / rate
        overlap, end = (start, end), start + found.duration
        texts.add(found.text, [_later(word, start) for word in found.words], overlap)
        if nbest > 1:
            best.add([(one, [_later(word, start) for word in (one.words if place else found.words)])
                      for place, one in enumerate(found.nbest)], overlap)
        enhanced.add(found.text_enhanced or "", [_later(word, start) for word in found.words_enhanced], overlap)
        if found.wave is not None:
            waves.add(part.start, found.wave)
        nfe.update(found.nfe)
        chosen |= {found.chosen: None} if found.chosen else {}
        strange.append((found.out_of_domain, found.duration))
        first = first or replace(found, wave=None, words=[], words_enhanced=[])
    return replace(
        first, text=texts.text(), words=texts.words(), duration=end, nfe=dict(nfe), chosen="+".join(chosen)
        or None, out_of_domain=_mostly(strange), wave=waves.whole(), words_enhanced=enhanced.words(),
        text_enhanced=None if first.text_enhanced is None else enhanced.text(),
        nbest=best.hypotheses() if nbest > 1 else [])


def _later(word: Word, start: float) -> Word:
    return replace(word, start=start + word.start, end=start + word.end)


def _mostly(parts: Sequence[tuple[bool | None, float]]) -> bool | None:
    """Whether more than half of the time is out of domain; None where that is not known."""
    if any(strange is None for strange, _ in parts):
        return None
    return sum(seconds if strange else -seconds for strange, seconds in parts) > 0


# -- words ----------------------------------------------------------------------------------------------------------


class _Texts:
    """The texts and words of segments, as far as each counts."""

    def __init__(self):
        self.parts: list[tuple[str, list[Word]]] = []

    def add(self, text: str, words: list[Word], overlap: tuple[float, float]) -> None:
        """The text of the next segment with its words, in the recording's time, as are the ends of the `overlap`."""
        if self.parts:
            self.parts[-1], (text, words) = _seamed(self.parts[-1], (text, words), overlap)
        self.parts.append((text, words))

    def text(self) -> str:
        return _spaced(*(text for text, _ in self.parts))

    def words(self) -> list[Word]:
        return [word for _, words in self.parts for word in words]


class _Best:
    """The `most` best texts of consecutive segments, each text once, by the sums of their scores.

    Exact, and no more than `most` are kept for each end: what a text becomes depends on nothing but how its last
    segment reads so far, the end, so that no other text with this end will ever be among the best.
    """

    def __init__(self, most: int):
        self.most = most
        self.ends: dict[tuple[str, tuple[Word, ...]], list[Hypothesis]] = {("", ()): [Hypothesis("", 0.0, 0.0)]}

    def add(self, heard: Sequence[tuple[Hypothesis, list[Word]]], overlap: tuple[float, float]) -> None:
        """The hypotheses of the next segment with their words, as `_Texts.add` takes them."""
        before, found = self.ends, {}
        if not _overlapping(overlap):
            before = {("", ()): self.hypotheses()}
        for (text, words), paths in before.items():
            for one, own in heard:
                (settled, _), (rest, left) = _seamed((text, list(words)), (one.text, own), overlap)
                texts = found.setdefault((rest, tuple(left)), {})
                for path in paths:
                    _keep_better(texts, _longer(path, settled, one))
        self.ends = {end: self._best(texts) for end, texts in found.items()}

    def hypotheses(self) -> list[Hypothesis]:
        """The best of all, the best first."""
        whole: dict[str, Hypothesis] = {}
        for (text, _), paths in self.ends.items():
            for path in paths:
                _keep_better(whole, replace(path, text=_spaced(path.text, text)))
        return self._best(whole)

    def _best(self, texts: dict[str, Hypothesis]) -> list[Hypothesis]:
        return nlargest(self.most, texts.values(), key=lambda one: one.score)  # of equals the first


def _longer(path: Hypothesis, settled: str, one: Hypothesis) -> Hypothesis:
    """What a text becomes where the text of its last segment is `settled` and the next segment's is `one`."""
    return Hypothesis(_spaced(path.text, settled), path.score + one.score, path.acoustic + one.acoustic,
                      path.language + one.language)


def _keep_better(texts: dict[str, Hypothesis], new: Hypothesis) -> None:
    if (old := texts.get(new.text)) is None or new.score > old.score:
        texts[new.text] = new


def _spaced(*texts: str) -> str:
    return " ".join(text for text in texts if text)


def _overlapping(overlap: tuple[float, float]) -> bool:
    return overlap[1] > overlap[0] + 1e-6


def _seamed(before: tuple[str, list[Word]], after: tuple[str, list[Word]], overlap: tuple[float, float]
            ) -> tuple[tuple[str, list[Word]], tuple[str, list[Word]]]:
    """The texts of two consecutive segments with their words, as far as each counts."""
    if not _overlapping(overlap):
        return before, after
    (earlier, heard), (text, words) = before, after
    kept, first = seam(heard, words, *overlap)
    earlier, heard = _without(earlier, heard, heard[:kept])
    text, words = _without(text, words, words[first:])
    if heard and words:
        last, following = tidy([heard[-1], words[0]], max(heard[-1].end, words[0].end))
        heard, words = [*heard[:-1], last], [following, *words[1:]]
    return (earlier, heard), (text, words)


def _without(text: str, words: list[Word], left: list[Word]) -> tuple[str, list[Word]]:
    """A text with only those of its words that are `left`; of a language without spaces it gets none."""
    if len(left) == len(words):
        return text, left
    return ("" if len(words) > 1 and " " not in text else " ").join(word.word for word in left), left


def seam(left: Sequence[Word], right: Sequence[Word], start: float, stop: float) -> tuple[int, int]:
    """How many words of a segment count, and from which word of the next one on.

    Both hear what lies between `start` and `stop` (s). Times are those of the recording.
    """
    middle = (start + stop) / 2
    tail = [place for place, word in enumerate(left) if word.end > start]
    head = [place for place, word in enumerate(right) if word.start < stop]
    if pairs := _common([left[place] for place in tail], [right[place] for place in head]):
        one, other = min(pairs, key=lambda pair: abs(_centre(left[tail[pair[0]]]) - middle))
        return tail[one] + 1, head[other] + 1
    if not tail or not head:
        return len(left), 0
    kept, first = (sum(_centre(word) < middle for word in words) for words in (left, right))
    if kept and first < len(right) and _shared(left[kept - 1], right[first]) > 0.5:  # one word, heard in two ways
        return (kept, first + 1) if left[kept - 1].confidence >= right[first].confidence else (kept - 1, first)
    if kept < len(left) and first and _shared(left[kept], right[first - 1]) > 0.0:  # the same, and neither counted
        return (kept + 1, first) if left[kept].confidence >= right[first - 1].confidence else (kept, first - 1)
    return kept, first


def _shared(one: Word, other: Word) -> float:
    """The share of the shorter of two words in which both are spoken."""
    both = min(one.end, other.end) - max(one.start, other.start)
    return both / max(min(one.end - one.start, other.end - other.start), 1e-6)


def _common(left: Sequence[Word], right: Sequence[Word]) -> list[tuple[int, int]]:
    """Places of the same words in both, in order: as many as there are, then as near in time as they can be."""
    texts = [[normalise_text(word.word) or word.word for word in words] for words in (left, right)]
    best: dict[tuple[int, int], tuple[float, list[tuple[int, int]]]] = {}
    for one in range(len(left) + 1):
        for other in range(len(right) + 1):
            options = [best[one - 1, other]] if one else []
            options += [best[one, other - 1]] if other else []
            if one and other and texts[0][one - 1] == texts[1][other - 1]:
                apart = abs(_centre(left[one - 1]) - _centre(right[other - 1]))
                if apart <= SAME:
                    score, pairs = best[one - 1, other - 1]
                    options.append((score + 1.0 - 0.5 * apart / SAME, [*pairs, (one - 1, other - 1)]))
            best[one, other] = max(options, key=lambda option: option[0], default=(0.0, []))
    return best[len(left), len(right)][1]


def _centre(word: Word) -> float:
    return (word.start + word.end) / 2


# -- waveforms ------------------------------------------------------------------------------------------------------


class _Waves:
    """The enhanced waveforms of segments, handed out in order; where two overlap they are mixed around the middle."""

    def __init__(self, rate: int, keep: Callable[[Tensor], None] | None):
        self.fade, self.keep = round(FADE * rate), keep
        self.done: list[Tensor] = []
        self.held: Tensor | None = None
        self.at = 0  # the sample at which `held` begins

    def add(self, start: int, wave: Tensor) -> None:
        """The waveform (samples,) of the next segment, which begins at sample `start`."""
        if self.held is None:
            self.at, self.held = start, wave
            return
        overlap = self.at + len(self.held) - start
        fade = min(self.fade, max(overlap, 0))
        before, after = self.held[:len(self.held) - overlap], self.held[len(self.held) - overlap:]
        lead = (overlap - fade) // 2
        weight = torch.linspace(0.0, 1.0, fade + 2, dtype=wave.dtype)[1:-1]
        mixed = torch.lerp(after[lead:lead + fade], wave[lead:lead + fade], weight)
        self._out(torch.cat([before, after[:lead], mixed]))
        self.at, self.held = start + lead + fade, wave[lead + fade:]

    def whole(self) -> Tensor | None:
        """All that was not handed out; None where there is nothing."""
        if self.held is not None:
            self._out(self.held)
        return torch.cat(self.done) if self.done else None

    def _out(self, wave: Tensor) -> None:
        (self.keep or self.done.append)(wave)

