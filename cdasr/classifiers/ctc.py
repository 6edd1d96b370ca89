"""A frozen CTC recogniser: any transformers `AutoModelForCTC` (wav2vec2, HuBERT, WavLM, ...) with its processor."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Logits:
    """What a classifier says of a batch: `values` (B, M, V), `lengths` (B,) in frames, `hidden` (B, M, H)."""

    values: Tensor
    lengths: Tensor
    hidden: Tensor | None = None


@dataclass(frozen=True)
class Word:
    """A word with its start and end in seconds, and how sure the recogniser is of it, in [0, 1]."""

    word: str
    start: float
    end: float
    confidence: float


class CTCRecogniser(nn.Module):
    """Waveforms to CTC logits and text, through a model whose weights nothing can train.

    Sampling rate, feature normalisation, use of an attention mask, stride and receptive field come from the model's
    own configuration. A batch gives the same logits as each waveform alone: models with a layer-norm feature
    extractor get an attention mask; the group-norm ones, which were trained without, are run in groups of equal
    length. `hidden_layers`: which of transformers' `hidden_states` are handed out, side by side, each normalised in
    every frame. What noise has done to the last layer may not yet be lost in those below.
    """

    def __init__(self, model: nn.Module, processor):
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        features = processor.feature_extractor
        self.sample_rate: int = features.sampling_rate
        self.normalise: bool = features.do_normalize
        self.use_mask: bool = features.return_attention_mask
        self.blank: int = processor.tokenizer.pad_token_id
        self.whole_words: bool = _whole_words(processor.tokenizer)
        self.hidden_layers: tuple[int, ...] = (-1,)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, **options) -> CTCRecogniser:
        """Load from the hub's cache, the hub or a local folder; `options` go to `AutoModelForCTC.from_pretrained`.

        Raises ValueError in one line when the model cannot be found or is not a CTC recogniser.
        """
        from transformers import AutoModelForCTC, AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(name_or_dir)
            model = AutoModelForCTC.from_pretrained(name_or_dir, **options)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(f"{name_or_dir}: no CTC recogniser could be loaded ({reason}); give a local folder that "
                             "save_pretrained wrote, a name already in the hub's cache, or another name") from None
        if not hasattr(processor, "feature_extractor") or not hasattr(processor, "tokenizer"):
            raise ValueError(f"{name_or_dir}: needs a processor with a feature extractor and a CTC tokenizer beside "
                             "the model; save the model's processor into the folder")
        return cls(model, processor)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write model (safetensors) and processor as transformers would."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def train(self, mode: bool = True) -> CTCRecogniser:
        """Stays in evaluation mode, also inside a network that is being trained."""
        return super().train(False)

    @property
    def stride(self) -> int:
        """Samples from one logit frame to the next."""
        stride = 1
        for step in self.model.config.conv_stride:
            stride *= step
        return stride

    @property
    def receptive_field(self) -> int:
        """Samples that one logit frame sees through the convolutions: the shortest possible input."""
        field, jump = 1, 1
        for kernel, step in zip(self.model.config.conv_kernel, self.model.config.conv_stride):
            field += (kernel - 1) * jump
            jump *= step
        return field

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Number of logit frames for inputs of `samples` (B,) samples."""
        frames = samples
        for kernel, step in zip(self.model.config.conv_kernel, self.model.config.conv_stride):
            frames = torch.div(frames - kernel, step, rounding_mode="floor") + 1
        return frames

    def frame_times(self, frames: int) -> Tensor:
        """Centres of the logit frames in seconds, `(frames,)`."""
        return (torch.arange(frames) * self.stride + (self.receptive_field - 1) / 2) / self.sample_rate

    def forward(self, waves: Tensor, lengths: Tensor) -> Logits:
        """Logits of zero-padded `waves` (B, T) at `sample_rate` with `lengths` (B,) samples, in one pass.

        Gradients pass to the waveforms, never to the weights.
        Raises ValueError when a waveform is shorter than one frame.
        """
        if int(lengths.min()) < self.receptive_field:
            raise ValueError(f"audio of {int(lengths.min())} samples is shorter than one frame of the recogniser "
                             f"({self.receptive_field} samples at {self.sample_rate} Hz)")
        mask = torch.arange(waves.shape[1], device=waves.device) < lengths[:, None]
        if self.normalise:
            waves = normalise_waves(waves, mask)
        if self.use_mask:
            return self._run(waves, lengths, mask)
        return self._run_by_length(waves, lengths)

    def _run(self, waves: Tensor, lengths: Tensor, mask: Tensor | None) -> Logits:
        output = self.model(waves.to(self.model.dtype), attention_mask=mask if mask is None else mask.long(),
                            output_hidden_states=True)
        layers = [output.hidden_states[layer].float() for layer in self.hidden_layers]
        hidden = torch.cat([F.layer_norm(layer, layer.shape[-1:]) for layer in layers], dim=-1)
        return Logits(output.logits.float(), self.frame_lengths(lengths), hidden)

    def _run_by_length(self, waves: Tensor, lengths: Tensor) -> Logits:
        """Runs of equal length without a mask, put together again."""
        frames = self.frame_lengths(lengths)
        values = hidden = None
        for length in lengths.unique():
            rows = (lengths == length).nonzero()[:, 0]
            part = self._run(waves[rows, :length], lengths[rows], mask=None)
            if values is None:
                values = part.values.new_zeros(len(waves), int(frames.max()), part.values.shape[-1])
                hidden = part.hidden.new_zeros(len(waves), int(frames.max()), part.hidden.shape[-1])
            values[rows, :part.values.shape[1]] = part.values
            hidden[rows, :part.hidden.shape[1]] = part.hidden
        return Logits(values, frames, hidden)

    def decode(self, values: Tensor, lengths: Tensor) -> list[str]:
        """Greedy CTC transcripts of logits `values` (B, M, V): best token a frame, repeats and blanks removed."""
        texts = self.processor.batch_decode(self._best(values, lengths).cpu().numpy(),
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
        first = ((self.receptive_field - self.stride) / 2) / self.sample_rate  # where frame 0 begins
        begin, stop = (max(first + frame * self.stride / self.sample_rate, 0.0) for frame in (start, end))
        return Word(word.lower(), begin, stop, float(posterior[start:end].nanmean()))

    def _best(self, values: Tensor, lengths: Tensor) -> Tensor:
        """The best token of each frame (B, M), blanks beyond the lengths."""
        best = values.argmax(dim=-1)
        frames = torch.arange(best.shape[1], device=best.device)
        best = best.masked_fill(frames >= lengths[:, None], self.blank)
        return fill_blanks(best, self.blank) if self.whole_words else best


def fill_blanks(best: Tensor, blank: int) -> Tensor:
    """Tokens (B, M) with the blanks between two equal ones filled: the same word again needs a delimiter in between."""
    spoken = best != blank
    frames = torch.arange(best.shape[1], device=best.device)
    before = frames.where(spoken, frames.new_tensor(0)).cummax(dim=1).values
    after = frames.where(spoken, frames[-1]).flip(1).cummin(dim=1).values.flip(1)
    left, right = best.gather(1, before), best.gather(1, after)
    return torch.where(left == right, left, best)


def _whole_words(tokenizer) -> bool:
    """Whether each token is a word, so that two different ones in a row are two words even without a delimiter."""
    special = {*tokenizer.all_special_tokens, getattr(tokenizer, "word_delimiter_token", None)}
    return all(len(token) > 1 for token in tokenizer.get_vocab() if token not in special)


def normalise_waves(waves: Tensor, mask: Tensor) -> Tensor:
    """Zero mean and unit variance over each waveform's own samples, as the wav2vec2 feature extractor does."""
    count = mask.sum(dim=1, keepdim=True)
    waves = waves * mask
    centred = (waves - waves.sum(dim=1, keepdim=True) / count) * mask
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred / (variance + 1e-7).sqrt()
