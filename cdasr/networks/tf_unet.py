"""A small time-frequency U-Net for the bundled models and laptops.

Strided convolutions fold the frequencies into a few hundred channels, a trunk of dilated convolutions and attention
models time, and the decoder unfolds them again. The estimate is a complex mask on the state and on the degraded
signal plus a correction, so that the untrained network returns the degraded signal. All normalisation is per frame
and padded frames are zeroed before every operation that looks along time: batching and padding change nothing.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.networks.conditioning import FiLM, TimeEmbedding


class TFUNet(nn.Module):
    """Denoiser over complex spectra (B, 1, F, N), F = `bins`.

    `channels` and `strides` (over frequency): of the convolutional levels; `dim`, `blocks`: of the trunk;
    `attention_every`: one block in so many attends over the whole utterance (0: none).
    """

    def __init__(self, bins: int = 256, channels: tuple[int, ...] = (32, 48, 64),
                 strides: tuple[int, ...] = (4, 2, 2), dim: int = 192, blocks: int = 8, attention_every: int = 4,
                 heads: int = 4, dropout: float = 0.0):
        super().__init__()
        if len(strides) != len(channels) or bins % prod(strides):
            raise ValueError(f"{bins} frequency bins and {len(channels)} levels do not fit the strides {strides}; "
                             "choose one stride a level, and n_fft / 2 + 1 a multiple of their product")
        folded = bins // prod(strides)
        self.embed_time = TimeEmbedding(dim)
        self.encoder = nn.ModuleList(
            Down(before, after, stride, dim) for before, after, stride in zip((4, *channels[:-1]), channels, strides))
        self.fold = nn.Conv1d(channels[-1] * folded, dim, 1)
        self.trunk = nn.ModuleList(
            TrunkBlock(dim, dilation=2 ** (index % 4), dropout=dropout,
                       heads=heads if attention_every and (index + 1) % attention_every == 0 else 0)
            for index in range(blocks))
        self.unfold = nn.Conv1d(dim, channels[-1] * folded, 1)
        self.decoder = nn.ModuleList(
            Up(2 * before, after, stride, dim)
            for before, after, stride in zip(channels[::-1], (*channels[-2::-1], 6), strides[::-1]))
        self.start_as_identity()

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Masks of 1 on y and 0 on x_t, no correction: D returns y."""
        last = self.decoder[-1].expand
        last.weight.zero_()
        last.bias.zero_()
        last.bias[:self.decoder[-1].stride] = 1.0

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """Estimate x0 (B, 1, F, N) from the state x_t at time t (B,) and the degraded y; `mask` (B, N) marks frames."""
        embedding = self.embed_time(t)
        frames = torch.ones(len(y), y.shape[-1], device=y.device) if mask is None else mask.to(embedding.dtype)
        inputs = torch.cat([x_t.real, x_t.imag, y.real, y.imag], dim=1)
        h, skips = inputs * frames[:, None, None], []
        for level in self.encoder:
            h = level(h, embedding, frames)
            skips.append(h)
        shape = h.shape
        z = self.fold(h.flatten(1, 2))
        for block in self.trunk:
            z = block(z, embedding, frames)
        h = self.unfold(z).view(shape)
        for level, skip in zip(self.decoder, reversed(skips)):
            h = level(torch.cat([h, skip], dim=1), embedding, frames)
        mask_y, mask_x, correction = (torch.complex(*pair.chunk(2, dim=1)) for pair in h.float().chunk(3, dim=1))
        return (mask_y * y + mask_x * x_t + correction) * frames[:, None, None]


class FrameNorm(nn.Module):
    """Normalise each frame over everything but batch and time (the last dimension), with a gain a channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(1, x.dim() - 1))
        power = x.float().square().mean(dim=dims, keepdim=True)
        return x * torch.rsqrt(power + 1e-6).to(x.dtype) * self.gain.view(-1, *(1,) * (x.dim() - 2))


class Down(nn.Module):
    """Fold `stride` frequencies into one, then refine."""

    def __init__(self, before: int, after: int, stride: int, embedding: int):
        super().__init__()
        self.reduce = nn.Conv2d(before, after, (2 * stride, 3), stride=(stride, 1), padding=(stride // 2, 1))
        self.refine = Refine(after, embedding)

    def forward(self, h: Tensor, embedding: Tensor, frames: Tensor) -> Tensor:
        return self.refine(self.reduce(h), embedding, frames)


class Up(nn.Module):
    """Refine, then unfold one frequency into `stride`."""

    def __init__(self, before: int, after: int, stride: int, embedding: int):
        super().__init__()
        self.stride, self.join = stride, nn.Conv2d(before, before // 2, 1)
        self.refine = Refine(before // 2, embedding)
        self.expand = nn.Conv2d(before // 2, stride * after, 1)

    def forward(self, h: Tensor, embedding: Tensor, frames: Tensor) -> Tensor:
        h = self.expand(self.refine(self.join(h), embedding, frames))
        b, c, f, n = h.shape
        return h.view(b, -1, self.stride, f, n).transpose(2, 3).reshape(b, -1, f * self.stride, n)


class Refine(nn.Module):
    """A residual depthwise-separable convolution, modulated by the time embedding; zero on padded frames."""

    def __init__(self, channels: int, embedding: int):
        super().__init__()
        self.norm, self.film = FrameNorm(channels), FiLM(embedding, channels)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), nn.SiLU(), nn.Conv2d(2 * channels, channels, 1))

    def forward(self, h: Tensor, embedding: Tensor, frames: Tensor) -> Tensor:
        z = self.film(self.norm(h), embedding) * frames[:, None, None]
        return (h + self.mix(self.depthwise(z))) * frames[:, None, None]


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
        self.heads, self.norm = heads, FrameNorm(dim)
        self.qkv, self.out = nn.Conv1d(dim, 3 * dim, 1), nn.Conv1d(dim, dim, 1)

    def forward(self, z: Tensor, frames: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(z)).unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=frames.bool()[:, None, None])
        return self.out(attended.transpose(-1, -2).flatten(1, 2))
