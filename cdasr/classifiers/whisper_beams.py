"""Beam search of a Whisper's decoder: its best answer as an observation, and the n best hypotheses with their scores.

The search is that of transformers, of any model: Whisper's own `generate` around it gives the tokens before an answer,
and has no n best. Coordinates, times and scores come from one more pass of the decoder, in which all tokens that were
found are given.

A hypothesis is ranked as the search ranks it: its `score` is the mean log-probability of its tokens, the end of text
included, in nats a token. `acoustic` is their sum, log P(tokens | audio). Texts that differ in capitals alone count
once, with the tokens that were found first.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from cdasr.classifiers.decoding_steps import AtMost, noted_attention
from cdasr.classifiers.hypothesis import Hypothesis, Word
from cdasr.classifiers.items import AT_ONCE, rows_of
from cdasr.classifiers.logits import TokenLogits


def search(recogniser, encoded: Tensor, samples: Tensor) -> TokenLogits:
    """The best answers by a `WhisperDecoderRecogniser`'s beams to the states `encoded` (B, S, d) of `samples` (B,).

    They are `ranked` where the recogniser was asked for more than one.
    """
    kept = recogniser.beam_size if recogniser.nbest > 1 else 1
    prefix = recogniser.generate(encoded, AtMost(torch.zeros_like(samples), 0, recogniser.ends[0]))[:, :-1]
    tokens = _beams(recogniser, encoded, prefix, recogniser.most_tokens(samples), kept)
    found, attention = _observed(recogniser, tokens, prefix.shape[1], encoded.repeat_interleave(kept, dim=0),
                                 samples.repeat_interleave(kept))
    first = torch.arange(0, len(tokens), kept, device=tokens.device)
    best = replace(rows_of(found, first), audio=encoded)
    best.boundaries = recogniser.boundaries(attention[first], best.lengths, samples)
    return best if kept == 1 else replace(best, ranked=_ranked(found, attention, kept))


def alone(answer: TokenLogits) -> list[list[Hypothesis]]:
    """Each answer as the only hypothesis of its item; what else may have been said is not known."""
    return [[one] for one in _hypotheses(answer, answer.words())]


def _beams(recogniser, encoded: Tensor, prefix: Tensor, most: Tensor, kept: int) -> Tensor:
    """Tokens (B kept, P + L) behind the `prefix` (B, P), at most so many (B,) of each item; the best beams in a row."""
    from transformers import GenerationMixin, LogitsProcessorList
    from transformers.modeling_outputs import BaseModelOutput

    model, generation = recogniser.model, copy.deepcopy(recogniser.generation)
    most = most.repeat_interleave(recogniser.beam_size)
    generation.update(num_beams=recogniser.beam_size, num_return_sequences=kept, max_length=min(
        generation.max_length + prefix.shape[1] - 1, model.config.max_target_positions))  # as Whisper's own takes it
    return GenerationMixin.generate(
        model, decoder_input_ids=prefix, encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
        attention_mask=torch.ones_like(encoded[..., 0], dtype=torch.long), generation_config=generation,
        logits_processor=LogitsProcessorList([AtMost(most, prefix.shape[1], recogniser.ends[0])]))


def _observed(recogniser, tokens: Tensor, prefix: int, encoded: Tensor, samples: Tensor) -> tuple[TokenLogits, Tensor]:
    """The observation in which `tokens` (B, P + L) were read, without times; and the attention of its positions."""
    read = tokens[:, prefix:]
    lengths = recogniser.text_lengths(read)
    mask = torch.arange(read.shape[1], device=read.device) < lengths[:, None]
    empty = encoded.new_zeros(*read.shape, recogniser.logits_size, dtype=torch.float32)
    with noted_attention(recogniser.model.get_decoder().layers, recogniser.heads) as seen:
        found = recogniser.heard_as(encoded, TokenLogits(empty, lengths, None, recogniser, None, tokens, None, samples))
    read = read.masked_fill(~mask, recogniser.ends[0])
    log_probs = torch.cat([recogniser.scores(rows).log_softmax(dim=-1).gather(-1, wanted[..., None])[..., 0]
                           for rows, wanted in zip(found.values.split(AT_ONCE), read.split(AT_ONCE))])
    return (replace(found, read=read, log_probs=log_probs.clamp_min(-1e4) * mask),
            torch.cat(seen, dim=1)[:, :, prefix - 1:])


def _ranked(found: TokenLogits, attention: Tensor, kept: int) -> list[list[Hypothesis]]:
    """The hypotheses of each item, of which so many are `kept` in a row, the best first.

    Their words have times that are good enough to join segments by; those of the answer are warped, which takes longer.
    """
    recogniser = found.classifier
    times = recogniser.boundaries(attention, found.lengths, found.samples, warped=False)
    rows = _hypotheses(found, replace(found, boundaries=times).words())
    unlikely = (found.log_probs <= -1e4).any(dim=1).tolist()  # nothing that a search may find, but what it began with
    asked, ranked = recogniser.nbest, []
    for first in range(0, len(rows), kept):
        best, texts = rows[first], {rows[first].text: rows[first]}
        for row in range(first + 1, first + kept):
            if not unlikely[row]:
                # rounding, in half precision above all, must not put another before the answer
                texts.setdefault(rows[row].text, replace(rows[row], score=min(rows[row].score, best.score)))
        ranked.append(sorted(texts.values(), key=lambda one: -one.score)[:asked])
    return ranked


def _hypotheses(found: TokenLogits, words: Sequence[list[Word]]) -> list[Hypothesis]:
    likelihood = found.log_likelihood(found)
    scores = likelihood / found.lengths
    return [Hypothesis(text.lower(), *numbers, words=spoken) for text, *numbers, spoken
            in zip(found.texts(), scores.tolist(), likelihood.tolist(), words)]
