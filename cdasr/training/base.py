"""What all training loops share: seeding, learning rate, EMA weights, checkpoints, early stopping, a log.

A step's randomness follows from (seed, step) and its data from (seed, epoch, item), so a run that is killed and
started again goes on from its last checkpoint and ends at the same numbers. Under torchrun each process takes its share
of the batches, DDP averages the gradients, and the first process writes (cdasr/training/distributed.py).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import accumulate
from pathlib import Path

import numpy as np
import speechbrain as sb
import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.epoch_loop import EpochCounterWithStopper
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cdasr.runtime.atomic import to_json, write_bytes
from cdasr.runtime.device import resolve_precision
from cdasr.training.curves import Curves
from cdasr.training.data import DurationBatchSampler, Items, RoundedBatch, batch_limit
from cdasr.training.distributed import add_up, on_main, shard


class Trainer(sb.Brain):
    """A SpeechBrain `Brain` around networks, validated with their EMA weights on the metric that users care for.

    Subclasses define `compute_forward` and `compute_objectives` for training, which call `self.modules.NAME`, and
    `validate_batch(batch, networks)`, which returns a dict of numbers that are summed over the batches;
    `summarise(sums)` turns them into the metrics of the log, of which `metric` (smaller is better) decides on the best
    checkpoint and on early stopping.
    """

    average_buffers = False  # whether the EMA is also of buffers, as batch normalisation needs it
    unused_parameters = False  # whether a step may leave parameters without a gradient, which DDP has to be told

    def __init__(self, networks: Mapping[str, nn.Module], output_dir: Path, hparams: dict, device: str = "cpu",
                 metric: str = "wer"):
        self.output_dir, self.metric = Path(output_dir), metric
        self.rounded = device.startswith("cuda") and "batch_seconds" in hparams  # lengths, see RoundedBatch
        epochs, patience = hparams["epochs"], hparams["patience"]
        self.counter = EpochCounterWithStopper(limit=epochs, limit_to_stop=epochs if patience is None else patience,
                                               limit_warmup=hparams["patience_warmup"], direction="min")
        super().__init__(
            modules=dict(networks),  # one by one, as DDP wraps them
            opt_class=lambda _: torch.optim.AdamW(
                parameter_groups(networks, hparams["lr_factors"]), lr=hparams["lr"],
                weight_decay=hparams["weight_decay"]),
            hparams=hparams,
            run_opts={"device": device, "precision": resolve_precision(hparams["precision"], device),
                      "max_grad_norm": hparams["max_grad_norm"],
                      "grad_accumulation_factor": hparams["grad_accumulation"],
                      "ckpt_interval_minutes": hparams["checkpoint_minutes"],
                      "distributed_backend": "nccl" if device.startswith("cuda") else "gloo",
                      "find_unused_parameters": self.unused_parameters},
            checkpointer=Checkpointer(self.output_dir / "checkpoints"))
        self.networks = nn.ModuleDict(networks)  # stays as it is where `modules` are wrapped by DDP or compiled
        self.ema = AveragedModel(self.networks, multi_avg_fn=get_ema_multi_avg_fn(hparams["ema_decay"]),
                                 use_buffers=self.average_buffers)
        for name, part in (("networks", self.networks), ("ema", self.ema), ("counter", self.counter)):
            self.checkpointer.add_recoverable(name, part)
        self.curves = Curves(self.output_dir / "tensorboard") if hparams["tensorboard"] and on_main() else None
        for network in networks.values():
            if hparams["channels_last"]:
                network.to(memory_format=torch.channels_last)
            if hparams["compile"]:
                network.compile(dynamic=True)  # in place: the names of the weights stay

    # -- the life of a run ------------------------------------------------------------------------------------------

    def run(self, train: Items, valid: Items) -> nn.ModuleDict:
        """Train to the end (or go on from the last checkpoint) and return the EMA networks of the best epoch."""
        hparams, limit = self.hparams, batch_limit(vars(self.hparams))
        self.train_data = train
        self.batches = DurationBatchSampler([float(row["duration"]) for row in train.rows], limit, hparams.seed,
                                            self.curriculum, hparams.epoch_items, shard=shard(), rounded=self.rounded)
        if self.batches.steps(1) < self.grad_accumulation_factor:
            raise ValueError(f"grad_accumulation {self.grad_accumulation_factor}: an epoch has only "
                             f"{self.batches.steps(1)} batches, so that no step would be taken; choose less")
        self.steps_before = [0, *accumulate(self.batches.steps(epoch + 1) for epoch in range(hparams.epochs))]
        workers = {"num_workers": hparams.workers}
        valid_batches = DurationBatchSampler([float(row["duration"]) for row in valid.rows],
                                             self.valid_limit, seed=0, shard=shard(), even=False)
        self.fit(self.counter, train,
                 SaveableDataLoader(valid, batch_sampler=valid_batches, collate_fn=PaddedBatch, **workers),
                 train_loader_kwargs={"batch_sampler": self.batches, **workers,
                                      "collate_fn": RoundedBatch if self.rounded else PaddedBatch})
        return self.best_networks()

    @property
    def curriculum(self) -> dict[int, float]:
        """The longest utterance by epoch, as `DurationBatchSampler` takes it; none but for a recogniser."""
        return {}

    @property
    def valid_limit(self) -> float:
        """Padded seconds in a batch of the validation, or its items."""
        hparams = vars(self.hparams)
        given = hparams["valid_batch_seconds"] if "batch_seconds" in hparams else None
        return batch_limit(hparams) if given is None else given

    def best_networks(self) -> nn.ModuleDict:
        """The EMA networks of the checkpoint with the best validation metric."""
        self.checkpointer.recover_if_possible(min_key=self.metric)
        return self.ema.module.eval()

    # -- hooks of Brain ---------------------------------------------------------------------------------------------

    def on_stage_start(self, stage, epoch=None):
        if stage == sb.Stage.TRAIN:
            self.train_data.epoch = epoch
            self.batches.set_epoch(epoch)
            self.started = time.time()
        else:
            self.sums: dict[str, float] = {}

    def on_fit_batch_start(self, batch, should_step):
        epoch = self.counter.current
        rank, count = shard()
        seed = ((self.hparams.seed * 1_000_003 + epoch) * 100_003 + self.step) * count + rank
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (transformers draws SpecAugment's masks from this one)
        progress = (self.steps_before[epoch - 1] + self.step) / self.steps_before[-1]
        for group in self.optimizer.param_groups:
            group["lr"] = self.hparams.lr * group["factor"] * learning_rate_factor(progress, self.hparams.warmup)

    def optimizers_step(self):
        super().optimizers_step()
        self.ema.update_parameters(self.networks)

    def _should_save_intra_epoch_ckpt(self, *times):
        """Only between the steps of the optimiser: accumulated gradients are not in a checkpoint."""
        return self.step % self.grad_accumulation_factor == 0 and super()._should_save_intra_epoch_ckpt(*times)

    def evaluate_batch(self, batch, stage):
        for key, value in self.validate_batch(batch.to(self.device), self.ema.module.eval()).items():
            self.sums[key] = self.sums.get(key, 0.0) + value
        return torch.zeros(())

    def on_stage_end(self, stage, stage_loss, epoch=None):
        if stage == sb.Stage.TRAIN:
            self.train_loss = float(stage_loss)
            return
        metrics = self.summarise(add_up(self.sums))
        entry = {"epoch": epoch, "train_loss": round(self.train_loss, 5),
                 **{key: round(value, 4) for key, value in metrics.items()},
                 "seconds": round(time.time() - self.started, 1)}
        if on_main():
            log_epoch(self.output_dir / "train_log.jsonl", entry)
            print(", ".join(f"{key} {value}" for key, value in entry.items()), flush=True)
        if self.curves is not None:
            self.curves.add(entry)
        self.counter.update_metric(metrics[self.metric])
        self.checkpointer.save_and_keep_only(meta={self.metric: metrics[self.metric], "epoch": epoch},
                                             min_keys=[self.metric], num_to_keep=1)

    def _train_loader_specifics(self, dataset, loader_kwargs):
        """The batch sampler gives each process its own batches; SpeechBrain's wrapper would deal them out again."""
        return loader_kwargs

    # -- for the subclasses -----------------------------------------------------------------------------------------

    def validate_batch(self, batch, networks: nn.ModuleDict) -> dict[str, float]:
        raise NotImplementedError

    def summarise(self, sums: dict[str, float]) -> dict[str, float]:
        raise NotImplementedError


