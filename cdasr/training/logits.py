"""Stage 4: pretraining of the logits process, validated by the answers that its real sampler ends with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from cdasr.coupled.domain import Domain
from cdasr.coupled.models import LogitsModel
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.training.base import Trainer
from cdasr.training.logits_cache import LogitsCache


class LogitsTrainer(Trainer):
    """Denoising training of a `LogitsModel` (method.md, Training 2): E |D(l_s, s; C(y), C(x')) - C(x0)|^2, and more.

    x' is y for a share `drop_seen` of the items, else an enhanced version. The hidden states of all are dropped for a
    share `drop_hidden`. The loss is the domain's, which also weighs what decoding looks at. The best epoch is that of
    the lowest mean error rate of `cascade` and `card`: a few hundred words are too few to choose by one of them. A
    decoder's logits cannot be read without its audio, so that its best epoch is that of the lowest mean cross-entropy
    for the tokens that C(x0) would read.
    """

    def __init__(self, model: LogitsModel, classifier: nn.Module, output_dir: Path, hparams: dict, device: str,
                 domain: Domain):
        self.written = classifier.kind.has_hypothesis
        super().__init__({"network": model.network}, output_dir, hparams, device,
                         "cross_entropy" if self.written else domain.rate)
        self.model, self.classifier, self.domain = model, classifier, domain

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
        model = self.model.with_network(self.modules.network)
        noisy_obs, enhanced_obs, clean = (self._observation(batch, name) for name in ("heard", "seen", "clean"))
        enhanced_obs = choose(enhanced_obs, noisy_obs, self.hparams.drop_seen, generator)
        noisy_obs, enhanced_obs = (drop_hidden(observation, self.hparams.drop_hidden, generator)
                                   for observation in (noisy_obs, enhanced_obs))
        s = draw_times(model.process, len(clean.logits), generator, start_prob=self.hparams.start_prob)
        l_s = perturb(model.process, clean.logits, noisy_obs.logits, s, gaussian_noise(generator))
        return model.estimate(l_s, s, noisy_obs, enhanced_obs), clean

    def compute_objectives(self, predictions, batch, stage):
        return self.domain.logits_loss(*predictions, self.model.space, self.classifier, self.hparams)

    def validate_batch(self, batch, networks: nn.ModuleDict):
        model, truths = self.model.with_network(networks.network), self.domain.truths(batch)
        noisy_obs, enhanced_obs, clean = (self._observation(batch, name) for name in ("heard", "seen", "clean"))
        answers = {"_cascade": model.decoded(model.reverse(noisy_obs).sample(enhanced_obs), noisy_obs.context),
                   "_card": model.decoded(model.reverse(noisy_obs).sample(noisy_obs), noisy_obs.context),
                   "_enhanced": enhanced_obs.context, "_clean": clean.context}
        counts = {name: self.domain.count(self.classifier, logits, truths) for name, logits in answers.items()}
        sums = {"counted": counts["_clean"][1], **{f"errors{name}": errors for name, (errors, _) in counts.items()}}
        if self.written:
            sums["positions"] = float(clean.context.lengths.sum())
            sums |= {f"cross_entropy{name}": sums["positions"] * float(clean.context.cross_entropy(logits.values))
                     for name, logits in answers.items() if name != "_clean"}
        return sums

    def summarise(self, sums):
        rate = self.domain.rate
        rates = {key.replace("errors", rate): 100.0 * value / sums["counted"] for key, value in sums.items()
                 if key.startswith("errors")}
        found = {key: value / sums["positions"] for key, value in sums.items() if key.startswith("cross_entropy")}
        if found:
            found = {"cross_entropy": mean((found["cross_entropy_cascade"], found["cross_entropy_card"])), **found}
        return {**found, rate: mean((rates[f"{rate}_cascade"], rates[f"{rate}_card"])), **rates}

    def _observation(self, batch, name: str) -> Observation:
        """An observation from a batch of the cache; `clean` comes without hidden states."""
        padded = getattr(batch, name)
        hidden = getattr(batch, f"{name}_hidden").data if name != "clean" else None
        lengths = self.domain.lengths(padded)
        return self.model.observation(self.classifier.kind(padded.data, lengths, hidden, self.classifier))


def train_logits(config: dict, classifier: nn.Module, train: LogitsCache, valid: LogitsCache, output_dir: Path,
                 hparams: dict, device: str, domain: Domain) -> LogitsModel:
    """Train the logits process, in the space of the statistics of C(x0) in `train`. Returns the best EMA model."""
    torch.manual_seed(hparams["seed"])
    sizes = {"tokens": train[0]["clean"].shape[-1], "hidden": train[0]["heard_hidden"].shape[-1]}
    model = LogitsModel.from_config({**config, "network": {**config["network"], **sizes},
                                     "space": classifier.kind.fit_space(train.clean_logits()).config()})
    best = LogitsTrainer(model, classifier, output_dir, hparams, device, domain).run(train, valid)
    return model.with_network(best.network)


def choose(first: Observation, second: Observation, share: float, generator: torch.Generator) -> Observation:
    """`first`, with a random `share` of the items replaced by `second`'s."""
    return where(drawn(share, first.logits, generator), second, first)


def where(pick: Tensor, first: Observation, second: Observation) -> Observation:
    """The items of `first` that `pick` (B,) marks and those of `second` elsewhere."""
    values, hidden = (torch.where(per_item(pick, a), a, b)
                      for a, b in ((first.logits, second.logits), (first.context.hidden, second.context.hidden)))
    return Observation(values, replace(second.context, hidden=hidden))


def detached(observation: Observation) -> Observation:
    """The observation, as a given: nothing is trained through it."""
    context = observation.context
    return Observation(observation.logits.detach(), replace(context, values=context.values.detach(),
                                                            hidden=context.hidden.detach()))


def drop_hidden(observation: Observation, share: float, generator: torch.Generator) -> Observation:
    """The observation without the hidden states of a random `share` of the items."""
    context = observation.context
    hidden = context.hidden.masked_fill(per_item(drawn(share, context.hidden, generator), context.hidden), 0.0)
    return Observation(observation.logits, replace(context, hidden=hidden))


def per_item(values: Tensor, like: Tensor) -> Tensor:
    """Values (B,) that broadcast against `like` (B, ...)."""
    return values.view(-1, *(1,) * (like.dim() - 1))


def drawn(share: float, items: Tensor, generator: torch.Generator) -> Tensor:
    """True (B,) for a random share of the items (B, ...)."""
    return torch.rand(len(items), generator=generator, device=items.device) < share
