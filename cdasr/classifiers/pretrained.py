"""Folders of transformers, read as data: configuration, weights, feature extractor and tokenizer.

Each file is checked before transformers sees it, the classes are those that `cdasr` names, and the network is compared
with its weights: what transformers would fill with random numbers is an error here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import torch
from torch import nn

from cdasr.classifiers.schema import CODE, DTYPES, Generation, MelExtractor, WaveExtractor
from cdasr.runtime.plain_data import Loose, checked, one_line, read_json
from cdasr.runtime.weights import (
    Shapes,
    check_finite,
    first_names,
    read_shapes,
    read_tensors,
    sketch,
    weight_files,
)

RETURNS = ("return_dict", "output_hidden_states", "problem_type", "id2label", "label2id", "chunk_size_feed_forward")
TRAINING = ("masked_spec_embed",)  # weights that only training uses; published checkpoints lack them
LARGEST = 10**7  # of any number in a configuration


def read_config(folder: Path) -> dict:
    """A folder's `config.json`. Raises ValueError for fields that lead to code, and for odd numbers."""
    found = read_json(folder / "config.json")
    refuse_code(found, "config.json")
    for key, value in found.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and not abs(number) <= LARGEST:
                raise ValueError(f"config.json: {key} {one_line(number, 40)} is out of any range")
    return found


def make_config(config_class: type, found: dict):
    """A configuration with those of its fields that a model reads. Raises ValueError for a dtype that is none."""
    known = {field.name for field in fields(config_class)} - {*RETURNS, "dtype"}
    options = {key: value for key, value in found.items() if key in known}
    dtype = found.get("dtype", found.get("torch_dtype"))
    if dtype is not None and dtype not in DTYPES[1:]:
        raise ValueError(f"config.json: dtype: there is no {one_line(repr(dtype), 60)}; known: {', '.join(DTYPES[1:])}")
    return config_class(**options, **({"dtype": dtype} if dtype else {}))


def refuse_code(found: dict, name: str) -> None:
    """Raise ValueError for a field that leads to code, to other files or to another way of loading."""
    if refused := [key for key in CODE if found.get(key) is not None]:
        raise ValueError(f"{name}: {refused[0]} is refused, as it could run or fetch code, or load other files; use a "
                         "model that transformers knows, or take the field out")


def load_model(model_class: type, config, folder: Path, options: dict, **more) -> nn.Module:
    """A model of transformers with the weights in a folder; `options` and `more` go to its `from_pretrained`.

    Without the option `dtype` it is loaded in float32, whatever the weights are stored in: the same answers
    everywhere, and on CPUs half precision is four times slower. Where nothing is asked for, and a safetensors file has
    just the names and shapes of the network, torch alone fills it in.

    Raises ValueError, naming them, for weights that are missing, of another shape, more than the network has layers
    for, or not finite.
    """
    if (folder / "adapter_config.json").exists():
        raise ValueError("adapter_config.json: PEFT's adapters are not loaded; merge them into the model and save it")
    files = weight_files(folder, options.get("variant"))
    shapes = {name: shape for path in files for name, shape in read_shapes(path).items()}
    config.name_or_path = str(folder)  # where a model looks for adapters
    network = sketch(lambda: model_class(config), shapes)
    if not options and set(more) <= {"generation_config"} and _fits(network, files, shapes):
        return _filled(network, files[0], **more)
    with _silent():
        model, report = model_class.from_pretrained(
            folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, weights_only=True,
            use_safetensors=files[0].suffix == ".safetensors", trust_remote_code=False, local_files_only=True,
            **{"dtype": "float32", **options}, **more)
    _check_report(model, report)
    check_finite((*model.named_parameters(), *model.named_buffers()), files[0].name)
    return model


def _fits(network: nn.Module, files: Sequence[Path], shapes: Shapes) -> bool:
    """Whether one safetensors file has all that a sketched `network` consists of, but for the weights that are tied."""
    stored = network.state_dict()
    tied = set(network.all_tied_weights_keys)
    return ([path.suffix for path in files] == [".safetensors"]
            and shapes == {name: tuple(tensor.shape) for name, tensor in stored.items() if name not in tied}
            and all(name in stored for name, _ in network.named_buffers()))


