"""The logits of frozen classifiers, and the space in which they are diffused.

There are three kinds, and each owns what depends on it: its loss, its times, its words and texts, its posterior, its
redecoding, and how its space is fitted. `CTCLogits` are those of the frames of an utterance, `TokenLogits` those of the
tokens of a decoder's hypothesis, `ClassLogits` one vector for a whole picture. A classifier says which kind is its own
(`protocol.py`), and nobody else has to ask.

The space: logits of different classifiers have different scales, and a constant added to all of a frame's logits means
nothing, as softmax does not see it. Logits are centred in each frame, at unit variance over a model's training set.
Centring and scaling keep the order of a frame's logits, so decoding is the classifier's own. Coordinates of logits (see
`whisper_decoder.py`) have no such constant; they are centred at their mean over the set.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn import functional as F

from cdasr.classifiers.hypothesis import Hypothesis, Word
from cdasr.diffusion.objectives import categorical_loss, denoising_loss


@dataclass(frozen=True)
class LogitsSpace:
    """z = (l - mean of l over the classes) / scale; `scale` is a statistic of one classifier.

    With an `origin` (V) it is that which is subtracted, and added again in decoding.
    """

    scale: float
    origin: Sequence[float] | None = None

    def __post_init__(self):
        if not 0.0 < self.scale < float("inf"):
            raise ValueError(f"the scale of a logits space must be positive and finite, got {self.scale}")

    @classmethod
    def fit(cls, logits: Iterable[tuple[Tensor, Tensor | None]], coordinates: bool = False) -> LogitsSpace:
        """From logits (B, M, V) with lengths (B,) in frames, or (B, V) with None, in any number of batches.

        `coordinates`: they are coordinates of logits, and get an origin. Raises ValueError for logits that are all
        equal, or none.
        """
        power, total, frames = 0.0, 0.0, 0
        for values, lengths in logits:
            values = values.double() if coordinates else values.double() - values.double().mean(dim=-1, keepdim=True)
            if lengths is not None:
                values = values[torch.arange(values.shape[1], device=values.device) < lengths[:, None]]
            power, total, frames = power + float(values.square().sum()), total + values.sum(dim=0), frames + len(values)
        origin = total / max(frames, 1) if coordinates else torch.zeros(())
        power -= frames * float(torch.as_tensor(origin).square().sum())
        if not power > 1e-12 * frames:
            raise ValueError("a logits space needs logits that differ between classes; these are all equal or none")
        return cls((power / (frames * values.shape[-1])) ** 0.5, origin.tolist() if coordinates else None)

    def encode(self, logits: Tensor) -> Tensor:
        """Logits (..., V) to the space."""
        return (logits - self._origin(logits)) / self.scale

    def decode(self, z: Tensor) -> Tensor:
        """The logits (..., V), up to the constant of a frame: the same posteriors and the same best class."""
        return z * self.scale if self.origin is None else z * self.scale + self._origin(z)

    def config(self) -> dict:
        """Plain data from which the space can be built again."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def _origin(self, logits: Tensor) -> Tensor:
        if self.origin is None:
            return logits.mean(dim=-1, keepdim=True)
        return torch.tensor(self.origin, dtype=logits.dtype, device=logits.device)


