"""Zero-padded batches in which every recording gets the numbers that it gets alone.

An attention mask keeps padding out of the attention of transformers' speech encoders, but not out of the statistics of
a group norm over time (wav2vec2-base, HuBERT-base, WavLM-base), nor out of convolutions over time behind the first
(data2vec-audio, Conformer). `as_if_alone` does, for one call, and leaves nothing behind in the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASKABLE = ("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "data2vec-audio", "wav2vec2-conformer")


def maskable(config) -> bool:
    """Whether `as_if_alone` knows all places where a model of this configuration would hear the padding.

    Not so for adapters that shorten the output, whose convolutions have their own frames.
    """
    return config.model_type in MASKABLE and not getattr(config, "add_adapter", False)


@contextmanager
def as_if_alone(model: nn.Module, samples: Tensor, frames: Tensor) -> Iterator[None]:
    """Within it, `model` treats each item of a zero-padded batch, given with its attention mask, as it would alone.

    `samples` (B,) and `frames` (B,) are the lengths of the items at the input and behind the feature encoder.
    """
    encoder = model.base_model.feature_extractor
    inner = {id(module) for module in encoder.modules()}
    with ExitStack() as stack:
        first = encoder.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            valid = torch.div(samples - first.conv.kernel_size[0], first.conv.stride[0], rounding_mode="floor") + 1
            first.layer_norm.forward = partial(group_norm, norm=first.layer_norm, lengths=valid)
            stack.callback(delattr, first.layer_norm, "forward")
        for module in model.modules():
            if isinstance(module, nn.Conv1d) and any(module.padding) and id(module) not in inner:
                stack.callback(module.register_forward_pre_hook(partial(_silence, frames)).remove)
        yield


def group_norm(x: Tensor, norm: nn.GroupNorm, lengths: Tensor) -> Tensor:
    """`norm` of x (B, C, N), each item with the statistics of its first `lengths` (B,) frames; zero behind them."""
    rows = [F.group_norm(row[None, :, :length], norm.num_groups, norm.weight, norm.bias, norm.eps)
            for row, length in zip(x, lengths.tolist())]
    return torch.cat([F.pad(row, (0, x.shape[-1] - row.shape[-1])) for row in rows])


def _silence(lengths: Tensor, module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The input (B, C, M) of a convolution, zero behind the `lengths` (B,), as it is behind the end of one alone."""
    return (args[0] * _mask(args[0], lengths), *args[1:])


def _mask(x: Tensor, lengths: Tensor) -> Tensor:
    """1 for the valid frames of x (B, C, N), else 0: (B, 1, N)."""
    return (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None].to(x.dtype)
