"""The pipeline: a frozen recogniser, the diffusion processes around it, and the strategies that combine them.

    from cdasr import Pipeline
    pipeline = Pipeline.from_pretrained("digits")
    print(pipeline("noisy.wav").text)

What it shares with images is in `cdasr.coupled.pipeline`. The recogniser of a package is in transformers' own layout
under `recogniser/`, or its name and options are in `recogniser/recogniser.json`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdasr.classifiers.beam_search import BeamSearch
from cdasr.classifiers.hypothesis import Hypothesis, Word
from cdasr.classifiers.load import load_recogniser, save_recogniser
from cdasr.classifiers.logits import Logits
from cdasr.classifiers.protocol import Recogniser
from cdasr.classifiers.resampled import at_rate
from cdasr.coupled import pipeline as joint
from cdasr.coupled.bundled import inside
from cdasr.coupled.models import LogitsModel
from cdasr.coupled.package import check_classifier, load_models, save_models, without_logits
from cdasr.coupled.pipeline import CoupledPipeline, Outcome, grouped
from cdasr.coupled.voting import Vote
from cdasr.runtime.device import resolve_precision
from cdasr.runtime.terminal import note
from cdasr.speech.audio import read_audio, resample
from cdasr.speech.decodable import refusal
from cdasr.speech.decoding import Decoding, check_search
from cdasr.speech.domain import SPEECH
from cdasr.speech.enhancers import PredictiveModel, SpeechSignal
from cdasr.speech.segments import Context, transcribe_recordings
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.speech.transcript import Transcript
from cdasr.speech.word_times import sounding
from cdasr.speech.words import consensus, normalise_text


@dataclass
class Batch(joint.Batch):
    """Zero-padded waveforms (B, T) and their lengths (B,) in samples."""

    @classmethod
    def of(cls, waves: Sequence[Tensor], device: str) -> Batch:
        padded, lengths = SPEECH.collate(waves)
        return cls(padded.to(device), lengths.to(device))

    @property
    def waves(self) -> Tensor:
        return self.signals


class Pipeline(CoupledPipeline):
    """A frozen recogniser with its signal process and, for the coupled strategies, its logits process.

    See `transcribe` for batches and `__call__` for one recording.
    """

    domain, model_class = SPEECH, SpeechSignal

    def __init__(self, recogniser: Recogniser, signal: SpectrogramModel | PredictiveModel, config: dict | None = None,
                 device: str = "auto", logits: LogitsModel | None = None):
        super().__init__(at_rate(recogniser, signal.sample_rate), signal, config, device, logits)
        self.search: BeamSearch | None = None  # of a CTC recogniser; None: greedy
        self.nbest = 1  # hypotheses of each recording

    def with_decoding(self, decoding: Decoding) -> Pipeline:
        """The same pipeline, sharing its models, which decodes as asked for.

        Language, task and prompt of Whisper are options with which the recogniser is loaded: they change nothing here.
        Raises ValueError for what the recogniser does not have.
        """
        recogniser, search = self.recogniser, None
        if not recogniser.kind.has_hypothesis:
            search = decoding.search()
        check_search(recogniser, decoding, search)
        if recogniser.kind.has_hypothesis:
            recogniser = recogniser.with_beams(decoding.beam_size or 1, decoding.nbest or 1)
        other = type(self)(recogniser, self.signal, self.config, self.device, self.logits)
        other.search, other.nbest, other.decoding = search, decoding.nbest or 1, decoding.settings()
        return other

    def _remade(self, signal: SpectrogramModel | PredictiveModel, config: dict, logits: LogitsModel | None) -> Pipeline:
        other = super()._remade(signal, config, logits)
        other.search, other.nbest, other.decoding = self.search, self.nbest, self.decoding
        return other

    @property
    def strategies(self) -> list[str]:
        return [name for name in super().strategies if self._refusal(name) is None]

    def _refusal(self, name: str) -> str | None:
        """Why a strategy cannot be decoded as asked for; None where it can."""
        several, token_beams = self.nbest > 1, getattr(self.recogniser, "beam_size", 1) > 1
        return refusal(name, several, token_beams) if several or token_beams else None

    def check(self, names: Sequence[str], steps: int | None = None, samples: int = 1) -> None:
        for name in names:
            if (why := self._refusal(name)) is not None:
                raise ValueError(why)
        super().check(names, steps, samples)

    @property
    def recogniser(self) -> Recogniser:
        """The frozen classifier."""
        return self.classifier

    @property
    def sample_rate(self) -> int:
        """Sampling rate in Hz of the waveforms that `transcribe` takes: the signal model's."""
        return self.recogniser.sample_rate

    @property
    def precision(self) -> str:
        """Of the processes' networks."""
        return self.signal.precision or "fp32"

    @property
    def context(self) -> Context:
        """What is put around each recording before it is processed."""
        return Context(**self.config.get("context", {}))

    def surround(self, signal: Tensor) -> Tensor:
        return self.context.surround(signal, self.sample_rate)

    def bare(self, batch: Batch) -> Batch:
        margin = self.context.margin(self.sample_rate)
        return self.batch([wave[margin:len(wave) - margin] for wave in batch.rows()]) if margin else batch

    def batch(self, signals: Sequence[Tensor]) -> Batch:
        return Batch.of(signals, self.device)

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
        return transcribe_recordings(self, [torch.from_numpy(wave)], strategy, steps, seed, samples, guidance)[0]

    def transcribe(self, waves: Sequence[Tensor], strategy: str | None = None, steps: int | None = None,
                   seed: int = 0, samples: int = 1, guidance: float | None = None) -> list[Transcript]:
        """Transcribe a batch of waveforms (samples,) at `sample_rate`; the result does not depend on the batching.

        `strategy`, `steps` of each process and `guidance`, the weight of the logits in the signal process, default to
        the package's. With `samples` > 1 the processes are sampled stochastically so many times, in one batch; the
        answer is the transcript nearest to all of them, and a word's confidence is the share that agrees. Raises
        ValueError for an unknown strategy, or one that needs a logits process where the package has none.
        """
        drawn = self.transcripts(*self.run(waves, strategy, steps, seed, samples, guidance))
        return [_agree(same) for same in grouped(drawn, len(waves))]

    def transcripts(self, outcome: Outcome, batch: Batch, strategy: str) -> list[Transcript]:
        """One transcript for each item of the batch, without the context around it.

        The sound says where words begin and end: that of the enhanced waveform, where the answer was read from it.
        """
        margin = 0 if strategy == "none" else self.context.margin(self.sample_rate)
        waves, cleaned = [[wave[margin:len(wave) - margin] for wave in signals.rows()] if signals else None
                          for signals in (batch, outcome.enhanced)]
        ranked, chosen = None, outcome.chosen or [None] * len(waves)
        if outcome.answers is not None:
            spoken = self._voted(outcome.answers, waves, cleaned or waves)
            texts = [" ".join(word.word for word in words).lower() for words in spoken]
        else:
            ranked, texts, words = self._heard(outcome.logits)
            alone = [(answer or strategy) == "none" for answer in chosen]
            spoken = self._timed(words, outcome.logits, waves, cleaned or waves, alone)
        made = [Transcript(text, strategy, len(wave) / self.sample_rate, outcome.evaluations, words=words,
                           chosen=answer) for text, wave, words, answer in zip(texts, waves, spoken, chosen)]
        if cleaned is not None:
            _, heard, words = (ranked, texts, words) if outcome.enhanced_logits is outcome.logits else self._heard(
                outcome.enhanced_logits)
            words = self._timed(words, outcome.enhanced_logits, waves, cleaned, [False] * len(waves))
            for transcript, text, spoken, wave in zip(made, heard, words, cleaned):
                transcript.text_enhanced, transcript.words_enhanced, transcript.wave = text, spoken, wave
        for transcript, unlike in zip(made, outcome.out_of_domain or ()):
            transcript.out_of_domain = unlike
        if ranked and self.nbest > 1:
            for transcript, hypotheses, wave, clean, plain in zip(made, ranked, waves, cleaned or waves, alone):
                count = len(hypotheses)
                words = self._timed([one.words for one in hypotheses], outcome.logits, [wave] * count, [clean] * count,
                                    [plain] * count)
                transcript.nbest = [replace(one, words=own) for one, own in zip(hypotheses, words)]
        return made

    def _heard(self, logits: Logits) -> tuple[list[list[Hypothesis]] | None, list[str], list[list[Word]]]:
        """Texts in lower case and words of logits, and the hypotheses of each item where there is a search."""
        if self.search is None:
            return logits.ranked, [text.lower() for text in logits.texts()], logits.words()
        ranked = self.search(logits)
        return ranked, [best.text for best, *_ in ranked], [best.words for best, *_ in ranked]

    def _timed(self, spoken: Sequence[Sequence[Word]], logits: Logits, waves: Sequence[Tensor],
               cleaned: Sequence[Tensor], alone: Sequence[bool]) -> list[list[Word]]:
        """The words of each item with their times in the recording, without context.

        Those of the recogniser `alone`, of `none`, had no context around them and are in `waves` (samples,); others are
        in the `cleaned` ones.
        """
        margin = self.context.margin(self.sample_rate) / self.sample_rate
        found = []
        for words, wave, clean, plain in zip(spoken, waves, cleaned, alone):
            lead = 0.0 if plain else margin
            moved = [replace(word, start=word.start - lead, end=word.end - lead) for word in words]
            found.append(sounding(moved, wave if plain else clean, self.sample_rate, logits.word_peaks))
        return found

    def _voted(self, answers: Mapping[str, Logits], waves: Sequence[Tensor],
               cleaned: Sequence[Tensor]) -> list[list[Word]]:
        """The words of each item that win the vote of the answers."""
        rule, spoken = Vote(**self.config["rover"]), []
        for name in rule.answers:
            _, _, words = self._heard(answers[name])
            spoken.append(self._timed(words, answers[name], waves, cleaned, [name == "none"] * len(waves)))
        return [rule.decide(words, normalise_text) for words in zip(*spoken)]

    def decode(self, logits: Logits) -> list[str]:
        """Transcripts of logits, in lower case."""
        return self._heard(logits)[1]

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, device: str = "auto",
                        recogniser: str | os.PathLike | torch.nn.Module | None = None, precision: str = "fp32",
                        compile: bool = False, channels_last: bool = False, **options) -> Pipeline:
        """Load a bundled package by name or a package folder.

        `recogniser`: where the package's recogniser is now, if not where the package says, or the recogniser itself, if
        it is loaded already. `options` of the recogniser (`dtype`, `attn_implementation`, ...; see `load_recogniser`)
        replace those that the package stores. `precision`,
        `compile` and `channels_last` are those of `optimised`.
        Raises ValueError in one line when there is no such package or it cannot be used with this version.
        """
        folder, config, signal, logits = load_models(name_or_dir, cls.domain.name, cls.model_class)
        loaded = isinstance(recogniser, torch.nn.Module)
        frozen = recogniser if loaded else load_recogniser(recogniser or inside(folder, config.get("recogniser")),
                                                           **options)
        called = type(recogniser).__name__ if loaded else str(recogniser or "its recogniser")
        if recogniser or logits:  # else the signal process is given no logits
            try:
                check_classifier(folder, signal, logits, frozen, called)
            except ValueError as reason:
                if not (recogniser and config.get("other_recognisers")):
                    raise
                note(f"cdasr: {reason}; there are the strategies without a logits process")
                config, logits = without_logits(config), None
        return cls(frozen, signal, config, device, logits).optimised(precision, compile, channels_last)

    def optimised(self, precision: str = "fp32", compile: bool = False, channels_last: bool = False) -> Pipeline:
        """This pipeline with exactness or start-up time traded for speed; docs/performance.md has what it is worth.

        `precision` of the processes' networks: fp32, bf16, fp16 or auto, which is what the hardware multiplies fastest.
        The samplers and the STFT stay in fp32, the recogniser in its own. `compile`: torch.compile, whose first call
        takes a while; `channels_last`: the memory layout that convolutions on recent GPUs prefer.
        """
        precision = resolve_precision(precision, self.device)
        return self.with_models(*(model and model.optimised(precision, compile, channels_last)
                                  for model in (self.signal, self.logits)))

    def save_pretrained(self, folder: str | os.PathLike, half: bool = False, by_reference: bool | None = None) -> None:
        """Write a model package; `half` stores the weights of the processes as float16, which halves their files.

        `by_reference`: whether the recogniser is named or copied (see `save_recogniser`); a hub name is named.
        """
        save_recogniser(self.recogniser, Path(folder) / "recogniser", by_reference)
        self.config = save_models(Path(folder), {**self.config, "recogniser": "recogniser"}, self.signal, self.logits,
                                  half)


def _agree(drawn: Sequence[Transcript]) -> Transcript:
    """The consensus of several samples of one recording; the confidence of its words is their agreement."""
    if len(drawn) == 1:
        return drawn[0]
    best, shares = consensus([transcript.text for transcript in drawn])
    words = [replace(word, confidence=share) for word, share in zip(drawn[best].words, shares)]
    return replace(drawn[best], words=words, nfe={key: len(drawn) * count for key, count in drawn[best].nfe.items()})
