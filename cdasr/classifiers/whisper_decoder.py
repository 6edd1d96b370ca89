"""Whisper, way (b): the token logits of its frozen decoder for a hypothesis, in isometric coordinates (`isometry`).

*Positions.* An observation C(x; w) belongs to a hypothesis w = w_1 .. w_L, the end of text included where it was
reached: its position i holds the logits of the i-th token given the audio x and w_1 .. w_(i-1). The first observation
of an utterance decodes its hypothesis greedily; every later one is given the first (`like`) and teacher-forced on the
same hypothesis, all positions in one pass of the decoder. So C(y), C(x_hat) and C(x0) of an utterance have the same
positions, prefixes, lengths and times, exactly as the frames of a CTC recogniser, whatever is diffused. C(.; w) is a
fixed function of the audio, as the strategies of `diffusion/coupling.py` take it. The hypothesis comes from the
degraded audio y, in training as in use: no network is ever shown a prefix that it would not have.

*Reading.* `decode` takes the best token of each position, up to the first end of text. What logits at the positions of
w say behind their first change of w was conditioned on a token that has been taken back. So `redecode` keeps the tokens
up to that change and lets the decoder go on greedily from there, with the audio of the observation. Why that is right,
and what follows from it: docs/whisper-decoder.md.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from cdasr.classifiers import whisper_beams
from cdasr.classifiers.decoding_steps import Combine, DecodingSteps, normalised
from cdasr.classifiers.fallback import without_doubt
from cdasr.classifiers.frozen import FrozenRecogniser
from cdasr.classifiers.hypothesis import Word
from cdasr.classifiers.items import AT_ONCE
from cdasr.classifiers.log_mel import LogMel
from cdasr.classifiers.logits import TokenLogits, valid
from cdasr.classifiers.memory import Remembers
from cdasr.classifiers.token_times import boundaries
from cdasr.classifiers.whisper_loading import load_whisper
from cdasr.classifiers.whisper_parts import (
    greedy,
    hidden_states,
    isometry,
    language_of,
    marked,
    no_text,
    prompt_tokens,
    split_words,
    watched_heads,
)

TOKENS_PER_SECOND, SPARE_TOKENS = 6.0, 10


class WhisperDecoderRecogniser(Remembers, FrozenRecogniser):
    """Waveforms to coordinates of token logits, and to text, through a Whisper whose weights nothing can train; a
    `protocol.Recogniser`.

    Language, task and suppressed tokens are those of the model's generation configuration; `language` and `task` set
    them there. Multilingual models without a language detect it. `fallback`: whether doubtful answers are decoded again
    (`fallback.py`). `initial_prompt`: a text that goes before, for its spelling and its names. With a `beam_size` above
    1 the hypothesis of an observation is that of `whisper_beams.py`; several versions are still read greedily.
    """

    kind = TokenLogits

    def __init__(self, model: nn.Module, processor, language: str | None = None, task: str | None = None,
                 fallback: bool = True, initial_prompt: str | None = None):
        super().__init__(model, processor)
        self.fallback, self.beam_size, self.nbest = fallback, 1, 1
        self.log_mel = LogMel(processor.feature_extractor)
        self.sample_rate: int = self.log_mel.sample_rate
        self.generation = greedy(model.generation_config, language, task)
        self.prompt = prompt_tokens(processor, initial_prompt, model.config.max_target_positions // 2 - 1)
        self.no_text = no_text(processor, self.generation, model.config.vocab_size)
        self.heads = watched_heads(model, self.generation)
        ends = self.generation.eos_token_id
        self.ends: list[int] = [ends] if isinstance(ends, int) else list(ends)
        self.projection = (model.get_output_embeddings(),)  # a tuple, and so no module of its own: it is the model's
        self.isometries: dict[torch.device, tuple[Tensor, Tensor]] = {}  # one for all that share the model
        self.only_read = False
        size = len(self.projection[0].weight)
        self.register_buffer("never", marked(self.generation.suppress_tokens, size), persistent=False)
        self.register_buffer("not_first", marked(self.generation.begin_suppress_tokens, size), persistent=False)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, language: str | None = None, task: str | None = None,
                        fallback: bool = True, initial_prompt: str | None = None, **options
                        ) -> WhisperDecoderRecogniser:
        """Load from a local folder, the hub's cache or the hub.

        `options` (`dtype`, `attn_implementation`, `revision`, ...) go to transformers. Raises ValueError in one line
        when the model cannot be found, is no Whisper, or has no languages to choose from.
        """
        model, processor = load_whisper(name_or_dir, {**options, "language": language, "task": task,
                                                      "initial_prompt": initial_prompt})
        return cls(model, processor, language, task, fallback, initial_prompt)

    def with_beams(self, beam_size: int, nbest: int = 1) -> WhisperDecoderRecogniser:
        """The same recogniser, sharing its model, with a beam search of this size, and so many hypotheses of each item.
        """
        other = copy.copy(self)
        other.beam_size, other.nbest = beam_size, nbest
        return other

    def reader(self) -> WhisperDecoderRecogniser:
        """The same recogniser, sharing its model, for logits that are only read: h and W take the place of z and Q.

        It says the same up to rounding. The isometry of z, which takes longer than to recognise a sentence, is left
        out. In half precision it is this recogniser.
        """
        if self.projection[0].weight.dtype != torch.float32:
            return self
        other = copy.copy(self)
        other.only_read = True
        return other

    def with_model(self, model: nn.Module) -> WhisperDecoderRecogniser:
        """The same way of decoding around another `model` with the same tokens, such as one that was trained further.

        Its weights are frozen from now on.
        """
        other = type(self)(model, self.processor, fallback=self.fallback).with_hidden_layers(self.hidden_layers)
        other.prompt, other.beam_size, other.nbest = self.prompt, self.beam_size, self.nbest
        return other

    @property
    def logits_size(self) -> int:
        """Numbers d of the coordinates of one position."""
        return self.model.config.d_model

    @property
    def hidden_states(self) -> int:
        return self.model.config.decoder_layers + 1

    @property
    def tokens(self) -> list[str]:
        """What each token of the posterior stands for, (V,)."""
        return self.processor.tokenizer.convert_ids_to_tokens(list(range(len(self.basis))))

    # -- listening ----------------------------------------------------------------------------------------------------

    def forward(self, waves: Tensor, lengths: Tensor, like: TokenLogits | None = None) -> TokenLogits:
        """C of zero-padded `waves` (B, T) at `sample_rate` with `lengths` (B,) samples: `values` (B, L, d) are z.

        Without `like` the hypothesis is decoded; else it is that of the earlier observation `like` of the utterances.
        Gradients pass to the waveforms, through the teacher-forced pass, and never to the weights. Raises ValueError
        for audio longer than Whisper's window of 30 s.
        """
        encoded = self.encode(waves, lengths)
        if like is None:
            like, _ = self._hypothesise([encoded.detach()], lengths)
            if not encoded.requires_grad:
                return like
        return self._teacher_forced(encoded, like)

    def encode(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """The encoder's states (B, S, d)."""
        return self.remembered(waves, lengths, lambda: self._encode(waves, lengths))

    def _encode(self, waves: Tensor, lengths: Tensor) -> Tensor:
        features = self.log_mel(waves, lengths).to(self.model.dtype)
        return self.model.get_encoder()(features).last_hidden_state

    def excerpt_states(self, waves: Tensor) -> list[Tensor]:
        """The encoder's states (B, S, d) after each layer, of short excerpts `waves` (B, T); with gradients."""
        return hidden_states(self.model.get_encoder(), self.log_mel.features(waves.float()))[1:]

    def redecode(self, logits: TokenLogits) -> TokenLogits:
        """The answer that `logits` at the positions of a hypothesis stand for, as logits of a hypothesis of its own.

        The tokens of the old hypothesis are kept up to the first that the logits replace, which is put in its place;
        from there on the decoder goes on greedily with their audio. Up to there `values` are those given, so that
        `decode` gives what was read.
        """
        if logits.read is not None:
            return logits
        best, _ = self.best(logits.values, logits.lengths)
        same = (best == logits.tokens[:, -best.shape[1]:]) | ~valid(logits.values, logits.lengths)
        if bool(same.all()):
            return logits
        kept = (same.cumprod(dim=1).sum(dim=1) + 1).minimum(logits.lengths)
        answer, _ = self._generate([logits.audio], logits.samples, given=best, kept=kept)
        count = min(best.shape[1], answer.values.shape[1])
        old = (torch.arange(count, device=kept.device) < kept[:, None])[..., None]
        answer.values[:, :count] = torch.where(old, logits.values[:, :count], answer.values[:, :count])
        return answer

    def lockstep(self, versions: Sequence[TokenLogits], combine: Combine) -> tuple[TokenLogits, list[TokenLogits]]:
        """One answer of several `versions` of the audio, which are decoded side by side with one common prefix.

        Each token is read from the coordinates that `combine` makes of those of all versions. Returns the answer, and
        C of each version at its positions. The encoder does not run again.
        """
        return self._hypothesise([version.audio for version in versions], versions[0].samples, combine)

    def _hypothesise(self, encoded: Sequence[Tensor], samples: Tensor, combine: Combine | None = None
                     ) -> tuple[TokenLogits, list[TokenLogits]]:
        """All items are decoded at once, with beams or greedily; then doubtful answers, with tokens that are drawn."""
        def draw(rows: Tensor, temperature: float) -> tuple[TokenLogits, list[TokenLogits]]:
            answer, versions = self._generate([states[rows] for states in encoded], samples[rows], combine,
                                              temperature=temperature)
            return replace(answer, ranked=whisper_beams.alone(answer) if self.nbest > 1 else None), versions

        if self.beam_size > 1 and combine is None:
            answer = whisper_beams.search(self, *encoded, samples)
            found = answer, [answer]
        else:
            found = self._generate(encoded, samples, combine)
        return without_doubt(found, draw) if self.fallback else found

    def _generate(self, encoded: Sequence[Tensor], samples: Tensor, combine: Combine | None = None,
                  given: Tensor | None = None, kept: Tensor | None = None, temperature: float = 0.0
                  ) -> tuple[TokenLogits, list[TokenLogits]]:
        """One decoding with a KV cache; coordinates and times come from the same pass."""
        states = torch.cat(list(encoded))
        steps = DecodingSteps(self, self.most_tokens(samples), len(encoded), combine, given, kept, temperature)
        with steps.watching():
            tokens = self.generate(states, steps)[:len(samples)]
        values, attention = steps.values(), steps.attention()
        read = tokens[:, -values.shape[1]:]
        lengths = self.text_lengths(read)
        mask = valid(values, lengths)
        answer = TokenLogits(values * mask[..., None], lengths, None, self,
                             self.boundaries(attention, lengths, samples), tokens, encoded[-1], samples,
                             read.masked_fill(~mask, self.ends[0]), steps.log_probs() * mask)
        own = combine is None  # what is read is what the only version says
        versions = [replace(answer, values=values * mask[..., None], hidden=hidden * mask[..., None], audio=audio,
                            read=answer.read if own else None, log_probs=answer.log_probs if own else None)
                    for values, hidden, audio in zip(steps.version_values(), steps.version_hidden(), encoded)]
        return replace(answer, hidden=versions[0].hidden), versions

    def generate(self, states: Tensor, processor) -> Tensor:
        """Tokens (B, P + L) with their prefix, of `states` (B, S, d), where a logits `processor` sees each step."""
        from transformers import LogitsProcessorList
        from transformers.modeling_outputs import BaseModelOutput

        prompt = {} if self.prompt is None else {"prompt_ids": torch.tensor(self.prompt, device=states.device)}
        return self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), generation_config=self.generation,
            attention_mask=torch.ones_like(states[..., 0], dtype=torch.long),
            logits_processor=LogitsProcessorList([processor]), force_unique_generate_call=True, **prompt)

    def text_lengths(self, read: Tensor) -> Tensor:
        """How many of the tokens (B, L) there are up to the first end of text, (B,)."""
        ended = self._ended(read)
        return torch.where(ended.any(dim=1), ended.int().argmax(dim=1) + 1, read.shape[1])

    def most_tokens(self, samples: Tensor) -> Tensor:
        """The most tokens (B,) that are decoded of `samples` (B,): more than anybody says, less than a loop would."""
        return (TOKENS_PER_SECOND * samples / self.sample_rate).ceil().long() + SPARE_TOKENS

    def boundaries(self, attention: Tensor, lengths: Tensor, samples: Tensor, warped: bool = True) -> Tensor:
        """When each token begins and the last one ends, (B, L + 1) in seconds, as its `attention` tells.

        `warped`: by dynamic time warping, where it is known which heads align. That is exact, and takes long.
        """
        median = self.model.config.median_filter_width if getattr(self.generation, "alignment_heads", None) else None
        durations, window = (count / self.sample_rate for count in (samples, self.log_mel.window_samples))
        return boundaries(attention, lengths, durations, window, median if warped else None)

    def _teacher_forced(self, encoded: Tensor, like: TokenLogits) -> TokenLogits:
        """C(x; w) of the audio `encoded`, for the hypothesis of `like`."""
        output = self.model.get_decoder()(input_ids=like.tokens[:, :-1], encoder_hidden_states=encoded,
                                          use_cache=False, output_hidden_states=True)
        first = like.tokens.shape[1] - like.values.shape[1] - 1  # the prefix's last token predicts the first one
        mask = valid(like.values, like.lengths)[..., None]
        values = self.coordinates(output.last_hidden_state[:, first:]) * mask
        layers = [output.hidden_states[layer][:, first:] for layer in self.hidden_layers]
        return replace(like, values=values, hidden=normalised(layers) * mask, classifier=self, audio=encoded,
                       read=None, log_probs=None, ranked=None)

    def heard_as(self, audio: Tensor, answer: TokenLogits) -> TokenLogits:
        """C(x; w) for the tokens w of an `answer`, of audio x (B, S, d) that is encoded already."""
        return self._teacher_forced(audio, answer)

    # -- coordinates and logits ---------------------------------------------------------------------------------------

    @property
    def basis(self) -> Tensor:
        """Q (V, d)."""
        return self.projection[0].weight if self.only_read else self._isometry()[0]

    def _isometry(self) -> tuple[Tensor, Tensor]:
        """Q (V, d) and H (d, d) in float32, found when they are first asked for."""
        weight = self.projection[0].weight
        if weight.device not in self.isometries:
            with torch.inference_mode(False):  # gradients may pass through them later
                self.isometries[weight.device] = tuple(part.float().to(weight.device)
                                                       for part in isometry(weight.detach().cpu()))
        return self.isometries[weight.device]

    def coordinates(self, hidden: Tensor) -> Tensor:
        """z = H h (..., d) of last hidden states h."""
        return hidden.float() if self.only_read else hidden.float() @ self._isometry()[1]

    def logits(self, values: Tensor) -> Tensor:
        """Logits (..., V) over the whole vocabulary of coordinates (..., d); they have mean 0, but for a `reader`."""
        return values.float() @ self.basis.T

    def scores(self, values: Tensor) -> Tensor:
        """Logits (B, L, V); -inf for tokens that the generation configuration suppresses, always or as the first."""
        scores = self.logits(values).masked_fill(self.never, -torch.inf)
        scores[:, :1].masked_fill_(self.not_first, -torch.inf)
        return scores

    def likeliest(self, logits: Tensor, position: Tensor) -> Tensor:
        """The best token (N,) of logits (N, V) at the `position` (N,) of an answer that may be written there."""
        return logits.masked_fill(self.never | (position == 0)[:, None] & self.not_first, -torch.inf).argmax(dim=-1)

    def best(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The best token of each position and its posterior, both (B, L); ends of text after the first one."""
        parts = []
        for rows in values.split(AT_ONCE):
            scores = self.scores(rows)
            parts.append((scores.argmax(dim=-1), scores.softmax(dim=-1).amax(dim=-1)))
        best, posterior = (torch.cat(part) for part in zip(*parts))
        ended = self._ended(best)
        over = (ended.cumsum(dim=1) - ended.int() > 0) | ~valid(values, lengths)
        return best.masked_fill(over, self.ends[0]), posterior

    def _ended(self, tokens: Tensor) -> Tensor:
        return torch.isin(tokens, torch.tensor(self.ends, device=tokens.device))

    # -- reading ------------------------------------------------------------------------------------------------------

    def decode(self, values: Tensor, lengths: Tensor, read: Tensor | None = None) -> list[str]:
        """Transcripts of coordinates `values` (B, L, d): the best token of each position, up to the end of text.

        Tokens (B, L) that were `read` already are taken as they are.
        """
        best = self.best(values, lengths)[0] if read is None else read
        texts = self.processor.tokenizer.batch_decode(best.cpu(), skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def words(self, values: Tensor, lengths: Tensor, boundaries: Tensor, read: Tensor | None = None,
              log_probs: Tensor | None = None) -> list[list[Word]]:
        """The words of `decode` with times from `boundaries` (B, L + 1) in seconds.

        A word's confidence is the mean posterior of its tokens: of the best ones, or of those `read` with `log_probs`.
        """
        best, posterior = self.best(values, lengths) if read is None else (read, log_probs.exp())
        texts = ~(self._ended(best) | torch.isin(best, torch.tensor(self.no_text, device=best.device)))
        tokenizer, language = self.processor.tokenizer, language_of(self.generation)
        return [split_words(tokenizer, language, *item)
                for item in zip(best.cpu(), posterior.cpu(), texts.cpu(), boundaries.cpu())]
