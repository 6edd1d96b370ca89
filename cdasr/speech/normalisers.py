"""Text normalisers by name: what of two transcripts counts as the same words when errors are counted.

`plain` is cdasr's own (`words.normalise_text`). `basic` and `english` are those that Whisper's authors score with, as
transformers has them. The English one also takes a table of British and American spellings, which transformers does not
ship: it is in the file `normalizer.json` beside a Whisper on the hub.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path

from torch import nn

from cdasr.runtime.plain_data import read_json
from cdasr.runtime.terminal import note
from cdasr.speech.words import normalise_text

ABOUT = {"plain": "cdasr's own normaliser (lower case, no punctuation)",
         "basic": "Whisper's basic normaliser of transformers",
         "english": "Whisper's English normaliser of transformers"}
NORMALISERS = tuple(ABOUT)
SPELLINGS = "normalizer.json"  # in the folder of a Whisper


class Normaliser:
    """A text normaliser, called with a text; `find_spellings()` gives the spellings `{British: American}` of `english`.

    The spellings are looked for when the first text comes, since the recogniser that has them is loaded late. Raises
    ValueError for an unknown `name`.
    """

    def __init__(self, name: str = "plain", find_spellings: Callable[[], Mapping[str, str]] = dict):
        if name not in ABOUT:
            raise ValueError(f"there is no normaliser {name!r}; known: {', '.join(ABOUT)}")
        self.name, self._find_spellings = name, find_spellings

    def __call__(self, text: str) -> str:
        return " ".join(self._function(text).split())

    @cached_property
    def spellings(self) -> Mapping[str, str]:
        """The table that `english` uses; empty for the others, and where there is none, which stderr says once."""
        found = self._find_spellings() if self.name == "english" else {}
        if self.name == "english" and not found:
            _say_once(f"normaliser english: the recogniser comes without {SPELLINGS}, Whisper's table of spellings; "
                      "colour and color count as two words")
        return found

    @property
    def setting(self) -> str:
        """What tells scores of one normaliser from those of another: `english, 1741 spellings`."""
        return f"{self.name}, {len(self.spellings)} spellings" if self.name == "english" else self.name

    @cached_property
    def _function(self) -> Callable[[str], str]:
        if self.name == "plain":
            return normalise_text
        from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

        return BasicTextNormalizer() if self.name == "basic" else EnglishTextNormalizer(dict(self.spellings))


PLAIN = Normaliser()


def recipe_normaliser(hparams: Mapping) -> Normaliser:
    """That of a recipe, with the spellings of its recogniser `asr`."""
    name = hparams.get("normaliser", "plain")
    return PLAIN if name == "plain" else Normaliser(
        name, lambda: spellings_in(hparams["asr"], hparams["asr_options"]))


def about_normaliser(setting: str) -> str:
    """A `Normaliser.setting` in words, for a report."""
    name, _, rest = setting.partition(", ")
    table = f", with {rest}" if rest and not rest.startswith("0 ") else ", without its table of spellings"
    return ABOUT.get(name, name) + (table if name == "english" else "")


def spellings_in(name_or_dir: str | os.PathLike, options: Mapping | None = None) -> dict[str, str]:
    """The table of spellings of a Whisper in a folder, in the hub's cache or on the hub; empty where it has none.

    `options`: those of `load_recogniser`. Raises ValueError for a file that is no such table.
    """
    from cdasr.classifiers.hub import locate

    if not name_or_dir:
        return {}
    try:
        path = Path(locate(name_or_dir, dict(options or {}))) / SPELLINGS
    except ValueError:
        return {}  # whoever loads the recogniser says why
    if not path.is_file():
        return {}
    found = read_json(path, called=path)
    if not all(isinstance(word, str) for word in found.values()):
        raise ValueError(f"{path}: expected a table of spellings, {{word: word}}; delete the file or fetch it again")
    return found


def spellings_of(recogniser: nn.Module) -> dict[str, str]:
    """The table of spellings that a loaded recogniser comes with, or the encoder that it is built on."""
    for source in (getattr(recogniser, name, None) for name in ("source", "encoder_source")):
        if source and (found := spellings_in(source["name"], source["options"])):
            return found
    return {}


@lru_cache(maxsize=100)
def _say_once(line: str) -> None:
    note(line)
