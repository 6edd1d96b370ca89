"""Stage 5 where the classifier is too slow to be asked in every step: the signal process learns to use logits.

The logits process stays as stage 4 left it. What the classifier makes of each training signal is in the cache of stage
4, so that neither C(y) nor C(x_hat) is computed again; the loss of C's hidden states of an excerpt (`excerpt_weight`)
stands in for that of C(x_hat).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from cdasr.coupled.domain import Domain
from cdasr.coupled.models import LogitsModel, SignalModel
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.training.coupled import CoupledTrainer
from cdasr.training.data import Items
from cdasr.training.logits_cache import LogitsCache
from cdasr.training.signal import excerpt_loss


class CachedPairs(Dataset):
    """Items `{id, noisy, clean, <truth>}` of the cache, drawn again, with what it holds of them (`*_logits`, ...)."""

    def __init__(self, items: Items, cache: LogitsCache):
        self.items, self.cache, self.rows, self.epoch = items, cache, cache.rows, 0
        self.places = {row["ID"]: place for place, row in enumerate(items.rows)}

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        name, _, epoch = self.rows[index]["ID"].rpartition("-")
        self.items.epoch = int(epoch)
        known = {key: value for key, value in self.cache[index].items() if isinstance(value, Tensor)}
        named = {f"{key}_logits" if key in ("heard", "seen", "clean") else key: value for key, value in known.items()}
        return {**self.items[self.places[name]], **named}


class GuidedTrainer(CoupledTrainer):
    """Denoising training of the signal network alone, given logits in the shares of `conditions`.

    As in `CoupledTrainer` these are nothing, C(y), the logits process's own estimate, and a noised C(x0).
    """

    unused_parameters = True  # those of the logits network

    def __init__(self, signal: SignalModel, logits: LogitsModel, classifier: nn.Module, output_dir: Path,
                 hparams: dict, device: str, domain: Domain):
        logits.network.requires_grad_(False)
        super().__init__(signal, logits, classifier, output_dir, hparams, device, domain)

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
        signal, logits = self.models(self.modules)
        logits.network.eval()
        with torch.autocast(torch.device(self.device).type, enabled=False), torch.no_grad():
            degraded = signal.analyse(batch.noisy.data, self.domain.lengths(batch.noisy))
            x0 = signal.target(batch.clean.data, degraded)
            t = draw_times(signal.process, len(x0), generator, start_prob=self.hparams.start_prob)
            x_t = perturb(signal.process, x0, degraded.y, t, gaussian_noise(generator))
            noisy_obs, enhanced_obs, clean = (self._cached(batch, logits, name) for name in ("heard", "seen", "clean"))
            estimate = self._first_logits(logits, noisy_obs, enhanced_obs, generator)
            condition = self._condition(signal, logits, noisy_obs, estimate, clean, degraded, generator)
        return signal.estimate(x_t, t, degraded, condition), x0, degraded, generator

    def compute_objectives(self, predictions, batch, stage):
        x_hat, x0, degraded, generator = predictions
        loss = self.domain.signal_loss(x_hat, x0, degraded, self.hparams)
        if self.domain.excerpt_loss is not None and self.hparams.excerpt_weight:
            loss = loss + excerpt_loss(self, x_hat, degraded, batch, generator)
        return loss

    def _cached(self, batch, logits: LogitsModel, name: str) -> Observation:
        """An observation of the cache; `clean` comes without hidden states."""
        padded, hidden = getattr(batch, f"{name}_logits"), getattr(batch, f"{name}_hidden", None)
        lengths = self.domain.lengths(padded)
        context = self.classifier.kind(padded.data, lengths, hidden and hidden.data, self.classifier)
        if hasattr(batch, "boundaries"):  # padding must not go back in time
            context = replace(context, boundaries=batch.boundaries.data.cummax(dim=1).values)
        return logits.observation(context)


def fit_guided(signal: SignalModel, logits: LogitsModel, classifier: nn.Module, domain: Domain, train: Items,
               valid: Items, output_dir: Path, hparams: Mapping, device: str) -> tuple[SignalModel, LogitsModel]:
    """Train a copy of the signal process, with its injection of logits, on the items of `CachedPairs`.

    Returns the EMA models of the best epoch; the logits process is as it was.
    """
    torch.manual_seed(hparams["seed"])
    guided = signal.with_injection(logits.tokens, hparams["condition"])
    trainer = GuidedTrainer(guided, deepcopy(logits), classifier, output_dir, hparams, device, domain)
    return trainer.models(trainer.run(train, valid))