@dataclass
class Logits:
    """What a classifier says of a batch: `values` (B, M, V) with `lengths` (B,) positions, `hidden` (B, M, H).

    `classifier` is the one that said it, and decodes it. Of pictures there is one vector each: `values` (B, V),
    `lengths` None, `hidden` (B, H).
    """

    has_hypothesis: ClassVar[bool] = False  # whether the positions are those of a hypothesis, which can be redecoded
    word_peaks: ClassVar[bool] = False  # whether words have the times of a few frames within each, not of boundaries
    ranked = None  # hypotheses of each item, the best first, where the kind has found several; no field of its own

    values: Tensor
    lengths: Tensor | None
    hidden: Tensor | None = None
    classifier: object = field(default=None, repr=False, compare=False)  # a `protocol.Classifier`

    @property
    def mask(self) -> Tensor | None:
        """Valid positions (B, M); None where there are no positions."""
        return valid(self.values, self.lengths)

    def items(self) -> list[Tensor]:
        """The values (M, V) of each item, at its own length."""
        return [row[:length] for row, length in zip(self.values, self.lengths.tolist())]

    def texts(self) -> list[str]:
        """What the classifier reads in each item."""
        return self.classifier.decode(self.values, self.lengths)

    def words(self) -> list[list[Word]]:
        """The words of each text, with times and confidences."""
        return self.classifier.words(self.values, self.lengths)

    def redecode(self) -> Logits:
        """Logits as they are to be decoded: those at the positions of a hypothesis become those of their own."""
        return self

    def with_values(self, values: Tensor) -> Logits:
        """Other logits at the same positions."""
        return replace(self, values=values, hidden=None)

    def fused(self, other: Logits, weight: float) -> Logits:
        """The mean of both log-posteriors at each position, `weight` that of the `other`."""
        return self.with_values(torch.lerp(self.log_posterior(self.values), self.log_posterior(other.values), weight))

    @staticmethod
    def reader(classifier: Module) -> Module:
        """The `classifier` for logits of this kind that are only read, and that nothing diffuses."""
        return classifier

    def settled(self) -> Logits:
        """The same logits, which hold what is read of them where that is not their best classes alone."""
        return self

    def label_counts(self) -> Tensor:
        """How many labels (B,) are read from each item: of pictures one."""
        return self.values.new_ones(len(self.values), dtype=torch.long)

    def log_likelihood(self, answer: Logits) -> Tensor:
        """Log-probability (B,) in nats, by these logits, of what is read from the `answer`, of the same items."""
        best = answer.values.argmax(dim=-1, keepdim=True)
        return self.log_posterior(self.values).gather(-1, best)[..., 0]

    def times(self) -> Tensor:
        """When each position is spoken, in seconds: (M,), or (B, M) where each item has its own."""
        return self.classifier.frame_times(self.values.shape[1]).to(self.values.device)

    def log_posterior(self, values: Tensor) -> Tensor:
        """Log-probabilities (..., V) of all classes for `values` (..., V) of this kind."""
        return values.float().log_softmax(dim=-1)

    def spoken(self, best: Tensor) -> Tensor:
        """Whether each of the `best` classes (...) says something: all but a blank."""
        return torch.ones_like(best, dtype=torch.bool)

    def picture(self, values: Tensor, align) -> Tensor:
        """Posteriors (B, M, V) of `values` to be shown over time; `align` brings values to evenly spaced frames."""
        return values.softmax(dim=-1)

    def shown(self, posteriors: Tensor, most: int) -> list[int]:
        """The classes to show, in order, of `posteriors` (M, V)."""
        return list(range(posteriors.shape[-1]))

    @classmethod
    def fit_space(cls, logits: Iterable[tuple[Tensor, Tensor | None]]) -> LogitsSpace:
        """The space of logits of this kind, given as `LogitsSpace.fit` takes them."""
        return LogitsSpace.fit(logits)

    def loss(self, l_hat: Tensor, l0: Tensor, space: LogitsSpace, weights) -> Tensor:
        """The loss of an estimate `l_hat` (B, [M,] V) of these logits, which are `l0` in the `space`.

        `weights` has `kl_weight` and, for kinds with a sequence, `sequence_weight`.
        """
        return posterior_loss(l_hat, l0, space, self.mask, weights.kl_weight)


class ClassLogits(Logits):
    """One vector (B, V) for each picture: squared error, and the divergence of the posteriors."""

    def items(self) -> list[Tensor]:
        return [row[None] for row in self.values]

    def words(self) -> list[list[Word]]:
        return [[] for _ in self.values]


