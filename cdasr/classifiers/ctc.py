"""A frozen CTC recogniser: any transformers `AutoModelForCTC` (wav2vec2, HuBERT, WavLM, ...) with its processor."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.alphabet import alphabet_of
from cdasr.classifiers.frozen import FrozenRecogniser
from cdasr.classifiers.hub import loading, locate
from cdasr.classifiers.hypothesis import Word
from cdasr.classifiers.logits import CTCLogits, Logits, valid
from cdasr.classifiers.options import checked_options, for_model, without
from cdasr.classifiers.padding import as_if_alone, maskable
from cdasr.classifiers.pretrained import (
    check_tokens,
    load_model,
    load_tokenizer,
    make_config,
    read_config,
    wave_extractor,
)
from cdasr.runtime.weights import check_finite


class CTCRecogniser(FrozenRecogniser):
    """Waveforms to CTC logits and text, through a model whose weights nothing can train; a `protocol.Recogniser`.

    Sampling rate, feature normalisation, frame lengths, stride and receptive field come from the model's own
    configuration. A batch gives the same logits as each waveform alone: in one pass where padding can be kept out of
    the model (see `padding.py`), else in one pass for each length.
    """

    kind = CTCLogits

    def __init__(self, model: nn.Module, processor):
        super().__init__(model, processor)
        self.sample_rate: int = processor.feature_extractor.sampling_rate
        self.normalise: bool = getattr(processor.feature_extractor, "do_normalize", False)
        self.blank: int = processor.tokenizer.pad_token_id
        self.alphabet = alphabet_of(processor.tokenizer, len(processor.tokenizer))
        self.whole_words: bool = self.alphabet.whole_words

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, target_lang: str | None = None,
                        **options) -> CTCRecogniser:
        """Load from a local folder, the hub's cache or the hub.

        `target_lang` picks an adapter (MMS), as an ISO 639-3 code. The other options are those of `schema.Options`:
        `dtype` (or `torch_dtype`), `attn_implementation`, `revision`, ...
        Raises ValueError in one line when the model cannot be found, is no CTC recogniser of waveforms, or lacks some
        of its weights.
        """
        from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2Processor

        options = checked_options({**options, "target_lang": target_lang})
        without(options, ("language", "task", "fallback", "initial_prompt"), "it is of Whisper; leave it out")
        place = Path(locate(name_or_dir, options))
        with loading(name_or_dir, "CTC recogniser"):
            config, model_class = _described(read_config(place))
            tokenizer = load_tokenizer(Wav2Vec2CTCTokenizer, place)
            processor = Wav2Vec2Processor(feature_extractor=wave_extractor(place), tokenizer=tokenizer)
            model = load_model(model_class, config, place, for_model(options))
            if target_lang is not None:
                tokenizer.set_target_lang(target_lang)
                model.load_adapter(target_lang, local_files_only=True)
                check_finite(model.named_parameters(), f"the adapter of {target_lang}")
            check_tokens(tokenizer, place, model.config.vocab_size)
            recogniser = cls(model, processor)
            recogniser.try_out()
        return recogniser

    @torch.no_grad()
    def try_out(self) -> None:
        """Run a moment of silence. Raises ValueError where the model does not do what its configuration says.

        In half precision nothing is tried: the model may be meant for another device.
        """
        if not 0 < self.receptive_field <= 10 * self.sample_rate or self.stride > 10 * self.sample_rate:
            raise ValueError(f"a frame of {self.receptive_field} samples, one every {self.stride}, is no frame of "
                             "speech: its conv_kernel and conv_stride do not go with its sampling rate")
        if self.model.dtype in (torch.float32, torch.float64):
            samples = self.receptive_field + 4 * self.stride
            with torch.random.fork_rng(devices=[]):
                values = self(torch.zeros(1, samples), torch.tensor([samples])).values
            if values.shape[-1] != self.logits_size or not bool(values.isfinite().all()):
                raise ValueError("it answers silence with numbers that are not finite, or of other classes")

    @property
    def logits_size(self) -> int:
        """Number of classes V of the logits."""
        return self.model.config.vocab_size

    @property
    def tokens(self) -> list[str]:
        """What each class stands for, (V,)."""
        return self.processor.tokenizer.convert_ids_to_tokens(list(range(self.logits_size)))

    @property
    def stride(self) -> int:
        """Samples from one logit frame to the next."""
        config = self.model.config
        shortened = config.adapter_stride ** config.num_adapter_layers if getattr(config, "add_adapter", False) else 1
        return math.prod(config.conv_stride) * shortened

    @property
    def hidden_step(self) -> float:
        """Frames of the hidden states for each logit frame: an adapter shortens behind them, SEW squeezes them."""
        config = self.model.config
        return self.stride / math.prod(config.conv_stride) / getattr(config, "squeeze_factor", 1)

    @property
    def receptive_field(self) -> int:
        """Samples that one logit frame sees through the feature encoder: the shortest possible input."""
        field, jump = 1, 1
        for kernel, step in zip(self.model.config.conv_kernel, self.model.config.conv_stride):
            field += (kernel - 1) * jump
            jump *= step
        return field

    @property
    def first_centre(self) -> float:
        """The sample in the middle of the first logit frame."""
        return (self.receptive_field - 1) / 2

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Number of logit frames for inputs of `samples` (B,) samples, by the model's own formula."""
        return self.model._get_feat_extract_output_lengths(samples)

    def frame_times(self, frames: int) -> Tensor:
        """Centres of the logit frames in seconds, `(frames,)`."""
        return (torch.arange(frames) * self.stride + self.first_centre) / self.sample_rate

    def forward(self, waves: Tensor, lengths: Tensor, like: Logits | None = None) -> CTCLogits:
        """Logits of zero-padded `waves` (B, T) at `sample_rate` with `lengths` (B,) samples; none is run twice.

        The frames follow from the lengths, whatever they shall be `like`. Gradients pass to the waveforms, never to the
        weights.
        Raises ValueError when a waveform is shorter than one frame.
        """
        self._check_lengths(lengths)
        waves = waves[:, :int(lengths.max())]
        mask = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        if self.normalise:
            waves = normalise_waves(waves, mask)
        if bool(mask.all()):
            return self._run(waves, lengths)
        if not maskable(self.model.config):
            return self._run_by_length(waves, lengths)
        with as_if_alone(self.model, lengths, self.frame_lengths(lengths)):
            return self._run(waves, lengths, mask.long())

    def _check_lengths(self, lengths: Tensor) -> None:
        if int(lengths.min()) < self.receptive_field:
            raise ValueError(f"audio of {int(lengths.min())} samples is shorter than one frame of the recogniser "
                             f"({self.receptive_field} samples at {self.sample_rate} Hz)")

    def _run(self, waves: Tensor, lengths: Tensor, mask: Tensor | None = None) -> CTCLogits:
        output = self.model(waves.to(self.model.dtype), attention_mask=mask, output_hidden_states=True)
        frames = self.frame_lengths(lengths)
        if output.logits.shape[1] != int(frames.max()):
            raise ValueError(f"the recogniser gives {output.logits.shape[1]} frames where its configuration promises "
                             f"{int(frames.max())}; such an adapter is not supported")
        hidden = self._hidden(output.hidden_states, output.logits.shape[1])
        return CTCLogits(output.logits.float(), frames, hidden, self)

    def _hidden(self, states: Sequence[Tensor], frames: int) -> Tensor:
        """The chosen hidden states (B, M, layers H), at the frames of the logits."""
        states = [states[layer].float() for layer in self.hidden_layers]
        if self.hidden_step != 1:
            index = (torch.arange(frames, device=states[0].device) * self.hidden_step).long()
            index = index.clamp(max=states[0].shape[1] - 1)
            states = [state[:, index] for state in states]
        return torch.cat([F.layer_norm(state, state.shape[-1:]) for state in states], dim=-1)

    def _run_by_length(self, waves: Tensor, lengths: Tensor) -> CTCLogits:
        """Runs of equal length without a mask, put together again."""
        frames = self.frame_lengths(lengths)
        values = hidden = None
        for length in lengths.unique():
            rows = (lengths == length).nonzero()[:, 0]
            part = self._run(waves[rows, :length], lengths[rows])
            if values is None:
                values = part.values.new_zeros(len(waves), int(frames.max()), part.values.shape[-1])
                hidden = part.hidden.new_zeros(len(waves), int(frames.max()), part.hidden.shape[-1])
            values[rows, :part.values.shape[1]] = part.values
            hidden[rows, :part.hidden.shape[1]] = part.hidden
        return CTCLogits(values, frames, hidden, self)

    def excerpt_states(self, waves: Tensor) -> list[Tensor]:
        """The hidden states (B, M, H) of each layer, of short excerpts `waves` (B, T); with gradients."""
        waves = normalise_waves(waves, torch.ones_like(waves, dtype=torch.bool)) if self.normalise else waves
        return list(self.model(waves.to(self.model.dtype), output_hidden_states=True).hidden_states[1:])

    def decode(self, values: Tensor, lengths: Tensor) -> list[str]:
        """Greedy CTC transcripts of logits `values` (B, M, V): best token a frame, repeats and blanks removed."""
        texts = self.processor.tokenizer.batch_decode(self._best(values, lengths).cpu().numpy(),
                                                      spaces_between_special_tokens=self.whole_words)
        return [" ".join(text.split()) for text in texts]

    def words(self, values: Tensor, lengths: Tensor) -> list[list[Word]]:
        """The words of `decode` with their times and confidences, for each item of the batch.

        A word's confidence is the mean posterior of the best token over its frames, without blanks.
        """
        best = self._best(values, lengths)
        posterior = values.softmax(dim=-1).amax(dim=-1).masked_fill(best == self.blank, torch.nan).cpu()
        found = self.processor.tokenizer.batch_decode(best.cpu().numpy(), output_word_offsets=True,
                                                      output_char_offsets=True)
        spans = found.char_offsets if self.whole_words else found.word_offsets
        return [[self._word(text, int(span["start_offset"]), int(span["end_offset"]), row) for span in item
                 if (text := span.get("word", span.get("char"))).strip()] for item, row in zip(spans, posterior)]

    def _word(self, word: str, start: int, end: int, posterior: Tensor) -> Word:
        return Word(word.lower(), *self.span_seconds(start, end), float(posterior[start:end].nanmean()))

    def span_seconds(self, start: int, end: int) -> tuple[float, float]:
        """Where the frames from `start` to before `end` begin and end, in seconds."""
        first = (self.first_centre - (self.stride - 1) / 2) / self.sample_rate  # where frame 0 begins
        begin, stop = (max(first + frame * self.stride / self.sample_rate, 0.0) for frame in (start, end))
        return begin, stop

    def _best(self, values: Tensor, lengths: Tensor) -> Tensor:
        """The best token of each frame (B, M), blanks beyond the lengths."""
        best = values.argmax(dim=-1).masked_fill(~valid(values, lengths), self.blank)
        return fill_blanks(best, self.blank) if self.whole_words else best


