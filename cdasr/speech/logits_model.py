"""The logits process of a frozen recogniser: a diffusion process, its denoising network and the space of its logits."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from cdasr.classifiers.ctc import Logits
from cdasr.classifiers.logits_space import LogitsSpace
from cdasr.device import autocast
from cdasr.diffusion.coupling import Observation, Side
from cdasr.diffusion.processes import make_process
from cdasr.diffusion.samplers import time_grid
from cdasr.networks import make_network
from cdasr.speech.signal_model import FrameNoise, Seed

SAMPLING = {"steps": 4, "method": "deterministic", "spacing": "uniform"}


class LogitsModel(nn.Module):
    """From what the recogniser makes of the degraded and of the enhanced speech to the logits of the clean speech."""

    def __init__(self, network: nn.Module, process, space: LogitsSpace, config: dict):
        super().__init__()
        self.network, self.process, self.space, self.config = network, process, space, config
        self.precision: str | None = None  # of the network's evaluations; None: that of the surroundings

    @classmethod
    def from_config(cls, config: dict) -> LogitsModel:
        """Build from plain data `{process, network, space, sampling, hidden_layers}`, with random weights."""
        return cls(make_network(config["network"]), make_process(config["process"]), LogitsSpace(**config["space"]),
                   config)

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Layers of the recogniser whose hidden states the network is given."""
        return tuple(self.config.get("hidden_layers", (-1,)))

    @property
    def sampling(self) -> dict:
        """Default `steps`, `method` and `spacing` of the time grid."""
        return {**SAMPLING, **self.config.get("sampling", {})}

    def observation(self, logits: Logits) -> Observation:
        """Logits of the recogniser, brought into the space and zero beyond their lengths; they go along as context."""
        return Observation(self.space.encode(logits.values) * frame_mask(logits)[..., None], context=logits)

    def estimate(self, l_s: Tensor, s: Tensor, heard: Observation, seen: Observation) -> Tensor:
        """D(l_s, s; C(y), C(x_hat0)) (B, M, V), both in the space; `seen` is `heard` where there is no x_hat0."""
        with autocast(self.precision, l_s.device):
            return self.network(l_s, s, heard.logits, seen.logits, heard.context.hidden, seen.context.hidden,
                                frame_mask(heard.context))

    def side(self, heard: Observation, steps: int | None = None, seed: Seed = 0, method: str | None = None) -> Side:
        """The process, ready to be sampled from C(y); `seed` and `method` as in `SignalModel.side`."""
        sampling = self.sampling
        mask = frame_mask(heard.context)
        grid = time_grid(self.process, steps or sampling["steps"], sampling["spacing"]).to(heard.logits.device)
        noise = FrameNoise(seed, mask.sum(dim=1), axis=1)
        return Side(self.process, lambda l_s, s, y, seen: self.estimate(l_s, s, heard, seen), heard.logits, grid,
                    method or sampling["method"], noise, mask[..., None])

    def decoded(self, l_hat: Tensor, like: Logits) -> Logits:
        """An estimate in the space as logits that the recogniser decodes."""
        return replace(like, values=self.space.decode(l_hat), hidden=None)


def frame_mask(logits: Logits) -> Tensor:
    """Valid frames (B, M) of a batch of logits."""
    return torch.arange(logits.values.shape[1], device=logits.values.device) < logits.lengths[:, None]
