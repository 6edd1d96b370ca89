"""A small time-frequency U-Net for the bundled models and laptops.

Strided convolutions fold the frequencies into a few hundred channels, a trunk of dilated convolutions and attention
models time, and the decoder unfolds them again. The estimate is a complex mask on the state and on the degraded
signal plus a correction, so that the untrained network returns the degraded signal. Logits, where it is given some,
join the trunk before each block and the decoder at each level.
"""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from cdasr.networks.layers import FiLM, FrameNorm, LogitsEmbedding, TimeEmbedding, Trunk, zero_init


class TFUNet(nn.Module):
    """Denoiser over complex spectra (B, 1, F, N), F = `bins`.

    `channels` and `strides` (over frequency): of the convolutional levels; `dim`, `blocks`: of the trunk;
    `attention_every`: one block in so many attends over the whole utterance (0: none). `tokens`: size of the logits
    that it can be given (0: none); `condition`: channels of what it makes of them; `centred` as in `LogitsEmbedding`.
    """

    def __init__(self, bins: int = 256, channels: tuple[int, ...] = (32, 48, 64),
                 strides: tuple[int, ...] = (4, 2, 2), dim: int = 192, blocks: int = 8, attention_every: int = 4,
                 heads: int = 4, dropout: float = 0.0, tokens: int = 0, condition: int = 128,
                 centred: bool = False):
        super().__init__()
        if any(stride % 2 for stride in strides):
            raise ValueError(f"the strides {strides} must be even, or levels do not fit each other")
        if len(strides) != len(channels) or bins % prod(strides):
            raise ValueError(f"{bins} frequency bins and {len(channels)} levels do not fit the strides {strides}; "
                             "choose one stride a level, and n_fft / 2 + 1 a multiple of their product")
        folded = bins // prod(strides)
        self.embed_time = TimeEmbedding(dim)
        self.encoder = nn.ModuleList(
            Down(before, after, stride, dim) for before, after, stride in zip((4, *channels[:-1]), channels, strides))
        self.fold = nn.Conv1d(channels[-1] * folded, dim, 1)
        self.trunk = Trunk(dim, blocks, attention_every, heads, dropout, condition if tokens else 0)
        self.unfold = nn.Conv1d(dim, channels[-1] * folded, 1)
        self.decoder = nn.ModuleList(
            Up(2 * before, after, stride, dim)
            for before, after, stride in zip(channels[::-1], (*channels[-2::-1], 6), strides[::-1]))
        self.embed_logits = LogitsEmbedding(tokens, condition, centred=centred) if tokens else None
        self.inject = nn.ModuleList(zero_init(nn.Conv1d(condition, 2 * before, 1, bias=False))
                                    for before in (channels[::-1] if tokens else ()))
        self.start_as_identity()

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Masks of 1 on y and 0 on x_t, no correction: D returns y."""
        last = self.decoder[-1].expand
        last.weight.zero_()
        last.bias.zero_()
        last.bias[:self.decoder[-1].stride] = 1.0

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor, mask: Tensor | None = None,
                logits: Tensor | None = None) -> Tensor:
        """Estimate x0 (B, 1, F, N) from the state x_t at time t (B,) and the degraded y; `mask` (B, N) marks frames.

        `logits` (B, N, V) are those of the content at each frame; items of zeros are given none, just as with None.
        """
        embedding = self.embed_time(t)
        frames = torch.ones(len(y), y.shape[-1], device=y.device) if mask is None else mask.to(embedding.dtype)
        inputs = torch.cat([x_t.real, x_t.imag, y.real, y.imag], dim=1)
        h, skips = inputs * frames[:, None, None], []
        for level in self.encoder:
            h = level(h, embedding, frames)
            skips.append(h)
        shape = h.shape
        features = None if logits is None else self.embed_logits(logits.transpose(1, 2) * frames[:, None], frames)
        h = self.unfold(self.trunk(self.fold(h.flatten(1, 2)), embedding, frames, features)).view(shape)
        for index, (level, skip) in enumerate(zip(self.decoder, reversed(skips))):
            h = torch.cat([h, skip], dim=1)
            h = level(h if features is None else h + self.inject[index](features)[:, :, None], embedding, frames)
        mask_y, mask_x, correction = (torch.complex(*pair.chunk(2, dim=1)) for pair in h.float().chunk(3, dim=1))
        return (mask_y * y + mask_x * x_t + correction) * frames[:, None, None]


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
