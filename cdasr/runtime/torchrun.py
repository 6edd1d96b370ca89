"""What torchrun says to each of its processes by the environment: which one it is, which GPU is its own."""

from __future__ import annotations

import os
from datetime import timedelta

LONGEST = timedelta(days=30)  # that a process may be ahead of another


def process_of() -> tuple[int, int] | None:
    """The number of this process, from 0, and how many there are; None where torchrun has not started several."""
    try:
        rank, count, _ = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError):
        return None
    return (rank, count) if count > 1 else None


def own_device(device: str) -> str:
    """The GPU of this process where `device` is auto or cuda and torchrun has started several; else `device`.

    Raises ValueError for more processes than GPUs.
    """
    import torch

    if process_of() is None or device not in ("auto", "cuda") or not torch.cuda.is_available():
        return device
    local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= gpus:
        raise ValueError(f"{gpus} GPUs cannot serve {os.environ.get('LOCAL_WORLD_SIZE', local + 1)} processes; give a "
                         "smaller --nproc-per-node")
    return f"cuda:{local}"


def wait_for_all() -> None:
    """Return when every process of torchrun has come here; one that fails ends them all."""
    from torch import distributed

    distributed.init_process_group("gloo", timeout=LONGEST)
    distributed.barrier()
    distributed.destroy_process_group()
