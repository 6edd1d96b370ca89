"""Whisper, way (b): the token logits of its frozen decoder for a hypothesis, in isometric coordinates.

*Coordinates.* The logits of a position are W h: W (V, d) the output projection, h the decoder's last hidden state. A
constant added to all of them means nothing, so take W without its mean row. Its polar decomposition W = Q H, with H
(d, d) symmetric and Q (V, d) with orthonormal columns, makes z = H h coordinates of the logits: |H h1 - H h2| =
|W h1 - W h2| since H'H = W'W, and Q z = W h gives them back. All V tokens are kept, and nothing is inverted. (W = Q R
of a QR decomposition differs by a rotation, R = U H, which depends on the library that computes it; H does not, so a
network that was trained on z on one machine serves on any other.)

*Positions.* An observation C(x; w) belongs to a hypothesis w = w_1 .. w_L, the end of text included where it was
reached: its position i holds the logits of the i-th token given the audio x and w_1 .. w_(i-1). The first observation
of an utterance decodes its hypothesis greedily; every later one is given the first (`like`) and teacher-forced on the
same hypothesis, all positions in one pass of the decoder. So C(y), C(x_hat) and C(x0) of an utterance have the same
positions, prefixes, lengths and times, exactly as the frames of a CTC recogniser, whatever is diffused. C(.; w) is a
fixed function of the audio, as the strategies of `diffusion/coupling.py` take it. The hypothesis comes from the
degraded audio y, in training as in use: no network is ever shown a prefix that it would not have.

*Reading.* `decode` takes the best token of each position, up to the first end of text. Of an observation that decoded
its own hypothesis w this gives w, for greedy decoding takes the best token given the tokens before. Of any logits l at
the positions of w, let i be the first position whose best token is not w's. Up to i, that token included, l was
conditioned on just the tokens that are read; what follows was conditioned on a token that has been taken back. There a
replaced token may do little harm, but one that is missing or too much moves all others. So `redecode` keeps the tokens
up to i and lets the decoder go on greedily from there, with the audio of the observation and as many or few tokens as
it takes. It follows that
1. where nothing is diffused (l = C(y; w)) the transcript is the recogniser's own;
2. C(x; w) is read as the greedy decoding of x, whatever w is (by induction over positions: both take the best token
   given x and the same tokens before): a logits process that returns C(x_hat) answers what `enhanced` answers;
3. what the logits process changes first is in the answer, and all that follows has been decoded given that change.
A further pass of the strategy, with what was read as its hypothesis, lets the logits process see the rest again.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from cdasr.classifiers.decoding_steps import AtMost, Combine, DecodingSteps, normalised, noted_attention
from cdasr.classifiers.fallback import TEMPERATURES, better_rows, doubtful, rows_of, with_rows
from cdasr.classifiers.hub import loading, locate
from cdasr.classifiers.log_mel import LogMel
from cdasr.classifiers.logits import TokenLogits, Word, valid
from cdasr.classifiers.memory import EncoderMemory
from cdasr.classifiers.options import checked_options, for_model, without
from cdasr.classifiers.pretrained import (
    check_kind,
    check_window,
    load_model,
    load_tokenizer,
    make_config,
    mel_extractor,
    read_config,
    read_generation,
)
from cdasr.classifiers.token_times import centred_boundaries, warped_boundaries
from cdasr.classifiers.whisper_parts import (
    greedy,
    hidden_states,
    isometry,
    language_of,
    marked,
    prompt_tokens,
    split_words,
    watched_heads,
)

TOKENS_PER_SECOND, SPARE_TOKENS = 6.0, 10
ITEMS = 8  # whose logits over the whole vocabulary are in memory at once


class WhisperDecoderRecogniser(nn.Module):
    """Waveforms to coordinates of token logits, and to text, through a Whisper whose weights nothing can train; a
    `protocol.Recogniser`.

    Language, task and suppressed tokens are those of the model's generation configuration; `language` and `task` set
    them there. Multilingual models without a language detect it. `fallback`: whether doubtful answers are decoded again
    (`fallback.py`). `initial_prompt`: a text that goes before, for its spelling and its names. With a `beam_size` above
    1 the hypothesis of an observation is transformers' beam search's; several versions are still read greedily.
    """

    kind = TokenLogits

    def __init__(self, model: nn.Module, processor, language: str | None = None, task: str | None = None,
                 fallback: bool = True, initial_prompt: str | None = None):
        super().__init__()
        self.fallback, self.memory, self.beam_size = fallback, None, 1
        self.model = model.eval().requires_grad_(False)
        self.processor = processor
        self.log_mel = LogMel(processor.feature_extractor)
        self.sample_rate: int = self.log_mel.sample_rate
        self._hidden_layers: tuple[int, ...] = (-1,)
        self.generation = greedy(model.generation_config, language, task)
        self.prompt = prompt_tokens(processor, initial_prompt, model.config.max_target_positions // 2 - 1)
        self.heads = watched_heads(model, self.generation)
        ends = self.generation.eos_token_id
        self.ends: list[int] = [ends] if isinstance(ends, int) else list(ends)
        basis, root = isometry(model.get_output_embeddings().weight)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("root", root.float(), persistent=False)
        self.register_buffer("never", marked(self.generation.suppress_tokens, len(basis)), persistent=False)
        self.register_buffer("not_first", marked(self.generation.begin_suppress_tokens, len(basis)), persistent=False)

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, language: str | None = None, task: str | None = None,
                        fallback: bool = True, initial_prompt: str | None = None, **options
                        ) -> WhisperDecoderRecogniser:
        """Load from a local folder, the hub's cache or the hub.

        `options` (`dtype`, `attn_implementation`, `revision`, ...) go to transformers. Raises ValueError in one line
        when the model cannot be found, is no Whisper, or has no languages to choose from.
        """
        from transformers import (
            GenerationConfig,
            WhisperConfig,
            WhisperForConditionalGeneration,
            WhisperProcessor,
            WhisperTokenizer,
        )

        options = checked_options({**options, "language": language, "task": task, "initial_prompt": initial_prompt})
        without(options, ("target_lang",), "it is of MMS; Whisper has language")
        place = Path(locate(name_or_dir, options))
        with loading(name_or_dir, "Whisper model"):
            found = read_config(place)
            check_kind(found, "whisper")
            config, extractor = make_config(WhisperConfig, found), mel_extractor(place)
            check_window(config, extractor)
            generation = GenerationConfig(**read_generation(place, config).model_dump(exclude_none=True))
            processor = WhisperProcessor(extractor, load_tokenizer(WhisperTokenizer, place))
            model = load_model(WhisperForConditionalGeneration, config, place, for_model(options),
                               generation_config=generation)
        return cls(model, processor, language, task, fallback, initial_prompt)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write model (safetensors), generation configuration and processor as transformers would."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def train(self, mode: bool = True) -> WhisperDecoderRecogniser:
        """Stays in evaluation mode, also inside a network that is being trained."""
        return super().train(False)

    @property
    def hidden_layers(self) -> tuple[int, ...]:
        """Which of the decoder's `hidden_states` are handed out, as in `CTCRecogniser`."""
        return self._hidden_layers

    def with_hidden_layers(self, layers: Sequence[int]) -> WhisperDecoderRecogniser:
        """The same recogniser, sharing its model, with other `hidden_layers`. Raises ValueError where it lacks one."""
        states = self.model.config.decoder_layers + 1
        if bad := [layer for layer in layers if not -states <= layer < states]:
            raise ValueError(f"hidden_layers: the recogniser's decoder has {states} hidden states, 0 to {states - 1}; "
                             f"there is no {bad[0]}")
        if tuple(layers) == self.hidden_layers:
            return self
        other = copy.copy(self)
        other._hidden_layers = tuple(layers)
        return other

    def with_beams(self, beam_size: int) -> WhisperDecoderRecogniser:
        """The same recogniser, sharing its model, with a beam search of this size."""
        other = copy.copy(self)
        other.beam_size = beam_size
        return other

    def with_model(self, model: nn.Module) -> WhisperDecoderRecogniser:
        """The same way of decoding around another `model` with the same tokens, such as one that was trained further.

        Its weights are frozen from now on.
        """
        other = type(self)(model, self.processor, fallback=self.fallback)
        other.prompt, other.beam_size, other._hidden_layers = self.prompt, self.beam_size, self._hidden_layers
        return other

    @contextmanager
    def remembering(self, gigabytes: float) -> Iterator[None]:
        """While this is open, audio that has been encoded already is not encoded again."""
        before, self.memory = self.memory, EncoderMemory(gigabytes)
        try:
            yield
        finally:
            self.memory = before

    @property
    def logits_size(self) -> int:
        """Numbers d of the coordinates of one position."""
        return self.model.config.d_model

    @property
    def hidden_size(self) -> int:
        """Numbers in one hidden state."""
        return self.model.config.d_model

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
        if self.memory is None or waves.requires_grad:
            return self._encode(waves, lengths)
        return self.memory.get(waves, lengths, lambda: self._encode(waves, lengths))

    def _encode(self, waves: Tensor, lengths: Tensor) -> Tensor:
        features = self.log_mel(waves, lengths).to(self.model.dtype)
        return self.model.get_encoder()(features).last_hidden_state

    def excerpt_states(self, waves: Tensor) -> list[Tensor]:
        """The encoder's states (B, S, d) after each layer, of short excerpts `waves` (B, T); with gradients."""
        return hidden_states(self.model.get_encoder(), self.log_mel.features(waves.float()))

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
        """Greedy decoding of all items at once; then of doubtful answers with tokens that are drawn (`fallback.py`)."""
        found = self._search(*encoded, samples) if self.beam_size > 1 and combine is None else (
            self._generate(encoded, samples, combine))
        for temperature in TEMPERATURES if self.fallback else ():
            again = doubtful(found[0]).nonzero()[:, 0]
            if not len(again):
                break
            tried = self._generate([states[again] for states in encoded], samples[again], combine,
                                   temperature=temperature)
            wins = better_rows(rows_of(found[0], again), tried[0]).nonzero()[:, 0]
            pairs = zip((found[0], *found[1]), (tried[0], *tried[1]))
            answer, *versions = [with_rows(before, again[wins], rows_of(after, wins)) for before, after in pairs]
            found = answer, versions
        return found

    def _generate(self, encoded: Sequence[Tensor], samples: Tensor, combine: Combine | None = None,
                  given: Tensor | None = None, kept: Tensor | None = None, temperature: float = 0.0
                  ) -> tuple[TokenLogits, list[TokenLogits]]:
        """One decoding with a KV cache; coordinates and times come from the same pass."""
        durations, states = samples / self.sample_rate, torch.cat(list(encoded))
        steps = DecodingSteps(self, self.most_tokens(samples), len(encoded), combine, given, kept, temperature)
        with steps.watching():
            tokens = self._tokens(states, steps)[:len(samples)]
        values, attention = steps.values(), steps.attention()
        read = tokens[:, -values.shape[1]:]
        lengths = self._lengths(read)
        mask = valid(values, lengths)
        answer = TokenLogits(values * mask[..., None], lengths, None, self,
                             self._boundaries(attention, lengths, durations), tokens, encoded[-1], samples,
                             read.masked_fill(~mask, self.ends[0]), steps.log_probs() * mask)
        own = combine is None  # what is read is what the only version says
        versions = [replace(answer, values=values * mask[..., None], hidden=hidden * mask[..., None], audio=audio,
                            read=answer.read if own else None, log_probs=answer.log_probs if own else None)
                    for values, hidden, audio in zip(steps.version_values(), steps.version_hidden(), encoded)]
        return replace(answer, hidden=versions[0].hidden), versions

    def _tokens(self, states: Tensor, processor, beam_size: int = 1) -> Tensor:
        """Tokens (B, P + L) with their prefix, of `states` (B, S, d), where a logits `processor` sees each step."""
        from transformers import LogitsProcessorList
        from transformers.modeling_outputs import BaseModelOutput

        generation = copy.deepcopy(self.generation)
        generation.num_beams = beam_size
        prompt = {} if self.prompt is None else {"prompt_ids": torch.tensor(self.prompt, device=states.device)}
        return self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), generation_config=generation,
            attention_mask=torch.ones_like(states[..., 0], dtype=torch.long),
            logits_processor=LogitsProcessorList([processor]), force_unique_generate_call=True, **prompt)

    def _search(self, encoded: Tensor, samples: Tensor) -> tuple[TokenLogits, list[TokenLogits]]:
        """Beam search; coordinates and times come from one more pass, in which the found tokens are given."""
        within = AtMost(self.most_tokens(samples), self.beam_size, self.ends[0])
        tokens = self._tokens(encoded, within, self.beam_size)
        read = tokens[:, within.prefix:]
        lengths = self._lengths(read)
        mask = torch.arange(read.shape[1], device=read.device) < lengths[:, None]
        empty = encoded.new_zeros(*read.shape, self.logits_size, dtype=torch.float32)
        with noted_attention(self.model.get_decoder().layers, self.heads) as seen:
            found = self._teacher_forced(encoded, TokenLogits(empty, lengths, None, self, None, tokens, None, samples))
        boundaries = self._boundaries(torch.cat(seen, dim=1)[:, :, within.prefix - 1:], lengths,
                                      samples / self.sample_rate)
        read = read.masked_fill(~mask, self.ends[0])
        log_probs = torch.cat([self._scores(found.values[:, :1], first=True), self._scores(found.values[:, 1:])], dim=1)
        log_probs = log_probs.log_softmax(dim=-1).gather(-1, read[..., None])[..., 0].clamp_min(-1e4) * mask
        answer = replace(found, boundaries=boundaries, read=read, log_probs=log_probs)
        return answer, [answer]

    def _lengths(self, read: Tensor) -> Tensor:
        """How many of the tokens (B, L) there are up to the first end of text, (B,)."""
        ended = self._ended(read)
        return torch.where(ended.any(dim=1), ended.int().argmax(dim=1) + 1, read.shape[1])

    def most_tokens(self, samples: Tensor) -> Tensor:
        """The most tokens (B,) that are decoded of `samples` (B,): more than anybody says, less than a loop would."""
        return (TOKENS_PER_SECOND * samples / self.sample_rate).ceil().long() + SPARE_TOKENS

    def _boundaries(self, attention: Tensor, lengths: Tensor, durations: Tensor) -> Tensor:
        """When each token begins and the last one ends, (B, L + 1) in seconds."""
        step = self.log_mel.window_samples / self.sample_rate / attention.shape[-1]
        frames = (durations / step).floor().long().clamp(1, attention.shape[-1])
        if getattr(self.generation, "alignment_heads", None):
            return warped_boundaries(attention, lengths, frames, durations, step, self.model.config.median_filter_width)
        return centred_boundaries(attention, lengths, frames, durations, step)

    def _teacher_forced(self, encoded: Tensor, like: TokenLogits) -> TokenLogits:
        """C(x; w) of the audio `encoded`, for the hypothesis of `like`."""
        output = self.model.get_decoder()(input_ids=like.tokens[:, :-1], encoder_hidden_states=encoded,
                                          use_cache=False, output_hidden_states=True)
        first = like.tokens.shape[1] - like.values.shape[1] - 1  # the prefix's last token predicts the first one
        mask = valid(like.values, like.lengths)[..., None]
        values = self.coordinates(output.last_hidden_state[:, first:]) * mask
        layers = [output.hidden_states[layer][:, first:] for layer in self.hidden_layers]
        return replace(like, values=values, hidden=normalised(layers) * mask, classifier=self, audio=encoded,
                       read=None, log_probs=None)

    def heard_as(self, audio: Tensor, answer: TokenLogits) -> TokenLogits:
        """C(x; w) for the tokens w of an `answer`, of audio x (B, S, d) that is encoded already."""
        return self._teacher_forced(audio, answer)

    # -- coordinates and logits ---------------------------------------------------------------------------------------

    def coordinates(self, hidden: Tensor) -> Tensor:
        """z = H h (..., d) of last hidden states h."""
        return hidden.float() @ self.root

    def logits(self, values: Tensor) -> Tensor:
        """Logits (..., V) over the whole vocabulary, with mean 0, of coordinates (..., d)."""
        return values.float() @ self.basis.T

    def _scores(self, values: Tensor, first: bool = False) -> Tensor:
        """Logits (..., V); -inf for tokens that the generation configuration suppresses, always or as the `first`."""
        return self.logits(values).masked_fill(self.never | self.not_first if first else self.never, -torch.inf)

    def likeliest(self, logits: Tensor, position: Tensor) -> Tensor:
        """The best token (N,) of logits (N, V) at the `position` (N,) of an answer that may be written there."""
        return logits.masked_fill(self.never | (position == 0)[:, None] & self.not_first, -torch.inf).argmax(dim=-1)

    def best(self, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The best token of each position and its posterior, both (B, L); ends of text after the first one."""
        parts = []
        for rows in values.split(ITEMS):
            scores = torch.cat([self._scores(rows[:, :1], first=True), self._scores(rows[:, 1:])], dim=1)
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
        texts = ~(self._ended(best) | torch.isin(best, self._special(best.device)))
        tokenizer, language = self.processor.tokenizer, language_of(self.generation)
        return [split_words(tokenizer, language, *item)
                for item in zip(best.cpu(), posterior.cpu(), texts.cpu(), boundaries.cpu())]

    def _special(self, device: torch.device) -> Tensor:
        """Tokens that are no text: those which the tokenizer calls special, and the timestamps."""
        after = getattr(self.generation, "no_timestamps_token_id", None)
        stamps = [] if after is None else range(after + 1, len(self.basis))
        return torch.tensor([*self.processor.tokenizer.all_special_ids, *stamps], device=device)
