"""A pixel U-Net, the denoiser of images.

Residual convolution blocks modulated by the time (FiLM), at resolutions halved from level to level, with attention at
the lowest one. The estimate is a mask on the degraded image and one on the state, plus a correction: untrained, the
network returns the degraded image. Logits, where it is given some, scale and shift the features of every block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.networks.layers import FiLM, LogitsEmbedding, TimeEmbedding, zero_init


class ImageUNet(nn.Module):
    """Denoiser over images (B, C, H, W), C = `colours`; H and W are multiples of `patch` * 2 ** (levels - 1).

    `channels` of each level, from fine to coarse, with `blocks` residual blocks before and after the lowest one; the
    finest level sees `patch` x `patch` pixels at a point. `attention`: heads at the lowest resolution (0: none).
    `tokens`: classes of the logits that it can be given (0: none); `condition`: channels of what it makes of them.
    """

    def __init__(self, colours: int = 3, channels: tuple[int, ...] = (64, 128, 128), blocks: int = 2, patch: int = 1,
                 attention: int = 4, embedding: int = 128, dropout: float = 0.0, tokens: int = 0,
                 condition: int = 64):
        super().__init__()
        self.patch, self.colours = patch, colours
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.embed_time = TimeEmbedding(embedding)
        self.embed_logits = LogitsEmbedding(tokens, condition, kernel=1) if tokens else None
        injected = condition if tokens else 0

        def block(before: int, after: int) -> ResidualBlock:
            return ResidualBlock(before, after, embedding, dropout, injected)

        self.first = nn.Conv2d(2 * colours * patch**2, channels[0], 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for index, width in enumerate(channels):
            self.down.append(nn.ModuleList(block(width, width) for _ in range(blocks)))
            if index + 1 < len(channels):
                self.shrink.append(nn.Conv2d(width, channels[index + 1], 3, stride=2, padding=1))
        self.attention = Attention(channels[-1], attention) if attention else nn.Identity()
        self.middle = block(channels[-1], channels[-1])
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        for index, width in reversed(list(enumerate(channels))):
            self.up.append(nn.ModuleList(block(2 * width, width) for _ in range(blocks)))
            if index:
                self.grow.append(nn.Conv2d(width, channels[index - 1], 1))
        self.norm = group_norm(channels[0])
        self.last = nn.Conv2d(channels[0], (2 + colours) * patch**2, 3, padding=1)
        self.start_as_identity()

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Masks of 1 on y and 0 on x_t, no correction: D returns y."""
        self.last.weight.zero_()
        self.last.bias.zero_()
        self.last.bias[:self.patch**2] = 1.0

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor, mask: Tensor | None = None,
                logits: Tensor | None = None) -> Tensor:
        """Estimate x0 (B, C, H, W) from the state x_t at time t (B,) and the degraded y; images have no `mask`.

        `logits` (B, V) are those of the picture; items of zeros are given none, just as with None. Raises ValueError
        for a size that the levels cannot halve.
        """
        if y.shape[-1] % self.multiple or y.shape[-2] % self.multiple:
            raise ValueError(f"images of {y.shape[-2]} x {y.shape[-1]} pixels do not fit the network, whose levels "
                             f"need multiples of {self.multiple}")
        embedding = self.embed_time(t)
        features = None
        if logits is not None:
            features = self.embed_logits(logits[..., None], logits.new_ones(len(logits), 1))[..., 0]
        h, skips = self.first(F.pixel_unshuffle(torch.cat([x_t, y], dim=1), self.patch)), []
        for index, level in enumerate(self.down):
            h = self.shrink[index - 1](h) if index else h
            for block in level:
                h = block(h, embedding, features)
                skips.append(h)
        h = self.middle(self.attention(h), embedding, features)
        for index, level in enumerate(self.up):
            h = F.interpolate(self.grow[index - 1](h), scale_factor=2.0) if index else h
            for block in level:
                h = block(torch.cat([h, skips.pop()], dim=1), embedding, features)
        h = F.pixel_shuffle(self.last(F.silu(self.norm(h))).float(), self.patch)
        return h[:, :1] * y + h[:, 1:2] * x_t + h[:, 2:]


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip, conditioned on the time by `embedding` (B, E), and on `features` (B, condition).

    The conditioning has no bias anywhere and starts at zero: features of zero change nothing.
    """

    def __init__(self, before: int, after: int, embedding: int, dropout: float = 0.0, condition: int = 0):
        super().__init__()
        self.first = nn.Sequential(group_norm(before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.norm, self.film = group_norm(after), FiLM(embedding, after)
        self.inject = zero_init(nn.Linear(condition, 2 * after, bias=False)) if condition else None
        self.second = nn.Sequential(nn.SiLU(), nn.Dropout(dropout), nn.Conv2d(after, after, 3, padding=1))
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor, features: Tensor | None = None) -> Tensor:
        h = self.film(self.norm(self.first(x)), embedding)
        if features is not None:
            scale, shift = self.inject(features)[..., None, None].chunk(2, dim=1)
            h = h * (1.0 + scale) + shift
        return self.skip(x) + self.second(h)


class Attention(nn.Module):
    """Self-attention over all points of (B, C, H, W), added to the input."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} heads do not divide {channels} channels")
        self.heads, self.norm = heads, group_norm(channels)
        self.qkv, self.out = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).flatten(2).unflatten(1, (3, self.heads, -1)).transpose(-1, -2).unbind(1)
        attended = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(attended.transpose(-1, -2).reshape(x.shape))


def group_norm(channels: int) -> nn.GroupNorm:
    """Group normalisation with at most 8 groups that divide the channels."""
    return nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if channels % groups == 0), channels)
