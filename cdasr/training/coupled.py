"""Stage 5: both processes trained together, each given what the other will show it in sampling."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from cdasr.classifiers.ctc import CTCRecogniser, Logits
from cdasr.diffusion import coupling
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.networks import make_network
from cdasr.speech.logits_model import LogitsModel
from cdasr.speech.sides import Sides, logits_at_spectra, strategy_steps
from cdasr.speech.signal_model import SignalModel, Spectra
from cdasr.speech.words import word_errors
from cdasr.training.base import Trainer
from cdasr.training.data import Utterances, sample_lengths
from cdasr.training.logits import choose, detached, drop_hidden, logits_loss, where
from cdasr.training.signal import FixedPairs, noisy_and_clean, signal_loss

CONDITIONS = ("none", "heard", "estimate", "noised")  # what the signal network may be given as logits


class CoupledTrainer(Trainer):
    """Coupled training (method.md, Training 3), along the order in which the strategies work.

    1. The signal network's estimate at t_max, told nothing: C of it is what the logits network sees first. Logits from
       that, or from C(y).
    2. The signal network's estimate x_hat0 at a random time, told, in the shares of `conditions`: nothing; C(y); the
       logits of 1; C(x0), noised by the logits process. The loss of its spectra and, by `recogniser_weight`, that of
       C(x_hat0) against C(x0), whose gradient passes through C and leaves C as it is.
    3. The logits network's estimate: its loss. Given C(y) for a share `drop_seen`, else C(x_hat0) of 2 for the items
       whose time was t_max, and of 1 for the others: no estimate that a state near the clean signal has helped.

    For a share `own_states`, the states of 2 and 3 are made of the estimates of 1 in place of the clean variables.
    """

    def __init__(self, signal: SignalModel, logits: LogitsModel, recogniser: CTCRecogniser, output_dir: Path,
                 hparams: dict, device: str):
        super().__init__({"signal": signal.network, "logits": logits.network}, output_dir, hparams, device)
        self.signal, self.logits, self.recogniser = signal, logits, recogniser.to(device)

    def models(self, networks: nn.ModuleDict) -> tuple[SignalModel, LogitsModel]:
        """Both models around `networks`."""
        return (SignalModel(networks.signal, self.signal.process, self.signal.stft, self.signal.config),
                LogitsModel(networks.logits, self.logits.process, self.logits.space, self.logits.config))

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
        noise = gaussian_noise(generator)
        signal, logits = self.models(self.modules)
        lengths = sample_lengths(batch.noisy)
        with torch.autocast(torch.device(self.device).type, enabled=False), torch.no_grad():
            spectra = signal.analyse(batch.noisy.data, lengths)
            x0 = signal.clean_spectra(batch.clean.data, spectra)
            heard = logits.observation(self.recogniser(batch.noisy.data, lengths))
            like = heard.context
            clean = logits.observation(self.recogniser(batch.clean.data, lengths, **like.positions))
        with torch.no_grad():
            start = torch.full((len(x0),), signal.process.t_max, device=self.device)
            x_first = signal.estimate(signal.process.prior(spectra.y, noise(spectra.y)), start, spectra)
            seen = self._observe(x_first, spectra, like)
            l_first = self._first_logits(logits, heard, seen, generator)
            told = self._told(signal, logits, heard, l_first, clean, spectra, generator)

        t = draw_times(signal.process, len(x0), generator, start_share=self.hparams.start_share)
        x_t = perturb(signal.process, self._own(x_first, x0, generator), spectra.y, t, noise)
        x_hat = signal.estimate(x_t, t, spectra, told)
        heard_hat = self._observe(x_hat, spectra, like)

        seen = choose(where(t == start, detached(heard_hat), seen), heard, self.hparams.drop_seen, generator)
        s = draw_times(logits.process, len(x0), generator, start_share=self.hparams.start_share)
        l_s = perturb(logits.process, self._own(l_first, clean.logits, generator), heard.logits, s, noise)
        heard, seen = (drop_hidden(part, self.hparams.drop_hidden, generator) for part in (heard, seen))
        l_hat = logits.estimate(l_s, s, heard, seen)
        return x_hat, x0, spectra.mask, heard_hat.logits, l_hat, clean

    def compute_objectives(self, predictions, batch, stage):
        x_hat, x0, mask, heard_hat, l_hat, clean = predictions
        weights = self.hparams
        loss = signal_loss(x_hat, x0, mask, weights.magnitude_weight)
        for weight, estimate in ((weights.recogniser_weight, heard_hat), (weights.logits_weight, l_hat)):
            loss = loss + weight * logits_loss(estimate, clean, self.logits.space, self.recogniser,
                                               weights.kl_weight, weights.sequence_weight)
        return loss

    def _observe(self, x_hat: Tensor, spectra: Spectra, like: Logits) -> Observation:
        """C of a signal estimate, at the positions of C(y)."""
        with torch.autocast(torch.device(self.device).type, enabled=False):
            waves = self.signal.synthesise(x_hat, spectra)
            return self.logits.observation(self.recogniser(waves, spectra.lengths, **like.positions))

    def _first_logits(self, logits: LogitsModel, heard: Observation, seen: Observation,
                      generator: torch.Generator) -> Tensor:
        """l_hat0 of the logits process's sampler; half of the items are given C(y), as `parallel` begins."""
        return logits.side(heard, self.hparams.told_steps).sample(choose(seen, heard, 0.5, generator))

    def _own(self, estimate: Tensor, clean: Tensor, generator: torch.Generator) -> Tensor:
        """What a state is made of: the network's own `estimate` for a share `own_states` of the items, else `clean`.

        Sampling makes its states of estimates; a network that has only met states made of the truth trusts them.
        """
        own = torch.rand(len(clean), generator=generator, device=clean.device) < self.hparams.own_states
        return torch.where(own.view(-1, *(1,) * (clean.dim() - 1)), estimate, clean)

    def _told(self, signal: SignalModel, logits: LogitsModel, heard: Observation, estimate: Tensor,
              clean: Observation, spectra: Spectra, generator: torch.Generator) -> Tensor:
        """Logits at the frames of the spectra (B, N, V), one of CONDITIONS for each item."""
        s = draw_times(logits.process, len(heard.logits), generator)
        given = {"none": torch.zeros_like(heard.logits), "heard": heard.logits, "estimate": estimate,
                 "noised": perturb(logits.process, clean.logits, heard.logits, s, gaussian_noise(generator))}
        shares = torch.tensor([self.hparams.conditions[name] for name in CONDITIONS])
        picks = torch.multinomial(shares, len(heard.logits), replacement=True, generator=generator)
        told = torch.stack([given[name] for name in CONDITIONS])[picks, torch.arange(len(picks))]
        return logits_at_spectra(told, heard.context, self.recogniser, signal, spectra.y.shape[-1])

    def validate_batch(self, batch, networks: nn.ModuleDict):
        signal, logits = self.models(networks)
        lengths = sample_lengths(batch.noisy)
        sums = {"words": sum(len(text.split()) for text in batch.text)}
        for name in self.hparams.validate:
            sides = Sides(self.recogniser, signal, logits, batch.noisy.data, lengths,
                          *strategy_steps(name, signal, logits))
            result = coupling.STRATEGIES[name](sides.signal, sides.logits, sides.observe)
            heard = result.observed.context
            for key, answer in ((name, logits.decoded(result.logits, heard)), (f"{name}_signal", heard)):
                texts = self.recogniser.decode(answer.values, answer.lengths)
                sums[key] = sum(word_errors(*pair)[0] for pair in zip(batch.text, texts))
        return sums

    def summarise(self, sums):
        rates = {f"wer_{key}": 100.0 * value / sums["words"] for key, value in sums.items() if key != "words"}
        return {"wer": mean(rates[f"wer_{name}"] for name in self.hparams.validate), **rates}


