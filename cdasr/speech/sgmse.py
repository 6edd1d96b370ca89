"""Public SGMSE checkpoints as signal models and model packages: `cdasr import-sgmse`.

The PyTorch Lightning files of the public code of Richter et al. (2023, 2024): backbones `ncsnpp`, `ncsnpp_v2` and
`ncsnpp_48k`, SDEs `ouve` and `sbve`. Their hyper-parameters say what process, STFT, network and sampler are; the
weights are the moving average (EMA). Reading one never runs code from it: the classes that its pickle names become
empty stand-ins. A file that holds weights alone is read with the settings of its training from the command line.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from cdasr.coupled.schema import Sampling
from cdasr.runtime.atomic import replacing_folder
from cdasr.runtime.plain_data import checked, one_line
from cdasr.runtime.weights import check_finite, check_fit, sketch, tensors_in
from cdasr.speech.sgmse_schema import check_given, check_sgmse
from cdasr.speech.signal_model import SpectrogramModel

DEFAULT_ASR = "facebook/wav2vec2-base-960h"
PREFIX = "dnn."  # of the backbone in the Lightning module's state dict
FROZEN = "all_modules.0.W"  # older versions of torch_ema keep no average of what is not trained

# Names in Lightning's pickles that are mentioned, not needed: what stands in for them holds nothing and does nothing.
HARMLESS = re.compile(r"(sgmse|lightning|lightning_fabric|pytorch_lightning)(\.\w+)+|(\w+\.)*\w*DataModule"
                      r"|argparse\.Namespace|pathlib(\._local)?\.(Pure)?(Posix|Windows)?Path")

NETWORK = {"nf": 128, "ch_mult": (1, 1, 2, 2, 2, 2, 2), "num_res_blocks": 2, "attn_resolutions": (16,),
           "fourier_scale": 16.0, "dropout": 0.0}
FIXED = {  # what `NCSNpp` has built in
    "nonlinearity": "swish", "conditional": True, "fir": True, "fir_kernel": (1, 3, 3, 1), "skip_rescale": True,
    "resblock_type": "biggan", "progressive": "output_skip", "progressive_input": "input_skip",
    "progressive_combine": "sum", "embedding_type": "fourier", "centered": True, "num_channels": 4}
WIDE = {**FIXED, "progressive": "none", "progressive_input": "none", "attn_resolutions": ()}  # `ncsnpp_48k`
BACKBONES = {"ncsnpp": FIXED, "ncsnpp_v2": FIXED, "ncsnpp_48k": WIDE}


class StandIn:
    """In place of a class that a pickle names: takes anything, keeps nothing."""

    def __new__(cls, *arguments, **options):
        return object.__new__(cls)

    def __init__(self, *arguments, **options):
        pass

    def __setstate__(self, state):
        pass


def import_sgmse(path: str | os.PathLike, folder: str | os.PathLike, asr: str = DEFAULT_ASR, ema: bool = True,
                 steps: int | None = None, snr: float | None = None, settings: Mapping | None = None) -> str:
    """Write a model package of the checkpoint at `path` with the recogniser `asr`; return a line about it.

    A recogniser of the hub is named in the package, one in a local folder is copied into it. `ema` False takes the
    weights of the last training step, `steps` and `snr` replace those of the sampler, `settings` hyper-parameters.
    Raises ValueError, before anything is written, for a file that is not such a checkpoint or a setting of it, which
    is named, that is not supported.
    """
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.pipeline import Pipeline

    signal = load_sgmse(path, ema, settings)
    changes = {"steps": steps, "snr": snr}
    signal.config["sampling"].update({key: value for key, value in changes.items() if value is not None})
    checked(Sampling, signal.config["sampling"], "sampling")
    recogniser = load_recogniser(asr)
    source = {"file": Path(path).name, "sha256": _sha256(path), "weights": "ema" if ema else "last step",
              **({"settings": ", ".join(f"{name}={value}" for name, value in settings.items())} if settings else {})}
    pipeline = Pipeline(recogniser, signal, {"strategy": "enhanced", "imported": source}, "cpu")
    with replacing_folder(folder) as partial:
        pipeline.save_pretrained(partial)
    size = sum(parameter.numel() for parameter in signal.network.parameters()) / 1e6
    sampling = signal.sampling
    return (f"{folder}: {size:.1f} M parameters ({source['weights']}), process {signal.process.name}, sampled by "
            f"{sampling['method']} in {sampling['steps']} steps, {signal.sample_rate} Hz, recogniser {asr}")


def load_sgmse(path: str | os.PathLike, ema: bool = True, settings: Mapping | None = None) -> SpectrogramModel:
    """The signal model of a public checkpoint; `settings` replace its hyper-parameters, or are all that there are.

    Raises ValueError as `import_sgmse` does.
    """
    given = check_given(settings or {}, FIXED)
    checkpoint = read_checkpoint(path, bare=bool(given))
    try:
        config = model_config({**checkpoint["hyper_parameters"], **given})
        weights = network_weights(checkpoint, ema)
        _check_weights(config, weights)
        model = SpectrogramModel.from_config(config)
        model.network.load_state_dict(weights)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from None
    return model


def _check_weights(config: dict, weights: dict[str, Tensor]) -> None:
    """Raise ValueError where the weights are not finite or not of the network of `config`: before it is built."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        check_fit(sketch(lambda: SpectrogramModel.from_config(config), shapes).network, shapes, "its state dict")
    except ValueError as error:
        raise ValueError(f"the weights are not those of the backbone that its settings describe ({error})") from None
    check_finite(weights.items(), "its state dict")