def _filled(network: nn.Module, path: Path, generation_config=None) -> nn.Module:
    """A sketched `network` with the weights of a file that fits it, in float32.

    transformers' `from_pretrained` gives the same, but first prepares the conversions of all models that it knows: that
    takes as long as the recognition of a sentence.
    """
    weights = {name: tensor.to(torch.float32, copy=True) if tensor.is_floating_point() else tensor.clone()
               for name, tensor in read_tensors(path).items()}  # copies: the file is mapped, and may be written again
    network.load_state_dict(weights, strict=False, assign=True)
    network.tie_weights()
    network.config.dtype = torch.float32
    if generation_config is not None:
        network.generation_config = generation_config
    return network.eval()


def check_kind(found: dict, kind: str) -> None:
    """Raise ValueError for the configuration of another type of model."""
    if found.get("model_type") != kind:
        raise ValueError(f"config.json: model_type {one_line(repr(found.get('model_type')), 60)}, expected {kind!r}")


def check_window(config, extractor) -> None:
    """Raise ValueError where Whisper's spectrogram is not what its encoder takes."""
    frames = extractor.n_samples // extractor.hop_length
    if (frames, extractor.feature_size) != (2 * config.max_source_positions, config.num_mel_bins):
        raise ValueError(f"its preprocessor makes {frames} frames of {extractor.feature_size} bands; its encoder takes "
                         f"{2 * config.max_source_positions} of {config.num_mel_bins}")


def read_generation(folder: Path, config) -> Generation:
    """What is read of Whisper's `generation_config.json`, with tokens and heads that the model has.

    Without that file the tokens are those of its configuration. Raises ValueError.
    """
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    found = {name: getattr(config, name) for name in names}
    if (folder / "generation_config.json").is_file():
        stored = read_json(folder / "generation_config.json")
        refuse_code(stored, "generation_config.json")
        found.update({key: value for key, value in stored.items() if value is not None})
    read = checked(Generation, found, "generation_config.json")
    suppressed = (*(read.suppress_tokens or ()), *(read.begin_suppress_tokens or ()))
    if (highest := max(suppressed, default=0)) >= config.vocab_size:
        raise ValueError(f"its generation configuration suppresses token {highest}, its vocabulary has "
                         f"{config.vocab_size}")
    ends = read.eos_token_id if isinstance(read.eos_token_id, list) else [read.eos_token_id]
    used = (*ends, read.decoder_start_token_id, *(read.lang_to_id or {}).values(), *(read.task_to_id or {}).values())
    if max(used) >= config.vocab_size:
        raise ValueError(f"its generation configuration uses token {max(used)}, its vocabulary has {config.vocab_size}")
    if (read.is_multilingual or read.language or read.task) and not (read.lang_to_id and read.task_to_id):
        raise ValueError("its generation configuration is multilingual, or has a language or a task, but no lang_to_id "
                         "and task_to_id with their tokens")
    heads = config.decoder_layers, config.decoder_attention_heads
    if bad := [pair for pair in read.alignment_heads or () if pair[0] >= heads[0] or pair[1] >= heads[1]]:
        raise ValueError(f"alignment_heads: there is no head {bad[0][1]} in layer {bad[0][0]}; the decoder has "
                         f"{heads[0]} layers of {heads[1]} heads")
    if read.max_length > config.max_target_positions:
        raise ValueError(f"max_length {read.max_length}, but its decoder has {config.max_target_positions} positions")
    return read


def wave_extractor(folder: Path):
    """The feature extractor of a model of waveforms. Raises ValueError."""
    from transformers import Wav2Vec2FeatureExtractor

    return _extractor(Wav2Vec2FeatureExtractor, WaveExtractor, folder)


def mel_extractor(folder: Path):
    """Whisper's feature extractor. Raises ValueError."""
    from transformers import WhisperFeatureExtractor

    return _extractor(WhisperFeatureExtractor, MelExtractor, folder)


