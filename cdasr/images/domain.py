"""Images, as the shared training and evaluation know them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cdasr.classifiers.logits import Logits, LogitsSpace
from cdasr.coupled.domain import Domain
from cdasr.diffusion.coupling import Observation
from cdasr.diffusion.objectives import denoising_loss
from cdasr.images.evaluation import EVALUATION
from cdasr.images.metrics import psnr
from cdasr.images.signal_model import Pixels


def label_errors(classifier: nn.Module, logits: Logits, labels: Sequence[int]) -> list[tuple[int, int]]:
    """1 where the best class is not the label, of 1."""
    best = logits.values.argmax(dim=-1).tolist()
    return [(int(index != int(label)), 1) for index, label in zip(best, labels)]


def collate_images(images: Sequence[Tensor]) -> tuple[Tensor, None]:
    """Images (B, C, H, W), which are all whole."""
    if len({tuple(image.shape) for image in images}) > 1:
        raise ValueError("the images of a batch must be of one size")
    return torch.stack([torch.as_tensor(image) for image in images]), None


def signal_loss(x0_hat: Tensor, x0: Tensor, pixels: Pixels, hparams) -> Tensor:
    """Squared error of the pixels."""
    return denoising_loss(x0_hat, x0)


def logits_loss(l_hat: Tensor, clean: Observation, space: LogitsSpace, classifier: nn.Module, hparams) -> Tensor:
    """The loss of the classifier's kind of logits."""
    return clean.context.loss(l_hat, clean.logits, space, hparams)


IMAGES = Domain(
    name="images", truth="label", rate="error", errors=label_errors, collate=collate_images,
    lengths=lambda padded: None, signal_loss=signal_loss, logits_loss=logits_loss, quality=("psnr", psnr),
    evaluation=EVALUATION)
