"""SpeechBrain's published enhancers as model packages: `cdasr import-enhancer`.

A folder of the hub has `hyperparams.yaml` and weights. SpeechBrain builds the model by running that file, which names
any Python class. Here it is data: tags are dropped, and a few numbers are read. Which network it is follows from the
names of the weights' files and of the tensors in them; their sizes must be those of the network.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml
from torch import Tensor

from cdasr.coupled.models import SignalModel
from cdasr.coupled.schema import Sampling
from cdasr.runtime.atomic import replacing_folder
from cdasr.runtime.files import read_text
from cdasr.runtime.plain_data import checked, one_line
from cdasr.runtime.weights import check_finite, check_fit, read_pickle, sketch, tensors_in
from cdasr.speech.enhancers import PredictiveModel, network_options
from cdasr.speech.sgmse import DEFAULT_ASR, PREFIX, model_config
from cdasr.speech.signal_model import SpectrogramModel

SETTINGS, LARGEST = "hyperparams.yaml", 1 << 20  # bytes of it
SEPFORMER, MASKING, SCORE = ("encoder", "masknet", "decoder"), "enhance_model", "score_model_ema"
FILES = [SETTINGS, *(f"{name}.ckpt" for name in (*SEPFORMER, MASKING, SCORE))]
PUBLISHED = ("speechbrain/metricgan-plus-voicebank", "speechbrain/mtl-mimic-voicebank",
             "speechbrain/sepformer-wham16k-enhancement", "speechbrain/sgmse-voicebank")
BUILT_IN = {"predictor": "reverse_diffusion", "corrector": "ald"}  # of the sampler of a score model


def import_enhancer(name_or_dir: str | os.PathLike, folder: str | os.PathLike, asr: str = DEFAULT_ASR) -> str:
    """Write a model package of a published enhancer with the recogniser `asr`; return a line about it.

    `name_or_dir`: a name on the hub, or a folder with its files. Raises ValueError, before anything is written, for
    files that are not such an enhancer.
    """
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.pipeline import Pipeline

    signal = load_enhancer(find(name_or_dir))
    source = {"name": Path(name_or_dir).name if Path(name_or_dir).is_dir() else str(name_or_dir)}
    pipeline = Pipeline(load_recogniser(asr), signal, {"strategy": "enhanced", "imported": source}, "cpu")
    with replacing_folder(folder) as partial:
        pipeline.save_pretrained(partial)
    size = sum(parameter.numel() for parameter in signal.network.parameters()) / 1e6
    kind = signal.config["network"]["name"] + (", one evaluation" if signal.process is None else
                                               f", {signal.sampling['steps']} steps of {signal.process.name}")
    return f"{folder}: {size:.1f} M parameters, {kind}, {signal.sample_rate} Hz, recogniser {asr}"


def find(name_or_dir: str | os.PathLike) -> Path:
    """The folder of an enhancer: as given, or in the hub's cache, fetched first where the hub answers."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    if Path(name_or_dir).is_dir():
        return Path(name_or_dir)
    name = str(name_or_dir)
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise ValueError(f"{name}: no such folder, and the hub does not give it ({one_line(error, 160)}); give a folder"
                         f" with its files, or one of {', '.join(PUBLISHED)}") from None


def load_enhancer(folder: Path) -> SignalModel:
    """The signal model of a folder with `hyperparams.yaml` and weights; raises ValueError in one line."""
    try:
        settings = read_settings(folder / SETTINGS)
        if (folder / f"{SCORE}.ckpt").is_file():
            return _score_model(settings, _read(folder, SCORE))
        if all((folder / f"{name}.ckpt").is_file() for name in SEPFORMER):
            weights = {f"{name}.{key}": tensor for name in SEPFORMER for key, tensor in _read(folder, name).items()}
            return _predictive("sepformer", {**_sepformer(settings), **_sepformer_sizes(weights)}, settings, weights)
        weights = {f"{MASKING}.{key}": tensor for key, tensor in _read(folder, MASKING).items()}
        if any(key.startswith(f"{MASKING}.blstm.") for key in weights):
            return _predictive("metricgan_plus", settings, settings, weights)
        own = settings.get(MASKING)
        return _predictive("mimic_resnet", {**settings, **(own if isinstance(own, dict) else {})}, settings, weights)
    except (ValueError, KeyError, TypeError, RuntimeError, OSError) as error:
        reason = one_line(error).removeprefix(f"{folder}: ")
        raise ValueError(f"{folder}: no enhancer that is known here ({reason}); those of the form of "
                         f"{', '.join(PUBLISHED)} are") from None


class _Data(yaml.SafeLoader):
    """YAML as plain data: `!new:some.class {...}` is the mapping, `!ref <name>` the text; nothing is built or run."""


def _untagged(loader: _Data, tag: str, node: yaml.Node):
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node, deep=True) if isinstance(node, yaml.SequenceNode) else node.value


_Data.add_multi_constructor("", _untagged)


