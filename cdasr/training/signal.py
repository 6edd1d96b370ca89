"""Stage 3: pretraining of the signal process, validated by what the frozen classifier makes of real samples."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits, LogitsSpace
from cdasr.coupled.domain import Domain
from cdasr.coupled.models import Analysis, SignalModel, observation, unpadded
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.training.base import Trainer
from cdasr.training.condition_mix import pick, swap_spans
from cdasr.training.data import Items


class SignalTrainer(Trainer):
    """Denoising training of a signal process (method.md, Training 1): E |D(x_t, t; y) - x0|^2.

    A share of the times is drawn at t_max, where every few-step trajectory starts; the loss is the domain's. With a
    `recogniser_weight` the loss of C(x_hat0) against C(x0) is added, whose gradient passes through C and leaves C as it
    is. With an `excerpt_weight` the domain's `excerpt_loss` is added: hidden states of C in place of its logits, of a
    piece of each signal. Validation samples with the real sampler and reports the classifier's error rate and the
    quality in dB.

    With shares `conditions` of what it is conditioned on (`none`, `heard`: C(y), `noised`: C(x0) on the way to C(y))
    the network learns from the start to use logits. Validation then reports the error rate conditioned on C(x0) too.
    """

    def __init__(self, model: SignalModel, classifier: nn.Module, output_dir: Path, hparams: dict, device: str,
                 domain: Domain):
        super().__init__({"network": model.network}, output_dir, hparams, device, domain.rate)
        self.signal, self.classifier, self.domain = model, classifier.to(device), domain

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        with torch.autocast(torch.device(self.device).type, enabled=False):
            degraded = self.signal.analyse(batch.noisy.data, self.domain.lengths(batch.noisy))
            x0 = self.signal.target(batch.clean.data, degraded)
            generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
            t = draw_times(self.signal.process, len(x0), generator, start_prob=self.hparams.start_prob)
            x_t = perturb(self.signal.process, x0, degraded.y, t, gaussian_noise(generator))
            clean, condition = None, None
            if self.condition_probs:
                noisy_obs, clean = self._observe(batch, degraded)
                condition = self._condition(noisy_obs, clean, degraded, generator)
            elif self.recogniser_weight:
                clean = self._clean(batch, degraded)
        x_hat = self.signal.with_network(self.modules.network).estimate(x_t, t, degraded, condition)
        return x_hat, x0, degraded, clean, generator

    def compute_objectives(self, predictions, batch, stage):
        x_hat, x0, degraded, clean, generator = predictions
        loss = self.domain.signal_loss(x_hat, x0, degraded, self.hparams)
        if self.domain.excerpt_loss is not None and self.hparams.excerpt_weight:
            loss = loss + excerpt_loss(self, x_hat, degraded, batch, generator)
        if self.recogniser_weight:
            loss = loss + self.recogniser_weight * self._classified_loss(x_hat, degraded, clean)
        return loss

    @property
    def condition_probs(self) -> dict:
        """Shares of what the network is conditioned on; empty: on nothing."""
        return self.hparams.conditions

    @property
    def recogniser_weight(self) -> float:
        """Weight of the loss of C(x_hat0)."""
        return self.hparams.recogniser_weight

    def _space(self, clean: Logits) -> LogitsSpace:
        """The logits space of a batch's C(x0)."""
        return clean.fit_space([(clean.values, clean.lengths)])

    @torch.no_grad()
    def _clean(self, batch, degraded: Analysis, like: Logits | None = None) -> Logits:
        """C(x0), at the positions of an earlier observation where it is `like` one."""
        return self.classifier(batch.clean.data, degraded.lengths, like=like)

    @torch.no_grad()
    def _observe(self, batch, degraded: Analysis) -> tuple[Logits, Logits]:
        """C(y), and C(x0) at its positions."""
        noisy_obs = self.classifier(batch.noisy.data, degraded.lengths)
        return noisy_obs, self._clean(batch, degraded, like=noisy_obs)

    def _condition(self, noisy_obs: Logits, clean: Logits, degraded: Analysis, generator: torch.Generator) -> Tensor:
        """Logits where the network takes them, of the kind that is drawn for each item."""
        space = self._space(clean)
        y, known = (observation(logits, space).logits for logits in (noisy_obs, clean))
        s = draw_times(self.signal.process, len(y), generator)
        noised = perturb(self.signal.process, known, y, s, gaussian_noise(generator))
        given = {"none": torch.zeros_like(y), "heard": y, "noised": swap_spans(noised, self.hparams.swapped, generator)}
        return self.signal.align(pick(given, self.condition_probs, generator), noisy_obs, degraded)

    def _classified_loss(self, x_hat: Tensor, degraded: Analysis, clean: Logits) -> Tensor:
        """The loss of C(x_hat0) against C(x0), in the logits space of this batch's C(x0)."""
        space = self._space(clean)
        with torch.autocast(torch.device(self.device).type, enabled=False):
            estimated = self.classifier(self.signal.synthesise(x_hat, degraded), degraded.lengths, like=clean)
            return self.domain.logits_loss(space.encode(estimated.values),
                                           Observation(space.encode(clean.values), clean), space, self.classifier,
                                           self.hparams)

    def validate_batch(self, batch, networks: nn.ModuleDict):
        lengths, (name, measure) = self.domain.lengths(batch.noisy), self.domain.quality
        enhanced, _ = self.signal.with_network(networks.network).enhance(batch.noisy.data, lengths)
        errors, counted = self.domain.count(self.classifier, self.classifier(enhanced, lengths),
                                            self.domain.truths(batch))
        quality = [measure(*pair) for pair in zip(unpadded(enhanced, lengths), unpadded(batch.clean.data, lengths))]
        sums = {"errors": errors, "counted": counted, name: sum(quality), "items": len(quality)}
        if self.condition_probs:
            sums["errors_told"] = self._oracle_errors(batch, self.signal.with_network(networks.network))
        return sums

    def _oracle_errors(self, batch, signal: SignalModel) -> float:
        """Errors of C(x_hat0) where the signal process is given C(x0)."""
        degraded = signal.analyse(batch.noisy.data, self.domain.lengths(batch.noisy))
        noisy_obs, clean = self._observe(batch, degraded)
        condition = observation(clean, self._space(clean)).logits
        process = signal.reverse(degraded, lambda logits: signal.align(logits, noisy_obs, degraded))
        enhanced = signal.synthesise(process.sample(condition), degraded)
        enhanced_obs = self.classifier(enhanced, degraded.lengths, like=noisy_obs)
        return self.domain.count(self.classifier, enhanced_obs, self.domain.truths(batch))[0]

    def summarise(self, sums):
        (name, _), rate = self.domain.quality, self.domain.rate
        rates = {key.replace("errors", rate): 100.0 * value / sums["counted"] for key, value in sums.items()
                 if key.startswith("errors")}
        return {**rates, name: sums[name] / sums["items"]}