def log_epoch(path: Path, entry: Mapping) -> None:
    """Add a line to the log. What a killed run has left there of this epoch or a later one, whole or torn, goes."""
    kept = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            if json.loads(line)["epoch"] < entry["epoch"]:
                kept.append(line)
        except (ValueError, TypeError, KeyError):
            continue
    write_bytes(path, b"".join(line + b"\n" for line in (*kept, to_json(entry).encode())))


def parameter_groups(networks: Mapping[str, nn.Module], factors: Mapping[str, float]) -> list[dict]:
    """Parameters by the `factor` of their learning rate: that of the first pattern that fits, else 1.

    `factors`: shell patterns of the parameters' names, which begin with that of their network. Raises ValueError for
    a pattern that fits none.
    """
    named = {f"{name}.{key}": parameter for name, network in networks.items()
             for key, parameter in network.named_parameters()}
    groups: dict[str, list] = {pattern: [] for pattern in (*factors, "")}
    for name, parameter in named.items():
        groups[next((pattern for pattern in factors if fnmatchcase(name, pattern)), "")].append(parameter)
    if idle := [pattern for pattern in factors if not groups[pattern]]:
        raise ValueError(f"lr_factors: no parameter for {idle[0]!r}; they are called like {next(iter(named))!r}")
    return [{"params": group, "factor": factors.get(pattern, 1.0)} for pattern, group in groups.items() if group]


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Linear warm-up over the share `warmup` of the run, then half a cosine down to 2 % of the peak."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    remaining = (progress - warmup) / (1.0 - warmup)
    return 0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * min(remaining, 1.0)))
