"""What the classes of a CTC recogniser write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Alphabet:
    """The `tokens` (V,) of a CTC recogniser, and which of them are of another kind.

    `delimiter` stands between words, None where there is none. `silent` ones are not written by a search, such as
    `<s>`. With `whole_words` each token is a word; then a blank does not tell two equal ones apart, but a delimiter
    does.
    """

    tokens: Sequence[str]
    blank: int
    delimiter: int | None = None
    whole_words: bool = False
    silent: frozenset[int] = frozenset()

    @cached_property
    def written(self) -> frozenset[str]:
        """The letters, or words, that a text can be made of, in lower case."""
        others = {self.blank, self.delimiter, *self.silent}
        return frozenset(token.lower() for place, token in enumerate(self.tokens) if place not in others)


def alphabet_of(tokenizer, size: int) -> Alphabet:
    """Of the first `size` tokens of a `Wav2Vec2CTCTokenizer`, whose padding is the blank."""
    tokens, blank = tokenizer.convert_ids_to_tokens(list(range(size))), tokenizer.pad_token_id
    found, between = tokenizer.get_vocab(), getattr(tokenizer, "word_delimiter_token", None)
    special = {*tokenizer.all_special_tokens, between}
    delimiter = tokens.index(between) if between in tokens else None
    silent = {place for place, token in enumerate(tokens) if not token or token in special} - {blank, delimiter}
    whole_words = all(len(token) > 1 for token in found if token not in special)
    return Alphabet([token or "" for token in tokens], blank, delimiter, whole_words, frozenset(silent))
