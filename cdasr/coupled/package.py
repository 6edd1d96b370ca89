"""Model packages: folders of plain data that hold a signal process, a logits process and, beside them, a classifier.

`config.json`, `signal.safetensors`, `logits.safetensors` where there is a logits process, and the classifier in a
layout of its own. Reading one never runs code from it: types and sizes are checked against `schema.Package` and against
what the weights' files hold before a network is built. Folders that a package names lie inside it; symbolic links are
followed, since what they lead to is read as data like the package itself, and nothing of it leaves the machine.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from cdasr.classifiers.protocol import Classifier
from cdasr.coupled.bundled import find_package
from cdasr.coupled.models import LogitsModel, SignalModel
from cdasr.coupled.schema import Package
from cdasr.coupled.strategies import needs_logits
from cdasr.runtime.plain_data import checked, one_line, read_json
from cdasr.runtime.weights import check_fit, read_shapes, read_tensors, sketch

FORMAT = 1


def load_models(name_or_dir: str | os.PathLike, domain: str, model_class: type[SignalModel]
                ) -> tuple[Path, dict, SignalModel, LogitsModel | None]:
    """Folder, config and both models of a package of the `domain`, whose signal process is a `model_class`.

    Raises ValueError in one line when it cannot be used.
    """
    folder = find_package(name_or_dir)
    try:
        config = read_json(folder / "config.json")
        if config.get("format") != FORMAT:
            raise ValueError(f"package format {config.get('format')!r}, this version reads {FORMAT}")
        checked(Package, config)
        if (found := config.get("domain", "speech")) != domain:
            raise ValueError(f"it is for {found}, not for {domain}")
        signal = _load(model_class, config["signal"], folder / "signal.safetensors")
        logits = _load(LogitsModel, config["logits"], folder / "logits.safetensors") if config.get("logits") else None
        _check_tokens(signal, logits)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder}: not a usable cdasr model package ({one_line(error)})") from None
    return folder, config, signal, logits


def save_models(folder: Path, config: dict, signal: SignalModel, logits: LogitsModel | None, half: bool) -> dict:
    """Write the weights of both models, as float16 with `half`, and `config.json`, whose content is returned."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, "format": FORMAT}
    for name, model in (("signal", signal), ("logits", logits)):
        if model is not None:
            dtype = torch.float16 if half else torch.float32
            save_file({key: tensor.to("cpu", dtype).contiguous() for key, tensor in model.network.state_dict().items()},
                      folder / f"{name}.safetensors")
            config[name] = model.config
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return config


def check_classifier(folder: Path, signal: SignalModel, logits: LogitsModel | None, classifier: Classifier,
                     called: str) -> None:
    """Raise ValueError where the processes were trained for other logits or hidden states than the `classifier`'s.

    `called` is what a message calls it.
    """
    tokens = signal.config["network"].get("tokens") or (logits and logits.tokens)
    if tokens and tokens != classifier.logits_size:
        raise ValueError(f"{folder} was trained for a recogniser with logits of {tokens} classes; {called} has "
                         f"{classifier.logits_size}")
    if logits is None:
        return
    width = classifier.hidden_size * len(logits.hidden_layers)
    if logits.config["network"]["hidden"] != width:
        raise ValueError(f"{folder} was trained for hidden states of {logits.config['network']['hidden']} numbers; "
                         f"those of {called} are {width}")


def without_logits(config: dict) -> dict:
    """What a package stores, for its signal process alone: `fused`, or rules over answers without logits."""
    kept = {name: value for name, value in config.items()
            if name not in ("auto", "rover") or not needs_logits(value["strategy"])}
    strategy = kept.get("strategy", "enhanced")
    if needs_logits(strategy) or strategy in ("auto", "rover") and strategy not in kept:
        kept["strategy"] = "fused"
    return {name: value for name, value in kept.items() if name not in ("logits", "strategies", "out_of_domain")}


def _load(model_class: type, config: dict, path: Path):
    """A model with the weights in `path`, built only when its sketch has shown that they fit."""
    shapes = read_shapes(path)
    check_fit(sketch(lambda: model_class.from_config(config), shapes).network, shapes, path.name)
    model = model_class.from_config(config)
    model.network.load_state_dict({name: tensor.float() for name, tensor in read_tensors(path).items()})
    return model


def _check_tokens(signal: SignalModel, logits: LogitsModel | None) -> None:
    tokens = signal.config["network"].get("tokens")
    if logits is not None and tokens and tokens != logits.tokens:
        raise ValueError(f"signal.network.tokens is {tokens}, logits.network.tokens {logits.tokens}")
