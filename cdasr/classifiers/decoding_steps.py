"""What a Whisper decoder's `generate` computes on its way, noted step by step, so that nothing is computed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Combine = Callable[[list[Tensor], list[Tensor], int], Tensor]
"""Coordinates (B, d) to read a token from: of those of each version (B, d), its hidden states (B, H), and the step."""


class DecodingSteps:
    """A logits processor that writes down each step of `generate`, for a `WhisperDecoderRecogniser`.

    The rows that are decoded are `versions` of B recordings, version by version, which share one prefix: `combine` says
    which coordinates each token is read from. Items end after `most` (B,) tokens. The first `kept` (B,) tokens of
    `given` (B, L) are forced, if there are any. Above a `temperature` of 0 tokens are drawn, from `seed` for each item
    by itself, so that an item's answer does not depend on its batch.
    """

    def __init__(self, recogniser, most: Tensor, versions: int = 1, combine: Combine | None = None,
                 given: Tensor | None = None, kept: Tensor | None = None, temperature: float = 0.0, seed: int = 0):
        self.recogniser, self.most, self.versions, self.combine = recogniser, most, versions, combine
        self.given, self.kept, self.temperature = given, kept, temperature
        self.generators = [torch.Generator(most.device).manual_seed(seed) for _ in most] if temperature else []
        self.latest: dict[object, Tensor] = {}
        self.steps: list[dict[object, Tensor]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """While this is open, what the decoder's last query sees is noted, and Q z stands in for W h.

        z are the coordinates that `combine` makes of those of all versions. Without it W h and Q z are the same up to
        rounding, but so the best tokens of the coordinates are those that are generated, in half precision as well.
        """
        model, heads = self.recogniser.model, self.recogniser.heads
        layers, projection = model.get_decoder().layers, model.get_output_embeddings()
        head = _Head(self)
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

    def read(self) -> Tensor:
        """The coordinates (B, d) that the token of this step is read from."""
        values = self.recogniser.coordinates(self.latest[-1])
        if self.combine is not None:
            parts = values.chunk(self.versions), normalised([self.latest[layer] for layer
                                                             in self.recogniser.hidden_layers]).chunk(self.versions)
            values = self.combine(*map(list, parts), len(self.steps))
        self.latest["read"] = values
        return values

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        step = len(self.steps)
        self.steps.append(dict(self.latest))
        scores = scores[:len(self.most)]
        log_probs = scores.float().log_softmax(dim=-1)
        if self.temperature:
            drawn = torch.stack([torch.rand(scores.shape[1], generator=generator, device=scores.device)
                                 for generator in self.generators])
            scores = scores / self.temperature - (-drawn.clamp(1e-10, 1 - 1e-7).log()).log()  # Gumbel-max
        end = torch.full_like(scores, -torch.inf)
        end[:, self.recogniser.ends[0]] = 0.0
        scores = torch.where((step + 1 >= self.most)[:, None], end, scores)
        if self.given is not None and step < self.given.shape[1]:
            forced = torch.full_like(scores, -torch.inf).scatter(1, self.given[:, step:step + 1], 0.0)
            scores = torch.where((step < self.kept)[:, None], forced, scores)
        self.steps[-1]["log_probs"] = log_probs.gather(1, scores.argmax(dim=-1, keepdim=True))[:, 0].clamp_min(-1e4)
        return scores.repeat(self.versions, 1)

    def values(self) -> Tensor:
        """The coordinates (B, L, d) that were read."""
        return self._stacked("read")

    def version_values(self) -> list[Tensor]:
        """The coordinates (B, L, d) of each version."""
        return list(self.recogniser.coordinates(self._stacked(-1)).chunk(self.versions))

    def version_hidden(self) -> list[Tensor]:
        """The hidden states (B, L, H) of each version."""
        return list(normalised([self._stacked(layer) for layer in self.recogniser.hidden_layers]).chunk(self.versions))

    def log_probs(self) -> Tensor:
        """Log-probabilities (B, L) of the tokens."""
        return self._stacked("log_probs")

    def attention(self) -> Tensor:
        """(B, heads, L, S) of the watched heads, a mean over the versions."""
        seen = torch.cat([torch.stack([step["heads", layer] for step in self.steps], dim=2)
                          for layer in self.recogniser.heads], dim=1)
        return seen if self.versions == 1 else torch.stack(seen.chunk(self.versions)).mean(dim=0)

    def _stacked(self, key) -> Tensor:
        return torch.stack([step[key] for step in self.steps], dim=1)

    def _noting(self, layer: int):
        def note(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.latest[layer] = inputs[0][:, -1]
        return note

    def _noting_attention(self, layer: int, heads: list[int]):
        def note(module: nn.Module, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
            self.latest["heads", layer] = output[1][:, heads, -1]
        return note


class AtMost:
    """A logits processor that ends each row after `most` (B,) tokens behind a prefix of so many."""

    def __init__(self, most: Tensor, prefix: int, end: int):
        self.most, self.prefix, self.end = most, prefix, end

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        over = input_ids.shape[1] - self.prefix + 1 >= self.most
        ended = torch.full_like(scores, -torch.inf)
        ended[:, self.end] = scores[:, self.end].clamp_min(-1e4)
        return torch.where(over[:, None], ended, scores)


@contextmanager
def noted_attention(layers: Sequence[nn.Module], heads: Mapping[int, list[int]]) -> Iterator[list[Tensor]]:
    """While this is open, the cross-attention (B, heads, L, S) of these `heads` of each layer is noted in a list."""
    seen: list[Tensor] = []
    handles = [layers[layer].encoder_attn.register_forward_hook(
        lambda module, inputs, output, chosen=chosen: seen.append(output[1][:, chosen]))
        for layer, chosen in heads.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


class _Head(nn.Module):
    """Last hidden states of all versions to the logits that their common token is read from."""

    def __init__(self, steps: DecodingSteps):
        super().__init__()
        self.logits = lambda: steps.recogniser.logits(steps.read()).repeat(steps.versions, 1)[:, None]

    def forward(self, hidden: Tensor) -> Tensor:
        return self.logits()


def normalised(layers: list[Tensor]) -> Tensor:
    """Hidden states (B, [L,] d) of several layers side by side, each normalised in every position."""
    return torch.cat([F.layer_norm(layer.float(), layer.shape[-1:]) for layer in layers], dim=-1)
