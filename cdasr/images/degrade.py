"""Degradations of images (C, H, W) in [0, 1]: those of the paper, and common corruptions that libraries bring along.

A degradation is plain data, `{"name": "pixel_noise", "level": 0.3}`. Everything random about it comes from the
`numpy.random.Generator` that it is given, so that a degraded test set follows from its seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from cdasr.images.data import ImageSet

Rng = np.random.Generator


def pixel_noise(image: Tensor, rng: Rng, level: float = 0.3) -> Tensor:
    """Each pixel is replaced, with probability `level`, by one of a colour that is uniform in [0, 1]."""
    replaced = torch.from_numpy(rng.random((1, *image.shape[1:])) < level)
    return torch.where(replaced, torch.from_numpy(rng.random(image.shape, dtype=np.float32)), image)


def gaussian_noise(image: Tensor, rng: Rng, sigma: float = 0.1) -> Tensor:
    """Gaussian noise of standard deviation `sigma`, clipped."""
    return (image + sigma * torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))).clamp(0.0, 1.0)


def gaussian_blur(image: Tensor, rng: Rng, kernel: int = 5, sigma: float = 2.0) -> Tensor:
    """Convolution with a Gaussian of standard deviation `sigma`, cut to `kernel` x `kernel` pixels."""
    return _torchvision().gaussian_blur(image, [kernel, kernel], [sigma, sigma])


def jpeg(image: Tensor, rng: Rng, quality: int = 15) -> Tensor:
    """JPEG compression, `quality` 1 (worst) to 100."""
    return _torchvision().jpeg(_bytes(image), quality).float() / 255.0


def brightness(image: Tensor, rng: Rng, factor: float = 2.0) -> Tensor:
    """Brighter (factor above 1) or darker, clipped."""
    return _torchvision().adjust_brightness(image, factor)


def contrast(image: Tensor, rng: Rng, factor: float = 0.3) -> Tensor:
    """Blended with the mean grey level: a `factor` of 0 leaves a grey image."""
    return _torchvision().adjust_contrast(image, factor)


def posterise(image: Tensor, rng: Rng, bits: int = 2) -> Tensor:
    """Only the first `bits` of each channel's 8 are kept."""
    return _torchvision().posterize(_bytes(image), bits).float() / 255.0


def solarise(image: Tensor, rng: Rng, threshold: float = 0.5) -> Tensor:
    """Values above the threshold are inverted."""
    return _torchvision().solarize(image, threshold)


def pixelate(image: Tensor, rng: Rng, factor: int = 2) -> Tensor:
    """Shrunk by averaging `factor` x `factor` pixels, and enlarged again without interpolation."""
    small = F.avg_pool2d(image, factor, ceil_mode=True)
    return small.repeat_interleave(factor, 1).repeat_interleave(factor, 2)[:, :image.shape[1], :image.shape[2]]


DEGRADATIONS: dict[str, Callable[..., Tensor]] = {
    function.__name__: function for function in (
        pixel_noise, gaussian_blur, gaussian_noise, jpeg, brightness, contrast, posterise, solarise, pixelate)}


def make_degradation(config: Mapping) -> Callable[[Tensor, Rng], Tensor]:
    """The function `(image, rng) -> degraded` that `{"name": ..., option: value}` describes.

    Raises ValueError for an unknown name or option.
    """
    options = dict(config)
    name = options.pop("name", None)
    if name not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {name!r}; known: {', '.join(DEGRADATIONS)}")
    known = DEGRADATIONS[name].__code__.co_varnames[2:DEGRADATIONS[name].__code__.co_argcount]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"degradation {name!r} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    return lambda image, rng: DEGRADATIONS[name](image, rng, **options)


def augment(image: Tensor, rng: Rng, shift: int, flip: bool) -> Tensor:
    """A clean image, moved by up to `shift` pixels (what is uncovered is reflected) and perhaps mirrored."""
    height, width = image.shape[-2:]
    if shift:
        padded = F.pad(image, (shift,) * 4, mode="reflect")
        top, left = rng.integers(2 * shift + 1, size=2)
        image = padded[:, top:top + height, left:left + width]
    return image.flip(-1) if flip and rng.random() < 0.5 else image


@dataclass
class TrainingDegrader:
    """Degradation on the fly, `(clean, rng) -> (degraded, clean)`: one of several, and none for `clean_prob`.

    The clean image is varied first, as `augment` does by up to `shift` pixels and, with `flip`, mirrored.
    """

    degradations: Sequence[Mapping]
    clean_prob: float = 0.05
    shift: int = 0
    flip: bool = False

    def __post_init__(self):
        self.functions = [make_degradation(config) for config in self.degradations]

    def __call__(self, clean: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        clean = augment(clean, rng, self.shift, self.flip)
        if rng.random() < self.clean_prob:
            return clean, clean
        return self.functions[rng.integers(len(self.functions))](clean, rng), clean


def degrade_set(data: ImageSet, config: Mapping, seed: int) -> ImageSet:
    """The set, degraded once and for all: what every system is tested on. Stored at 8 bits, as pictures are."""
    function = make_degradation(config)
    images = [_bytes(function(image.float() / 255.0, np.random.default_rng([seed, index])))
              for index, image in enumerate(tqdm(data.images, desc=f"degrade: {config['name']}"))]
    return ImageSet(torch.stack(images), data.labels, data.classes)


def _bytes(image: Tensor) -> Tensor:
    """[0, 1] to uint8."""
    return (image * 255.0).round().clamp(0, 255).to(torch.uint8)


def _torchvision():
    try:
        from torchvision.transforms.v2 import functional
    except ImportError:
        raise ValueError("images need torchvision: pip install 'cdasr[images]'") from None
    return functional