class CTCLogits(Logits):
    """The frames (B, M, V) of a CTC recogniser, one of whose classes is the blank (`classifier.blank`).

    Where a word is sure but its frame is not, the mean posterior of each frame is blank and the word is lost; the CTC
    loss (Graves et al. 2006) sums over the alignments instead. Its labels are those of the best path of C(x0).
    """

    word_peaks: ClassVar[bool] = True

    def spoken(self, best: Tensor) -> Tensor:
        return best != self.classifier.blank

    def shown(self, posteriors: Tensor, most: int) -> list[int]:
        return [index for index in range(posteriors.shape[-1]) if index != self.classifier.blank]

    def label_counts(self) -> Tensor:
        return best_path(self.values, self.lengths, self.classifier.blank)[1].sum(dim=1)

    def log_likelihood(self, answer: CTCLogits) -> Tensor:
        """The sum over all alignments of the answer's labels, as in the CTC loss; -inf where they have no room."""
        best, labels = best_path(answer.values, answer.lengths, self.classifier.blank)
        scores = self.log_posterior(self.values).transpose(0, 1)
        return -F.ctc_loss(scores, best[labels], self.lengths, labels.sum(dim=1), blank=self.classifier.blank,
                           reduction="none")

    def loss(self, l_hat: Tensor, l0: Tensor, space: LogitsSpace, weights) -> Tensor:
        """The loss of logits and posteriors, plus `sequence_weight` times the CTC loss, each a mean over frames."""
        estimated, known = space.decode(l_hat), space.decode(l0)  # first: gradients are added up in the order of use
        return (super().loss(l_hat, l0, space, weights)
                + weights.sequence_weight * sequence_loss(estimated, known, self.lengths, self.classifier.blank))


@dataclass
class TokenLogits(Logits):
    """Coordinates of a decoder's logits at the tokens of a hypothesis (see `whisper_decoder.py`).

    The positions also say when each token begins and the last one ends, `boundaries` (B, M + 1) in seconds; the
    hypothesis with its prefix, `tokens` (B, P + M); and the `audio` (B, S, d) of `samples` (B,) samples as it was
    encoded; the tokens (B, M) that were `read` from these logits, with their `log_probs` (B, M), where they were read
    already, and the hypotheses of each item, `ranked` with the best first, where several were asked for. Each position
    has one token, so the loss has cross-entropy in place of CTC.
    """

    has_hypothesis: ClassVar[bool] = True

    boundaries: Tensor | None = None
    tokens: Tensor | None = None
    audio: Tensor | None = None
    samples: Tensor | None = None
    read: Tensor | None = None
    log_probs: Tensor | None = None
    ranked: list[list[Hypothesis]] | None = field(default=None, repr=False, compare=False)

    @property
    def cut_off(self) -> Tensor:
        """Which items (B,) have as many tokens as their duration allows."""
        return self.lengths >= self.classifier.most_tokens(self.samples)

    def texts(self) -> list[str]:
        return self.classifier.decode(self.values, self.lengths, self.read)

    def words(self) -> list[list[Word]]:
        return self.classifier.words(self.values, self.lengths, self.boundaries, self.read, self.log_probs)

    def with_values(self, values: Tensor) -> TokenLogits:
        return replace(self, values=values, hidden=None, read=None, log_probs=None, ranked=None)

    def fused(self, other: TokenLogits, weight: float) -> TokenLogits:
        """Read token by token, both under the prefix that has been read so far (lockstep)."""
        return self.classifier.lockstep([self, other], lambda values, hidden, step: torch.lerp(*values, weight))[0]

    def redecode(self) -> TokenLogits:
        return self.classifier.redecode(self)

    @staticmethod
    def reader(classifier: Module) -> Module:
        return classifier.reader()

    def settled(self) -> TokenLogits:
        if self.read is not None:
            return self
        best, posterior = self.classifier.best(self.values, self.lengths)
        return replace(self, read=best, log_probs=posterior.log())

    def label_counts(self) -> Tensor:
        return self.lengths

    def log_likelihood(self, answer: TokenLogits) -> Tensor:
        """Of the answer's tokens, each given those before it: a pass of the decoder; the audio is encoded already."""
        given = self if answer is self else self.classifier.heard_as(self.audio, answer)
        tokens = answer.tokens[:, -answer.values.shape[1]:]
        found = [self.log_posterior(values).gather(-1, token[:, None])[:, 0].where(inside, 0.0).sum()
                 for values, token, inside in zip(given.values, tokens, answer.mask)]
        return torch.stack(found)

    def times(self) -> Tensor:
        return (self.boundaries[:, :-1] + self.boundaries[:, 1:]) / 2

    def log_posterior(self, values: Tensor) -> Tensor:
        return self.classifier.logits(values).float().log_softmax(dim=-1)

    def picture(self, values: Tensor, align) -> Tensor:
        return self.classifier.logits(align(values)).softmax(dim=-1)

    def shown(self, posteriors: Tensor, most: int) -> list[int]:
        return sorted(posteriors.amax(dim=0).argsort(descending=True, stable=True)[:most].tolist())

    @classmethod
    def fit_space(cls, logits: Iterable[tuple[Tensor, Tensor | None]]) -> LogitsSpace:
        return LogitsSpace.fit(logits, coordinates=True)

    def loss(self, l_hat: Tensor, l0: Tensor, space: LogitsSpace, weights) -> Tensor:
        """Squared error of the coordinates, divergence of the posteriors, cross-entropy: each a mean over positions.

        The last two, which take the whole vocabulary, are over at most `weights.positions` of them, drawn at random.
        """
        mask, places = self.mask, self.mask.nonzero()
        if weights.positions is not None:
            places = places[torch.randperm(len(places), device=places.device)[:weights.positions]]
        estimated, known = (self.classifier.logits(space.decode(values[tuple(places.T)])) for values in (l_hat, l0))
        return (denoising_loss(l_hat, l0, mask=mask[..., None])
                + weights.kl_weight * categorical_loss(estimated, known)
                + weights.sequence_weight * F.cross_entropy(estimated, self.classifier.likeliest(known, places[:, 1])))

    def cross_entropy(self, values: Tensor) -> Tensor:
        """Mean cross-entropy in nats a token of `values` (B, M, d), for the best tokens of these logits."""
        parts = []
        for estimated, known, inside in zip(values, self.values, self.mask):
            places = inside.nonzero()[:, 0]
            labels = self.classifier.likeliest(self.classifier.logits(known[places]), places)
            parts.append(F.cross_entropy(self.classifier.logits(estimated[places]), labels, reduction="sum"))
        return torch.stack(parts).sum() / self.mask.sum()


