"""How far the times of words are from known boundaries: strings of digits, joined from single recordings.

    python tools/word_times.py --strings 120                          # talkers of eSpeak NG
    python tools/word_times.py --strings 120 --data-dir FSDD/recordings --indices 5-9

Pauses between the words are drawn from `--pauses` (s). Strings that are not recognised word for word are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from cdasr.runtime.batching import batches_within
from cdasr.speech.audio import read_audio, resample
from cdasr.speech.synthesis import speak

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = ("en-us+f2", "en-gb-x-rp+m2", "en-us+m3", "en-us+Annie")
LEVEL = 0.1  # RMS of each word
FLOOR = 0.0005  # RMS of the noise behind all

Boundaries = list[tuple[str, float, float]]  # word, start and end in s


def synthetic(number: int, digit: int, rng: np.random.Generator, rate: int) -> np.ndarray:
    """A digit (samples,) as the talker of string `number` says it."""
    wave, voice_rate = speak(WORDS[digit], VOICES[number % len(VOICES)], int(rng.integers(130, 190)))
    return resample(wave, voice_rate, rate)


def recorded(folder: Path, indices: range) -> Callable[[int, int, np.random.Generator, int], np.ndarray]:
    """What gives a digit of FSDD, by one speaker in each string, of recordings with these `indices`."""
    speakers = sorted({path.name.split("_")[1] for path in folder.glob("?_*_*.wav")})

    def draw(number: int, digit: int, rng: np.random.Generator, rate: int) -> np.ndarray:
        name = f"{digit}_{speakers[number % len(speakers)]}_{rng.choice(list(indices))}.wav"
        return read_audio(folder / name, rate)[0]
    return draw


def joined(number: int, draw, pauses: tuple[float, float], rate: int, most: int = 7) -> tuple[np.ndarray, Boundaries]:
    """String `number`, of one to `most` words (samples,), and where its words are."""
    rng = np.random.default_rng([11, number])
    at = round(rng.uniform(0.1, 0.4) * rate)
    parts, known = [np.zeros(at, np.float32)], []
    for digit in rng.integers(0, len(WORDS), rng.integers(1, most + 1)):
        wave = draw(number, digit, rng, rate)
        pause = np.zeros(round(rng.uniform(*pauses) * rate), np.float32)
        known.append((WORDS[digit], at / rate, (at + len(wave)) / rate))
        at += len(wave) + len(pause)
        parts += [LEVEL * wave / np.sqrt(np.mean(wave ** 2)), pause]
    wave = np.concatenate([*parts, np.zeros(round(0.2 * rate), np.float32)])
    return (wave + FLOOR * rng.standard_normal(len(wave))).astype(np.float32), known


def errors(pipeline, strings: Sequence[tuple[np.ndarray, Boundaries]], strategy: str) -> tuple[np.ndarray, int]:
    """Found minus known start and end in s of each word, (words, 2), and how many strings were recognised."""
    found, right = [], 0
    for batch in batches_within(strings, [len(wave) for wave, _ in strings], 20 * pipeline.sample_rate):
        results = pipeline.transcribe([torch.from_numpy(wave) for wave, _ in batch], strategy)
        for result, (_, known) in zip(results, batch):
            if [word.word for word in result.words] == [word for word, *_ in known]:
                right += 1
                found += [(word.start - start, word.end - end) for word, (_, start, end) in zip(result.words, known)]
    return np.array(found).reshape(-1, 2), right


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits")
    parser.add_argument("--strategy", default="none")
    parser.add_argument("--strings", type=int, default=120)
    parser.add_argument("--pauses", type=float, nargs=2, default=(0.02, 0.3), metavar=("LEAST", "MOST"))
    parser.add_argument("--data-dir", type=Path, help="FSDD's recordings; default: synthetic talkers")
    parser.add_argument("--indices", default="0-4", help="of the recordings that are used; default: FSDD's test split")
    options = parser.parse_args(arguments)
    from cdasr import Pipeline

    pipeline = Pipeline.from_pretrained(options.model)
    first, last = map(int, options.indices.split("-"))
    draw = recorded(options.data_dir, range(first, last + 1)) if options.data_dir else synthetic
    strings = [joined(number, draw, tuple(options.pauses), pipeline.sample_rate) for number in range(options.strings)]
    found, right = errors(pipeline, strings, options.strategy)
    print(f"{right} of {len(strings)} strings were recognised, {len(found)} words; absolute errors in ms:")
    for name, column in zip(("start", "end"), 1000 * np.abs(found.T)):
        print(f"{name:5}  median {np.median(column):.0f}  mean {column.mean():.0f}  "
              f"90th percentile {np.percentile(column, 90):.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
