"""Predictive enhancers as signal models: one evaluation of a network of SpeechBrain, no diffusion process.

The networks are SpeechBrain's own, with what its inference classes do around them. Each recording is enhanced by itself
at its own length, since they are not made for padding. Logits cannot guide them, so that only the strategies without
guidance run: none, enhanced, oa, fused, auto.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.models import SignalModel
from cdasr.coupled.schema import Predictive
from cdasr.diffusion.samplers import Seed
from cdasr.runtime.device import autocast
from cdasr.runtime.plain_data import checked
from cdasr.speech.signal_model import SpectrogramModel


class MetricGANPlus(nn.Module):
    """Mask of log-magnitudes by a bidirectional LSTM (Fu et al. 2021), for waveforms (B, T) of one length.

    SpeechBrain also scales what comes out to a peak of 1. Here the level of the input stays, which `oa` relies on.
    """

    def __init__(self, sample_rate: int, n_fft: int = 512, win_length: float = 32, hop_length: float = 16):
        from speechbrain.lobes.models.MetricGAN import EnhancementGenerator
        from speechbrain.processing.features import ISTFT, STFT

        super().__init__()
        options = {"sample_rate": sample_rate, "n_fft": n_fft, "win_length": win_length, "hop_length": hop_length}
        self.stft, self.istft = STFT(**options), ISTFT(**options)  # both with Hamming windows
        self.enhance_model = EnhancementGenerator(input_size=n_fft // 2 + 1)

    def forward(self, waves: Tensor) -> Tensor:
        from speechbrain.processing.features import spectral_magnitude
        from speechbrain.processing.signal_processing import resynthesize

        features = torch.log1p(spectral_magnitude(self.stft(waves), power=0.5))
        mask = self.enhance_model(features, lengths=waves.new_ones(len(waves))).float()
        return resynthesize(torch.expm1(mask * features), waves, self.stft, self.istft, normalize_wavs=False)


class MimicResNet(nn.Module):
    """Wide ResNet trained with the mimic loss (Bagchi et al. 2018): a mask of the complex spectrum of waveforms (B, T).

    SpeechBrain's module leaves out the samples after the last whole hop; here they come from the last frame.
    """

    def __init__(self, sample_rate: int, n_fft: int = 512, win_length: float = 32, hop_length: float = 16,
                 channel_counts: tuple[int, ...] = (128, 128, 256, 256, 512, 512), dense_count: int = 2,
                 dense_nodes: int = 1024, mask_weight: float = 0.99):
        from speechbrain.lobes.models.EnhanceResnet import EnhanceResnet

        super().__init__()
        self.enhance_model = EnhanceResnet(n_fft, win_length, hop_length, sample_rate, list(channel_counts),
                                           dense_count, dense_nodes, mask_weight=mask_weight)

    def forward(self, waves: Tensor) -> Tensor:
        model = self.enhance_model
        spectrum = model.stft(waves)
        mask = model.DNN(model.CNN(model.extract_feats(spectrum))).float().clamp(0, 1).unsqueeze(-1)
        share = model.mask_weight * mask + (1 - model.mask_weight)
        return model.istft(share * spectrum, sig_length=waves.shape[1])


class SepFormer(nn.Module):
    """Transformer over chunks of learnt features (Subakan et al. 2021), for waveforms (B, T) of one length.

    It was trained with a loss that does not see the scale, so what comes out is scaled to fit the input best.
    """

    def __init__(self, sample_rate: int, channels: int = 256, kernel_size: int = 16, blocks: int = 2, layers: int = 8,
                 heads: int = 8, d_ffn: int = 1024, chunk: int = 250):
        from speechbrain.lobes.models.dual_path import Decoder, Dual_Path_Model, Encoder, SBTransformerBlock

        super().__init__()
        intra, inter = (SBTransformerBlock(layers, channels, heads, d_ffn, dropout=0.0, use_positional_encoding=True,
                                           norm_before=True) for _ in range(2))
        self.encoder = Encoder(kernel_size, channels)
        self.masknet = Dual_Path_Model(channels, channels, intra, inter, blocks, K=chunk, num_spks=1,
                                       linear_layer_after_inter_intra=False)
        self.decoder = Decoder(channels, 1, kernel_size=kernel_size, stride=kernel_size // 2, bias=False)

    def forward(self, waves: Tensor) -> Tensor:
        features = self.encoder(waves)
        found = self.decoder(features * self.masknet(features)[0]).float().view(len(waves), -1)[:, :waves.shape[1]]
        found = nn.functional.pad(found, (0, waves.shape[1] - found.shape[1]))
        gain = (found * waves).sum(dim=1) / found.square().sum(dim=1).clamp_min(1e-12)
        return found * gain[:, None]


NETWORKS = {"metricgan_plus": MetricGANPlus, "mimic_resnet": MimicResNet, "sepformer": SepFormer}


@dataclass
class Recordings:
    """Degraded waveforms `y` (B, T), zero beyond their `lengths` (B,) in samples."""

    y: Tensor
    lengths: Tensor
    mask: None = None


class Prediction:
    """In the place of a `ReverseProcess`: a single evaluation of the network."""

    def __init__(self, model: PredictiveModel, recordings: Recordings):
        self.model, self.recordings, self.nfe = model, recordings, 0

    @property
    def y(self) -> Tensor:
        return self.recordings.y

    def sample(self, given: Tensor | None = None) -> Tensor:
        """Enhanced waveforms (B, T), each item by itself at its own length, zero beyond it."""
        if given is not None:
            raise ValueError("a predictive enhancer cannot be guided by logits; choose none, enhanced, oa or fused")
        self.nfe += 1
        y, lengths = self.y, self.recordings.lengths
        enhanced = torch.zeros_like(y)
        with autocast(self.model.precision, y.device):
            for length in lengths.unique().tolist():
                for row in (lengths == length).nonzero().squeeze(1).tolist():
                    enhanced[row, :length] = self.model.network(y[row:row + 1, :length])[0].to(y.dtype)
        return enhanced


class PredictiveModel(SignalModel):
    """Degraded waveforms (B, T) with `lengths` (B,) samples to enhanced ones, by a network of `NETWORKS`."""

    defaults = {"steps": 1, "method": "deterministic", "spacing": "uniform"}
    guided = False

    def __init__(self, network: nn.Module, config: dict, precision: str | None = None):
        super().__init__(network, None, config, precision)

    @classmethod
    def from_config(cls, config: dict) -> PredictiveModel:
        """Build from plain data `{kind, sample_rate, network}`, with random weights. Raises ValueError."""
        checked(Predictive, config, "predictive enhancer")
        options = dict(config["network"])
        try:
            network = NETWORKS[options.pop("name")](config["sample_rate"], **options)
        except (TypeError, ArithmeticError, LookupError, RuntimeError, AssertionError) as error:  # that do not fit
            raise ValueError(f"network: {' '.join(str(error).split()) or type(error).__name__}") from None
        return cls(network.eval(), config)

    def like(self, network: nn.Module, config: dict, precision: str | None) -> PredictiveModel:
        return PredictiveModel(network, config, precision)

    def with_sampling(self, **options) -> PredictiveModel:
        _check_steps(options.get("steps"))
        return self.like(self.network, self.config, self.precision).train(self.training)

    @property
    def sampling(self) -> dict:
        return dict(self.defaults)

    @property
    def sample_rate(self) -> int:
        return self.config["sample_rate"]

    def analyse(self, waves: Tensor, lengths: Tensor) -> Recordings:
        return Recordings(waves, lengths)

    def synthesise(self, x: Tensor, recordings: Recordings) -> Tensor:
        return x

    def target(self, waves: Tensor, degraded: Recordings) -> Tensor:
        raise ValueError(NOT_TRAINED)

    def align(self, values: Tensor, noisy: Logits, recordings: Recordings) -> Tensor:
        raise ValueError(NOT_TRAINED)

    def with_injection(self, tokens: int, condition: int) -> SignalModel:
        raise ValueError(NOT_TRAINED)

    def reverse(self, analysis: Recordings, align: Callable[[Tensor], Tensor] | None = None, steps: int | None = None,
                seed: Seed = 0, method: str | None = None, guidance: float = 1.0) -> Prediction:
        """The one evaluation. Raises ValueError for more `steps`, and for a `method` that would draw samples."""
        _check_steps(steps)
        if method not in (None, "deterministic"):
            raise ValueError("a predictive enhancer has one answer and draws no samples; leave --samples out")
        return Prediction(self, analysis)


NOT_TRAINED = ("a predictive enhancer has no diffusion process that could be trained further or guided by logits; "
               "start from a diffusion model, e.g. one of cdasr import-sgmse")


class SpeechSignal:
    """The signal model of a speech package: a diffusion process or a predictive enhancer."""

    @staticmethod
    def from_config(config: dict) -> SignalModel:
        """Build from plain data, with random weights. Raises ValueError for anything else."""
        kind = PredictiveModel if config.get("kind") == "predictive" else SpectrogramModel
        return kind.from_config(config)


def network_options(name: str) -> list[str]:
    """The options of a network of `NETWORKS`, without the sampling rate."""
    return list(inspect.signature(NETWORKS[name]).parameters)[1:]


def _check_steps(steps: int | None) -> None:
    if steps not in (None, 1):
        raise ValueError(f"a predictive enhancer takes one step, got {steps}; leave --steps out")