def fill_blanks(best: Tensor, blank: int) -> Tensor:
    """Tokens (B, M) with the blanks between two equal ones filled: the same word again needs a delimiter in between."""
    spoken = best != blank
    frames = torch.arange(best.shape[1], device=best.device)
    before = frames.where(spoken, frames.new_tensor(0)).cummax(dim=1).values
    after = frames.where(spoken, frames[-1]).flip(1).cummin(dim=1).values.flip(1)
    left, right = best.gather(1, before), best.gather(1, after)
    return torch.where(left == right, left, best)


def _described(found: dict) -> tuple[object, type]:
    """The configuration in a `config.json`, and the class of CTC model that it is of. Raises ValueError."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CTC_MAPPING

    config_class = CONFIG_MAPPING[found["model_type"]]
    model_class = MODEL_FOR_CTC_MAPPING.get(config_class, None)
    if model_class is None:
        raise ValueError(f"a model of type {found['model_type']!r} has no CTC logits")
    if model_class.main_input_name != "input_values" or not hasattr(model_class, "_get_feat_extract_output_lengths"):
        raise ValueError(f"{model_class.__name__} does not take waveforms through a convolutional feature encoder")
    return make_config(config_class, found), model_class


def normalise_waves(waves: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over each waveform's own samples, as the wav2vec2 feature extractor does."""
    count = mask.sum(dim=1, keepdim=True)
    waves = waves * mask
    centred = (waves - waves.sum(dim=1, keepdim=True) / count) * mask
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / (variance + 1e-7).sqrt()
