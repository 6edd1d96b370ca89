"""Stage 4: pretraining of the logits process on a bank, validated by the words that its real sampler ends with."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.ctc import CTCRecogniser, Logits
from cdasr.classifiers.logits_space import LogitsSpace
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import categorical_loss, denoising_loss, draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.speech.logits_model import LogitsModel, frame_mask
from cdasr.speech.words import word_errors
from cdasr.training.bank import Bank
from cdasr.training.base import Trainer
from cdasr.training.data import sample_lengths


class LogitsTrainer(Trainer):
    """Denoising training of a `LogitsModel` (method.md, Training 2): E |D(l_s, s; C(y), C(x')) - C(x0)|^2, and more.

    x' is y for a share `drop_seen` of the items, else an enhanced version. The hidden states of all are dropped for a
    share `drop_hidden`. `kl_weight` and `sequence_weight` weigh what decoding looks at: see `logits_loss`.
    """

    def __init__(self, model: LogitsModel, recogniser: CTCRecogniser, output_dir: Path, hparams: dict, device: str):
        super().__init__({"network": model.network}, output_dir, hparams, device)
        self.model, self.recogniser = model, recogniser

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
        model = LogitsModel(self.modules.network, self.model.process, self.model.space, self.model.config)
        heard, seen, clean = (bank_observation(model, batch, name) for name in ("heard", "seen", "clean"))
        seen = choose(seen, heard, self.hparams.drop_seen, generator)
        heard, seen = (drop_hidden(part, self.hparams.drop_hidden, generator) for part in (heard, seen))
        s = draw_times(model.process, len(clean.logits), generator, start_share=self.hparams.start_share)
        l_s = perturb(model.process, clean.logits, heard.logits, s, gaussian_noise(generator))
        return model.estimate(l_s, s, heard, seen), clean

    def compute_objectives(self, predictions, batch, stage):
        return logits_loss(*predictions, self.model.space, self.recogniser, self.hparams.kl_weight,
                           self.hparams.sequence_weight)

    def validate_batch(self, batch, networks: nn.ModuleDict):
        model = LogitsModel(networks.network, self.model.process, self.model.space, self.model.config)
        heard, seen, clean = (bank_observation(model, batch, name) for name in ("heard", "seen", "clean"))
        sums = {"words": sum(len(text.split()) for text in batch.text)}
        answers = {"": model.decoded(model.side(heard).sample(seen), heard.context),
                   "_card": model.decoded(model.side(heard).sample(heard), heard.context),
                   "_enhanced": seen.context, "_clean": clean.context}
        for name, logits in answers.items():
            heard_texts = self.recogniser.decode(logits.values, logits.lengths)
            sums[f"errors{name}"] = sum(word_errors(*pair)[0] for pair in zip(batch.text, heard_texts))
        return sums

    def summarise(self, sums):
        return {key.replace("errors", "wer"): 100.0 * value / sums["words"] for key, value in sums.items()
                if key.startswith("errors")}


def train_logits(config: dict, recogniser: CTCRecogniser, train: Bank, valid: Bank, output_dir: Path, hparams: dict,
                 device: str) -> LogitsModel:
    """Train the logits process, in the space of the statistics of C(x0) in `train`. Returns the best EMA model."""
    torch.manual_seed(hparams["seed"])
    sizes = {"tokens": train[0]["clean"].shape[-1], "hidden": train[0]["heard_hidden"].shape[-1]}
    model = LogitsModel.from_config({**config, "network": {**config["network"], **sizes},
                                     "space": LogitsSpace.fit(train.clean_logits(), recogniser.blank is None).config()})
    best = LogitsTrainer(model, recogniser, output_dir, hparams, device).run(train, valid)
    return LogitsModel(best.network, model.process, model.space, model.config)


def bank_observation(model: LogitsModel, batch, name: str) -> Observation:
    """An observation from a batch of a bank; `clean` comes without hidden states."""
    padded = getattr(batch, name)
    hidden = getattr(batch, f"{name}_hidden").data if name != "clean" else None
    return model.observation(Logits(padded.data, sample_lengths(padded), hidden))


def choose(first: Observation, second: Observation, share: float, generator: torch.Generator) -> Observation:
    """`first`, with a random `share` of the items replaced by `second`'s."""
    return where(_draw(share, first, generator), second, first)


def where(pick: Tensor, first: Observation, second: Observation) -> Observation:
    """The items of `first` that `pick` (B,) marks and those of `second` elsewhere."""
    values, hidden = (torch.where(pick[:, None, None], a, b)
                      for a, b in ((first.logits, second.logits), (first.context.hidden, second.context.hidden)))
    return Observation(values, Logits(second.context.values, second.context.lengths, hidden))


def detached(observation: Observation) -> Observation:
    """The observation, as a given: nothing is trained through it."""
    context = observation.context
    return Observation(observation.logits.detach(), Logits(context.values.detach(), context.lengths,
                                                           context.hidden.detach()))


def drop_hidden(observation: Observation, share: float, generator: torch.Generator) -> Observation:
    """The observation without the hidden states of a random `share` of the items."""
    context = observation.context
    hidden = context.hidden.masked_fill(_draw(share, observation, generator)[:, None, None], 0.0)
    return Observation(observation.logits, Logits(context.values, context.lengths, hidden))


def logits_loss(l_hat: Tensor, clean: Observation, space: LogitsSpace, recogniser: CTCRecogniser, kl_weight: float,
                sequence_weight: float) -> Tensor:
    """Squared error in the space, plus the divergence of the posteriors, plus the CTC loss, each a mean over frames.

    Where a word is sure but its frame is not, the mean posterior of each frame is blank and the word is lost; CTC
    (Graves et al. 2006) sums over the alignments instead. Its labels are those of the best path of C(x0). A decoder,
    without a blank, has one token in each position: cross-entropy in place of CTC.
    """
    mask, lengths = frame_mask(clean.context), clean.context.lengths
    estimated, known = space.decode(l_hat), space.decode(clean.logits)
    loss = denoising_loss(l_hat, clean.logits, mask=mask[..., None])
    if recogniser.blank is not None:
        return (loss + kl_weight * categorical_loss(estimated, known, mask)
                + sequence_weight * sequence_loss(estimated, known, lengths, recogniser.blank))
    labels = recogniser.best(known, lengths)[0][mask]
    estimated, known = (recogniser.logits(values[mask]) for values in (estimated, known))
    return loss + kl_weight * categorical_loss(estimated, known) + sequence_weight * F.cross_entropy(estimated, labels)


def sequence_loss(estimated: Tensor, known: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """CTC loss in nats a frame of `estimated` logits (B, M, V), for the labels of the best path of `known` ones."""
    frames = torch.arange(known.shape[1], device=known.device)
    best = known.argmax(dim=-1).masked_fill(frames >= lengths[:, None], blank)
    new = best.diff(dim=1, prepend=torch.full_like(best[:, :1], blank)) != 0
    labels = new & (best != blank)
    loss = F.ctc_loss(estimated.float().log_softmax(dim=-1).transpose(0, 1), best[labels], lengths,
                      labels.sum(dim=1), blank=blank, reduction="sum", zero_infinity=True)
    return loss / lengths.sum()


def _draw(share: float, like: Observation, generator: torch.Generator) -> Tensor:
    """True (B,) for a random share of the items."""
    return torch.rand(len(like.logits), generator=generator, device=like.logits.device) < share
