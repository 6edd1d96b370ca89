"""Words with times as subtitles that can be read: short lines that stand long enough, broken where people pause.

The limits are those that broadcasters give their subtitlers: two lines of 42 characters, 1 to 7 seconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdasr.classifiers.hypothesis import Word

WIDTH = 42  # characters in a line
LINES = 2
LONGEST = 7.0  # seconds that a subtitle stands
SHORTEST = 1.0  # seconds, where the next one leaves room
PAUSE = 0.8  # seconds of silence that end a subtitle
BREATH = 0.4  # seconds of silence after which it ends as well as after a comma
GAP = 0.08  # seconds between subtitles: two frames of film
SENTENCE, CLAUSE = tuple(".?!\u2026\u3002\uff1f\uff01"), tuple(",;:\u3001\uff0c")
AFTER_WORD, AFTER_CLAUSE, NEW_SENTENCE, HURRY = 1.0, 0.3, 0.5, 2.0  # costs, where a subtitle more costs 1
WORDS = 50  # in a subtitle, at most


@dataclass(frozen=True)
class Cue:
    """A subtitle: `start` and `end` in seconds, and its lines."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues_of(words: Sequence[Word], duration: float) -> list[Cue]:
    """Subtitles of `words`, in order and not overlapping, within a recording of `duration` seconds."""
    groups = _groups(words)
    cues = []
    for number, group in enumerate(groups):
        start, limit = group[0].start, max(duration, group[-1].end)
        if number + 1 < len(groups):
            limit = max(groups[number + 1][0].start - GAP, start)
        end = min(max(group[-1].end, start + SHORTEST), limit, start + LONGEST)
        cues.append(Cue(start, max(end, start + 0.001), _lines(group)))
    return cues


def srt(cues: Iterable[Cue]) -> str:
    """SubRip: numbered, comma in the times."""
    return "\n".join(f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n" + "\n".join(cue.lines) + "\n"
                     for number, cue in enumerate(cues, start=1))


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT (W3C): the characters that mean markup there are escaped."""
    escape = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    return "\n".join(["WEBVTT\n", *(f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
                                    + "\n".join(cue.lines).translate(escape) + "\n" for cue in cues)])


def _groups(words: Sequence[Word]) -> list[list[Word]]:
    """The words of each subtitle, so that the costs of all together are least (dynamic programming)."""
    best = [(0.0, 0)]  # of the first n words: the cost, and where the last subtitle begins
    for stop in range(1, len(words) + 1):
        options = []
        for start in range(stop - 1, max(stop - WORDS, 0) - 1, -1):
            if start < stop - 1 and not _fits(words[start:stop]):
                break
            options.append((best[start][0] + _cost(words, start, stop), start))
        best.append(min(options))
    groups, stop = [], len(words)
    while stop:
        start = best[stop][1]
        groups.append(list(words[start:stop]))
        stop = start
    return groups[::-1]


def _fits(group: Sequence[Word]) -> bool:
    """Whether words can stand together: no long pause after the first, not too long, and their text in two lines."""
    if group[1].start - group[0].end >= PAUSE or group[-1].end - group[0].start > LONGEST:
        return False
    lines, room = 0, -1
    for word in group:
        if len(word.word) >= room:
            lines, room = lines + 1, WIDTH + 1
        room -= len(word.word) + 1
        if lines > LINES or room < 0:
            return False
    return True


def _cost(words: Sequence[Word], start: int, stop: int) -> float:
    """What a subtitle of the words from `start` up to `stop` costs: less the better the place at which it ends."""
    group, cost = words[start:stop], 1.0
    cost += NEW_SENTENCE * sum(word.word.endswith(SENTENCE) for word in group[:-1])
    if stop == len(words):
        return cost
    room = words[stop].start - GAP - group[0].start
    cost += HURRY * max(SHORTEST - room, 0.0)
    if group[-1].word.endswith(SENTENCE):
        return cost
    pause = min(max(words[stop].start - group[-1].end, 0.0) / BREATH, 1.0)
    after = AFTER_CLAUSE if group[-1].word.endswith(CLAUSE) else AFTER_WORD
    return cost + min(after, AFTER_WORD + pause * (AFTER_CLAUSE - AFTER_WORD))


def _lines(group: Sequence[Word]) -> tuple[str, ...]:
    """The text of a group in one line, or in two as equal in length as its words and clauses allow."""
    words = [word.word for word in group]
    text = " ".join(words)
    pairs = [(" ".join(words[:place]), " ".join(words[place:])) for place in range(1, len(words))]
    pairs = [pair for pair in pairs if max(map(len, pair)) <= WIDTH]
    if len(text) <= WIDTH or not pairs:
        return tuple(_wrapped(group, WIDTH))
    return min(pairs, key=lambda pair: abs(len(pair[0]) - len(pair[1]))
               - (WIDTH / 2 if pair[0].endswith(SENTENCE + CLAUSE) else 0))


def _wrapped(group: Sequence[Word], width: int) -> list[str]:
    return textwrap.wrap(" ".join(word.word for word in group), width, break_on_hyphens=False)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
