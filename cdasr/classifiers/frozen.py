"""What recognisers around a model of transformers share: its frozen weights, its files, and its hidden layers."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

from torch import nn


class FrozenRecogniser(nn.Module):
    """A `model` of transformers whose weights nothing can train, with its `processor`.

    `hidden_layers`: which of transformers' `hidden_states` are handed out, side by side, each normalised in every
    position. What noise has done to the last layer may not yet be lost in those below.
    """

    def __init__(self, model: nn.Module, processor):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self._hand_out((-1,))

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write model (safetensors) and processor as transformers would."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def train(self, mode: bool = True) -> FrozenRecogniser:
        """Stays in evaluation mode, also inside a network that is being trained."""
        return super().train(False)

    @property
    def hidden_size(self) -> int:
        """Numbers in one hidden state."""
        return self.model.config.hidden_size

    @property
    def hidden_states(self) -> int:
        """How many `hidden_states` transformers hands out: that of the input, and one a layer."""
        return self.model.config.num_hidden_layers + 1

    def with_hidden_layers(self, layers: Sequence[int]) -> FrozenRecogniser:
        """The same recogniser, sharing its model, with other `hidden_layers`. Raises ValueError where it lacks one."""
        states = self.hidden_states
        if bad := [layer for layer in layers if not -states <= layer < states]:
            raise ValueError(f"hidden_layers: the recogniser has {states} hidden states, 0 to {states - 1}; there is "
                             f"no layer {bad[0]}")
        if tuple(layers) == self.hidden_layers:
            return self
        other = copy.copy(self)
        other._hand_out(layers)
        return other

    def _hand_out(self, layers: Sequence[int]) -> None:
        self.hidden_layers = tuple(layers)
