"""What a Whisper decoder's recogniser is made of: its files, coordinates, settings of generation, words."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.hypothesis import Word
from cdasr.runtime.plain_data import one_line


def hidden_states(encoder: nn.Module, features: Tensor) -> list[Tensor]:
    """The states (B, S, d) before the first and after each layer of a Whisper `encoder`, of features (B, mels, 2 S).

    transformers' own forward takes 30 s and no less. Shorter features cost their share of that. More silence behind
    them changes their states little: enough for a loss, or for a head that is trained on such states, but not for
    Whisper's own decoder.
    """
    states = F.gelu(encoder.conv2(F.gelu(encoder.conv1(features.to(encoder.conv1.weight.dtype))))).transpose(1, 2)
    states = states + encoder.embed_positions.weight[:states.shape[1]]
    found = [states]
    for layer in encoder.layers:
        states = layer(states, None)
        states = states[0] if isinstance(states, tuple) else states
        found.append(states)
    return [*found[:-1], encoder.layer_norm(states)]


@torch.no_grad()
def isometry(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Q (V, d) and H (d, d) of an output projection (V, d) without its mean row: W - mean = Q H, in float64.

    The logits of a position are W h: W (V, d) the output projection, h the decoder's last hidden state. A constant
    added to all of them means nothing, so take W without its mean row. Its polar decomposition W = Q H, with H (d, d)
    symmetric and Q (V, d) with orthonormal columns, makes z = H h coordinates of the logits: |H h1 - H h2| =
    |W h1 - W h2| since H'H = W'W, and Q z = W h gives them back. All V tokens are kept, and nothing is inverted. (W =
    Q R of a QR decomposition differs by a rotation, R = U H, which depends on the library that computes it; H does not,
    so a network that was trained on z on one machine serves on any other.)

    Computed from the eigenvectors of W'W. Directions weaker than 1e-6 of the strongest, which float32 does not resolve,
    are 0 in Q.
    """
    centred = weight.double()
    centred = centred - centred.mean(dim=0)
    powers, directions = torch.linalg.eigh(centred.T @ centred)
    gains = powers.clamp_min(0.0).sqrt()
    inverse = torch.where(gains > 1e-6 * gains.max(), 1.0 / gains, 0.0)
    return centred @ ((directions * inverse) @ directions.T), (directions * gains) @ directions.T


def greedy(config, language: str | None, task: str | None):
    """The generation configuration with `language` and `task`, and a copy of it for plain greedy decoding.

    Raises ValueError for those that the model does not have.
    """
    for name, value, known in (("language", language, "lang_to_id"), ("task", task, "task_to_id")):
        if value is not None:
            if not (there := getattr(config, known, None)):
                if getattr(config, "is_multilingual", None) is False and (
                        value == "transcribe" or language_token(value) == "<|en|>"):
                    continue  # what an English model does anyway
                raise ValueError(f"{name} {value!r}: the model's generation configuration names no {name}s (an English "
                                 "model, or an old configuration); leave it out")
            if name == "language" and language_token(value) not in there:
                raise ValueError(f"language {value!r}: the model does not have it; its languages are "
                                 f"{' '.join(sorted(code.strip('<|>') for code in there))}")
            setattr(config, name, value)
    greedy = copy.deepcopy(config)
    greedy.update(num_beams=1, do_sample=False, return_timestamps=False, return_dict_in_generate=False,
                  compression_ratio_threshold=None, logprob_threshold=None, no_speech_threshold=None)
    return greedy


def watched_heads(model: nn.Module, generation) -> dict[int, list[int]]:
    """Heads by decoder layer whose cross-attention tells times: the alignment heads, or all where they are not known.

    Their attention is computed eagerly, which alone returns weights; the rest of the model stays as it was loaded.
    """
    layers = model.get_decoder().layers
    known = getattr(generation, "alignment_heads", None)
    heads: dict[int, list[int]] = {}
    for layer, head in known or [(layer, head) for layer in range(len(layers))
                                 for head in range(model.config.decoder_attention_heads)]:
        heads.setdefault(layer, []).append(head)
    eager = copy.deepcopy(model.config)
    eager._attn_implementation = "eager"
    for layer in heads:
        layers[layer].encoder_attn.config = eager
    return heads


def marked(tokens: list[int] | None, size: int) -> Tensor:
    marks = torch.zeros(size, dtype=torch.bool)
    marks[list(tokens or ())] = True
    return marks


def no_text(processor, generation, size: int) -> list[int]:
    """Tokens, of so many, that are no text: those which the tokenizer calls special, and the timestamps."""
    after = getattr(generation, "no_timestamps_token_id", None)
    stamps = [] if after is None else range(after + 1, size)
    return [*processor.tokenizer.all_special_ids, *stamps]


def split_words(tokenizer, language: str, best: Tensor, posterior: Tensor, text: Tensor, boundaries: Tensor
                ) -> list[Word]:
    """The words of one item: its `best` tokens (L,) where they are `text` (L,), with their `posterior` (L,).

    Times come from `boundaries` (L + 1,) in seconds; a word's confidence is the mean posterior of its tokens.
    """
    from transformers.models.whisper.tokenization_whisper import _combine_tokens_into_words

    places = text.nonzero()[:, 0].tolist()
    if not places:
        return []
    found, _, spans = _combine_tokens_into_words(tokenizer, best[places].tolist(), language)
    return [Word("".join(word.split()).lower(), float(boundaries[places[span[0]]]),
                 float(boundaries[places[span[-1]] + 1]), float(posterior[[places[index] for index in span]].mean()))
            for word, span in zip(found, spans) if word.strip()]


def language_token(language: str) -> str:
    """The token of a language that is given as such, by its code or by its English name."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    name = language.strip("<|>").lower()
    return f"<|{TO_LANGUAGE_CODE.get(name, name)}|>"


def prompt_tokens(processor, text: str | None, most: int) -> list[int] | None:
    """The tokens that stand for an earlier transcript `text` in front of a Whisper's own, as it was trained.

    Raises ValueError where they are more than `most`, or where the model has no token to begin them with.
    """
    if text is None:
        return None
    if "<|startofprev|>" not in processor.tokenizer.get_vocab():
        raise ValueError("initial prompt: the model's tokenizer has no <|startofprev|>; leave it out")
    try:
        tokens = processor.get_prompt_ids(text, return_tensors="np").tolist()
    except ValueError as error:  # special tokens in the text
        raise ValueError(f"initial prompt {one_line(repr(text), 60)}: {one_line(error)}") from None
    if len(tokens) > most:
        raise ValueError(f"initial prompt: {len(tokens)} tokens; the model takes {most}, leave some words out")
    return tokens


def language_of(generation) -> str:
    """The language as transformers names it where it splits words; `english`: at spaces."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    language = (getattr(generation, "language", None) or "english").strip("<|>").lower()
    return LANGUAGES.get(language, language)
