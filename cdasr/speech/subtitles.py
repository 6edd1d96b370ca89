"""Words with times as subtitles that can be read: short lines that stand long enough, broken where people pause.

The limits are those that broadcasters give their subtitlers: two lines of 42 characters, 1 to 7 seconds.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cdasr.classifiers.logits import Word

WIDTH = 42  # characters in a line
LINES = 2
LONGEST = 7.0  # seconds that a subtitle stands
SHORTEST = 1.0  # seconds, where the next one leaves room
PAUSE = 0.8  # seconds of silence that end a subtitle
GAP = 0.08  # seconds between subtitles: two frames of film


@dataclass(frozen=True)
class Cue:
    """A subtitle: `start` and `end` in seconds, and its lines."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues_of(words: Sequence[Word], duration: float) -> list[Cue]:
    """Subtitles of `words`, in order and not overlapping, within a recording of `duration` seconds."""
    groups: list[list[Word]] = []
    for word in words:
        if not groups or not _fits(groups[-1], word):
            groups.append([])
        groups[-1].append(word)
    cues = []
    for number, group in enumerate(groups):
        limit = groups[number + 1][0].start - GAP if number + 1 < len(groups) else max(duration, group[-1].end)
        end = max(group[-1].end, min(group[0].start + SHORTEST, limit))
        cues.append(Cue(group[0].start, max(min(end, max(limit, group[0].start)), group[0].start + 0.001),
                        _lines(group)))
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


def _fits(group: Sequence[Word], word: Word) -> bool:
    """Whether a word can be added: no pause before it, not too long, and its text in two lines."""
    return (word.start - group[-1].end < PAUSE and word.end - group[0].start <= LONGEST
            and len(_wrapped([*group, word], WIDTH)) <= LINES)


def _lines(group: Sequence[Word]) -> tuple[str, ...]:
    """The text of a group in the fewest lines, as equal in length as its words allow."""
    fewest = _wrapped(group, WIDTH)
    for width in range(max(max(len(word.word) for word in group), 1), WIDTH):
        if len(lines := _wrapped(group, width)) <= len(fewest):
            return tuple(lines)
    return tuple(fewest)


def _wrapped(group: Sequence[Word], width: int) -> list[str]:
    return textwrap.wrap(" ".join(word.word for word in group), width, break_on_hyphens=False)


def _clock(seconds: float, point: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{rest // 1000:02}{point}{rest % 1000:03}"
