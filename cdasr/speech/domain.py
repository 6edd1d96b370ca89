"""Speech, as the shared training and evaluation know it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from cdasr.classifiers.logits import Logits, frame_mask
from cdasr.classifiers.logits_space import LogitsSpace
from cdasr.coupled.domain import Domain, posterior_loss
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import categorical_loss, denoising_loss
from cdasr.speech.evaluation import EVALUATION
from cdasr.speech.metrics import si_sdr
from cdasr.speech.signal_model import Spectra
from cdasr.speech.words import word_errors


def transcript_errors(recogniser: nn.Module, logits: Logits, texts: Sequence[str]) -> list[tuple[int, int]]:
    """Word errors of decoded logits, and the words of each text."""
    return [word_errors(*pair) for pair in zip(texts, recogniser.decode(logits.values, logits.lengths))]


def collate_waves(waves: Sequence[np.ndarray | Tensor]) -> tuple[Tensor, Tensor]:
    """Zero-padded waveforms (B, T) and their lengths (B,) in samples."""
    waves = [torch.as_tensor(wave) for wave in waves]
    return pad_sequence(waves, batch_first=True), torch.tensor([len(wave) for wave in waves])


def sample_lengths(padded) -> Tensor:
    """Lengths (B,) in samples or frames of a SpeechBrain `PaddedData`, which holds them relative to the longest."""
    data, relative = padded
    return (relative * data.shape[1]).round().long()


def signal_loss(x0_hat: Tensor, x0: Tensor, spectra: Spectra, hparams) -> Tensor:
    """Squared error of spectra (B, 1, F, N) over their valid frames, plus `magnitude_weight` times the amplitudes'."""
    mask = spectra.mask[:, None, None]
    return (denoising_loss(x0_hat, x0, mask=mask)
            + hparams.magnitude_weight * denoising_loss(safe_abs(x0_hat), x0.abs(), mask=mask))


def safe_abs(x: Tensor) -> Tensor:
    """|x| of a complex tensor with a gradient that is finite at 0."""
    return (x.real.square() + x.imag.square() + 1e-8).sqrt()


def logits_loss(l_hat: Tensor, clean: Observation, space: LogitsSpace, recogniser: nn.Module, hparams) -> Tensor:
    """The loss of logits and posteriors, plus `sequence_weight` times the CTC loss, each a mean over frames.

    Where a word is sure but its frame is not, the mean posterior of each frame is blank and the word is lost; CTC
    (Graves et al. 2006) sums over the alignments instead. Its labels are those of the best path of C(x0). A decoder,
    without a blank, has one token in each position: cross-entropy in place of CTC.
    """
    lengths, estimated, known = clean.context.lengths, space.decode(l_hat), space.decode(clean.logits)
    if recogniser.blank is not None:
        return (posterior_loss(l_hat, clean, space, hparams.kl_weight)
                + hparams.sequence_weight * sequence_loss(estimated, known, lengths, recogniser.blank))
    mask = frame_mask(clean.context)
    labels = recogniser.best(known, lengths)[0][mask]
    estimated, known = (recogniser.logits(values[mask]) for values in (estimated, known))
    return (denoising_loss(l_hat, clean.logits, mask=mask[..., None])
            + hparams.kl_weight * categorical_loss(estimated, known)
            + hparams.sequence_weight * F.cross_entropy(estimated, labels))


def sequence_loss(estimated: Tensor, known: Tensor, lengths: Tensor, blank: int) -> Tensor:
    """CTC loss in nats a frame of `estimated` logits (B, M, V), for the labels of the best path of `known` ones."""
    frames = torch.arange(known.shape[1], device=known.device)
    best = known.argmax(dim=-1).masked_fill(frames >= lengths[:, None], blank)
    new = best.diff(dim=1, prepend=torch.full_like(best[:, :1], blank)) != 0
    labels = new & (best != blank)
    loss = F.ctc_loss(estimated.float().log_softmax(dim=-1).transpose(0, 1), best[labels], lengths,
                      labels.sum(dim=1), blank=blank, reduction="sum", zero_infinity=True)
    return loss / lengths.sum()


SPEECH = Domain(
    name="speech", truth="text", rate="wer", errors=transcript_errors, collate=collate_waves, lengths=sample_lengths,
    signal_loss=signal_loss, logits_loss=logits_loss,
    quality=("si_sdr", lambda enhanced, clean: float(si_sdr(enhanced, clean))), evaluation=EVALUATION)