def read_settings(path: Path) -> dict:
    """What stands in a `hyperparams.yaml`, with references to numbers and texts of the file put in; runs nothing."""
    if not path.is_file():
        raise ValueError(f"there is no {path.name} in it, which says the sampling rate")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} is larger than {LARGEST >> 20} MB")
    try:
        found = yaml.load(read_text(path), _Data)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path.name} is no YAML ({one_line(error, 120)})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path.name} holds no settings")
    return {key: _referred(value, found, 2) for key, value in found.items() if isinstance(key, str)}


def _referred(value: object, found: dict, depth: int) -> object:
    """`<name>` as what it refers to, also in mappings `depth` deep; all else as it is."""
    if isinstance(value, dict) and depth:
        return {key: _referred(item, found, depth - 1) for key, item in value.items()}
    name = re.fullmatch(r"<(\w+)>", value) if isinstance(value, str) else None
    return found[name[1]] if name and isinstance(found.get(name[1]), (bool, int, float, str)) else value


def _read(folder: Path, name: str) -> dict[str, Tensor]:
    path = folder / f"{name}.ckpt"
    if not path.is_file():
        raise ValueError(f"none of the weights {MASKING}.ckpt, {SCORE}.ckpt or {', '.join(SEPFORMER)}.ckpt in it")
    found = tensors_in(read_pickle(path), path)
    check_finite(found.items(), path.name)
    return found


def _predictive(name: str, options: dict, settings: dict, weights: dict[str, Tensor]) -> PredictiveModel:
    """A predictive enhancer of those `options` that its network has."""
    if not isinstance(rate := settings.get("sample_rate"), int):
        raise ValueError(f"{SETTINGS} says no sample_rate")
    network = {"name": name, **{key: options[key] for key in network_options(name) if key in options}}
    config = {"kind": "predictive", "sample_rate": rate, "network": network}
    model = _filled(lambda: PredictiveModel.from_config(config), weights)
    for key, buffer in model.network.named_buffers():
        if key.endswith("num_batches_tracked"):  # a counter of the training, too large for half precision
            buffer.zero_()
    return model


def _filled(build, weights: dict[str, Tensor]) -> SignalModel:
    """The model that `build` makes, with these weights, once names and shapes fit."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    check_fit(sketch(build, shapes).network, shapes, "its weights")
    model = build()
    model.network.load_state_dict(weights)
    return model


def _sepformer(settings: dict) -> dict:
    """What the shapes of a SepFormer do not say. Raises ValueError for what `SepFormer` has built in otherwise."""
    mask, intra = (value if isinstance(value := settings.get(key), dict) else {} for key in ("MaskNet", "SBtfintra"))
    if settings.get("num_spks", 1) != 1:
        raise ValueError(f"it separates {settings['num_spks']} speakers; one that enhances has one output")
    for part, key, value in ((mask, "norm", "ln"), (mask, "skip_around_intra", True),
                             (mask, "linear_layer_after_inter_intra", False), (intra, "norm_before", True),
                             (intra, "use_positional_encoding", True)):
        if part.get(key, value) != value:
            raise ValueError(f"{key} {part[key]!r} is not supported: only {value!r} is")
    given = {"heads": intra.get("nhead"), "chunk": mask.get("K")}
    return {key: value for key, value in given.items() if value is not None}


def _sepformer_sizes(weights: dict[str, Tensor]) -> dict:
    def count(pattern: str) -> int:
        return len({found[1] for key in weights if (found := re.match(pattern, key))})

    channels, _, kernel = weights["encoder.conv1d.weight"].shape
    first = r"masknet\.dual_mdl\.0\.intra_mdl\.mdl\.layers\."
    ffn = next((tensor for key, tensor in weights.items() if re.match(first + r"0\.pos_ffn\.ffn\.0\.weight", key)), ())
    return {"channels": channels, "kernel_size": kernel, "blocks": count(r"masknet\.dual_mdl\.(\d+)\."),
            "layers": count(first + r"(\d+)\."), "d_ffn": len(ffn)}


def _score_model(settings: dict, weights: dict[str, Tensor]) -> SpectrogramModel:
    """The diffusion model of a `ScoreModel`, whose weights are an average already."""
    modules = settings.get("modules")
    own = modules.get("score_model") if isinstance(modules, dict) else None
    if not isinstance(own, dict):
        raise ValueError(f"{SETTINGS} has no modules.score_model")
    named = {"sample_rate": "sr", "window_type": "window"}
    shared = ("sample_rate", "n_fft", "hop_length", "window_type", "transform_type", "spec_factor", "spec_abs_exponent")
    config = model_config({**own, **{named.get(key, key): settings[key] for key in shared if key in settings}})
    sampler = settings.get("sampling") if isinstance(settings.get("sampling"), dict) else {}
    for key, value in BUILT_IN.items():
        if sampler.get(key, value) != value:
            raise ValueError(f"{key} {sampler[key]!r} is not supported: only {value!r} is")
    if config["sampling"]["method"] == "pc":
        names = {"N": "steps", "snr": "snr", "corrector_steps": "corrector_steps"}
        config["sampling"].update({name: sampler[key] for key, name in names.items() if key in sampler})
    checked(Sampling, config["sampling"], "sampling")
    if all(name.startswith(PREFIX) for name in weights):
        weights = {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}
    return _filled(lambda: SpectrogramModel.from_config(config), weights)
