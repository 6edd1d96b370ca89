"""The pipeline: a frozen recogniser, the diffusion processes around it, and the strategies that combine them.

    from cdasr import Pipeline
    pipeline = Pipeline.from_pretrained("digits")
    print(pipeline("noisy.wav").text)

A model package is a folder of plain data: `config.json`, `signal.safetensors`, `logits.safetensors` where there is a
logits process, and the recogniser in transformers' own layout under `recogniser/`, or its name and options in
`recogniser/recogniser.json`.
Reading one never runs code from it.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdasr.classifiers.ctc import CTCRecogniser, Logits, Word
from cdasr.classifiers.load import load_recogniser, save_recogniser
from cdasr.device import resolve_device, resolve_precision
from cdasr.diffusion import coupling
from cdasr.speech.audio import read_audio, resample
from cdasr.speech.logits_model import LogitsModel
from cdasr.speech.segments import split_long
from cdasr.speech.sides import Sides, strategy_steps
from cdasr.speech.signal_model import SignalModel
from cdasr.speech.words import consensus

BUNDLED = Path(__file__).parent / "models"
FORMAT = 1


@dataclass
class Transcript:
    """What a strategy makes of one recording.

    `text` is the strategy's answer and `words` the same with times and confidences; `text_enhanced` what the recogniser
    hears on the enhanced waveform `wave` (samples,), both None where nothing was enhanced. `nfe` counts evaluations of
    each network for this recording, all samples together, and `duration` is in seconds.
    """

    text: str
    strategy: str
    duration: float
    nfe: dict[str, int]
    text_enhanced: str | None = None
    wave: Tensor | None = field(default=None, repr=False)
    words: list[Word] = field(default_factory=list, repr=False)


@dataclass
class Batch:
    """Zero-padded waveforms (B, T) and their lengths (B,) in samples."""

    waves: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, waves: Sequence[Tensor], device: str) -> Batch:
        lengths = torch.tensor([len(wave) for wave in waves])
        padded = torch.nn.utils.rnn.pad_sequence(list(waves), batch_first=True)
        return cls(padded.to(device), lengths.to(device))

    def rows(self) -> list[Tensor]:
        return [wave[:length].cpu() for wave, length in zip(self.waves, self.lengths)]


@dataclass
class Outcome:
    """What a strategy returns for a batch."""

    logits: Logits
    enhanced: Batch | None = None
    enhanced_logits: Logits | None = None
    nfe: dict[str, int] = field(default_factory=dict)


class Pipeline:
    """A frozen recogniser with its signal process and, for the coupled strategies, its logits process.

    See `transcribe` for batches and `__call__` for one recording.
    """

    def __init__(self, recogniser: CTCRecogniser, signal: SignalModel, config: dict | None = None,
                 device: str = "auto", logits: LogitsModel | None = None):
        self.device = resolve_device(device)
        self.recogniser, self.signal = recogniser.to(self.device), signal.to(self.device).eval()
        self.logits = None if logits is None else logits.to(self.device).eval()
        self.config = config or {}
        if logits is not None:
            recogniser.hidden_layers = logits.hidden_layers
        if recogniser.sample_rate != signal.sample_rate:
            raise ValueError(f"the recogniser takes {recogniser.sample_rate} Hz and the signal model "
                             f"{signal.sample_rate} Hz; train the signal model at the recogniser's rate")

    @property
    def sample_rate(self) -> int:
        """Sampling rate in Hz of the waveforms that `transcribe` takes."""
        return self.recogniser.sample_rate

    @property
    def precision(self) -> str:
        """Of the processes' networks."""
        return self.signal.precision or "fp32"

    @property
    def strategies(self) -> list[str]:
        """The strategies that this package can run."""
        return [name for name in STRATEGIES if self.logits is not None or name not in NEED_LOGITS]

    def check(self, names: Sequence[str]) -> None:
        """Raise ValueError for a strategy that does not exist, or that this package cannot run."""
        check_strategies(names)
        if lacking := [name for name in names if name not in self.strategies]:
            raise ValueError(f"the strategy {lacking[0]!r} needs a logits process, which this package does not have; "
                             f"choose one of {', '.join(self.strategies)}")

    @property
    def default_strategy(self) -> str:
        """The strategy that the package was tuned for; `enhanced` where it names none."""
        return self.config.get("strategy", "enhanced")

    @property
    def oa_weight(self) -> float:
        """Share of the degraded waveform in observation adding, as chosen on development data."""
        return float(self.config.get("observation_adding", {}).get("weight", 0.0))

    def __call__(self, source: str | os.PathLike | Tensor | np.ndarray, strategy: str | None = None,
                 steps: int | None = None, seed: int = 0, rate: int | None = None, samples: int = 1,
                 guidance: float | None = None) -> Transcript:
        """Transcribe one recording of any length: a file, or mono samples (samples,) at `rate` Hz.

        `rate` defaults to `sample_rate`; the other options are those of `transcribe`. Long recordings are cut at quiet
        places and put together again.
        Raises ValueError for input that is not audio, is empty, not finite, or shorter than one frame.
        """
        if isinstance(source, (str, os.PathLike)):
            wave, _ = read_audio(source, self.sample_rate)
        else:
            wave = np.asarray(source, dtype=np.float32)
            if wave.ndim != 1 or not np.isfinite(wave).all():
                raise ValueError(f"expected finite mono samples (samples,), got shape {wave.shape}")
            wave = resample(wave, rate or self.sample_rate, self.sample_rate)
        parts = [self.transcribe([segment], strategy, steps, seed, samples, guidance)[0]
                 for segment in split_long(torch.from_numpy(wave), self.sample_rate)]
        return parts[0] if len(parts) == 1 else _join(parts)

    @torch.inference_mode()
    def transcribe(self, waves: Sequence[Tensor], strategy: str | None = None, steps: int | None = None,
                   seed: int = 0, samples: int = 1, guidance: float | None = None) -> list[Transcript]:
        """Transcribe a batch of waveforms (samples,) at `sample_rate`; the result does not depend on the batching.

        `strategy`, `steps` of each process and `guidance`, the weight of the logits in the signal process, default to
        the package's. With `samples` > 1 the processes are sampled stochastically so many times, in one batch; the
        answer is the transcript nearest to all of them, and a word's confidence is the share that agrees. Raises
        ValueError for an unknown strategy, or one that needs a logits process where the package has none.
        """
        strategy = strategy or self.default_strategy
        self.check([strategy])
        for name, count in (("steps", steps), ("samples", samples)):
            if count is not None and count < 1:
                raise ValueError(f"the number of {name} must be at least 1, got {count}")
        samples = 1 if strategy == "none" else samples
        batch = Batch.of([wave for wave in waves for _ in range(samples)], self.device)
        sampling = {"seed": [seed + sample for _ in waves for sample in range(samples)],
                    "method": "ancestral" if samples > 1 else None}
        if guidance is not None:
            sampling["guidance"] = guidance
        drawn = self._transcripts(STRATEGIES[strategy](self, batch, steps, sampling), batch, strategy)
        return [_agree(drawn[start:start + samples]) for start in range(0, len(drawn), samples)]

    def _transcripts(self, outcome: Outcome, batch: Batch, strategy: str) -> list[Transcript]:
        """One transcript for each item of the batch."""
        nfe = {"signal": 0, "logits": 0, "classifier": 0, **outcome.nfe}
        words = self.recogniser.words(outcome.logits.values, outcome.logits.lengths,
                                      **({} if outcome.logits.edges is None else {"edges": outcome.logits.edges}))
        durations = [length / self.sample_rate for length in batch.lengths.tolist()]
        made = [Transcript(text, strategy, duration, dict(nfe), words=spoken)
                for text, duration, spoken in zip(self.decode(outcome.logits), durations, words)]
        if outcome.enhanced is not None:
            for transcript, heard, wave in zip(made, self.decode(outcome.enhanced_logits), outcome.enhanced.rows()):
                transcript.text_enhanced, transcript.wave = heard, wave
        return made

    def decode(self, logits: Logits) -> list[str]:
        """Transcripts of CTC logits, in lower case."""
        return [text.lower() for text in self.recogniser.decode(logits.values, logits.lengths)]

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, device: str = "auto",
                        recogniser: str | os.PathLike | None = None, precision: str = "fp32", compile: bool = False,
                        channels_last: bool = False, **options) -> Pipeline:
        """Load a bundled package by name or a package folder.

        `recogniser`: where the package's recogniser is now, if not where the package says. `options` of the recogniser
        (`dtype`, `attn_implementation`, ...; see `load_recogniser`) replace those that the package stores. `precision`,
        `compile` and `channels_last` are those of `optimise`.
        Raises ValueError in one line when there is no such package or it cannot be used with this version.
        """
        folder = find_package(name_or_dir)
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            if config.get("format") != FORMAT:
                raise ValueError(f"package format {config.get('format')!r}, this version reads {FORMAT}")
            signal = SignalModel.from_config(config["signal"])
            signal.network.load_state_dict(_load_weights(folder / "signal.safetensors"))
            logits = LogitsModel.from_config(config["logits"]) if "logits" in config else None
            if logits is not None:
                logits.network.load_state_dict(_load_weights(folder / "logits.safetensors"))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"{folder}: not a usable cdasr model package ({str(error).splitlines()[0]})") from None
        name = config["recogniser"]
        local = folder / name
        frozen = load_recogniser(recogniser or (local if local.is_dir() else name), **options)
        tokens = signal.config["network"].get("tokens")
        if recogniser and tokens and tokens != frozen.vocab_size:
            raise ValueError(f"{folder} was trained for a recogniser with logits of {tokens} classes; {recogniser} has "
                             f"{frozen.vocab_size}")
        return cls(frozen, signal, config, device, logits).optimise(precision, compile, channels_last)

    def optimise(self, precision: str = "fp32", compile: bool = False, channels_last: bool = False) -> Pipeline:
        """Trade exactness or start-up time for speed; docs/performance.md has what it is worth.

        `precision` of the processes' networks: fp32, bf16, fp16 or auto, which is what the hardware multiplies fastest.
        The samplers and the STFT stay in fp32, the recogniser in its own. `compile`: torch.compile, whose first call
        takes a while; `channels_last`: the memory layout that convolutions on recent GPUs prefer.
        """
        for model in (self.signal, self.logits):
            if model is not None:
                model.precision = resolve_precision(precision, self.device)
                if channels_last:
                    model.network.to(memory_format=torch.channels_last)
                if compile:
                    model.network.compile(dynamic=True)
        return self

    def save_pretrained(self, folder: str | os.PathLike, half: bool = False, by_reference: bool | None = None) -> None:
        """Write a model package; `half` stores the weights of the processes as float16, which halves their files.

        `by_reference`: whether the recogniser is named or copied (see `save_recogniser`); a hub name is named.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_recogniser(self.recogniser, folder / "recogniser", by_reference)
        self.config = {**self.config, "format": FORMAT, "recogniser": "recogniser"}
        for name, model in (("signal", self.signal), ("logits", self.logits)):
            if model is not None:
                _save_weights(model.network, folder / f"{name}.safetensors", torch.float16 if half else torch.float32)
                self.config[name] = model.config
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")


# -- the strategies: (pipeline, batch, steps or None, sampling: {seed: one an item, method[, guidance]}) -> Outcome --


def none(pipeline: Pipeline, batch: Batch, steps: int | None, sampling: dict) -> Outcome:
    """The frozen recogniser alone: C(y)."""
    return Outcome(pipeline.recogniser(batch.waves, batch.lengths), nfe={"classifier": 1})


def observation_adding(pipeline: Pipeline, batch: Batch, steps: int | None, sampling: dict) -> Outcome:
    """C on a mix of the enhanced and the degraded waveform: C((1 - a) x_hat + a y) (Iwamoto et al. 2022)."""
    waves, nfe = pipeline.signal.enhance(batch.waves, batch.lengths, steps, sampling["seed"], sampling["method"])
    mixed = Batch(torch.lerp(waves, batch.waves, pipeline.oa_weight), batch.lengths)
    logits = pipeline.recogniser(mixed.waves, mixed.lengths)
    return Outcome(logits, mixed, logits, {"signal": nfe, "classifier": 1})


def coupled(name: str) -> Callable[[Pipeline, Batch, int | None, dict], Outcome]:
    """A strategy of `diffusion/coupling.py`, with the steps and options that the package stores for it.

    A recogniser whose logits belong to a hypothesis (`WhisperDecoderRecogniser`) can be run in several `passes`, each
    with the hypothesis that the one before it has come to.
    """
    def strategy(pipeline: Pipeline, batch: Batch, steps: int | None, sampling: dict) -> Outcome:
        options = dict(pipeline.config.get("strategies", {}).get(name, {}))
        sampling = {"guidance": options.pop("guidance", 1.0), **sampling}
        own = [options.pop(key, None) for key in ("steps", "logits_steps")]
        models = pipeline.signal, pipeline.logits
        counts = strategy_steps(name, *models, *([steps, steps] if steps else own))
        nfe, given = Counter(), None
        for left in reversed(range(options.pop("passes", 1))):
            sides = Sides(pipeline.recogniser, *models, batch.waves, batch.lengths, *counts, heard=given, **sampling)
            result = coupling.STRATEGIES[name](sides.signal, sides.logits, sides.observe, **options)
            heard = result.observed.context
            logits = pipeline.logits.decoded(result.logits, heard) if name in NEED_LOGITS else heard
            nfe.update(sides.nfe)
            if left and heard.tokens is None:
                raise ValueError(f"{name}: passes {left + 1}, but this recogniser decodes no hypothesis to start again "
                                 "from; leave passes out")
            if left:
                given = pipeline.recogniser.renew(logits.values, heard)
        cleaned = None if result.signal is None else Batch(sides.synthesise(result.signal), batch.lengths)
        if cleaned and heard.tokens is not None and name in NEED_LOGITS:
            heard = pipeline.recogniser.renew(heard.values, heard)  # with its own hypothesis, in place of that of C(y)
        return Outcome(logits, cleaned, heard if cleaned else None, dict(nfe))
    return strategy


STRATEGIES: dict[str, Callable[[Pipeline, Batch, int | None, dict], Outcome]] = {
    "none": none, "enhanced": coupled("enhanced"), "oa": observation_adding,
    **{name: coupled(name) for name in coupling.STRATEGIES if name != "enhanced"}}
NEED_LOGITS = frozenset(coupling.STRATEGIES) - {"enhanced"}


def check_strategies(names: Sequence[str]) -> None:
    """Raise ValueError for a strategy that does not exist."""
    if unknown := [name for name in names if name not in STRATEGIES]:
        raise ValueError(f"unknown strategy {', '.join(map(repr, unknown))}; known: {', '.join(STRATEGIES)}")


def find_package(name_or_dir: str | os.PathLike) -> Path:
    """The folder of a model package: a bundled one by name, or a path. Raises ValueError when there is none."""
    for folder in (Path(name_or_dir), BUNDLED / str(name_or_dir)):
        if (folder / "config.json").is_file():
            return folder
    bundled = sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))
    raise ValueError(f"{name_or_dir}: no such model package; give a folder that save_pretrained wrote, or a bundled "
                     f"name ({', '.join(bundled) or 'none is bundled'})")


def _load_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from None


def _save_weights(network: torch.nn.Module, path: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.to("cpu", dtype).contiguous() for name, tensor in network.state_dict().items()}, path)


def _agree(drawn: Sequence[Transcript]) -> Transcript:
    """The consensus of several samples of one recording; the confidence of its words is their agreement."""
    if len(drawn) == 1:
        return drawn[0]
    best, shares = consensus([transcript.text for transcript in drawn])
    words = [replace(word, confidence=share) for word, share in zip(drawn[best].words, shares)]
    return replace(drawn[best], words=words, nfe={key: len(drawn) * count for key, count in drawn[best].nfe.items()})


def _join(parts: Sequence[Transcript]) -> Transcript:
    """One transcript of the consecutive segments of a long recording."""
    enhanced = parts[0].wave is not None
    starts = [0.0, *accumulate(part.duration for part in parts)]
    words = [replace(word, start=start + word.start, end=start + word.end)
             for part, start in zip(parts, starts) for word in part.words]
    return Transcript(
        text=" ".join(part.text for part in parts if part.text), strategy=parts[0].strategy,
        duration=sum(part.duration for part in parts),
        nfe={key: sum(part.nfe[key] for part in parts) for key in parts[0].nfe},
        text_enhanced=" ".join(part.text_enhanced for part in parts if part.text_enhanced) if enhanced else None,
        wave=torch.cat([part.wave for part in parts]) if enhanced else None, words=words)
