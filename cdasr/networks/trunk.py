"""The trunk that models time: gated dilated convolutions and attention over the whole utterance.

Tensors are channels first, (B, dim, N). Normalisation is per frame and padded frames are zeroed before every operation
that looks along time: batching and padding change nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.networks.conditioning import FiLM, zero_init


class Trunk(nn.Module):
    """`blocks` blocks of `dim` channels, of which one in `attention_every` attends (0: none).

    With `condition` > 0, features of so many channels are added before each block, through weights that start at
    zero and have no bias: features of zero change nothing.
    """

    def __init__(self, dim: int, blocks: int, attention_every: int, heads: int, dropout: float = 0.0,
                 condition: int = 0):
        super().__init__()
        self.blocks = nn.ModuleList(
            TrunkBlock(dim, dilation=2 ** (index % 4), dropout=dropout,
                       heads=heads if attention_every and (index + 1) % attention_every == 0 else 0)
            for index in range(blocks))
        self.inject = nn.ModuleList(zero_init(nn.Conv1d(condition, dim, 1, bias=False))
                                    for _ in range(blocks if condition else 0))

    def forward(self, z: Tensor, embedding: Tensor, frames: Tensor, told: Tensor | None = None) -> Tensor:
        """(B, dim, N) to (B, dim, N), told the time by `embedding` (B, E) and more by features `told` (B, C, N)."""
        for index, block in enumerate(self.blocks):
            z = block(z if told is None else z + self.inject[index](told), embedding, frames)
        return z


class TrunkBlock(nn.Module):
    """A gated, dilated convolution over time, and attention over the utterance where `heads` is not 0."""

    def __init__(self, dim: int, dilation: int, dropout: float, heads: int = 0):
        super().__init__()
        self.norm, self.film = FrameNorm(dim), FiLM(dim, dim)
        self.gate = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise = nn.Conv1d(dim, dim, 5, padding=2 * dilation, dilation=dilation, groups=dim)
        self.out = nn.Conv1d(dim, dim, 1)
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(dim, heads) if heads else None

    def forward(self, z: Tensor, embedding: Tensor, frames: Tensor) -> Tensor:
        h = F.glu(self.gate(self.film(self.norm(z), embedding)), dim=1) * frames[:, None]
        z = z + self.dropout(self.out(F.silu(self.depthwise(h))))
        return z if self.attention is None else z + self.attention(z, frames)


class Attention(nn.Module):
    """Self-attention over the frames (B, dim, N) that `frames` (B, N) marks."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide {dim} channels")
        self.heads, self.norm = heads, FrameNorm(dim)
        self.qkv, self.out = nn.Conv1d(dim, 3 * dim, 1), nn.Conv1d(dim, dim, 1)

    def forward(self, z: Tensor, frames: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(z)).unflatten(1, (3, self.heads, -1))
        q, k, v = qkv.transpose(-1, -2).contiguous().unbind(1)  # without, attention falls back to slow products
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=frames.bool()[:, None, None])
        return self.out(attended.transpose(-1, -2).flatten(1, 2))


class FrameNorm(nn.Module):
    """Normalise each frame over everything but batch and time (the last dimension), with a gain a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(1, x.dim() - 1))
        power = x.float().square().mean(dim=dims, keepdim=True)
        return x * torch.rsqrt(power + 1e-6).to(x.dtype) * self.gain.view(-1, *(1,) * (x.dim() - 2))
