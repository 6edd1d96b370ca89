"""Transcripts as the files that other programs read: text, JSON, subtitles, NIST CTM and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from cdasr.runtime.atomic import to_json
from cdasr.speech.inputs import STDIN, SUFFIXES
from cdasr.speech.subtitles import cues_of, srt, vtt

if TYPE_CHECKING:
    from cdasr.speech.transcript import Transcript


def record(name: Path, result: Transcript, seconds: float) -> dict:
    """A transcript as plain data; `seconds` is the time that it took."""
    return {
        "file": str(name), "text": result.text, "text_enhanced": result.text_enhanced, "strategy": result.strategy,
        **({"chosen": result.chosen} if result.chosen else {}), "out_of_domain": result.out_of_domain,
        "duration": round(result.duration, 3), "rtf": round(seconds / result.duration, 4), "nfe": result.nfe,
        "words": [{**asdict(word), "start": round(word.start, 3), "end": round(word.end, 3),
                   "confidence": round(word.confidence, 4)} for word in result.words],
        **({"nbest": [hypothesis.about() for hypothesis in result.nbest]} if result.nbest else {})}


def jsonl(name: Path, result: Transcript, seconds: float) -> str:
    """A JSON object in one line."""
    return to_json(record(name, result, seconds)) + "\n"


def json(name: Path, result: Transcript, seconds: float) -> str:
    """An indented JSON object."""
    return to_json(record(name, result, seconds), indent=2, ensure_ascii=False) + "\n"


def txt(name: Path, result: Transcript, seconds: float) -> str:
    """The words in one line."""
    return result.text + "\n"


def ctm(name: Path, result: Transcript, seconds: float) -> str:
    """A line a word, as NIST's sclite reads it: recording, channel, start and duration in s, word, confidence."""
    stem = name.with_suffix("") if name.suffix.lower() in SUFFIXES else name
    label = "stdin" if name == STDIN else "_".join(str(stem).split())
    return "".join(f"{label} 1 {word.start:.3f} {max(word.end - word.start, 0.0):.3f} {word.word} "
                   f"{word.confidence:.4f}\n" for word in result.words)


def tsv(name: Path, result: Transcript, seconds: float) -> str:
    """A table with a line a word; start and end in s."""
    rows = [f"{word.start:.3f}\t{word.end:.3f}\t{word.word}\t{word.confidence:.4f}" for word in result.words]
    return "\n".join(["start\tend\tword\tconfidence", *rows]) + "\n"


def _srt(name: Path, result: Transcript, seconds: float) -> str:
    return srt(cues_of(result.words, result.duration))


def _vtt(name: Path, result: Transcript, seconds: float) -> str:
    return vtt(cues_of(result.words, result.duration))


FORMATS: dict[str, Callable[[Path, Transcript, float], str]] = {
    "txt": txt, "json": json, "jsonl": jsonl, "srt": _srt, "vtt": _vtt, "ctm": ctm, "tsv": tsv}
