"""Types of command-line options: a value that cannot be meant is refused in one line, before anything is loaded."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Sequence

NEGATIVE = re.compile(r"-(?:\d|\.\d|inf\b|nan\b).*", re.IGNORECASE)  # a number or a list of them
LARGEST_SEED = 2**32 - 1
MOST_THREADS = 1024
MOST = 10_000  # of what is counted, such as steps, samples or runs: a slip of the finger would run for days
LONGEST = 86_400.0  # seconds of audio


class Parser(argparse.ArgumentParser):
    """A parser that raises ValueError, in one line, in place of printing its usage and leaving."""

    def error(self, message: str):
        first = message.removeprefix("unrecognized arguments: ").split(" ")[0]
        if first != message.split(" ")[0] and os.path.exists(first):
            message = f"{first} is taken for an option; write ./{first} for the file of this name"
        raise ValueError(f"{message} (see {self.prog} --help)")


def signed(arguments: Sequence[str]) -> list[str]:
    """`--snr -5,5` as `--snr=-5,5`: argparse takes a list that starts with a minus for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and NEGATIVE.fullmatch(argument) and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def integer(least: int, most: int | None = None):
    """Whole numbers from `least` to `most`."""
    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"{text} is out of range; expected " + (
                f"at least {least}" if most is None else f"{least} to {most}"))
        return value
    return read


def finite(text: str) -> float:
    """A number, neither NaN nor infinite."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    if (value := finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected a number above 0")
    return value


def not_negative(text: str) -> float:
    """A finite number, 0 or above."""
    if (value := finite(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected a number of at least 0")
    return value


def seconds(text: str) -> float:
    """A duration in seconds, above 0 and of a day at most."""
    if (value := positive(text)) > LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is out of range; expected seconds, at most {LONGEST:g}")
    return value


def seconds_or_auto(text: str) -> float | str:
    """A duration as in `seconds`, or the word auto."""
    return text if text == "auto" else seconds(text)


def numbers(text: str) -> list[float]:
    """Finite numbers with commas between them."""
    try:
        found = [finite(number) for number in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers such as 0,5,10") from None
    if twice := {number for number in found if found.count(number) > 1}:
        raise argparse.ArgumentTypeError(f"{text!r} names {twice.pop():g} twice")
    return found


def names(text: str) -> list[str]:
    """At least one name, with commas between several, each once."""
    found = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; give at least one name or leave the option out")
    return found


def assignment(text: str) -> tuple[str, str]:
    """`NAME=PATH` as its two parts."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=PATH, such as train=PATH")
    return name, value


def setting(text: str) -> tuple[str, object]:
    """`NAME=VALUE` as the name and what YAML takes the value for: a number, a list, a text, ..."""
    import yaml

    name, equals, value = text.partition("=")
    try:
        found = yaml.safe_load(value)
    except yaml.YAMLError:
        found = value
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=VALUE, such as sde=sbve")
    return name.replace("-", "_"), found


seed = integer(0, LARGEST_SEED)
count = integer(1, MOST)
threads = integer(1, MOST_THREADS)
port = integer(0, 65_535)
