"""Denoiser over logits: (B, M, V) along the frames of an utterance, or (B, V) of a picture."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cdasr.networks.layers import FrameNorm, TimeEmbedding, Trunk, zero_init


class LogitsNet(nn.Module):
    """Estimate the clean logits l0 from a state l_s, C(y), and C of the latest signal estimate.

    `tokens`: V; `hidden`: size of the classifier's hidden states. The estimate mixes the three logits, frame by frame,
    and adds a correction; untrained it returns those of the signal estimate. No condition has a bias, so that one
    which is dropped (None, or zeros for some items) says nothing at all. With a `kernel` of 1 and `attention_every` of
    0 each frame is estimated by itself: what a decoder's tokens need, which come one by one.
    """

    def __init__(self, tokens: int, hidden: int, dim: int = 160, blocks: int = 8, attention_every: int = 4,
                 heads: int = 4, dropout: float = 0.1, kernel: int = 5):
        super().__init__()
        self.framewise = kernel == 1 and not attention_every
        self.embed_time = TimeEmbedding(dim)
        self.logits = nn.ModuleList(nn.Conv1d(tokens, dim, 1, bias=False) for _ in range(3))  # l_s, C(y), C(x_hat0)
        self.hidden = nn.ModuleList(nn.Conv1d(hidden, dim, 1, bias=False) for _ in range(2))  # of C(y), of C(x_hat0)
        self.norm = nn.ModuleList(FrameNorm(hidden) for _ in range(2))
        self.trunk = Trunk(dim, blocks, attention_every, heads, dropout, kernel=kernel)
        self.last = FrameNorm(dim)
        self.correct, self.mix = zero_init(nn.Conv1d(dim, tokens, 1)), zero_init(nn.Conv1d(dim, 3, 1))
        with torch.no_grad():
            self.correct.bias.zero_()
            self.mix.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))

    def forward(self, l_s: Tensor, s: Tensor, noisy: Tensor, enhanced: Tensor,
                noisy_hidden: Tensor | None = None, enhanced_hidden: Tensor | None = None,
                mask: Tensor | None = None) -> Tensor:
        """l0 (B, M, V) from the state at time s (B,); `noisy`: C(y), `enhanced`: C(x_hat0), both (B, M, V).

        The hidden states are (B, M, H); `mask` (B, M) marks valid frames. Without frames, all lack the M.
        """
        if l_s.dim() == 2:
            single = [None if value is None else value[:, None]
                      for value in (noisy, enhanced, noisy_hidden, enhanced_hidden)]
            return self(l_s[:, None], s, *single)[:, 0]
        frames = torch.ones(l_s.shape[:2], device=l_s.device) if mask is None else mask.to(l_s.dtype)
        logits = torch.stack([value * frames[..., None] for value in (l_s, noisy, enhanced)])
        z = sum(layer(value.transpose(1, 2)) for layer, value in zip(self.logits, logits))
        for layer, norm, value in zip(self.hidden, self.norm, (noisy_hidden, enhanced_hidden)):
            if value is not None:
                z = z + layer(norm(value.transpose(1, 2) * frames[:, None]))
        z = self.last(self.trunk(z, self.embed_time(s), frames))
        weights = self.mix(z).float().permute(1, 0, 2)[..., None]  # (3, B, M, 1)
        estimate = (weights * logits).sum(dim=0) + self.correct(z).float().transpose(1, 2)
        return estimate * frames[..., None]
