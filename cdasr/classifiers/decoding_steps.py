"""What a Whisper decoder's `generate` computes on its way, noted step by step, so that nothing is computed again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DecodingSteps:
    """A logits processor that writes down each step of `generate`, for a `WhisperDecoderRecogniser`.

    The first `kept` (B,) tokens of `given` (B, L) are forced, if there are any.
    """

    def __init__(self, recogniser, given: Tensor | None, kept: Tensor | None):
        self.recogniser, self.given, self.kept = recogniser, given, kept
        self.latest: dict[object, Tensor] = {}
        self.steps: list[dict[object, Tensor]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, what the decoder's last query sees is noted, and Q H stands in for W.

        They are the same up to rounding, but so the best tokens of the coordinates are those that are generated, in
        half precision as well.
        """
        model, heads = self.recogniser.model, self.recogniser.heads
        layers, projection = model.get_decoder().layers, model.get_output_embeddings()
        head = _Head(self.recogniser)
        places = [*layers, head]  # what comes in: hidden_states as transformers counts them
        handles = [places[layer].register_forward_pre_hook(self._noting(layer))
                   for layer in {*self.recogniser.hidden_layers, -1}]
        handles += [layers[layer].encoder_attn.register_forward_hook(self._noting_attention(layer, chosen))
                    for layer, chosen in heads.items()]
        model.set_output_embeddings(head)
        try:
            yield
        finally:
            model.set_output_embeddings(projection)
            for handle in handles:
                handle.remove()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.steps)
        self.steps.append(dict(self.latest))
        if self.given is None or step >= self.given.shape[1]:
            return scores
        forced = torch.full_like(scores, -torch.inf).scatter(1, self.given[:, step:step + 1], 0.0)
        return torch.where((step < self.kept)[:, None], forced, scores)

    def values(self) -> Tensor:
        """Coordinates (B, L, d)."""
        return self.recogniser.coordinates(self._stacked(-1))

    def hidden(self) -> Tensor:
        return normalised([self._stacked(layer) for layer in self.recogniser.hidden_layers])

    def attention(self) -> Tensor:
        """(B, heads, L, S) of the watched heads."""
        return torch.cat([torch.stack([step["heads", layer] for step in self.steps], dim=2)
                          for layer in self.recogniser.heads], dim=1)

    def _stacked(self, layer: int) -> Tensor:
        return torch.stack([step[layer] for step in self.steps], dim=1)

    def _noting(self, layer: int):
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.latest[layer] = inputs[0][:, -1]
        return note

    def _noting_attention(self, layer: int, heads: list[int]):
        def note(module: nn.Module, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
            self.latest["heads", layer] = output[1][:, heads, -1]
        return note


class _Head(nn.Module):
    """Last hidden states to logits, by way of the coordinates."""

    def __init__(self, recogniser):
        super().__init__()
        self.logits = lambda hidden: recogniser.logits(recogniser.coordinates(hidden))

    def forward(self, hidden: Tensor) -> Tensor:
        return self.logits(hidden)


def normalised(layers: list[Tensor]) -> Tensor:
    """Hidden states (B, L, d) of several layers side by side, each normalised in every position."""
    return torch.cat([F.layer_norm(layer.float(), layer.shape[-1:]) for layer in layers], dim=-1)
