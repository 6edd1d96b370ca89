"""One way to every frozen recogniser: the class follows from the model's own configuration."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.hub import loading, locate, source_of
from cdasr.classifiers.model_type import LONGEST, REFERENCE
from cdasr.classifiers.options import checked_options
from cdasr.classifiers.schema import Reference
from cdasr.runtime.atomic import write_json
from cdasr.runtime.plain_data import checked, one_line, read_json


def load_recogniser(name_or_dir: str | os.PathLike, **options) -> nn.Module:
    """The frozen recogniser that a local folder, a name in the hub's cache or a hub name stands for.

    CTC models of waveforms become a `CTCRecogniser`, a Whisper encoder with a CTC head a `WhisperCTCRecogniser`, and
    plain Whisper models a `WhisperDecoderRecogniser`. `options` are those of `schema.Options`: `dtype`,
    `attn_implementation`, `target_lang`, ...; those of a reference are its defaults.
    Raises ValueError in one line for a model that cannot be found or is none of these.
    """
    return _load(name_or_dir, checked_options(options), ())


def _load(name_or_dir: str | os.PathLike, options: dict, through: tuple[str, ...]) -> nn.Module:
    """The recogniser, `through` references that were followed already."""
    reference = Path(name_or_dir) / REFERENCE
    if os.path.isfile(reference):
        return _follow(reference, options, through)
    place = locate(name_or_dir, options)
    recogniser = _class_of(place).from_pretrained(place, **options)
    recogniser.source = source_of(name_or_dir, options)
    recogniser.by_reference = not os.path.isdir(name_or_dir)
    return recogniser


def save_recogniser(recogniser: nn.Module, folder: str | os.PathLike, by_reference: bool | None = None) -> None:
    """Write a folder that `load_recogniser` reads: a copy of the recogniser, or where it is and its options.

    By default a recogniser that came by a hub name or a reference is written as a reference, and any other copied.
    Raises ValueError for a reference to a recogniser that was not loaded from anywhere.
    """
    folder = Path(folder)
    source = getattr(recogniser, "source", None)  # one that was trained here has none
    if by_reference if by_reference is not None else getattr(recogniser, "by_reference", False):
        if source is None:
            raise ValueError("a recogniser that was not loaded by load_recogniser cannot be stored as a reference")
        write_json(folder / REFERENCE, source)
        return
    recogniser.save_pretrained(folder)
    (folder / REFERENCE).unlink(missing_ok=True)


def _follow(reference: Path, options: dict, through: tuple[str, ...]) -> nn.Module:
    place = os.path.realpath(reference)
    try:
        if place in through:
            raise ValueError(f"{reference} again, in a circle; give a folder with a recogniser in it")
        if len(through) >= LONGEST:
            raise ValueError(f"yet another reference, after {LONGEST}; give a folder with a recogniser in it")
        name, stored = _stored(reference)
        recogniser = _load(name, {**stored, **options}, (*through, place))
    except (ValueError, OSError) as error:
        if through or str(error).startswith(f"{reference}: "):
            raise
        raise ValueError(f"{reference} refers to {one_line(error, 1000)}") from None
    recogniser.by_reference = True
    return recogniser


def _stored(reference: Path) -> tuple[str, dict]:
    """The name and the options in a reference. Raises ValueError for what may not stand in one."""
    try:
        stored = checked(Reference, read_json(reference))
        return stored.name, checked_options(stored.options, stored=True)
    except ValueError as error:
        raise ValueError(f"{reference}: {one_line(error)}") from None


def _class_of(place: str) -> type:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    with loading(place, "recogniser"):
        kind = read_json(Path(place) / "config.json").get("model_type")
        if not isinstance(kind, str):
            raise ValueError(f"config.json: model_type {one_line(repr(kind), 60)} is no name")
    if kind in MODEL_FOR_CTC_MAPPING_NAMES:
        return CTCRecogniser
    if kind == "whisper-ctc":
        from cdasr.classifiers.whisper_ctc import WhisperCTCRecogniser
        return WhisperCTCRecogniser
    if kind == "whisper":
        return _whisper_decoder(place)
    raise ValueError(f"{place}: a model of type {one_line(repr(kind), 60)} is no speech recogniser that is known here; "
                     "give a fine-tuned CTC model (wav2vec2, HuBERT, WavLM, data2vec-audio, MMS, ...) or Whisper")


def _whisper_decoder(place: str) -> type:
    try:
        from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
    except ModuleNotFoundError:
        raise ValueError(f"{place}: a plain Whisper model gives no CTC logits; train a CTC head on its encoder "
                         "with stage 2 of a recipe (docs/recognisers.md), and give the folder that it writes") from None
    return WhisperDecoderRecogniser