def train_coupled(signal: SignalModel, logits: LogitsModel, recogniser: CTCRecogniser, train_rows: Sequence,
                  valid_rows: Sequence, output_dir: Path, hparams: dict, degrade,
                  device: str) -> tuple[SignalModel, LogitsModel]:
    """Train copies of both pretrained models; the signal network gets its injection of logits, starting at zero.

    Returns the EMA models of the best epoch.
    """
    torch.manual_seed(hparams["seed"])
    trainer = CoupledTrainer(with_injection(signal, logits, hparams["condition"]), deepcopy(logits), recogniser,
                             output_dir, hparams, device)
    best = trainer.run(Utterances(train_rows, signal.sample_rate, hparams["seed"], True, noisy_and_clean(degrade)),
                       FixedPairs(valid_rows, signal.sample_rate))
    return trainer.models(best)


def with_injection(signal: SignalModel, logits: LogitsModel, condition: int) -> SignalModel:
    """The signal model with `condition` channels for logits, which do nothing yet: the same outputs, bit for bit."""
    options = {**signal.config["network"], "tokens": logits.config["network"]["tokens"], "condition": condition}
    network = make_network({"bins": signal.stft.bins, **options})
    network.load_state_dict(signal.network.state_dict(), strict=False)
    return SignalModel(network, signal.process, signal.stft, {**signal.config, "network": options})
