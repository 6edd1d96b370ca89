"""Where to compute and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str) -> str:
    """`auto` becomes the GPU where there is one, else the CPU. Raises ValueError for a device that is not there."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.ones(1, device=device).item()  # the device meta has no numbers
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here ({str(error).splitlines()[0]}); try cpu") from None
    return device


def resolve_precision(precision: str, device: str) -> str:
    """`auto` becomes bf16 where it is faster (fp16 on older GPUs), else fp32.

    On a CPU that is where there are units for matrices (AMX); vector instructions alone gain nothing here.
    Raises ValueError for an unknown precision.
    """
    if precision not in ("auto", "fp32", *PRECISIONS):
        raise ValueError(f"precision {precision!r}: choose auto, fp32, {' or '.join(PRECISIONS)}")
    if precision != "auto":
        return precision
    if device.startswith("cuda"):
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "fp32"


def autocast(precision: str | None, device: torch.device) -> AbstractContextManager:
    """Evaluate in bf16 or fp16 where that is safe; for fp32 and None the surroundings' precision stays."""
    return torch.autocast(device.type, PRECISIONS[precision]) if precision in PRECISIONS else nullcontext()
