"""The logits process of a frozen classifier: a diffusion process, its denoising network and the space of its logits."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from cdasr.classifiers.logits import Logits, frame_mask
from cdasr.classifiers.logits_space import LogitsSpace
from cdasr.coupled.noise import FrameNoise, Seed
from cdasr.coupled.schema import LogitsProcess
from cdasr.diffusion.coupling import Observation, Side
from cdasr.diffusion.processes import make_process
from cdasr.diffusion.samplers import time_grid
from cdasr.networks import make_network
from cdasr.runtime.device import autocast
from cdasr.runtime.plain_data import checked

SAMPLING = {"steps": 4, "method": "deterministic", "spacing": "uniform"}


def observed(logits: Logits, space: LogitsSpace) -> Observation:
    """Logits of the classifier, brought into the space and zero beyond their lengths; they go along as context."""
    values, mask = space.encode(logits.values), frame_mask(logits)
    return Observation(values if mask is None else values * mask[..., None], context=logits)


class LogitsModel(nn.Module):
    """From what the classifier makes of the degraded and of the enhanced signal to the logits of the clean one."""

    def __init__(self, network: nn.Module, process, space: LogitsSpace, config: dict):
        super().__init__()
        self.network, self.process, self.space, self.config = network, process, space, config
        self.precision: str | None = None  # of the network's evaluations; None: that of the surroundings

    @classmethod
    def from_config(cls, config: dict) -> LogitsModel:
        """Build from plain data `{process, network, space, sampling, hidden_layers}`, with random weights.

        Raises ValueError for anything else.
        """
        checked(LogitsProcess, config, "logits process")
        return cls(make_network(config["network"]), make_process(config["process"]), LogitsSpace(**config["space"]),
                   config)

    def with_network(self, network: nn.Module) -> LogitsModel:
        """The same model around another network of the same shape."""
        return LogitsModel(network, self.process, self.space, self.config)

    @property
    def tokens(self) -> int:
        """Size of the logits."""
        return self.config["network"]["tokens"]

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Layers of the classifier whose hidden states the network is given."""
        return tuple(self.config.get("hidden_layers", (-1,)))

    @property
    def sampling(self) -> dict:
        """Default `steps`, `method` and `spacing` of the time grid."""
        return {**SAMPLING, **self.config.get("sampling", {})}

    def observation(self, logits: Logits) -> Observation:
        """`observed` in the model's space."""
        return observed(logits, self.space)

    def estimate(self, l_s: Tensor, s: Tensor, heard: Observation, seen: Observation) -> Tensor:
        """D(l_s, s; C(y), C(x_hat0)) (B, [M,] V), both in the space; `seen` is `heard` where there is no x_hat0."""
        with autocast(self.precision, l_s.device):
            return self.network(l_s, s, heard.logits, seen.logits, heard.context.hidden, seen.context.hidden,
                                frame_mask(heard.context))

    def side(self, heard: Observation, steps: int | None = None, seed: Seed = 0, method: str | None = None) -> Side:
        """The process, ready to be sampled from C(y); `seed` and `method` as in `SignalProcess.side`."""
        sampling, y = self.sampling, heard.logits
        mask = frame_mask(heard.context)
        grid = time_grid(self.process, steps or sampling["steps"], sampling["spacing"]).to(y.device)
        frames = y.new_full((len(y),), y.shape[1], dtype=int) if mask is None else mask.sum(dim=1)
        return Side(self.process, lambda l_s, s, y, seen: self.estimate(l_s, s, heard, seen), y, grid,
                    method or sampling["method"], FrameNoise(seed, frames, axis=1),
                    None if mask is None else mask[..., None])

    def decoded(self, l_hat: Tensor, like: Logits) -> Logits:
        """An estimate in the space as logits that the classifier decodes."""
        return replace(like, values=self.space.decode(l_hat), hidden=None)
