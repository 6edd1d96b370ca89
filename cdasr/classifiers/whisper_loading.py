"""Whole Whisper models and their encoders alone, from a local folder, the hub's cache or the hub."""

from __future__ import annotations

import os
from pathlib import Path

from torch import nn

from cdasr.classifiers.hub import loading, locate, source_of
from cdasr.classifiers.options import checked_options, for_model, without
from cdasr.classifiers.pretrained import (
    check_kind,
    check_window,
    load_model,
    load_tokenizer,
    make_config,
    mel_extractor,
    read_config,
    read_generation,
)

ENCODER_KEYS = {r"^model\.encoder\.": "", r"^encoder\.": ""}  # of whole Whisper models


def load_whisper(name_or_dir: str | os.PathLike, options: dict) -> tuple[nn.Module, object]:
    """Model and processor of a Whisper from a local folder, the hub's cache or the hub.

    Raises ValueError in one line when it cannot be found or is no Whisper, and for options that it does not have.
    """
    from transformers import GenerationConfig, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

    options = checked_options(options)
    without(options, ("target_lang",), "it is of MMS; Whisper has language")
    place = Path(locate(name_or_dir, options))
    with loading(name_or_dir, "Whisper model"):
        config, extractor = _described(place)
        generation = GenerationConfig(**read_generation(place, config).model_dump(exclude_none=True))
        processor = WhisperProcessor(extractor, load_tokenizer(WhisperTokenizer, place))
        model = load_model(WhisperForConditionalGeneration, config, place, for_model(options),
                           generation_config=generation)
    return model, processor


def load_encoder(name_or_dir: str | os.PathLike, **options) -> tuple[nn.Module, object, dict]:
    """Whisper's encoder, its feature extractor, and where they came from, as `{name, options}`.

    Raises ValueError in one line for what cannot be found or is no Whisper model.
    """
    from transformers.models.whisper import modeling_whisper

    class WhisperEncoder(modeling_whisper.WhisperEncoder):
        """Out of a whole Whisper model it takes its own weights and leaves the others."""
        _keys_to_ignore_on_load_unexpected = (r"decoder\.", r"proj_out\.")

    options = checked_options(options)
    without(options, ("language", "task", "target_lang", "fallback", "initial_prompt"),
            "an encoder has no language to choose")
    place = Path(locate(name_or_dir, options))
    with loading(name_or_dir, "Whisper encoder"):
        config, extractor = _described(place)
        encoder = load_model(WhisperEncoder, config, place, for_model(options), key_mapping=ENCODER_KEYS)
    return encoder, extractor, source_of(name_or_dir, options)


def _described(place: Path) -> tuple[object, object]:
    """Configuration and feature extractor of the Whisper in a folder, once they are known to go together."""
    from transformers import WhisperConfig

    found = read_config(place)
    check_kind(found, "whisper")
    config, extractor = make_config(WhisperConfig, found), mel_extractor(place)
    check_window(config, extractor)
    return config, extractor
