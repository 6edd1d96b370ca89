"""Training in several processes, one a GPU, as `torchrun` starts them (SpeechBrain's DDP)."""

from __future__ import annotations

import os

import torch.distributed
from speechbrain.utils.distributed import ddp_init_group, is_distributed_initialized


def join_group(device: str) -> str:
    """The device of this process. What torchrun started becomes one group: NCCL between GPUs, else gloo.

    Raises ValueError for more processes than GPUs.
    """
    if "RANK" not in os.environ or "LOCAL_RANK" not in os.environ:
        return device
    local = int(os.environ["LOCAL_RANK"])
    on_gpu = device.startswith("cuda")
    if on_gpu and local >= torch.cuda.device_count():
        raise ValueError(f"{torch.cuda.device_count()} GPUs cannot serve {os.environ['LOCAL_WORLD_SIZE']} processes; "
                         "give a smaller --nproc")
    if not is_distributed_initialized():
        ddp_init_group({"distributed_backend": "nccl" if on_gpu else "gloo"})
    return f"cuda:{local}" if on_gpu else device


def shard() -> tuple[int, int]:
    """The number of this process, from 0, and how many there are."""
    if not is_distributed_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def on_main() -> bool:
    """Whether this process is the one that writes files: the first, or the only one."""
    return shard()[0] == 0


def add_up(sums: dict[str, float]) -> dict[str, float]:
    """The sums of all processes together, by key."""
    if not is_distributed_initialized():
        return sums
    parts: list = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, sums)
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: sum(part.get(key, 0.0) for part in parts) for key in keys}
