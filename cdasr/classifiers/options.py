"""The options of `load_recogniser`: an allow-list, for a person, a recipe and a model package alike."""

from __future__ import annotations

import importlib.util

import torch

from cdasr.classifiers.schema import ATTENTION, DTYPES, PRIVATE, Options
from cdasr.runtime.plain_data import checked, one_line


def checked_options(options: dict, stored: bool = False) -> dict:
    """Options as plain data under their present names, without those that are None.

    `stored`: they stand in a file, which may not name a place or a token of this user's. Raises ValueError for an
    option that is not allowed, which may run or fetch code, and for a value that it cannot have.
    """
    if not isinstance(options, dict):
        raise ValueError(f"options: expected names with values, got {one_line(repr(options), 60)}")
    if options.get("trust_remote_code"):
        raise ValueError("trust_remote_code: a recogniser's own code is never run; use one that transformers knows")
    options = {key: value for key, value in options.items() if key != "trust_remote_code" and value is not None}
    if "torch_dtype" in options:
        options.setdefault("dtype", options.pop("torch_dtype"))
        options.pop("torch_dtype", None)
    if isinstance(options.get("dtype"), torch.dtype):
        options["dtype"] = str(options["dtype"]).removeprefix("torch.")
    allowed = [name for name in Options.model_fields if not (stored and name in PRIVATE)]
    if refused := [name for name in options if name not in allowed]:
        raise ValueError(f"option {one_line(repr(refused[0]), 60)} is not allowed here; allowed: {', '.join(allowed)}")
    if "dtype" in options and options["dtype"] not in DTYPES:
        raise ValueError(f"dtype: there is no {one_line(repr(options['dtype']), 60)}; known: {', '.join(DTYPES)}")
    if "cache_dir" in options:
        options["cache_dir"] = str(options["cache_dir"])
    checked(Options, options)
    _check_attention(options.get("attn_implementation", "sdpa"))
    return options


def for_model(options: dict) -> dict:
    """Those that say how a model is loaded, not which files or what it is to do."""
    return {key: options[key] for key in ("dtype", "attn_implementation", "variant") if key in options}


def without(options: dict, names: tuple[str, ...], why: str) -> None:
    """Raise ValueError for options that this kind of recogniser does not have."""
    if given := [name for name in names if name in options]:
        raise ValueError(f"option {given[0]!r}: {why}")


def _check_attention(name: str) -> None:
    """Without the package, transformers would fetch a kernel from the hub in its place, and run it."""
    if name.startswith("flash_attention") and importlib.util.find_spec("flash_attn") is None:
        others = ", ".join(other for other in ATTENTION if not other.startswith("flash_attention"))
        raise ValueError(f"attn_implementation {name}: the package flash-attn is not installed; choose {others}")
