"""Curves of a training for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


class Curves:
    """What the log of a training says of each epoch, written to `folder` for `tensorboard --logdir`.

    Raises ValueError where TensorBoard is not installed.
    """

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ValueError("tensorboard true needs TensorBoard: pip install 'cdasr[tensorboard]', or leave it "
                             "false") from None
        self.writer = SummaryWriter(str(folder))

    def add(self, entry: Mapping[str, float]) -> None:
        """The numbers of one line of the log, over its `epoch`."""
        for name, value in entry.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, entry["epoch"])
        self.writer.flush()
