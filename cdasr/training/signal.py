"""Stage 3: pretraining of the signal process, validated by what the frozen recogniser hears after real sampling."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.diffusion.objectives import denoising_loss, draw_times, perturb
from cdasr.diffusion.samplers import gaussian_noise
from cdasr.speech.metrics import si_sdr
from cdasr.speech.signal_model import SignalModel
from cdasr.speech.words import word_errors
from cdasr.training.base import Trainer
from cdasr.training.data import Utterances, sample_lengths


class SignalTrainer(Trainer):
    """Denoising training of a `SignalModel` (method.md, Training 1): E |D(x_t, t; y) - x0|^2.

    A share of the times is drawn at t_max, where every few-step trajectory starts. `magnitude_weight` adds the error
    of the amplitudes, which recognisers listen to. Validation samples with the real sampler and reports the
    recogniser's word error rate and the SI-SDR in dB.
    """

    def __init__(self, model: SignalModel, recogniser: CTCRecogniser, output_dir: Path, hparams: dict, device: str):
        super().__init__({"network": model.network}, output_dir, hparams, device)
        self.signal, self.recogniser = model, recogniser.to(device)

    def compute_forward(self, batch, stage):
        batch = batch.to(self.device)
        with torch.autocast(torch.device(self.device).type, enabled=False):
            spectra = self.signal.analyse(batch.noisy.data, sample_lengths(batch.noisy))
            x0 = self.signal.clean_spectra(batch.clean.data, spectra)
            generator = torch.Generator(self.device).manual_seed(torch.initial_seed())
            t = draw_times(self.signal.process, len(x0), generator, start_share=self.hparams.start_share)
            x_t = perturb(self.signal.process, x0, spectra.y, t, gaussian_noise(generator))
        model = SignalModel(self.modules.network, self.signal.process, self.signal.stft, self.signal.config)
        return model.estimate(x_t, t, spectra), x0, spectra.mask

    def compute_objectives(self, predictions, batch, stage):
        return signal_loss(*predictions, self.hparams.magnitude_weight)

    def validate_batch(self, batch, networks: nn.ModuleDict):
        model = SignalModel(networks.network, self.signal.process, self.signal.stft, self.signal.config)
        lengths = sample_lengths(batch.noisy)
        waves, _ = model.enhance(batch.noisy.data, lengths)
        logits = self.recogniser(waves, lengths)
        counts = [word_errors(text, heard)
                  for text, heard in zip(batch.text, self.recogniser.decode(logits.values, logits.lengths))]
        quality = [float(si_sdr(wave[:length], clean[:length]))
                   for wave, clean, length in zip(waves, batch.clean.data, lengths)]
        return {"errors": sum(count[0] for count in counts), "words": sum(count[1] for count in counts),
                "si_sdr": sum(quality), "utterances": len(quality)}

    def summarise(self, sums):
        return {"wer": 100.0 * sums["errors"] / sums["words"], "si_sdr": sums["si_sdr"] / sums["utterances"]}


def train_signal(config: dict, recogniser: CTCRecogniser, train_rows, valid_rows, output_dir: Path, hparams: dict,
                 degrade, device: str, start: SignalModel | None = None) -> SignalModel:
    """Train the signal process on clean `train_rows`, degraded on the fly by `degrade(clean, rng) -> noisy, clean`.

    `valid_rows` are a fixed noisy set (with `clean_wav`) over noise that is not trained on. Training begins with the
    weights of `start` where one of the same `config` is given. Returns the EMA model of the best epoch.
    """
    torch.manual_seed(hparams["seed"])
    model = SignalModel.from_config(config)
    if start is not None:
        model.network.load_state_dict(start.network.state_dict())
    trainer = SignalTrainer(model, recogniser, output_dir, hparams, device)
    best = trainer.run(Utterances(train_rows, model.sample_rate, hparams["seed"], True, noisy_and_clean(degrade)),
                       FixedPairs(valid_rows, model.sample_rate))
    return SignalModel(best.network, model.process, model.stft, model.config)


def noisy_and_clean(degrade: Callable) -> Callable[[np.ndarray, np.random.Generator], dict[str, np.ndarray]]:
    """`degrade(clean, rng) -> noisy, clean` as a transform of `Utterances`."""
    return lambda wave, rng: dict(zip(("noisy", "clean"), degrade(wave, rng)))


class FixedPairs(Utterances):
    """Items `{id, text, noisy, clean}` of a fixed noisy manifest."""

    def __init__(self, rows, rate: int):
        super().__init__(rows, rate, seed=0, train=False, transform=lambda wave, rng: {"noisy": wave})

    def __getitem__(self, index: int) -> dict:
        from cdasr.speech.audio import fit_length, read_audio

        item = super().__getitem__(index)
        clean, _ = read_audio(self.rows[index]["clean_wav"], self.rate)
        return {**item, "clean": torch.from_numpy(fit_length(clean, len(item["noisy"])))}


def signal_loss(x0_hat: torch.Tensor, x0: torch.Tensor, mask: torch.Tensor, magnitude_weight: float) -> torch.Tensor:
    """Squared error of spectra (B, 1, F, N) over the frames of `mask` (B, N), plus that of their amplitudes."""
    mask = mask[:, None, None]
    return (denoising_loss(x0_hat, x0, mask=mask)
            + magnitude_weight * denoising_loss(safe_abs(x0_hat), x0.abs(), mask=mask))


def safe_abs(x: torch.Tensor) -> torch.Tensor:
    """|x| of a complex tensor with a gradient that is finite at 0."""
    return (x.real.square() + x.imag.square() + 1e-8).sqrt()