def excerpt_loss(trainer: Trainer, x_hat: Tensor, degraded: Analysis, batch, generator: torch.Generator) -> Tensor:
    """The domain's weighted loss of the classifier's hidden states of an excerpt of the estimate `x_hat` (B, ...)."""
    with torch.autocast(torch.device(trainer.device).type, enabled=False):
        estimate = trainer.signal.synthesise(x_hat.to(degraded.y.dtype), degraded)
    return trainer.hparams.excerpt_weight * trainer.domain.excerpt_loss(
        trainer.classifier, estimate, batch.clean.data, degraded.lengths, trainer.hparams, generator)


def fit_signal(model: SignalModel, classifier: nn.Module, domain: Domain, train: Items, valid: Items,
               output_dir: Path, hparams: dict, device: str, start: SignalModel | None = None) -> SignalModel:
    """Train a signal process on items `{noisy, clean, <truth>}`, from the weights of `start` where it is given.

    Returns the EMA model of the best epoch.
    """
    if hparams["conditions"]:
        channels = classifier.logits_size, hparams["condition"]
        model, start = (process and process.with_injection(*channels) for process in (model, start))
    if start is not None:
        model.network.load_state_dict(start.network.state_dict())
    best = SignalTrainer(model, classifier, output_dir, hparams, device, domain).run(train, valid)
    return model.with_network(best.network)
