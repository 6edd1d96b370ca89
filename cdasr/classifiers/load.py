"""One way to every frozen recogniser: the class follows from the model's own configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch import nn

from cdasr.classifiers.ctc import CTCRecogniser, checked_options
from cdasr.classifiers.hub import loading, locate, place_of, source_of
from cdasr.runtime.provenance import write_json

REFERENCE = "recogniser.json"  # in place of a copy: where a recogniser is, and the options to load it with


def load_recogniser(name_or_dir: str | os.PathLike, **options) -> nn.Module:
    """The frozen recogniser that a local folder, a name in the hub's cache or a hub name stands for.

    CTC models of waveforms become a `CTCRecogniser`, a Whisper encoder with a CTC head a `WhisperCTCRecogniser`, and
    plain Whisper models a `WhisperDecoderRecogniser`. `options` go to their `from_pretrained`: `dtype`,
    `attn_implementation`, `target_lang`, ...; those of a reference are its defaults.
    Raises ValueError in one line for a model that cannot be found or is none of these.
    """
    options = checked_options(options)
    reference = Path(name_or_dir) / REFERENCE
    if reference.is_file():
        return _follow(reference, options)
    place = locate(name_or_dir, options)
    recogniser = _class_of(place, options).from_pretrained(place, **options)
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


def _follow(reference: Path, options: dict) -> nn.Module:
    try:
        stored = json.loads(reference.read_text(encoding="utf-8"))
        if reference == Path(stored["name"]) / REFERENCE:
            raise ValueError("itself; give a folder with a recogniser in it")
        recogniser = load_recogniser(stored["name"], **{**stored["options"], **options})
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{reference} refers to {error}") from None
    recogniser.by_reference = True
    return recogniser


def _class_of(place: str, options: dict) -> type:
    from transformers import PreTrainedConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

    with loading(place, "recogniser"):
        config, _ = PreTrainedConfig.get_config_dict(place, **place_of(options))
        kind = config["model_type"]
    if kind in MODEL_FOR_CTC_MAPPING_NAMES:
        return CTCRecogniser
    if kind == "whisper-ctc":
        from cdasr.classifiers.whisper_ctc import WhisperCTCRecogniser
        return WhisperCTCRecogniser
    if kind == "whisper":
        return _whisper_decoder(place)
    raise ValueError(f"{place}: a model of type {kind!r} is no speech recogniser that is known here; give a "
                     "fine-tuned CTC model (wav2vec2, HuBERT, WavLM, data2vec-audio, MMS, ...) or Whisper")


def _whisper_decoder(place: str) -> type:
    try:
        from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
    except ModuleNotFoundError:
        raise ValueError(f"{place}: a plain Whisper model gives no CTC logits; train a CTC head on its encoder "
                         "with stage 2 of a recipe (docs/recognisers.md), and give the folder that it writes") from None
    return WhisperDecoderRecogniser
