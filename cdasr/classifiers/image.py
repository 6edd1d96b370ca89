"""A frozen image classifier: torchvision's or timm's architectures by name, or a ResNet for small pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.logits import ClassLogits, Logits
from cdasr.classifiers.schema import Architecture, Image
from cdasr.runtime.plain_data import checked, one_line, read_json
from cdasr.runtime.weights import check_finite, check_fit, read_pickle, read_tensors, sketch, tensors_in

IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


class ImageClassifier(nn.Module):
    """Images in [0, 1] to logits, through a model whose weights nothing can train; a `protocol.Classifier`.

    `config` is plain data: `architecture` (see `make_model`), `classes` (their names), `mean` and `std` of each
    channel, and `size`, to which images are resized where it is not null. The hidden states are what the last linear
    layer is given.
    """

    kind = ClassLogits
    hidden_layers = (-1,)

    def __init__(self, model: nn.Module, config: dict):
        super().__init__()
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.config = {"size": None, **config}
        self.classes = tuple(config["classes"])
        self.head = _head(model, len(self.classes))
        self.register_buffer("mean", torch.tensor(config["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config["std"]).view(-1, 1, 1), persistent=False)

    @property
    def colours(self) -> int:
        """Channels of the images: 1 (grey) or 3 (RGB)."""
        return len(self.mean)

    @property
    def logits_size(self) -> int:
        """Number of classes V."""
        return len(self.classes)

    @property
    def hidden_size(self) -> int:
        """Numbers that the last linear layer is given."""
        return self.head.in_features

    def with_hidden_layers(self, layers: Sequence[int]) -> ImageClassifier:
        """The classifier, which has the last layer only. Raises ValueError for others."""
        if tuple(layers) != self.hidden_layers:
            raise ValueError(f"hidden_layers {list(layers)}: an image classifier hands out its last layer only, [-1]")
        return self

    def train(self, mode: bool = True) -> ImageClassifier:
        """Stays in evaluation mode, also inside a network that is being trained."""
        return super().train(False)

    def forward(self, images: Tensor, lengths: None = None, like: Logits | None = None) -> ClassLogits:
        """Logits (B, V) and penultimate features (B, H) of `images` (B, C, H, W); a picture is whole, without lengths.

        Gradients pass to the images, never to the weights.
        """
        features: list[Tensor] = []
        hook = self.head.register_forward_pre_hook(lambda module, inputs: features.append(inputs[0]))
        try:
            values = self.model(prepare(images, self.mean, self.std, self.config["size"]))
        finally:
            hook.remove()
        return ClassLogits(values.float(), None, features[0].float(), self)

    @torch.no_grad()
    def try_out(self, height: int, width: int) -> None:
        """Run a black image. Raises ValueError where the model does not take such a size, or answers no numbers."""
        try:
            values = self(self.mean.new_zeros(1, self.colours, height, width)).values
        except Exception as error:  # an architecture can refuse a size in any way
            raise ValueError(f"the classifier does not take images of {height} x {width} pixels ({one_line(error)})"
                             ) from None
        if values.shape != (1, len(self.classes)) or not bool(values.isfinite().all()):
            raise ValueError("the classifier answers a black image with numbers that are not finite")

    def decode(self, values: Tensor, lengths: None = None) -> list[str]:
        """The name of the best class of each of the logits (B, V)."""
        return [self.classes[index] for index in values.argmax(dim=-1).tolist()]

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write `config.json` and `model.safetensors`."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.cpu().contiguous() for name, tensor in self.model.state_dict().items()},
                  folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> ImageClassifier:
        """Read what `save_pretrained` wrote. Raises ValueError in one line when it cannot be used."""
        folder = Path(folder)
        try:
            config = read_json(folder / "config.json")
        except ValueError as error:
            raise ValueError(f"{folder}: no image classifier could be loaded ({error})") from None
        return cls.from_checkpoint(folder / "model.safetensors", config)

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike, config: dict) -> ImageClassifier:
        """Weights in a safetensors file or a state dict that torch saved, for the architecture of `config`.

        Prefixes and wrappers that training scripts leave (`module.`, `{"state_dict": ...}`) are taken off. Raises
        ValueError in one line where file and architecture do not fit.
        """
        config = {**IMAGENET, **config}
        checked(Image, config, f"{path}: config")
        weights = load_state_dict(Path(path))
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}

        def build() -> nn.Module:
            return make_model(config["architecture"], len(config["classes"]), len(config["mean"]))
        try:
            check_fit(sketch(build, shapes), shapes)
        except ValueError as error:
            fits = f"does not fit the architecture {config['architecture']} with {len(config['classes'])} classes"
            reason = error if str(error).startswith("architecture") else f"{fits} ({error})"
            raise ValueError(f"{path}: {one_line(reason, 500)}") from None
        check_finite(weights.items(), str(path))
        model = build()
        model.load_state_dict(weights)
        return cls(model, config)


def make_model(architecture: Mapping | str, classes: int, colours: int = 3) -> nn.Module:
    """A model with random weights.

    `architecture`: `{"name": "small_resnet", "widths": [...], "blocks": n}`; or a torchvision name such as `resnet18`,
    or `timm/<name>` where timm is installed. With `"small_images": true` a torchvision ResNet gets a 3 x 3 stem and no
    max-pooling, as is usual for 32 x 32 pixels. Raises ValueError for an unknown name or option; nothing is fetched.
    """
    options = {"name": architecture} if isinstance(architecture, str) else dict(architecture)
    checked(Architecture, options, f"architecture {options.get('name')!r}")
    name, small = options.pop("name"), options.pop("small_images", False)
    try:
        if name == "small_resnet":
            return SmallResNet(classes, colours, **options)
        if name.startswith("timm/"):
            import timm

            return timm.create_model(name[len("timm/"):], pretrained=False, num_classes=classes, in_chans=colours,
                                     **options)
        from torchvision import models

        if name not in models.list_models(module=models):
            raise ValueError("torchvision has no such classifier")
        if (small or colours != 3) and "resne" not in name:
            raise ValueError("small_images and grey images are for torchvision's ResNets")
        model = models.get_model(name, weights=None, num_classes=classes, **options)
    except ImportError as error:
        raise ValueError(f"the architecture {name!r} needs {error.name}: pip install {error.name}") from None
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError) as error:
        raise ValueError(f"architecture {name!r}: {one_line(error)}") from None
    return _for_small_images(model, colours) if small or colours != 3 else model


def _for_small_images(model: nn.Module, colours: int) -> nn.Module:
    model.conv1 = nn.Conv2d(colours, model.conv1.out_channels, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


class SmallResNet(nn.Module):
    """torchvision's basic residual blocks behind a 3 x 3 stem, for pictures of a few pixels (He et al. 2016).

    `blocks` blocks at each of `widths`; the resolution is halved from one width to the next.
    """

    def __init__(self, classes: int, colours: int = 3, widths: Sequence[int] = (16, 32, 64), blocks: int = 1):
        from torchvision.models.resnet import BasicBlock, conv1x1

        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(colours, widths[0], 3, padding=1, bias=False), nn.BatchNorm2d(widths[0])
        layers, before = [], widths[0]
        for level, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if level and not block else 1
                skip = nn.Sequential(conv1x1(before, width, stride), nn.BatchNorm2d(width))
                layers.append(BasicBlock(before, width, stride, skip if stride > 1 or before != width else None))
                before = width
        self.layers, self.fc = nn.Sequential(*layers), nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.layers(F.relu(self.bn1(self.conv1(images)))).mean(dim=(-2, -1)))


def load_state_dict(path: Path) -> dict[str, Tensor]:
    """Weights from safetensors, or from a file that torch saved, read as weights only: code in it is refused."""
    try:
        if path.suffix == ".safetensors":
            return read_tensors(path)
        found = read_pickle(path)
        for wrapper in ("state_dict", "model"):
            found = found[wrapper] if isinstance(found, dict) and isinstance(found.get(wrapper), dict) else found
        return {name.removeprefix("module."): tensor for name, tensor in tensors_in(found, path).items()}
    except ValueError as error:
        raise ValueError(f"{path}: no weights could be read ({error})") from None


def prepare(images: Tensor, mean: Tensor, std: Tensor, size: int | None = None) -> Tensor:
    """Images (B, C, H, W) in [0, 1], standardised channel by channel and resized to `size` x `size`."""
    if size is not None and images.shape[-2:] != (size, size):
        images = F.interpolate(images, (size, size), mode="bilinear", antialias=True)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _head(model: nn.Module, classes: int) -> nn.Linear:
    linear = [module for module in model.modules() if isinstance(module, nn.Linear) and module.out_features == classes]
    if not linear:
        raise ValueError(f"the classifier has no linear layer for {classes} classes at its end")
    return linear[-1]
