"""Weights of somebody else, read as data: what a file holds, whether a network fits it, whether its numbers are finite.

Safetensors are data by their format. Files that torch saved are pickles, which could run code: they are read with
`weights_only`, always. A network is compared with the file on the meta device, where it takes no memory, before one is
built: `sketch` stops as soon as it outgrows the file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cdasr.runtime.plain_data import one_line, read_json

Shapes = Mapping[str, tuple[int, ...]]
CONVERT = ("ask for a safetensors file, or convert it where you trust it: "
           "safetensors.torch.save_file(state_dict, 'model.safetensors')")


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a file of weights, without reading a safetensors file's numbers. Raises ValueError."""
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in tensors_in(read_pickle(path), path).items()}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {one_line(error)}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises ValueError, also for NaN or infinite numbers, which it names."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {one_line(error)}") from None
    check_finite(found.items(), path.name)
    return found


def read_pickle(path: Path):
    """What torch saved, as plain data and tensors. Raises ValueError for what cannot be read without running code."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of torch before 1.6 cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can be broken in any way
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"its pickle uses {named[1]}, which could run code" if named else one_line(error, 160)
        advice = f"; {CONVERT}" if named else ""
        raise ValueError(f"{path.name}: no weights that can be read safely ({reason}){advice}") from None


def tensors_in(found: object, path: Path) -> dict[str, Tensor]:
    """A state dict that was read from `path`, checked: names to plain tensors, none larger than what is stored of it.

    A stored view can claim any size (`expand`), and would fill the memory once it is copied.
    """
    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{path.name}: holds no state dict of tensors")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            raise ValueError(f"{path.name}: holds no state dict of tensors ({one_line(repr(name), 60)})")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{path.name}: {name} claims the shape {tuple(tensor.shape)}, more than is stored of it")
    return dict(found)


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The files with the weights of a transformers folder, safetensors where there are any.

    Raises ValueError where there are none, and for an index that names a file elsewhere.
    """
    dot = f".{variant}" if variant else ""
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        whole, index = folder / f"{stem}{dot}.{suffix}", folder / f"{stem}.{suffix}.index{dot}.json"
        if whole.is_file():
            return [whole]
        if index.is_file():
            names = read_json(index).get("weight_map")
            names = sorted(set(map(str, names.values()))) if isinstance(names, dict) else []
            if not names or any(os.path.basename(name) != name or Path(name).suffix != f".{suffix}" for name in names):
                raise ValueError(f"{index.name}: its weight_map names no {suffix} files of this folder")
            return [folder / name for name in names]
    raise ValueError(f"no weights in it: neither model{dot}.safetensors nor pytorch_model{dot}.bin")


def sketch(build: Callable[[], nn.Module], shapes: Shapes) -> nn.Module:
    """The network that `build` makes, on the meta device: no memory, no random numbers.

    Raises ValueError as soon as it has clearly more modules or weights than the file, whose `shapes` are given, could
    fill: a configuration can ask for any number of layers.
    """
    stored = sum(math.prod(shape) for shape in shapes.values())
    left = {"modules": 40 * len(shapes) + 2000, "weights": 3 * stored + 1_000_000}

    def count(kind: str, amount: int) -> None:
        left[kind] -= amount
        if left[kind] < 0:
            raise ValueError(f"the network of the configuration has more {kind} than its file of {len(shapes)} tensors "
                             f"with {stored} numbers can fill")
    registered = torch.nn.modules.module
    hooks = [registered.register_module_module_registration_hook(lambda *_: count("modules", 1)),
             registered.register_module_parameter_registration_hook(
                 lambda _, name, value: count("weights", 0 if value is None else value.numel()))]
    try:
        with torch.device("meta"):
            return build()
    finally:
        for hook in hooks:
            hook.remove()


def check_fit(network: nn.Module, shapes: Shapes, what: str = "weights") -> None:
    """Raise ValueError, with the first three names and a count, where names or shapes are not those of `network`."""
    known = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    other = [f"{name} is {shapes[name]}, expected {shape}" for name, shape in known.items()
             if name in shapes and shapes[name] != shape]
    for problem, names in (("lacks", [name for name in known if name not in shapes]), ("has other shapes:", other),
                           ("has more than the network:", [name for name in shapes if name not in known])):
        if names:
            raise ValueError(f"{what} {problem} {first_names(names)}")


def first_names(names: Iterable[str]) -> str:
    """The first three of some names, and how many more there are."""
    names = [str(name) for name in names]
    return one_line(", ".join(names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def check_finite(tensors: Iterable[tuple[str, Tensor]], what: str) -> None:
    """Raise ValueError for the first tensor with a number that is NaN or infinite."""
    for name, tensor in tensors:
        if tensor.is_floating_point() or tensor.is_complex():
            wide = torch.view_as_real(tensor) if tensor.is_complex() else tensor
            wide = wide.float() if wide.element_size() == 1 else wide  # float8 has no such functions
            # the extremes show NaN and infinity as well, twenty times faster than a look at each number by itself
            if wide.numel() and not bool(torch.stack(torch.aminmax(wide)).isfinite().all()):
                raise ValueError(f"{what}: {name} holds NaN or infinite numbers; such a model answers nothing")


def load_weights(build: Callable[[], nn.Module], path: Path) -> nn.Module:
    """The network that `build` makes with the weights of a safetensors file, once names, shapes and numbers fit."""
    shapes = read_shapes(path)
    check_fit(sketch(build, shapes), shapes, path.name)
    network = build()
    network.load_state_dict({name: tensor.float() for name, tensor in read_tensors(path).items()})
    return network
