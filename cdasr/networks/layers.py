"""What the networks share: how they are conditioned, and the trunk that models time.

The diffusion time enters by Fourier features and feature-wise affine modulation (FiLM). The logits of the content are
brought to the network's frames by their times in seconds, then embedded without any bias, so that logits of zero say
nothing at all. The trunk has gated dilated convolutions and attention over the whole utterance. Its tensors are
channels first, (B, dim, N); normalisation is per frame and padded frames are zeroed before every operation that looks
along time: batching and padding change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TimeEmbedding(nn.Module):
    """Diffusion times (B,) in (0, 1] to features (B, dim): sinusoids of several frequencies, then a small MLP."""

    def __init__(self, dim: int, frequencies: int = 16):
        super().__init__()
        octaves = torch.linspace(-1, 6, frequencies, device="cpu")  # on meta it would import torch._dynamo
        self.register_buffer("frequencies", math.pi * 2.0 ** octaves, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(2 * frequencies, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, t: Tensor) -> Tensor:
        phase = t[:, None] * self.frequencies
        return self.mlp(torch.cat([phase.sin(), phase.cos()], dim=-1))


class FiLM(nn.Module):
    """Scale and shift of channel dimension 1 by an embedding (B, dim) (Perez et al. 2018); starts as the identity."""

    def __init__(self, dim: int, channels: int):
        super().__init__()
        self.affine = nn.Linear(dim, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        shape = (len(x), -1) + (1,) * (x.dim() - 2)
        scale, shift = self.affine(embedding).chunk(2, dim=1)
        return x * (1.0 + scale.view(shape)) + shift.view(shape)


class LogitsEmbedding(nn.Module):
    """Logits (B, V, N) to features (B, dim, N) over neighbouring frames; zeros become zeros.

    CTC marks a word by one or two frames, and what was said there spreads over half a second: with a `kernel` of 5 the
    `dilations` let each frame see 26 others on both sides. A kernel of 1 is for logits without frames.

    `centred`: each logit's mean over the frames is taken away first. Most frames are blank, so that without this nearly
    all of the network's condition is a constant, and the gradients for right and for wrong logits are nearly the same.
    """

    def __init__(self, tokens: int, dim: int, kernel: int = 5, dilations: Sequence[int] = (1, 3, 9),
                 centred: bool = False):
        super().__init__()
        self.centred = centred
        self.layers = nn.ModuleList(
            nn.Conv1d(before, dim, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False)
            for before, dilation in zip((tokens, *(dim for _ in dilations)), dilations))
        for layer in self.layers:  # SiLU lets 0.36 of unit variance pass: features as large as the logits
            if not layer.weight.is_meta:  # there, too, it would import torch._dynamo
                nn.init.normal_(layer.weight, std=(0.36 * layer.in_channels * kernel) ** -0.5)

    def forward(self, logits: Tensor, frames: Tensor) -> Tensor:
        """`frames` (B, N) marks valid frames; `logits` are zero elsewhere."""
        if self.centred:
            mean = logits.sum(dim=-1, keepdim=True) / frames.sum(dim=-1).clamp_min(1)[:, None, None]
            logits = (logits - mean) * frames[:, None]
        for layer in self.layers:
            logits = F.silu(layer(logits)) * frames[:, None]
        return logits


def align_frames(values: Tensor, lengths: Tensor, times: Tensor, new_times: Tensor) -> Tensor:
    """Values (B, M, C) at `times` (M,) or (B, M), interpolated linearly at `new_times` (N,), both increasing, in s.

    Each item has `lengths` (B,) valid frames; before its first and after its last one, these are held.
    """
    if times.shape[-1] == 1:
        return values.expand(-1, len(new_times), -1)
    times, new_times = (each.expand(len(values), -1).contiguous() for each in (times, new_times))
    right = torch.searchsorted(times, new_times).clamp(1, times.shape[1] - 1)
    before, after = times.gather(1, right - 1), times.gather(1, right)
    weight = ((new_times - before) / (after - before).clamp_min(1e-9)).clamp(0.0, 1.0)[..., None].to(values.dtype)
    last = (lengths - 1)[:, None]
    picks = [torch.minimum(index, last)[..., None].expand(-1, -1, values.shape[-1]) for index in (right - 1, right)]
    return torch.lerp(values.gather(1, picks[0]), values.gather(1, picks[1]), weight)


def zero_init(layer: nn.Conv1d) -> nn.Conv1d:
    """The layer with zero weights: what it adds is nothing until it is trained."""
    nn.init.zeros_(layer.weight)
    return layer


class Trunk(nn.Module):
    """`blocks` blocks of `dim` channels, of which one in `attention_every` attends (0: none).

    `kernel` is the width of the convolutions; 1, without attention, for frames that are to be alone. With `condition` >
    0, features of so many channels are added before each block, through weights that start at
    zero and have no bias: features of zero change nothing.
    """

    def __init__(self, dim: int, blocks: int, attention_every: int, heads: int, dropout: float = 0.0,
                 condition: int = 0, kernel: int = 5):
        super().__init__()
        self.blocks = nn.ModuleList(
            TrunkBlock(dim, dilation=2 ** (index % 4), dropout=dropout, kernel=kernel,
                       heads=heads if attention_every and (index + 1) % attention_every == 0 else 0)
            for index in range(blocks))
        self.inject = nn.ModuleList(zero_init(nn.Conv1d(condition, dim, 1, bias=False))
                                    for _ in range(blocks if condition else 0))

    def forward(self, z: Tensor, embedding: Tensor, frames: Tensor, features: Tensor | None = None) -> Tensor:
        """(B, dim, N) to (B, dim, N), conditioned on time, `embedding` (B, E), and on `features` (B, C, N)."""
        for index, block in enumerate(self.blocks):
            z = block(z if features is None else z + self.inject[index](features), embedding, frames)
        return z


class TrunkBlock(nn.Module):
    """A gated, dilated convolution over time, and attention over the utterance where `heads` is not 0."""

    def __init__(self, dim: int, dilation: int, dropout: float, heads: int = 0, kernel: int = 5):
        super().__init__()
        self.norm, self.film = FrameNorm(dim), FiLM(dim, dim)
        self.gate = nn.Conv1d(dim, 2 * dim, 1)
        self.depthwise = nn.Conv1d(dim, dim, kernel, padding=kernel // 2 * dilation, dilation=dilation, groups=dim)
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
