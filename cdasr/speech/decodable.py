"""Which strategies can be decoded as asked for, and how n best are shown.

What options and files of plain data tell of it is said at once: this file loads neither torch nor a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cdasr.coupled.bundled import find_package, inside
from cdasr.coupled.strategies import STRATEGIES
from cdasr.speech.decoding import Decoding

READ_ONE = ("none", "enhanced", "oa")  # strategies that read one version of the audio
WITH_NBEST = ("json", "jsonl")  # formats


def refusal(strategy: str, several: bool, token_beams: bool) -> str | None:
    """Why a strategy cannot be decoded as asked for; None where it can, and for a name that is no strategy.

    `several`: n best are asked for. `token_beams`: beams are, of a decoder that writes token by token (Whisper's).
    """
    instead = f"choose the strategy {' or '.join(READ_ONE)}"
    if several and strategy == "rover":
        return ("the strategy 'rover' lets the words of several answers vote and has no n best; leave --nbest out, or "
                f"{instead}")
    if token_beams and strategy in STRATEGIES and strategy not in READ_ONE:
        return (f"the strategy {strategy!r} reads several versions of the audio token by token, for which Whisper has "
                f"no beams{' and no n best' if several else ''}; leave {'--nbest and ' if several else ''}--beam-size "
                f"out, or {instead}")
    return None


def check_decodable(decoding: Decoding, strategies: Sequence[str | None], package: str, recogniser: str | None) -> None:
    """Raise ValueError for strategies of a package that cannot be decoded as asked for, before anything is loaded.

    None in `strategies` stands for the package's own. `recogniser`: where it is, if not where the package says. What
    the files on this machine do not tell is left to `Pipeline.check`.
    """
    if (decoding.beam_size or 1) == 1:
        return
    several = (decoding.nbest or 1) > 1
    for name in strategies:
        if name is not None and (why := refusal(name, several, token_beams=False)):
            raise ValueError(why)
    own, written_by_tokens = _about(package, recogniser)
    if written_by_tokens:
        decoding.check_tokens()
    for name in strategies:
        if (why := refusal(name or own or "", several, written_by_tokens)):
            raise ValueError(why if name else why.replace("the strategy", "the package's own strategy", 1))


def check_shown(nbest: int | None, formats: Sequence[str], as_json: bool) -> None:
    """Raise ValueError where n best are asked for and none of the outputs has them."""
    if (nbest or 1) > 1 and not as_json and not set(formats) & set(WITH_NBEST):
        raise ValueError(f"--nbest {nbest}: n best are written in JSON only; add --json or --format json")


def _about(package: str, recogniser: str | None) -> tuple[str | None, bool]:
    """The package's own strategy, and whether its recogniser is a Whisper with its own decoder, where files tell."""
    from cdasr.classifiers.model_type import model_type
    from cdasr.runtime.plain_data import read_json

    try:
        folder = find_package(package)
        config = read_json(Path(folder) / "config.json")
        where = recogniser or inside(folder, config.get("recogniser"))
    except ValueError:  # loading the package says what is wrong
        return None, False
    own = config.get("strategy")
    return own if isinstance(own, str) else None, model_type(where) == "whisper"
