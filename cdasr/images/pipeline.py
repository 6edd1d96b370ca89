"""The pipeline of images: a frozen classifier, the diffusion processes around it, and what comes out.

    from cdasr import ImagePipeline
    pipeline = ImagePipeline.from_pretrained("exp/cifar10/package")
    print(pipeline("noisy.png").label)

A package is as in `cdasr.coupled.package`, with the classifier under `classifier/`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cdasr.classifiers.image import ImageClassifier
from cdasr.coupled.models import LogitsModel
from cdasr.coupled.package import check_classifier, load_models, save_models
from cdasr.coupled.pipeline import CoupledPipeline, Outcome
from cdasr.images.domain import IMAGES
from cdasr.images.signal_model import ImageModel
from cdasr.runtime.atomic import replacing
from cdasr.runtime.files import check_file


@dataclass
class Classification:
    """What a strategy makes of one image.

    `label` is the strategy's answer and `probabilities` those of the most likely classes, best first; `confidence` is
    that of the answer. `label_enhanced` is what the classifier sees in the enhanced `image` (C, H, W), both None where
    nothing was enhanced. `posterior` (V,) is over all classes; `nfe` counts evaluations of each network.
    `out_of_domain`: whether the image looks unlike what the package was trained for; None where that is not known.
    `chosen`: the strategy whose answer `auto` took; None for other strategies.
    """

    label: str
    confidence: float
    strategy: str
    nfe: dict[str, int]
    probabilities: list[tuple[str, float]] = field(default_factory=list)
    label_enhanced: str | None = None
    image: Tensor | None = field(default=None, repr=False)
    posterior: Tensor | None = field(default=None, repr=False)
    out_of_domain: bool | None = None
    chosen: str | None = None


class ImagePipeline(CoupledPipeline):
    """A frozen image classifier with its signal process and, for the coupled strategies, its logits process.

    See `classify` for batches and `__call__` for one image. `config["image_size"]`: height and width in pixels.
    """

    domain, model_class = IMAGES, ImageModel

    def __init__(self, classifier: ImageClassifier, signal: ImageModel, config: dict | None = None,
                 device: str = "auto", logits: LogitsModel | None = None):
        super().__init__(classifier, signal, config, device, logits)
        colours = signal.config["network"].get("colours", 3)
        if classifier.colours != colours:
            raise ValueError(f"the classifier takes {classifier.colours} channels and the signal model {colours}")

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.classifier.classes

    def __call__(self, source: str | os.PathLike | Tensor | np.ndarray, strategy: str | None = None,
                 steps: int | None = None, seed: int = 0, samples: int = 1, guidance: float | None = None,
                 top: int = 5) -> Classification:
        """Classify one image: a file, or (C, H, W) in [0, 1] of the package's size; the rest is as in `classify`.

        A file of another size is scaled so that its shorter side fits, and cut to its centre. Raises ValueError for
        what is not an image.
        """
        if isinstance(source, (str, os.PathLike)):
            image = read_image(source, self.config.get("image_size"), self.classifier.colours)
        else:
            image = torch.as_tensor(source, dtype=torch.float32)
            if image.dim() != 3 or len(image) != self.classifier.colours or not image.isfinite().all():
                raise ValueError(f"expected a finite image ({self.classifier.colours}, H, W), got {tuple(image.shape)}")
        return self.classify([image], strategy, steps, seed, samples, guidance, top)[0]

    def classify(self, images: Sequence[Tensor], strategy: str | None = None, steps: int | None = None, seed: int = 0,
                 samples: int = 1, guidance: float | None = None, top: int = 5) -> list[Classification]:
        """Classify a batch of images (C, H, W) in [0, 1]; the result does not depend on the batching.

        `strategy`, `steps` of each process and `guidance`, the weight of the logits in the signal process, default to
        the package's. With `samples` > 1 the processes are sampled stochastically so many times, and the posteriors
        and enhanced images are averaged. Raises ValueError for an unknown strategy, or one that needs a logits process
        where the package has none.
        """
        outcome, batch, strategy = self.run(images, strategy, steps, seed, samples, guidance)
        samples = len(batch.signals) // max(len(images), 1)
        nfe = {key: samples * count for key, count in outcome.evaluations.items()}
        posteriors = self._averaged(outcome.logits.values.softmax(dim=-1), samples)
        made = []
        for posterior in posteriors:
            best = posterior.topk(min(top, len(self.classes)))
            ranked = [(self.classes[index], float(p)) for p, index in zip(best.values, best.indices.tolist())]
            made.append(Classification(*ranked[0], strategy, dict(nfe), ranked, posterior=posterior))
        if outcome.enhanced is not None:
            self._add_enhanced(made, outcome, samples)
        for result, unlike in zip(made, (outcome.out_of_domain or [])[::samples]):
            result.out_of_domain = unlike
        for place, result in enumerate(made if outcome.chosen else ()):
            result.chosen = "+".join(dict.fromkeys(outcome.chosen[place * samples:(place + 1) * samples]))
        return made

    def _add_enhanced(self, made: Sequence[Classification], outcome: Outcome, samples: int) -> None:
        enhanced = self._averaged(outcome.enhanced_logits.values.softmax(dim=-1), samples)
        for result, posterior, image in zip(made, enhanced, self._averaged(outcome.enhanced.signals, samples)):
            result.label_enhanced, result.image = self.classes[int(posterior.argmax())], image

    @staticmethod
    def _averaged(values: Tensor, samples: int) -> Tensor:
        """The mean of the `samples` of each item, which stand in a row."""
        return values.unflatten(0, (-1, samples)).mean(dim=1).cpu()

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike, device: str = "auto") -> ImagePipeline:
        """Load a package folder. Raises ValueError in one line when it cannot be used."""
        folder, config, signal, logits = load_models(name_or_dir, cls.domain.name, cls.model_class)
        frozen = ImageClassifier.from_pretrained(folder / "classifier")
        if logits:
            check_classifier(folder, signal, logits, frozen, "its classifier")
        if size := config.get("image_size"):
            frozen.try_out(*size)
        return cls(frozen, signal, config, device, logits)

    def save_pretrained(self, folder: str | os.PathLike, half: bool = False) -> None:
        """Write a model package; `half` stores the weights of the processes as float16, which halves their files."""
        self.classifier.save_pretrained(Path(folder) / "classifier")
        self.config = save_models(Path(folder), {**self.config, "domain": self.domain.name}, self.signal, self.logits,
                                  half)


def unusable_images(paths: Sequence[str | os.PathLike]) -> dict[str | os.PathLike, str]:
    """What is wrong, in one line that names the file, with each of `paths` of which not even the header can be read."""
    from PIL import Image

    faults = {}
    for path in dict.fromkeys(paths):
        try:
            with _reading(path), Image.open(path):
                pass
        except ValueError as error:
            faults[path] = str(error)
    return faults


@contextmanager
def _reading(path: str | os.PathLike) -> Iterator[None]:
    """Have what Pillow raises become a ValueError that names the file."""
    from PIL import Image

    check_file(path)
    try:
        yield
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not an image that can be read ({' '.join(str(error).split())})") from None


def read_image(path: str | os.PathLike, size: Sequence[int] | None = None, colours: int = 3) -> Tensor:
    """An image file as (C, H, W) in [0, 1]; where `size` (H, W) is another, scaled and cut to its centre.

    Raises ValueError, naming the file, for what is not an image.
    """
    from PIL import Image, ImageOps

    with _reading(path), Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("L" if colours == 1 else "RGB")
    if size is not None and (image.height, image.width) != tuple(size):
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.BICUBIC)
    array = np.asarray(image, dtype=np.float32) / 255.0
    return torch.from_numpy(array[None] if colours == 1 else array.transpose(2, 0, 1).copy())


def write_image(path: str | os.PathLike, image: Tensor) -> None:
    """Write an image (C, H, W) in [0, 1] atomically; the suffix decides on the format."""
    from PIL import Image

    pixels = (image.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    with replacing(path) as partial:
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(partial)
