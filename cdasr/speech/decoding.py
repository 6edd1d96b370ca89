"""How logits become words: greedy by default, else by a beam search, as the command line asks for it.

This file loads neither torch nor a model, so that `cdasr --help` can read it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cdasr.runtime.arguments import count, finite, names
from cdasr.runtime.files import check_file

if TYPE_CHECKING:
    from cdasr.classifiers.beam_search import BeamSearch

BEAM_SIZE = 10  # where something asks for a beam
OF_WHISPER = ("language", "task", "initial_prompt")
LM = "word language model: ARPA, also gzipped, or, with cdasr[kenlm], a binary file of KenLM"


@dataclass(frozen=True)
class Decoding:
    """What is asked of decoding; None: not asked for. `Pipeline.with_decoding` applies it.

    `lm` is the file of a language model. The options of a CTC recogniser are explained in
    `cdasr.classifiers.beam_search`; those of `OF_WHISPER` are its recogniser's. Raises ValueError for an option without
    the one that it belongs to, and for a file that is not there.
    """

    beam_size: int | None = None
    lm: Path | None = None
    lm_weight: float | None = None
    word_bonus: float | None = None
    hotwords: Sequence[str] | None = None
    hotword_weight: float | None = None
    nbest: int | None = None
    language: str | None = None
    task: str | None = None
    initial_prompt: str | None = None

    def __post_init__(self):
        if self.lm is not None:
            check_file(self.lm, "language model")
        elif self.lm_weight is not None:
            raise ValueError("--lm-weight weights a language model; give one with --lm FILE")
        if self.hotword_weight is not None and not self.hotwords:
            raise ValueError("--hotword-weight weights hot words; give some with --hotwords")
        wanted = [option for option, value in (("--lm", self.lm), ("--hotwords", self.hotwords),
                                               ("--word-bonus", self.word_bonus)) if value is not None]
        if (self.nbest or 1) > 1:
            wanted.append(f"--nbest {self.nbest}")
        if self.beam_size == 1 and wanted:
            raise ValueError(f"--beam-size 1 is greedy decoding, which has no {wanted[0]}; give a larger one, or leave "
                             "it out")
        if (self.nbest or 1) > (self.beam_size or max(BEAM_SIZE, self.nbest or 1)):
            raise ValueError(f"--nbest {self.nbest}: a beam of {self.beam_size} has no more than {self.beam_size}; "
                             "give a larger --beam-size")
        if self.beam_size is None and wanted:
            object.__setattr__(self, "beam_size", max(BEAM_SIZE, self.nbest or 1))

    @classmethod
    def of(cls, options: argparse.Namespace) -> Decoding:
        """Of the command line."""
        return cls(**{name: getattr(options, name, None) for name in cls.__dataclass_fields__})

    @property
    def recogniser_options(self) -> dict[str, str]:
        """Those that a recogniser is loaded with."""
        return {name: value for name in OF_WHISPER if (value := getattr(self, name)) is not None}

    def settings(self) -> dict:
        """What transcripts depend on, as plain data; nothing for greedy decoding. The model counts, not its name."""
        from cdasr.runtime.atomic import fingerprint

        found = {name: value for name in self.__dataclass_fields__ if (value := getattr(self, name)) is not None}
        if self.beam_size == 1:
            del found["beam_size"]
        if self.lm is not None:
            found["lm"] = fingerprint([Path(self.lm).read_bytes()])
        return {**found, "hotwords": list(self.hotwords)} if self.hotwords else found

    def search(self) -> BeamSearch | None:
        """The `BeamSearch` of a CTC recogniser; None for greedy decoding. Raises ValueError for an unusable model."""
        if (self.beam_size or 1) == 1:
            return None
        from cdasr.classifiers.beam_search import LM_WEIGHT, WORD_BONUS, BeamSearch
        from cdasr.classifiers.ngram import load_language_model

        given = {name: value for name in ("lm_weight", "word_bonus", "hotword_weight", "nbest")
                 if (value := getattr(self, name)) is not None}
        if self.lm is not None:
            given = {"lm": load_language_model(self.lm), "lm_weight": LM_WEIGHT, "word_bonus": WORD_BONUS, **given}
        return BeamSearch(self.beam_size, hotwords=tuple(self.hotwords or ()), **given)

    def check_tokens(self) -> None:
        """Raise ValueError for what a decoder that writes token by token does not have."""
        for name, instead in (("lm", "its decoder is one already"), ("word_bonus", "it belongs to a language model"),
                              ("hotwords", "name them in --initial-prompt")):
            if getattr(self, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for CTC recognisers and this one is a Whisper with "
                                 f"its own decoder: {instead}")


def check_search(recogniser, decoding: Decoding, search: BeamSearch | None) -> None:
    """Raise ValueError for what is asked of decoding and a frozen recogniser does not have."""
    if recogniser.kind.has_hypothesis:
        decoding.check_tokens()
    elif search is not None and not hasattr(recogniser, "alphabet"):
        raise ValueError(f"{type(recogniser).__name__} does not say what its classes write (`alphabet`), which a beam "
                         "search asks for; leave --beam-size and what belongs to it out")
    elif search is not None:
        search.check(recogniser.alphabet)


def decoding_options(verb: argparse.ArgumentParser) -> None:
    """Options of decoding."""
    group = search_options(verb)
    group.add_argument("--lm", type=Path, metavar="FILE", help=LM)
    group.add_argument("--lm-weight", type=finite, metavar="W", help="of its log-probabilities; cdasr tune-lm finds "
                       "one; default: 0.5")
    group.add_argument("--word-bonus", type=finite, metavar="B", help="added for each word, in nats; default: 1.5 "
                       "with --lm, else 0")
    group.add_argument("--nbest", type=count, metavar="N", help="hypotheses in JSON, with their scores, "
                       "also of Whisper; default: 1")
    group.add_argument("--language", metavar="NAME", help="of Whisper, such as de; default: the package's, or detected")
    group.add_argument("--task", choices=("transcribe", "translate"), help="of Whisper; translate: into English")
    group.add_argument("--initial-prompt", metavar="TEXT", help="of Whisper: what was said before, for its names and "
                       "its spelling")


def search_options(verb: argparse.ArgumentParser):
    """Options of a beam search that a language model is tuned for; returns their group."""
    group = verb.add_argument_group("decoding", "of CTC recognisers but where Whisper is named; docs/decoding.md")
    group.add_argument("--beam-size", type=count, metavar="N", help="texts that a prefix beam search keeps, or beams "
                       f"of Whisper; default: 1, which is greedy, and {BEAM_SIZE} where one of the next asks for more")
    group.add_argument("--hotwords", type=names, metavar="WORD[,WORD...]", help="names and terms to prefer")
    group.add_argument("--hotword-weight", type=finite, metavar="W", help="added for each of them, in nats; default: "
                       "10")
    return group