def read_checkpoint(path: str | os.PathLike, bare: bool = False) -> dict:
    """A Lightning checkpoint's `state_dict`, `hyper_parameters`, `ema`, ..., loaded without running any of its code.

    With `bare` the file may also hold weights alone, as a `state_dict` or as one itself.
    Raises ValueError for a file that is none, or that names anything but tensors, containers and HARMLESS classes.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # a pickle can be broken in any way
        raise ValueError(f"{path}: not a checkpoint that torch.save wrote ({_first_line(error)})") from None
    if refused := sorted(name for name in named if not HARMLESS.fullmatch(name)):
        raise ValueError(f"{path}: refused, as its pickle uses {', '.join(refused[:3])}, which could run code; a "
                         "checkpoint of the public SGMSE code needs none of it")
    stand_ins = [(OrderedDict if name.endswith(".AttributeDict") else StandIn, name) for name in named]
    try:
        with torch.serialization.safe_globals(stand_ins):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # a pickle can be broken in any way
        raise ValueError(f"{path}: not a checkpoint that can be read safely ({_first_line(error)})") from None
    if bare and isinstance(checkpoint, dict):
        if "state_dict" not in checkpoint:
            checkpoint = {"state_dict": checkpoint}
        checkpoint.setdefault("hyper_parameters", {})
    for key in ("state_dict", "hyper_parameters"):
        if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get(key), dict):
            raise ValueError(f"{path}: no {key} in it: not a checkpoint of the public SGMSE code; if it holds weights "
                             "alone, say how they were trained, e.g. --setting backbone=ncsnpp_v2 --setting sde=sbve")
    return checkpoint


def model_config(hyper_parameters: dict) -> dict:
    """The config of a `SpectrogramModel` from the checkpoint's hyper-parameters.

    What is missing takes the public code's default. Raises ValueError for a setting that is not supported.
    """
    settings = check_sgmse(hyper_parameters, FIXED)
    if "attn_resolutions" in settings:
        settings["attn_resolutions"] = [size for size in settings["attn_resolutions"] if size]
    backbone = settings.get("backbone")
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is not supported: choose a checkpoint with {', '.join(BACKBONES)}")
    for name, value in BACKBONES[backbone].items():
        if name in settings and _plain(settings[name]) != value:
            raise ValueError(f"{name} {settings[name]!r} is not supported: only {value!r} is")
    process = _process(settings)
    stft = _stft(settings)
    network = {"name": "ncsnpp", **{key: _plain(settings.get(key, value)) for key, value in NETWORK.items()}}
    bins, size = stft["n_fft"] // 2 + 1, settings.get("image_size", 256)
    if backbone == "ncsnpp_48k":  # without attention to levels it is built for any number of frequencies
        network |= {"attn_resolutions": (), "pyramids": False,
                    "scale_by_sigma": "after" if settings.get("scale_by_sigma", True) else False}
    elif _attending(network, bins) != _attending(network, size):
        raise ValueError(f"n_fft {stft['n_fft']} is not supported: it gives {bins} frequencies, and the network is "
                         f"built for {size}, with attention at {network['attn_resolutions']}")
    if backbone == "ncsnpp":
        network["scale_by_sigma"] = settings.get("scale_by_sigma", True)
    return {"stft": stft, "process": process, "network": network,
            "prediction": _prediction(settings, process["name"]), "sampling": _sampling(settings, process["name"]),
            "level": "peak",
            "padding": {"multiple": 64, "mode": "zeros" if backbone == "ncsnpp" else "reflect"}}


def _attending(network: dict, bins: int) -> list[int]:
    """The levels that attend where the network has so many frequencies."""
    return [level for level in range(len(network["ch_mult"])) if bins >> level in network["attn_resolutions"]]


def network_weights(checkpoint: dict, ema: bool = True) -> dict[str, Tensor]:
    """The backbone's state dict, by default with the moving average of its parameters.

    torch_ema keeps that as a list in the order of the parameters, which is the order of the state dict: NCSN++ has no
    buffers. A file that holds the backbone alone has its names without `dnn.`. Raises ValueError where there is no
    average, or where it does not fit.
    """
    state = Path("its state dict")
    found = tensors_in(checkpoint["state_dict"], state)
    inner = PREFIX if any(name.startswith(PREFIX) for name in found) else ""
    weights = {name.removeprefix(inner): tensor for name, tensor in found.items() if name.startswith(inner)}
    if not ema:
        return weights
    kept = checkpoint.get("ema")
    averages = kept.get("shadow_params") if isinstance(kept, dict) else None
    if not isinstance(averages, (list, tuple)) or not averages:
        raise ValueError("no EMA weights in it; take those of the last training step with --no-ema")
    averages = list(tensors_in({str(index): tensor for index, tensor in enumerate(averages)}, Path("its EMA")).values())
    names = list(weights)
    if len(averages) == len(names) - 1 and FROZEN in names:
        names.remove(FROZEN)
    if [tensor.shape for tensor in averages] != [weights[name].shape for name in names]:
        raise ValueError(f"its EMA holds {len(averages)} tensors that do not fit the {len(names)} parameters; take the "
                         "weights of the last training step with --no-ema")
    return {**weights, **dict(zip(names, averages))}


def _process(settings: dict) -> dict:
    sde = settings.get("sde")
    if sde == "ouve":
        defaults = {"theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5}
        return {"name": "ouve", **{key: float(settings.get(key, value)) for key, value in defaults.items()},
                "t_min": float(settings.get("t_eps", 0.03))}
    if sde == "sbve":
        return {"name": "sbve", "k": float(settings.get("k", 2.6)), "c": float(settings.get("c", 0.4))}
    raise ValueError(f"sde {sde!r} is not supported: choose a checkpoint with ouve or sbve")


def _stft(settings: dict) -> dict:
    transform = settings.get("transform_type", "exponent")
    if transform not in ("exponent", "none"):
        raise ValueError(f"transform_type {transform!r} is not supported: exponent and none are")
    amplitudes = ({"exponent": float(settings.get("spec_abs_exponent", 0.5)),
                   "scale": float(settings.get("spec_factor", 0.15))} if transform == "exponent"
                  else {"exponent": 1.0, "scale": 1.0})
    # the public code takes 48 kHz with that backbone, whatever `sr` says
    rate = 48_000 if settings["backbone"] == "ncsnpp_48k" else settings.get("sr", 16_000)
    return {"sample_rate": rate, "n_fft": settings.get("n_fft", 510),
            "hop": settings.get("hop_length", 128), **amplitudes, "window": settings.get("window", "hann"),
            "edges": "reflect"}


def _prediction(settings: dict, process: str) -> dict:
    """What the backbone's output means: `Preconditioning` options from the loss that it was trained with."""
    if settings["backbone"] != "ncsnpp_v2":
        options = {"target": "score", "sign": -1}
    else:
        loss = settings.get("loss_type", "score_matching")
        targets = {"score_matching": "score", "denoiser": "mean", "data_prediction": "x0"}
        if loss not in targets:
            raise ValueError(f"loss_type {loss!r} is not supported: {', '.join(targets)} are")
        options = {"target": targets[loss], "c_in": settings.get("c_in", "1"),
                   "network_scaling": settings.get("network_scaling"),
                   "sigma_data": float(settings.get("sigma_data", 0.1))}
        if loss != "denoiser":  # that loss takes the output as it is
            options |= {"c_out": settings.get("c_out", "1"), "c_skip": settings.get("c_skip", "0")}
    divides = "1/sigma" in (options.get("c_out"), options.get("network_scaling"))
    if process == "sbve" and (options["target"] != "x0" or divides):
        raise ValueError(f"sde 'sbve' with loss_type {settings.get('loss_type', 'score_matching')!r} and outputs over "
                         "sigma is not supported: data_prediction without them is")
    return options


def _sampling(settings: dict, process: str) -> dict:
    """The public code's sampler; it names the SDE's own with the bridge."""
    kind = settings.get("sampler_type", "pc" if process == "ouve" else "ode")
    methods = {"ouve": {"pc": "pc", "ode": "deterministic"},
               "sbve": {"ode": "deterministic", "sde": "ancestral"}}[process]
    if kind not in methods:
        raise ValueError(f"sampler_type {kind!r} is not supported with sde {process!r}: {', '.join(methods)} are")
    steps = int(settings.get("N", 30 if process == "ouve" else 50))
    if kind == "pc":
        return {"steps": steps, "method": "pc", "spacing": "to_zero", "snr": 0.5, "corrector_steps": 1}
    return {"steps": steps, "method": methods[kind], "spacing": "uniform"}


def _plain(value):
    """Lists as tuples, so that they compare."""
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _sha256(path: str | os.PathLike) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _first_line(error: Exception) -> str:
    """What is wrong, without torch's advice around it."""
    message = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    return (message.splitlines() or [type(error).__name__])[0][:160]
