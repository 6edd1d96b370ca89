"""Stage 5: both processes trained together, each given what the other will show it in sampling."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits
from cdasr.coupled.domain import Domain
from cdasr.coupled.models import Analysis, CoupledRun, LogitsModel, SignalModel, strategy_steps
from cdasr.coupled.pipeline import coupling_function
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.training.base import Trainer
from cdasr.training.condition_mix import pick, swap_spans
from cdasr.training.data import Items
from cdasr.training.logits import choose, detached, drawn, drop_hidden, per_item, where


class CoupledTrainer(Trainer):
    """Coupled training (method.md, Training 3), along the order in which the strategies work.

    1. The signal network's estimate at t_max, given no logits: C of it is what the logits network gets first. Logits
       from that, or from C(y).
    2. The signal network's estimate x_hat0 at a random time, given, in the shares of `conditions`: nothing; C(y); the
       logits of 1, a share `swapped` with a span of another item's; C(x0), noised by the logits process. The loss of
       the signal and, by `recogniser_weight`, that of C(x_hat0) against C(x0), whose gradient passes through C and
       leaves C as it is.
    3. The logits network's estimate: its loss. Given C(y) for a share `drop_seen`, else C(x_hat0) of 2 for the items
       whose time was t_max, and of 1 for the others: no estimate that a state near the clean signal has helped.

    With probability `scheduled_sampling_prob`, the states of 2 and 3 are made of the estimates of 1 in place of the
    clean variables.
    """

    def __init__(self, signal: SignalModel, logits: LogitsModel, classifier: nn.Module, output_dir: Path,
                 hparams: dict, device: str, domain: Domain):
        super().__init__({"signal": signal.network, "logits": logits.network}, output_dir, hparams, device, domain.rate)
        self.signal, self.logits, self.classifier, self.domain = signal, logits, classifier.to(device), domain

    def models(self, networks: nn.ModuleDict) -> tuple[SignalModel, LogitsModel]:
        """Both models around `networks`."""
        return self.signal.with_network(networks.signal), self.logits.with_network(networks.logits)

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
        noise = gaussian_noise(generator)
        signal, logits = self.models(self.modules)
        lengths = self.domain.lengths(batch.noisy)
        with torch.autocast(torch.device(self.device).type, enabled=False), torch.no_grad():
            degraded = signal.analyse(batch.noisy.data, lengths)
            x0 = signal.target(batch.clean.data, degraded)
            noisy_obs = logits.observation(self.classifier(batch.noisy.data, lengths))
            like = noisy_obs.context
            clean = logits.observation(self.classifier(batch.clean.data, lengths, like=like))
        with torch.no_grad():
            start = torch.full((len(x0),), signal.process.t_max, device=self.device)
            x_first = signal.estimate(signal.process.prior(degraded.y, noise(degraded.y)), start, degraded)
            enhanced_obs = self._observe(x_first, degraded, like)
            l_first = self._first_logits(logits, noisy_obs, enhanced_obs, generator)
            condition = self._condition(signal, logits, noisy_obs, l_first, clean, degraded, generator)

        t = draw_times(signal.process, len(x0), generator, start_prob=self.hparams.start_prob)
        x_t = perturb(signal.process, self._own(x_first, x0, generator), degraded.y, t, noise)
        x_hat = signal.estimate(x_t, t, degraded, condition)
        obs_hat = self._observe(x_hat, degraded, like)

        enhanced_obs = choose(where(t == start, detached(obs_hat), enhanced_obs), noisy_obs, self.hparams.drop_seen,
                              generator)
        s = draw_times(logits.process, len(x0), generator, start_prob=self.hparams.start_prob)
        l_s = perturb(logits.process, self._own(l_first, clean.logits, generator), noisy_obs.logits, s, noise)
        noisy_obs, enhanced_obs = (drop_hidden(observation, self.hparams.drop_hidden, generator)
                                   for observation in (noisy_obs, enhanced_obs))
        l_hat = logits.estimate(l_s, s, noisy_obs, enhanced_obs)
        return x_hat, x0, degraded, obs_hat.logits, l_hat, clean

    def compute_objectives(self, predictions, batch, stage):
        x_hat, x0, degraded, obs_hat, l_hat, clean = predictions
        loss = self.domain.signal_loss(x_hat, x0, degraded, self.hparams)
        for weight, estimate in ((self.hparams.recogniser_weight, obs_hat), (self.hparams.logits_weight, l_hat)):
            loss = loss + weight * self.domain.logits_loss(estimate, clean, self.logits.space, self.classifier,
                                                         self.hparams)
        return loss

    def _observe(self, x_hat: Tensor, degraded: Analysis, like: Logits) -> Observation:
        """C of a signal estimate, at the positions of C(y)."""
        with torch.autocast(torch.device(self.device).type, enabled=False):
            signals = self.signal.synthesise(x_hat, degraded)
            return self.logits.observation(self.classifier(signals, degraded.lengths, like=like))

    def _first_logits(self, logits: LogitsModel, noisy_obs: Observation, enhanced_obs: Observation,
                      generator: torch.Generator) -> Tensor:
        """l_hat0 of the logits process's sampler, given C(x_first); half of the items are given C(y).

        On speech to train on, logits made of C(x_first) are better than they will be on other speech: a signal network
        given only these would trust them too much.
        """
        observed = choose(enhanced_obs, noisy_obs, 0.5, generator)
        return logits.reverse(noisy_obs, self.hparams.condition_steps).sample(observed)

    def _own(self, estimate: Tensor, clean: Tensor, generator: torch.Generator) -> Tensor:
        """What a state is made of: the network's own `estimate` with `scheduled_sampling_prob`, else `clean`.

        Sampling makes its states of estimates; a network that has only met states made of the truth trusts them.
        """
        own = drawn(self.hparams.scheduled_sampling_prob, clean, generator)
        return torch.where(per_item(own, clean), estimate, clean)

    def _condition(self, signal: SignalModel, logits: LogitsModel, noisy_obs: Observation, estimate: Tensor,
              clean: Observation, degraded: Analysis, generator: torch.Generator) -> Tensor:
        """Logits where the signal network takes them, of the kind that is drawn for each item."""
        s = draw_times(logits.process, len(noisy_obs.logits), generator)
        estimate = swap_spans(estimate, self.hparams.swapped, generator)
        given = {"none": torch.zeros_like(noisy_obs.logits), "heard": noisy_obs.logits, "estimate": estimate,
                 "noised": perturb(logits.process, clean.logits, noisy_obs.logits, s, gaussian_noise(generator))}
        return signal.align(pick(given, self.hparams.conditions, generator), noisy_obs.context, degraded)

    def validate_batch(self, batch, networks: nn.ModuleDict):
        signal, logits = self.models(networks)
        lengths = self.domain.lengths(batch.noisy)
        truths, sums = self.domain.truths(batch), {}
        for name in self.hparams.validate:
            run = CoupledRun(self.classifier, signal, logits, batch.noisy.data, lengths,
                             *strategy_steps(name, signal, logits))
            result = coupling_function(name)(run.signal, run.start_logits, run.observe)
            observed = result.observed.context
            for key, answer in ((name, run.answer(result.logits, observed)), (f"{name}_signal", observed.redecode())):
                sums[key], sums["counted"] = self.domain.count(self.classifier, answer, truths)
        return sums

    def summarise(self, sums):
        rate, counted = self.domain.rate, sums["counted"]
        rates = {f"{rate}_{key}": 100.0 * value / counted for key, value in sums.items() if key != "counted"}
        return {rate: mean(rates[f"{rate}_{name}"] for name in self.hparams.validate), **rates}


def fit_coupled(signal: SignalModel, logits: LogitsModel, classifier: nn.Module, domain: Domain, train: Items,
                valid: Items, output_dir: Path, hparams: dict, device: str) -> tuple[SignalModel, LogitsModel]:
    """Train copies of both pretrained models; the signal network gets its injection of logits, starting at zero.

    Items are `{noisy, clean, <truth>}`. Returns the EMA models of the best epoch.
    """
    torch.manual_seed(hparams["seed"])
    guided = signal.with_injection(logits.tokens, hparams["condition"])
    trainer = CoupledTrainer(guided, deepcopy(logits), classifier, output_dir, hparams, device, domain)
    return trainer.models(trainer.run(train, valid))
