"""The signal process of images: a diffusion process over pixels and its denoising network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.models import SignalModel
from cdasr.coupled.schema import ImageSignal
from cdasr.diffusion.processes import make_process
from cdasr.networks import make_network
from cdasr.runtime.plain_data import checked


@dataclass
class Pixels:
    """Degraded images `y` (B, C, H, W) as they are diffused; pictures have neither padding nor lengths."""

    y: Tensor
    mask: None = None
    lengths: None = None


class ImageModel(SignalModel):
    """Degraded images (B, C, H, W) in [0, 1] to enhanced ones; what is diffused lies in [-1, 1]."""

    defaults = {"steps": 10, "method": "deterministic", "spacing": "uniform"}

    @classmethod
    def from_config(cls, config: dict) -> ImageModel:
        """Build from plain data `{process, network, sampling}`, with random weights. Raises ValueError."""
        checked(ImageSignal, config, "signal process")
        return cls(make_network(config["network"]), make_process(config["process"]), config)

    def like(self, network: nn.Module, config: dict, precision: str | None) -> ImageModel:
        return ImageModel(network, self.process, config, precision)

    def analyse(self, signals: Tensor, lengths: None = None) -> Pixels:
        return Pixels(2.0 * signals - 1.0)

    def target(self, clean: Tensor, degraded: Pixels) -> Tensor:
        return 2.0 * clean - 1.0

    def synthesise(self, x: Tensor, analysis: Pixels) -> Tensor:
        """Images of an estimate, within [0, 1]."""
        return (0.5 * (x + 1.0)).clamp(0.0, 1.0)

    def align(self, values: Tensor, noisy: Logits, analysis: Pixels) -> Tensor:
        """Logits (B, V) belong to the whole picture."""
        return values