def load_tokenizer(tokenizer_class: type, folder: Path):
    """The tokenizer in a folder, of the class that is expected. Raises ValueError for another, and for bad ids."""
    whole = folder / "tokenizer.json"  # some are in one file, which the tokenizers library checks
    vocabulary = {} if whole.is_file() else _flat(read_json(folder / "vocab.json"))
    if bad := [token for token, index in vocabulary.items() if type(index) is not int or not 0 <= index <= LARGEST]:
        raise ValueError(f"vocab.json: the id of {bad[0]!r} is {one_line(repr(vocabulary[bad[0]]), 40)}, expected a "
                         "whole number from 0")
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if found := _settings(folder, name):
            refuse_code(found, name)
            given = found.get("tokenizer_class")
            if given is not None and str(given).removesuffix("Fast") != tokenizer_class.__name__:
                raise ValueError(f"its tokenizer is no {tokenizer_class.__name__}, but a {one_line(given, 60)}")
    with _silent():
        return tokenizer_class.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def check_tokens(tokenizer, folder: Path, classes: int) -> None:
    """Raise ValueError for a blank (`pad_token`) or a word delimiter that the folder's vocabulary does not have.

    A tokenizer adds such a token behind the vocabulary, where no class of the model stands for it.
    """
    own, settings = read_json(folder / "vocab.json"), _settings(folder, "tokenizer_config.json")
    decoder = settings.get("added_tokens_decoder")
    written = {*own, *(token for inner in own.values() if isinstance(inner, dict) for token in inner),
               *_settings(folder, "added_tokens.json"), *map(_content, decoder.values() if decoder else ())}
    delimiter = _content(settings.get("word_delimiter_token"))
    chosen = {"pad_token": tokenizer.pad_token}  # and a delimiter, where one is named: a vocabulary may have none
    if delimiter not in (None, "None"):
        chosen["word_delimiter_token"] = tokenizer.word_delimiter_token = delimiter
    for name, token in chosen.items():
        if token is None or token not in written or not 0 <= tokenizer.get_vocab().get(token, -1) < classes:
            raise ValueError(f"{name} {token!r} is not in its vocabulary of {classes} classes")


def _settings(folder: Path, name: str) -> dict:
    return read_json(folder / name) if (folder / name).is_file() else {}


def _content(token: object) -> object:
    """A token as text; files also have it with how it is to be stripped."""
    return token.get("content") if isinstance(token, dict) else token


def _flat(vocabulary: dict) -> dict:
    """The tokens of all languages, where there are several (MMS)."""
    if vocabulary and all(isinstance(value, dict) for value in vocabulary.values()):
        return {f"{language}: {token}": index for language, inner in vocabulary.items()
                for token, index in inner.items()}
    return vocabulary


def _extractor(extractor_class: type, schema: type[Loose], folder: Path):
    for name in ("processor_config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name)
            refuse_code(found, name)
            if name == "processor_config.json":
                found = found.get("feature_extractor")
            if found is not None:
                settings = checked(schema, found, name)
                return extractor_class(**settings.model_dump())
    raise ValueError("no preprocessor_config.json in it: neither sampling rate nor normalisation are known")


def _check_report(model: nn.Module, report: dict) -> None:
    missing = sorted(name for name in report["missing_keys"] if not name.endswith(TRAINING))
    if head := [name for name in missing if name.startswith("lm_head")]:
        raise ValueError(f"no trained {head[0]} in it: it is pretrained, but not fine-tuned for recognition with CTC")
    if missing:
        raise ValueError(f"no {first_names(missing)} in its weights, which would be random")
    if other := sorted(report["mismatched_keys"]):
        raise ValueError("its weights have other shapes than its configuration: " + first_names(
            f"{entry[0]} {tuple(entry[1])}, expected {tuple(entry[2])}" for entry in other))
    lists = {name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    if more := sorted(name for name in report["unexpected_keys"] if _list_of(name) in lists):
        raise ValueError(f"its weights have more layers than its configuration: {first_names(more)}")


def _list_of(name: str) -> str:
    """The name of the list of layers that a weight is in."""
    parts = name.split(".")
    numbered = [index for index, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[:numbered[0]]) if numbered else ""


@contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' own report: what matters of it becomes an error."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.random.fork_rng(devices=[]):  # weights that training alone uses are drawn
            yield
    finally:
        logging.set_verbosity(level)
