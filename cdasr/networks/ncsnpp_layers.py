"""The layers of NCSN++, under the names that the public code gives their weights, and the injection of logits.

Tensors are images (B, C, F, N) of C channels over frequency and time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.networks.layers import zero_init

FIR_TAPS = (1.0, 3.0, 3.0, 1.0)
BANDS = 16  # of frequency, at most, in which logits are injected into a level


class GaussianFourierProjection(nn.Module):
    """Sines and cosines (B, 2 size) of 2 pi W x for x (B,), W random and fixed (Tancik et al. 2020)."""

    def __init__(self, size: int, scale: float):
        super().__init__()
        self.W = nn.Parameter(torch.randn(size) * scale, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        phase = x[:, None] * self.W * (2.0 * math.pi)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class ResidualBlock(nn.Module):
    """BigGAN residual block (Brock et al. 2019) on (B, C, F, N), conditioned on the time by an embedding (B, E).

    `resample` ("up", "down" or None) doubles or halves F and N in both branches; their sum is over sqrt 2.
    """

    def __init__(self, before: int, after: int, embedding: int, init_scale: float, dropout: float,
                 resample: str | None = None):
        super().__init__()
        self.resample = Resample(resample) if resample else nn.Identity()
        self.GroupNorm_0, self.Conv_0 = group_norm(before), conv3x3(before, after)
        self.Dense_0 = init(nn.Linear(embedding, after))
        self.GroupNorm_1, self.Dropout_0 = group_norm(after), nn.Dropout(dropout)
        self.Conv_1 = conv3x3(after, after, init_scale)
        self.Conv_2 = init(nn.Conv2d(before, after, 1)) if resample or before != after else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.Conv_0(self.resample(F.silu(self.GroupNorm_0(x))))
        h = h + self.Dense_0(F.silu(embedding))[:, :, None, None]
        h = self.Conv_1(self.Dropout_0(F.silu(self.GroupNorm_1(h))))
        return (self.Conv_2(self.resample(x)) + h) / math.sqrt(2.0)


class AttentionBlock(nn.Module):
    """One head of self-attention over all points of (B, C, F, N), plus the input, over sqrt 2."""

    def __init__(self, channels: int, init_scale: float):
        super().__init__()
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2 = (PointwiseLinear(channels, 0.1) for _ in range(3))
        self.NIN_3 = PointwiseLinear(channels, init_scale)

    def forward(self, x: Tensor) -> Tensor:
        points = self.GroupNorm_0(x).flatten(2).transpose(1, 2)[:, None]  # (B, 1, F N, C)
        h = F.scaled_dot_product_attention(self.NIN_0(points), self.NIN_1(points), self.NIN_2(points))
        return (x + self.NIN_3(h)[:, 0].transpose(1, 2).reshape(x.shape)) / math.sqrt(2.0)


class PointwiseLinear(nn.Module):
    """x W + b on the last dimension (..., C): a "network in network" layer."""

    def __init__(self, channels: int, init_scale: float):
        super().__init__()
        self.W = nn.Parameter(_fan_average_uniform(torch.empty(channels, channels), init_scale))
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class Injection(nn.Module):
    """Add features (B, condition, N) to (B, C, F, N / `shrink`), by bands of the F frequencies; nothing at first."""

    def __init__(self, condition: int, channels: int, bins: int, shrink: int):
        super().__init__()
        self.bands, self.bins, self.shrink = math.gcd(bins, BANDS), bins, shrink
        self.project = zero_init(nn.Conv1d(condition, channels * self.bands, 1, bias=False))

    def forward(self, h: Tensor, features: Tensor) -> Tensor:
        added = self.project(F.avg_pool1d(features, self.shrink)).unflatten(1, (-1, self.bands))
        return h + added.repeat_interleave(self.bins // self.bands, dim=2)


class InputSkip(nn.Module):
    """The shrunken image (B, before, F, N), projected, plus the feature maps (B, after, F, N)."""

    def __init__(self, before: int, after: int):
        super().__init__()
        self.Conv_0 = init(nn.Conv2d(before, after, 1))

    def forward(self, image: Tensor, h: Tensor) -> Tensor:
        return self.Conv_0(image) + h


class Resample(nn.Module):
    """Halve ("down") or double ("up") F and N of (B, C, F, N) with a low-pass filter (Karras et al. 2020).

    Down: filter, then keep every second point. Up: put zeros between the points, then filter with four times
    the gain. The filter is symmetric, so that convolution and correlation agree.
    """

    def __init__(self, direction: str):
        super().__init__()
        taps = torch.tensor(FIR_TAPS) / sum(FIR_TAPS)
        self.resize, gain = {"down": (F.conv2d, 1.0), "up": (F.conv_transpose2d, 4.0)}[direction]
        self.register_buffer("kernel", gain * torch.outer(taps, taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, -1, -1)
        return self.resize(x, kernel, stride=2, padding=1, groups=x.shape[1])


def conv3x3(before: int, after: int, init_scale: float = 1.0) -> nn.Conv2d:
    return init(nn.Conv2d(before, after, 3, padding=1), init_scale)


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def init(layer: nn.Linear | nn.Conv2d, scale: float = 1.0) -> nn.Linear | nn.Conv2d:
    """The layer with zero biases and weights of variance `scale` over the average of its two fans."""
    _fan_average_uniform(layer.weight, scale)
    nn.init.zeros_(layer.bias)
    return layer


def _fan_average_uniform(weight: Tensor, scale: float) -> Tensor:
    return nn.init.xavier_uniform_(weight, gain=math.sqrt(scale or 1e-10))
