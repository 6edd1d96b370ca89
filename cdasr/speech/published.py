"""The network of the public SGMSE+ checkpoints under two processes, with random weights: what speed is measured on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from cdasr.runtime.device import resolve_precision
from cdasr.speech.evaluation import noise
from cdasr.speech.signal_model import SpectrogramModel

PUBLISHED = {  # name: process and sampler of NCSN++ v2 at its published size
    "NCSN++ v2, bridge, 4 steps": {
        "process": {"name": "sbve"}, "sampling": {"steps": 4, "method": "deterministic", "spacing": "uniform"}},
    "NCSN++ v2, public sampler (OUVE, 30 steps, predictor-corrector)": {
        "process": {"name": "ouve"}, "prediction": {"target": "score", "sign": -1},
        "sampling": {"steps": 30, "method": "pc", "spacing": "to_zero"}}}
PUBLIC_STFT = {"n_fft": 510, "hop": 128, "scale": 0.15, "edges": "reflect"}
RATE = 16_000


def published_models(device: str, precision: str = "fp32", compile: bool = False, channels_last: bool = False,
                     seconds: float = 4.0, network: Mapping[str, object] | None = None,
                     ) -> dict[str, Callable[[], tuple[SpectrogramModel, Tensor, Tensor]]]:
    """Functions, by name, that make each of PUBLISHED, with a batch of one waveform of noise and its length.

    `network`: options of `NCSNpp`, by default the published size.
    """
    def make(config: Mapping) -> tuple[SpectrogramModel, Tensor, Tensor]:
        model = SpectrogramModel.from_config({"stft": PUBLIC_STFT, "level": "peak", **config,
                                         "padding": {"multiple": 64, "mode": "reflect"},
                                         "network": {"name": "ncsnpp", **(network or {})}}).to(device).eval()
        model = model.optimised(resolve_precision(precision, device), compile, channels_last)
        wave = noise(seconds, RATE).to(device)
        return model, wave[None], torch.tensor([len(wave)], device=device)
    return {name: lambda config=config: make(config) for name, config in PUBLISHED.items()}
