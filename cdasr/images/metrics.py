"""Quality of enhanced images against the clean ones, by scikit-image."""

from __future__ import annotations

import numpy as np
from torch import Tensor

HIGHEST = 100.0  # dB, of images that are the same


def psnr(image: Tensor, clean: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of an image (C, H, W) in [0, 1], at most HIGHEST."""
    from skimage.metrics import mean_squared_error

    error = mean_squared_error(_array(clean), _array(image))
    return float(min(-10.0 * np.log10(max(error, 1e-12)), HIGHEST))


def ssim(image: Tensor, clean: Tensor) -> float:
    """Structural similarity (Wang et al. 2004) of an image (C, H, W) in [0, 1], over windows of 7 x 7 pixels."""
    from skimage.metrics import structural_similarity

    return float(structural_similarity(_array(clean), _array(image), data_range=1.0, channel_axis=0))


def _array(image: Tensor) -> np.ndarray:
    return image.detach().cpu().double().numpy()