def valid(values: Tensor, lengths: Tensor | None) -> Tensor | None:
    """Valid positions (B, M) of values (B, M, V) with `lengths` (B,); None where there are no positions."""
    return None if lengths is None else torch.arange(values.shape[1], device=values.device) < lengths[:, None]


def posterior_loss(l_hat: Tensor, l0: Tensor, space: LogitsSpace, mask: Tensor | None, kl_weight: float) -> Tensor:
    """Squared error in the space, plus the divergence of the posteriors, each a mean over the frames of `mask`."""
    return (denoising_loss(l_hat, l0, mask=None if mask is None else mask[..., None])
            + kl_weight * categorical_loss(space.decode(l_hat), space.decode(l0), mask))


def sequence_loss(estimated: Tensor, known: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """CTC loss in nats a frame of `estimated` logits (B, M, V), for the labels of the best path of `known` ones."""
    best, labels = best_path(known, lengths, blank)
    loss = F.ctc_loss(estimated.float().log_softmax(dim=-1).transpose(0, 1), best[labels], lengths,
                      labels.sum(dim=1), blank=blank, reduction="sum", zero_infinity=True)
    return loss / lengths.sum()


def best_path(values: Tensor, lengths: Tensor, blank: int) -> tuple[Tensor, Tensor]:
    """The best class of each frame (B, M) of CTC logits (B, M, V), and whether it is the first of a label (B, M)."""
    best = values.argmax(dim=-1).masked_fill(~valid(values, lengths), blank)
    new = best.diff(dim=1, prepend=torch.full_like(best[:, :1], blank)) != 0
    return best, new & (best != blank)
