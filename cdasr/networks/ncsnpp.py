"""NCSN++ v2, the network of SGMSE+ and of its Schroedinger bridge, with the public code's parameter names.

The score network of Song et al. (2021, appendix H: BigGAN residual blocks, FIR resampling, progressive output
and input) as Richter et al. (2023) and Jukic et al. (2024) use it for complex spectra. Real and imaginary
parts of x_t and y are four image channels over frequency and time. A state dict of the public SGMSE code
(`ncsnpp_v2`, `ncsnpp`, `ncsnpp_48k`) loads unchanged: `all_modules` lists the layers in the order of that code, and
`Conv_0`, `NIN_1`, `W`, ... are its names. Logits of the content, which that code does not know, join through layers of
their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.networks.layers import LogitsEmbedding
from cdasr.networks.ncsnpp_layers import (
    AttentionBlock,
    GaussianFourierProjection,
    Injection,
    InputSkip,
    Resample,
    ResidualBlock,
    conv3x3,
    group_norm,
    init,
)
from cdasr.networks.reflect_pad import reflect_pad

SPECTRAL_CHANNELS = 4  # real and imaginary part of x_t and of y


class NCSNpp(nn.Module):
    """Denoiser over complex spectra (B, 1, F, N), F = `bins`, for any number N of frames.

    `nf` times `ch_mult` are the channels of the levels, each of half the resolution of the one before, with
    `num_res_blocks` residual blocks on the way down and one more on the way up; levels whose number of
    frequencies is in `attn_resolutions` also attend over all their points. `fourier_scale`: spread of the
    random frequencies applied to log t; `init_scale`: of the last weights of each branch, 0 for about none;
    `scale_by_sigma`: divide by t before the last layer, as the first version (`ncsnpp`) does, or "after" it, as the one
    for 48 kHz (`ncsnpp_48k`) does; that has no `pyramids`: the image joins at the first layer only, and one layer makes
    the output. Defaults as in the public code's second version, where `bins` is called `image_size`.

    `tokens`: size of the logits that it can be given (0: none); `condition`: channels of what it makes of them;
    `centred` as in `LogitsEmbedding`. They are added before the middle and before each level on the way up, in up to 16
    bands of frequency, through weights that start at zero and have no bias: without logits, or untrained, it is the
    public network.

    Frames are filled up to a multiple of 2^(levels - 1) by reflection, as the public code does with y before
    it samples. Normalisation and attention look at all frames, so the items of a batch run together only
    where they fill up to the same length: batching and padding change nothing.
    """

    def __init__(self, bins: int = 256, nf: int = 128, ch_mult: tuple[int, ...] = (1, 1, 2, 2, 2, 2, 2),
                 num_res_blocks: int = 2, attn_resolutions: tuple[int, ...] = (16,),
                 fourier_scale: float = 16.0, init_scale: float = 0.0, dropout: float = 0.0,
                 scale_by_sigma: bool | str = False, tokens: int = 0, condition: int = 128, centred: bool = False,
                 pyramids: bool = True):
        super().__init__()
        self.bins, self.stride, self.num_res_blocks = bins, 2 ** (len(ch_mult) - 1), num_res_blocks
        self.scale_by_sigma, self.pyramids, self.compiled = scale_by_sigma, pyramids, None
        if bins % self.stride:
            raise ValueError(f"{bins} frequency bins cannot be halved {len(ch_mult) - 1} times; choose fewer "
                             f"levels, or n_fft so that n_fft / 2 + 1 is a multiple of {self.stride}")
        self.attends = tuple(bins >> level in attn_resolutions for level in range(len(ch_mult)))
        self.shrink, self.grow = Resample("down"), Resample("up")
        self.output_layer = nn.Conv2d(SPECTRAL_CHANNELS, 2, 1)
        channels = [nf * multiplier for multiplier in ch_mult]
        build = _Builder(nf, channels, num_res_blocks, self.attends, init_scale, dropout, pyramids)
        self.all_modules = nn.ModuleList([
            GaussianFourierProjection(nf, fourier_scale), init(nn.Linear(2 * nf, 4 * nf)),
            init(nn.Linear(4 * nf, 4 * nf)), conv3x3(SPECTRAL_CHANNELS, nf),
            *build.down(), *build.middle(), *build.up()])
        self.embed_logits = LogitsEmbedding(tokens, condition, centred=centred) if tokens else None
        places = [(channels[-1], len(channels) - 1)]  # the middle, then the levels from coarse to fine
        places += [(channels[min(level + 1, len(channels) - 1)], level) for level in reversed(range(len(channels)))]
        self.inject = nn.ModuleList(Injection(condition, width, bins >> level, 2**level)
                                    for width, level in (places if tokens else ()))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor, mask: Tensor | None = None,
                logits: Tensor | None = None) -> Tensor:
        """Estimate x0 (B, 1, F, N) from the state x_t at time t (B,) > 0 and the degraded y.

        `mask` (B, N) marks the first frames of each item; the estimate is zero elsewhere. `logits` (B, N, V) are those
        of the content at each frame; items of zeros are given none, just as with None.
        """
        if x_t.shape[-2] != self.bins:
            raise ValueError(f"the network is built for {self.bins} bins, the spectrum has {x_t.shape[-2]}")
        image = torch.cat([x_t.real, x_t.imag, y.real, y.imag], dim=1)
        content = None if logits is None else logits.transpose(1, 2)
        if mask is None:
            frames = torch.full((len(image),), image.shape[-1], device=image.device)
            return self._estimate(image, t, frames, image.shape[-1], content)
        frames = mask.long().sum(dim=1)
        blocks = (frames + self.stride - 1) // self.stride
        out = torch.zeros_like(y)
        for count in blocks[blocks > 0].unique().tolist():
            rows, end = (blocks == count).nonzero().squeeze(1), min(count * self.stride, image.shape[-1])
            estimate = self._estimate(image[rows, ..., :end], t[rows], frames[rows], end,
                                      None if content is None else content[rows, :, :end])
            out[rows, ..., :end] = estimate.to(out.dtype)
        return out * mask[:, None, None]

    def _estimate(self, image: Tensor, t: Tensor, frames: Tensor, end: int, logits: Tensor | None) -> Tensor:
        """The first `end` frames of the estimate from the image (B, 4, F, end) and logits (B, V, end)."""
        length = end + -end % self.stride
        image = reflect_pad(image, frames, 0, length)
        features = None
        if logits is not None:
            logits = reflect_pad(logits, frames, 0, length)
            features = self.embed_logits(logits, torch.ones_like(logits[:, 0]))
        spectrum = (self.compiled or self.evaluate)(image, t, features).float()
        return torch.complex(*spectrum.chunk(2, dim=1))[..., :end]

    def compile(self, **options) -> None:
        """torch.compile the part that computes, in place; grouping and complex numbers around it stay as they are."""
        self.compiled = torch.compile(self.evaluate, **options)

    def __getstate__(self) -> dict:
        """Copies and pickles are not compiled."""
        return {**super().__getstate__(), "compiled": None}

    def evaluate(self, image: Tensor, t: Tensor, features: Tensor | None = None) -> Tensor:
        """Real and imaginary part (B, 2, F, N) from the image (B, 4, F, N), N a multiple of the stride.

        `features` (B, condition, N): what was made of the logits.
        """
        layers, inject = iter(self.all_modules), iter(self.inject)
        fourier, first, second = next(layers), next(layers), next(layers)
        embedding = second(F.silu(first(fourier(t.log()))))
        skips = self._down(layers, image, embedding)
        block_in, attention, block_out = next(layers), next(layers), next(layers)
        h = skips[-1] if features is None else next(inject)(skips[-1], features)
        h = block_out(attention(block_in(h, embedding)), embedding)
        image, sigma = self._up(layers, inject, h, skips, embedding, features), t.view(-1, 1, 1, 1)
        if self.scale_by_sigma == "after":
            return self.output_layer(image) / sigma
        return self.output_layer(image / sigma if self.scale_by_sigma else image)

    def _down(self, layers: Iterator[nn.Module], image: Tensor, embedding: Tensor) -> list[Tensor]:
        """All feature maps of the way down; the image, ever smaller, joins in at each level (input skip)."""
        skips = [next(layers)(image)]
        for level, attends in enumerate(self.attends):
            if level:
                h = next(layers)(skips[-1], embedding)
                if self.pyramids:
                    image = self.shrink(image)
                    h = next(layers)(image, h)
                skips.append(h)
            for _ in range(self.num_res_blocks):
                h = next(layers)(skips[-1], embedding)
                skips.append(next(layers)(h) if attends else h)
        return skips

    def _up(self, layers: Iterator[nn.Module], inject: Iterator[nn.Module], h: Tensor, skips: list[Tensor],
            embedding: Tensor, features: Tensor | None) -> Tensor:
        """The image (B, 4, F, N) to which each level adds its detail, from coarse to fine (output skip).

        Without pyramids: the image that is made of the last level.
        """
        image: Tensor | None = None
        for level in reversed(range(len(self.attends))):
            h = h if features is None else next(inject)(h, features)
            for _ in range(self.num_res_blocks + 1):
                h = next(layers)(torch.cat([h, skips.pop()], dim=1), embedding)
            h = next(layers)(h) if self.attends[level] else h
            if self.pyramids or not level:
                norm, to_image = next(layers), next(layers)
                detail = to_image(F.silu(norm(h)))
                image = detail if image is None else self.grow(image) + detail
            h = next(layers)(h, embedding) if level else h
        return image


class _Builder:
    """The layers of each part of the network, in the order in which `NCSNpp` takes them."""

    def __init__(self, nf: int, channels: list[int], blocks: int, attends: tuple[bool, ...],
                 init_scale: float, dropout: float, pyramids: bool):
        self.nf, self.channels, self.blocks, self.attends, self.pyramids = nf, channels, blocks, attends, pyramids
        self.init_scale = init_scale
        self.options = {"embedding": 4 * nf, "init_scale": init_scale, "dropout": dropout}

    def down(self) -> Iterator[nn.Module]:
        before = self.nf
        for level, after in enumerate(self.channels):
            if level:
                yield ResidualBlock(before, before, resample="down", **self.options)
                if self.pyramids:
                    yield InputSkip(SPECTRAL_CHANNELS, before)
            for _ in range(self.blocks):
                yield ResidualBlock(before, after, **self.options)
                if self.attends[level]:
                    yield AttentionBlock(after, self.init_scale)
                before = after

    def middle(self) -> Iterator[nn.Module]:
        channels = self.channels[-1]
        yield ResidualBlock(channels, channels, **self.options)
        yield AttentionBlock(channels, self.init_scale)
        yield ResidualBlock(channels, channels, **self.options)

    def up(self) -> Iterator[nn.Module]:
        skips = [self.nf]
        for level, after in enumerate(self.channels):
            skips += [skips[-1]] * bool(level) + [after] * self.blocks
        before = self.channels[-1]
        for level in reversed(range(len(self.channels))):
            after = self.channels[level]
            for _ in range(self.blocks + 1):
                yield ResidualBlock(before + skips.pop(), after, **self.options)
                before = after
            if self.attends[level]:
                yield AttentionBlock(after, self.init_scale)
            if self.pyramids or not level:
                yield group_norm(after)
                yield conv3x3(after, SPECTRAL_CHANNELS, self.init_scale)
            if level:
                yield ResidualBlock(after, after, resample="up", **self.options)
