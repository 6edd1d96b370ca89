"""What may stand in a model package's `config.json`.

The one place for its types and limits; what a value means is said where it is used. Names of networks, processes
and samplers are checked here, so that a package that loads can also be run. `SignalModel.from_config` and its like
check by these, which covers packages, checkpoints and the model sections of a recipe's hparams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, create_model, model_validator

from cdasr.coupled.strategies import STRATEGIES, answers_of, check_strategies, options_of
from cdasr.coupled.voting import size
from cdasr.runtime.plain_data import Count, Many, Positive, Share, Size, Steps, Strict, Width, checked

Zero = Annotated[int, Field(ge=0, le=1024)]  # a number of layers or heads, 0 for none
Factor = Annotated[int, Field(ge=1, le=64)]


class STFT(Strict):
    sample_rate: int = Field(16_000, ge=1000, le=384_000)
    n_fft: int = Field(510, ge=2, le=65_536)
    hop: int = Field(255, ge=1, le=65_536)
    exponent: float = Field(0.5, ge=0.05, le=10.0)
    scale: float = Field(0.3, ge=1e-6, le=1e6)
    window: str = "hann"
    edges: str = "zeros"


# -- processes --------------------------------------------------------------------------------------------------------


class VP(Strict):
    name: Literal["vp"]
    schedule: str = "cosine"


class OUVE(Strict):
    name: Literal["ouve"]
    theta: float = Field(1.5, gt=0.0, le=100.0)
    sigma_min: float = Field(0.05, gt=0.0, le=100.0)
    sigma_max: float = Field(0.5, gt=0.0, le=100.0)
    t_min: float = Field(0.03, gt=0.0, lt=1.0)


class SBVE(Strict):
    name: Literal["sbve"]
    k: float = Field(2.6, gt=1.0, le=1000.0)
    c: float = Field(0.4, gt=0.0, le=1000.0)


Process = Annotated[VP | OUVE | SBVE, Field(discriminator="name")]


# -- networks: defaults are those of their classes --------------------------------------------------------------------


class Injected(Strict):
    """What networks that can be conditioned on logits have in common."""

    tokens: Annotated[int, Field(ge=0, le=2_000_000)] = 0
    condition: Size = 128
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class TFUNet(Injected):
    name: Literal["tf_unet"]
    bins: Size = 256
    channels: Many[Size] = [1]
    strides: Many[Factor] = [1]
    dim: Size = 1
    blocks: Count = 1
    attention_every: Zero = 0
    heads: Factor = 1
    centred: bool = False


class NCSNpp(Injected):
    name: Literal["ncsnpp"]
    bins: Size = 256
    nf: Size = 128
    ch_mult: Annotated[Many[Factor], Field(max_length=12)] = [1]
    num_res_blocks: Factor = 2
    attn_resolutions: list[Size] | tuple[Size, ...] = ()
    fourier_scale: Positive = 16.0
    init_scale: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    scale_by_sigma: bool | Literal["after"] = False
    centred: bool = False
    pyramids: bool = True


class ImageUNet(Injected):
    name: Literal["image_unet"]
    colours: Literal[1, 3] = 3
    channels: Annotated[Many[Size], Field(max_length=12)] = [1]
    blocks: Factor = 2
    patch: Factor = 1
    attention: Zero = 4
    embedding: Size = 128


class LogitsNet(Strict):
    name: Literal["logits_net"]
    tokens: Width
    hidden: Width
    dim: Size = 1
    blocks: Count = 1
    attention_every: Zero = 0
    heads: Factor = 1
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    kernel: Literal[1, 3, 5, 7, 9] = 5


# -- the two models of a package --------------------------------------------------------------------------------------


class Sampling(Strict):
    steps: Steps = 1
    method: Literal["deterministic", "ancestral", "pc"] = "deterministic"
    spacing: Literal["uniform", "quadratic", "to_zero"] = "uniform"
    snr: Positive = 0.5
    corrector_steps: Zero = 1


class Preconditioning(Strict):
    target: str = "x0"
    c_in: str = "1"
    c_out: str = "1"
    c_skip: str = "0"
    network_scaling: str | None = None
    sigma_data: Positive = 0.1
    sign: Literal[1, -1] = 1


class Padding(Strict):
    multiple: Annotated[int, Field(ge=1, le=4096)]
    mode: str


class Signal(Strict):
    """A signal process of speech."""

    stft: STFT
    process: Process
    network: Annotated[TFUNet | NCSNpp, Field(discriminator="name")]
    sampling: Sampling = Sampling()
    prediction: Preconditioning = Preconditioning()
    level: str = "power"
    padding: dict = {}  # its keys are checked by SignalModel; see `_padding`

    @model_validator(mode="after")
    def _padding(self):
        if set(self.padding) == {"multiple", "mode"}:
            checked(Padding, self.padding, "padding")
        return self


class MetricGANPlus(Strict):
    name: Literal["metricgan_plus"]
    n_fft: Size = 512
    win_length: Positive = 32
    hop_length: Positive = 16


class MimicResNet(MetricGANPlus):
    name: Literal["mimic_resnet"]
    channel_counts: Many[Size] = [128]
    dense_count: Count = 2
    dense_nodes: Size = 1024
    mask_weight: Share = 0.99


class SepFormer(Strict):
    name: Literal["sepformer"]
    channels: Size = 256
    kernel_size: Annotated[int, Field(ge=2, le=4096)] = 16
    blocks: Count = 2
    layers: Count = 8
    heads: Factor = 8
    d_ffn: Size = 1024
    chunk: Annotated[int, Field(ge=2, le=65_536)] = 250


class Predictive(Strict):
    """An enhancer of speech that has no diffusion process: one evaluation of its network."""

    kind: Literal["predictive"]
    sample_rate: int = Field(ge=1000, le=384_000)
    network: Annotated[MetricGANPlus | MimicResNet | SepFormer, Field(discriminator="name")]


class ImageSignal(Strict):
    """A signal process of images."""

    process: Process
    network: ImageUNet
    sampling: Sampling = Sampling()
    prediction: Preconditioning = Preconditioning()


class Space(Strict):
    scale: Positive
    origin: Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(max_length=100_000)] | None = None


class LogitsProcess(Strict):
    process: Process
    network: LogitsNet
    space: Space
    sampling: Sampling = Sampling()
    hidden_layers: Many[Annotated[int, Field(ge=-1024, le=1024)]] = [-1]

    @model_validator(mode="after")
    def _origin(self):
        if self.space.origin is not None and len(self.space.origin) != self.network.tokens:
            raise ValueError(f"space.origin has {len(self.space.origin)} numbers, network.tokens is "
                             f"{self.network.tokens}")
        return self


# -- the package ------------------------------------------------------------------------------------------------------


def strategy_options(name: str) -> type[Strict]:
    """A schema of what a package stores for a strategy: the options that the registry has for it."""
    fields = {}
    for option in options_of(name):
        kind = Annotated[option.kind, Field(ge=option.least, le=option.most)]
        fields[option.name] = (kind | None if option.optional else kind, None)
    return create_model("Options", __base__=Strict, **fields)


class Mixing(Strict):
    weight: Share = 0.0


class Context(Strict):
    """Noise around a recording: seconds on each side, dB relative to the recording."""

    seconds: Annotated[float, Field(ge=0.0, le=5.0)] = 0.0
    level: Annotated[float, Field(ge=-120.0, le=0.0)] = -40.0


Measures = Annotated[list[Annotated[float, Field(ge=-1e9, le=1e9)]], Field(min_length=6, max_length=6)]


class Rule(Strict):
    """A `DomainCheck`."""

    mean: Measures
    scale: Annotated[list[Positive], Field(min_length=6, max_length=6)]
    weights: Measures
    bias: Annotated[float, Field(ge=-1e9, le=1e9)]


class DomainChecks(Strict):
    coupled: Rule | None = None
    enhanced: Rule | None = None
    measured: dict = {}  # how it was fitted, and its error rates


Number = Annotated[float, Field(ge=-1e9, le=1e9)]


class Linear(Strict):
    """A `LinearRule`; how many measures it takes is checked by what it is for."""

    mean: Many[Number]
    scale: Many[Positive]
    weights: Many[Number]
    bias: Number


class Auto(Strict):
    """An `AutoRule`."""

    strategy: str
    rules: dict[str, Linear]
    measured: dict = {}  # how it was fitted, and what it is expected to give

    @model_validator(mode="after")
    def _strategies(self):
        check_answers(self.strategy, list(self.rules), "rules")
        if "none" in self.rules:
            raise ValueError("rules.none: that is what the other answers are compared with")
        return self


class Rover(Strict):
    """A `Vote`; how many weights it takes depends on the answers."""

    strategy: str
    answers: Annotated[list[str], Field(min_length=1, max_length=8)]
    weights: Many[Number]
    margin: Number = 0.0
    measured: dict = {}  # how it was fitted, and what it is expected to give

    @model_validator(mode="after")
    def _answers(self):
        check_answers(self.strategy, [name for name in self.answers if name != "oa"], "answers")
        if len(set(self.answers)) < len(self.answers):
            raise ValueError(f"answers: each votes once, got {', '.join(self.answers)}")
        if len(self.weights) != (count := size(len(self.answers))):
            raise ValueError(f"weights: expected {count} numbers for {len(self.answers)} answers, got "
                             f"{len(self.weights)}")
        return self


def check_answers(strategy: str, answers: Sequence[str], key: str) -> None:
    """Raise ValueError for a strategy that gives no answers to choose from, or for answers that it does not give."""
    check_strategies([strategy])
    chosen = STRATEGIES[strategy]
    if chosen.needs_rule or not chosen.needs_signal or strategy == "oa":
        raise ValueError(f"strategy {strategy!r}: expected enhanced, or one that moves both processes")
    if unknown := [name for name in answers if name not in answers_of(strategy)]:
        raise ValueError(f"{key}.{unknown[0]}: there are {key} for {', '.join(answers_of(strategy))}")


class About(Strict):
    """What a package is for, in words that are shown when it is used."""

    task: Annotated[str, Field(max_length=200)] = ""
    language: Annotated[str, Field(max_length=200)] = ""
    vocabulary: Annotated[str, Field(max_length=200)] = ""


class Package(Strict):
    """`config.json` of a model package; the two models are checked by the domain's own schema."""

    format: Literal[1]
    domain: Literal["speech", "images"] = "speech"
    recogniser: str | None = None
    signal: dict
    logits: dict | None = None
    strategy: str = "enhanced"
    strategies: dict[str, dict] = {}  # their options are checked by `strategy_options`
    observation_adding: Mixing = Mixing()
    fused: Mixing = Mixing()
    image_size: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=2, max_length=2)] | None = None
    imported: dict[str, str] | None = None  # where an imported checkpoint came from
    about: About = About()
    context: Context = Context()
    out_of_domain: DomainChecks = DomainChecks()
    auto: Auto | None = None
    rover: Rover | None = None
    other_recognisers: bool = False  # whether its signal process serves other recognisers, without the logits process

    @model_validator(mode="after")
    def _options(self):
        for name, options in self.strategies.items():
            checked(strategy_options(name), options, f"strategies.{name}")
        return self
