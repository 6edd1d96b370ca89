"""How a network is told the diffusion time: Fourier features and feature-wise affine modulation (FiLM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Diffusion times (B,) in (0, 1] to features (B, dim): sinusoids of several frequencies, then a small MLP."""

    def __init__(self, dim: int, frequencies: int = 16):
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.linspace(-1, 6, frequencies), persistent=False)
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
