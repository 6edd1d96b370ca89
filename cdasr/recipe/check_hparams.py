"""Whether the values of a recipe's hyper-parameters can be meant: their types are those of the defaults.

One rule for all keys, and few exceptions by a key's name: a whole number stays one, a real number may be written as
either, a number that is not negative by default may not become negative.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from cdasr.coupled.strategies import STRATEGIES, needs_logits, options_of

NULLABLE = ("epoch_items", "size", "patience", "valid_batch_seconds", "auto", "rover")  # whatever their default is
OF_NULL = {"epoch_items": int, "positions": int, "size": int, "patience": int, "valid_batch_seconds": float,
           "batch_seconds": float, "external_weight": float, "grad_accumulation": int, "speeds": list,
           "warmup": float, "ema_decay": float, "precision": str}  # the type of what is null by default
OF_EMPTY = {"kept_states": 0.0}  # an element of a list that is empty by default
REAL = re.compile(r"(valid_)?batch_seconds|checkpoint_minutes|shortest|longest|(valid_)?snrs|\w+_range|guidance")
SIGNED = re.compile(r"(valid_)?snrs|snr_range|hidden_layers")
SHARE = re.compile(r"external_weight|\w+_(share|prob)|swapped|drop_\w+|warmup|ema_decay|label_smoothing|layerdrop")
POSITIVE = re.compile(r"lr|(valid_)?batch_(seconds|size)|checkpoint_minutes|longest|sample_rate|nproc|n_fft|hop|every"
                      r"|grad_accumulation|passes|samples|channels|widths|dim|heads|strides|hidden_size|speeds")
NOT_EMPTY = ("steps", "oa_weights", "valid_snrs", "channels", "strides", "widths")
CHOICES = {"precision": ("auto", "fp32", "bf16", "fp16"), "units": ("characters", "words"),
           "eval_split": ("dev", "test"), "asr_head": ("", "whisper"),
           "normaliser": ("plain", "basic", "english"), "controls": ("matched", "retrained"),
           "labels": ("clean", "transcripts"), "parts": ("encoder", "all")}
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list such as [a, b]",
         dict: "a mapping such as {key: value}"}


def conform(values: Mapping, defaults: Mapping) -> dict:
    """`values` in the types of `defaults`. Raises ValueError, in one line, for all that are not."""
    faults: list[str] = []
    found = _mapping(values, defaults, "", faults)
    if not faults:
        _check_strategies(found, faults)
    if faults:
        raise ValueError("; ".join(faults))
    return found


def _check_strategies(values: Mapping, faults: list[str]) -> None:
    """Strategies and their options, wherever a recipe names some, are those of the registry."""
    own = [name for name in STRATEGIES if needs_logits(name)]
    named = {"coupled.validate": [*_at(values, "coupled", "validate", [])],
             "ablation.strategy": [_at(values, "ablation", "strategy", "")],
             "tuning.strategies": [*(tuned := _at(values, "tuning", "strategies", {}))]}
    for path, names in named.items():
        faults += [f"{path}: there is no strategy {name!r} with a logits process; known: {', '.join(own)}"
                   for name in names if name and name not in own]
    for name, lists in tuned.items():
        known = [option.name for option in options_of(name)]
        faults += [f"tuning.strategies.{name}: there is no option {option!r}; known: {', '.join(known)}"
                   for option in (lists if name in own else ()) if option not in known]


def _at(values: Mapping, section: str, key: str, absent):
    """A value of a section; `absent` where there is none."""
    return (values.get(section) or {}).get(key) or absent


def _mapping(values: Mapping, defaults: Mapping, outer: str, faults: list[str]) -> dict:
    renamed = values.get("name") != defaults.get("name")  # another network or process has other options
    named = all(isinstance(key, str) for key in defaults)
    inner = next(iter(defaults.values()), None) if not named else None  # of {3: 1.5}: all values are of one kind
    found = {}
    for key, value in values.items():
        path = f"{outer}{key}"
        if renamed or (named and key not in defaults):
            found[key] = _finite(value, path, faults)
        else:
            found[key] = _value(str(key) if named else outer.rstrip(".").split(".")[-1], value,
                                defaults.get(key, inner), path, faults)
    return found


def _value(key: str, value, default, path: str, faults: list[str]):
    """A value in the type of its default; a fault is noted where it cannot be."""
    if default is None and key not in OF_NULL:
        return _finite(value, path, faults)
    if value is None and (default is None or key in NULLABLE):
        return None
    if value is None and default == "":
        return ""
    kind = OF_NULL[key] if default is None else type(default)
    if kind is dict:
        return _mapping(value, default, f"{path}.", faults) if isinstance(value, dict) else _fault(
            path, value, kind, faults)
    if kind is list:
        return _list(key, value, default, path, faults) if isinstance(value, list) else _fault(
            path, value, kind, faults)
    return _scalar(key, value, kind, default, path, faults)


def _scalar(key: str, value, kind: type, default, path: str, faults: list[str]):
    if kind is int and REAL.fullmatch(key):
        kind = float
    if kind is float and isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        value = float(value)  # 1e-3, which YAML 1.1 takes for a word
    fits = type(value) in (int, float) if kind is float else type(value) is kind
    if not fits:
        return _fault(path, value, kind, faults)
    if key in CHOICES and value not in CHOICES[key]:
        faults.append(f"{path} is one of {', '.join(name or repr(name) for name in CHOICES[key])}; got {value!r}")
    elif kind in (int, float):
        _check_range(key, value, default, path, faults)
    return value


def _check_range(key: str, value, default, path: str, faults: list[str]) -> None:
    if not math.isfinite(value):
        faults.append(f"{path} must be finite, got {value}")
    elif SHARE.fullmatch(key) and not 0.0 <= value <= 1.0:
        faults.append(f"{path} is a share from 0 to 1, got {value}")
    elif POSITIVE.fullmatch(key) and value <= 0:
        faults.append(f"{path} must be more than 0, got {value}")
    elif value < 0 and not SIGNED.fullmatch(key) and (default is None or default >= 0):
        faults.append(f"{path} must not be negative, got {value}")


def _list(key: str, value: list, default: list | None, path: str, faults: list[str]) -> list:
    if key.endswith("_range") and (len(value) != 2 or not all(type(part) in (int, float) for part in value)
                                   or value[0] > value[1]):
        faults.append(f"{path} is a lowest and a highest number, such as {default}; got {value}")
        return value
    if not value and default and key in NOT_EMPTY:
        faults.append(f"{path} needs at least one value, such as {default[:1]}; got []")
    like = default[0] if default else None
    if like is None:
        like = OF_EMPTY.get(key, "" if key in CHOICES else None)
    if like is None or isinstance(like, (dict, list)):
        return _finite(value, path, faults)
    return [_value(key, part, like, f"{path}[{place}]", faults) for place, part in enumerate(value)]


def _finite(value, path: str, faults: list[str]):
    """A value of any type, whose numbers must be finite."""
    if isinstance(value, float) and not math.isfinite(value):
        faults.append(f"{path} must be finite, got {value}")
    elif isinstance(value, dict):
        return {key: _finite(part, f"{path}.{key}", faults) for key, part in value.items()}
    elif isinstance(value, list):
        return [_finite(part, f"{path}[{place}]", faults) for place, part in enumerate(value)]
    return value


def _fault(path: str, value, kind: type, faults: list[str]):
    faults.append(f"{path} must be {KINDS.get(kind, kind.__name__)}, got {value!r}")
    return value
