"""Speech, as the shared training and evaluation know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.logits import Logits, LogitsSpace
from cdasr.coupled.domain import Domain
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import denoising_loss
from cdasr.speech.evaluation import EVALUATION, evaluation_after
from cdasr.speech.metrics import si_sdr
from cdasr.speech.normalisers import PLAIN, Normaliser, recipe_normaliser
from cdasr.speech.padded_data import sample_lengths
from cdasr.speech.segments import collate_waves
from cdasr.speech.signal_model import Spectra
from cdasr.speech.words import word_errors


def transcript_errors(recogniser: nn.Module, logits: Logits, texts: Sequence[str],
                      normalise: Normaliser = PLAIN) -> list[tuple[int, int]]:
    """Word errors of decoded logits after `normalise`, and the words of each text."""
    return [word_errors(*pair, normalise) for pair in zip(texts, logits.texts())]


def signal_loss(x0_hat: Tensor, x0: Tensor, spectra: Spectra, hparams) -> Tensor:
    """Squared error of spectra (B, 1, F, N) over their valid frames, plus `magnitude_weight` times the amplitudes'."""
    mask = spectra.mask[:, None, None]
    return (denoising_loss(x0_hat, x0, mask=mask)
            + hparams.magnitude_weight * denoising_loss(safe_abs(x0_hat), x0.abs(), mask=mask))


def safe_abs(x: Tensor) -> Tensor:
    """|x| of a complex tensor with a gradient that is finite at 0."""
    return (x.real.square() + x.imag.square() + 1e-8).sqrt()


def logits_loss(l_hat: Tensor, clean: Observation, space: LogitsSpace, recogniser: nn.Module, hparams) -> Tensor:
    """The loss of the recogniser's kind of logits."""
    return clean.context.loss(l_hat, clean.logits, space, hparams)


def excerpt_loss(recogniser: nn.Module, estimate: Tensor, clean: Tensor, lengths: Tensor, hparams,
                 generator: torch.Generator) -> Tensor:
    """Squared distance of the recogniser's hidden states of `estimate` (B, T) and `clean` (B, T) waveforms.

    Of each item an excerpt of `excerpt_seconds` is drawn. States are normalised at each position, and the mean is over
    layers and over positions before the item's end. The gradient passes through the frozen recogniser.
    """
    size = min(int(hparams.excerpt_seconds * recogniser.sample_rate), clean.shape[1])
    spare = (lengths - size).clamp_min(0)
    starts = (torch.rand(len(spare), generator=generator, device=spare.device) * (spare + 1)).long()
    places = starts[:, None] + torch.arange(size, device=spare.device)
    hidden = [recogniser.excerpt_states(waves.gather(1, places)) for waves in (estimate, clean)]
    count = hidden[0][0].shape[1]
    ends = (lengths.clamp_max(size) / size * count).ceil().long()
    mask = (torch.arange(count, device=ends.device) < ends[:, None])[..., None]
    return torch.stack([denoising_loss(*(F.layer_norm(states.float(), states.shape[-1:]) for states in pair), mask=mask)
                        for pair in zip(*hidden)]).mean()


def scored_after(normalise: Normaliser) -> Domain:
    """Speech with transcripts compared after `normalise`, in training as in evaluation."""
    return replace(SPEECH, errors=partial(transcript_errors, normalise=normalise),
                   evaluation=evaluation_after(normalise))


def scored_as(hparams: Mapping) -> Domain:
    """Speech with transcripts compared after the `normaliser` of a recipe."""
    normalise = recipe_normaliser(hparams)
    return SPEECH if normalise is PLAIN else scored_after(normalise)


SPEECH = Domain(
    name="speech", truth="text", rate="wer", errors=transcript_errors, collate=collate_waves, lengths=sample_lengths,
    signal_loss=signal_loss, logits_loss=logits_loss, excerpt_loss=excerpt_loss,
    quality=("si_sdr", lambda enhanced, clean: float(si_sdr(enhanced, clean))), evaluation=EVALUATION,
    scored_as=scored_as)
