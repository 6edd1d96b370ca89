"""Data sets of labelled images: scikit-learn's digits, CIFAR-10 and CIFAR-100, ImageNet-32, or any folder of images.

Sources: Alpaydin & Kaynak 1998 (digits, 8 x 8, on board of scikit-learn); Krizhevsky 2009 (CIFAR, the `python version`
that torchvision reads); Chrabaszcz et al. 2017 (ImageNet-32, the official downsampled batches). Nothing that is read
can run code: torchvision unpickles only files of the known MD5, ImageNet-32's pickles may hold arrays and plain
containers only, and what is written here is safetensors.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cdasr.runtime.atomic import replacing

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp")
HELP = "give its folder with --data-dir or CDASR_IMAGES"


@dataclass(frozen=True)
class ImageSet:
    """Images (N, C, H, W) uint8 with labels (N,) int64, the index of each one's class."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Tensor) -> ImageSet:
        """The images of `index`, in its order."""
        return replace(self, images=self.images[index], labels=self.labels[index])

    def save(self, path: str | os.PathLike) -> None:
        """Write safetensors, atomically; the names of the classes go into its metadata."""
        from safetensors.torch import save_file

        with replacing(path) as partial:
            save_file({"images": self.images.contiguous(), "labels": self.labels.contiguous()}, partial,
                      {"classes": json.dumps(self.classes)})

    @classmethod
    def load(cls, path: str | os.PathLike) -> ImageSet:
        """Read what `save` wrote."""
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            return cls(file.get_tensor("images"), file.get_tensor("labels"),
                       tuple(json.loads(file.metadata()["classes"])))


def split(data: ImageSet, sizes: Mapping[str, int], seed: int) -> dict[str, ImageSet]:
    """Disjoint parts of `sizes` images each, drawn from a seed, and `train`, all the others.

    Raises ValueError where nothing would be left to train on.
    """
    if sum(sizes.values()) >= len(data):
        raise ValueError(f"{len(data)} images cannot be split into {dict(sizes)} and something to train on")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(len(data)))
    parts = {}
    for name, size in sizes.items():
        parts[name], order = data.select(order[:size].sort().values), order[size:]
    return {"train": data.select(order.sort().values), **parts}


# -- the data sets: (folder or None, download folder, options) -> {"train": ..., "test": ...} -------------------------


def digits(folder: Path | None, download: Path, options: Mapping) -> dict[str, ImageSet]:
    """1,797 grey images of 8 x 8 pixels, which scikit-learn brings along; there is no official test set."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    return {"train": ImageSet(images, torch.from_numpy(bunch.target).long(), tuple(map(str, bunch.target_names)))}


def cifar(name: str) -> Callable[[Path | None, Path, Mapping], dict[str, ImageSet]]:
    """CIFAR-10 or -100: torchvision's layout (downloaded where no folder is given), or a folder or zip of images."""
    def load(folder: Path | None, download: Path, options: Mapping) -> dict[str, ImageSet]:
        from torchvision import datasets

        kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        root = next((place for place in (folder, folder and folder.parent)
                     if place and (place / kind.base_folder).is_dir()), None)
        if folder is not None and root is None:
            return image_tree(folder)
        try:
            parts = {part: kind(str(root or download), train=part == "train", download=root is None)
                     for part in ("train", "test")}
        except (RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            where = f"{root / kind.base_folder}: not the official files" if root else f"{name} cannot be downloaded"
            raise ValueError(f"{where} ({reason}); {HELP}") from None
        return {part: ImageSet(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(),
                               torch.tensor(data.targets), tuple(data.classes)) for part, data in parts.items()}
    return load


def imagenet32(folder: Path | None, download: Path, options: Mapping) -> dict[str, ImageSet]:
    """The official batches `train_data_batch_1` ... `10` and `val_data`, of `options["classes"]` classes (default 100).

    The classes are drawn from `options["seed"]` and named by their number, 1 to 1000, in the official files.
    """
    if folder is None:
        raise ValueError(f"ImageNet-32 is not freely downloadable: get the official downsampled batches from "
                         f"image-net.org and {HELP}")
    files = {"train": [folder / f"train_data_batch_{number}" for number in range(1, 11)], "test": [folder / "val_data"]}
    if missing := [path.name for paths in files.values() for path in paths if not path.is_file()]:
        raise ValueError(f"{folder}: not ImageNet-32's official batches, {', '.join(missing)} is missing; {HELP}")
    count = options.get("classes", 100)
    if not 1 < count <= 1000:
        raise ValueError(f"ImageNet-32 has 1000 classes; a subset of {count} makes no sense")
    chosen = np.sort(1 + np.random.default_rng(options.get("seed", 0)).choice(1000, count, replace=False))
    return {part: _imagenet32_batches(paths, chosen) for part, paths in files.items()}


def _imagenet32_batches(paths: list[Path], chosen: np.ndarray) -> ImageSet:
    place = {int(number): index for index, number in enumerate(chosen)}
    images, labels = [], []
    for path in tqdm(paths, desc="read ImageNet-32"):
        batch = unpickle_arrays(path)
        rows = [row for row, label in enumerate(batch["labels"]) if label in place]
        images.append(np.asarray(batch["data"])[rows])
        labels += [place[batch["labels"][row]] for row in rows]
    return ImageSet(torch.from_numpy(np.concatenate(images)).view(-1, 3, 32, 32), torch.tensor(labels),
                    tuple(map(str, chosen)))


DATASETS: dict[str, Callable[[Path | None, Path, Mapping], dict[str, ImageSet]]] = {
    "digits": digits, "cifar10": cifar("cifar10"), "cifar100": cifar("cifar100"), "imagenet32": imagenet32}


def load_dataset(name: str, data_dir: str | os.PathLike | None, download: str | os.PathLike,
                 options: Mapping | None = None) -> dict[str, ImageSet]:
    """The parts (`train` and, where there is one, `test`) of a data set, from `data_dir`, CDASR_IMAGES or a download.

    Raises ValueError, in one line with the ways out, when it is unknown or not there.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; known: {', '.join(DATASETS)}")
    given = data_dir or os.environ.get("CDASR_IMAGES")
    folder = Path(given) if given else None
    if folder is not None and not folder.exists():
        raise ValueError(f"{folder}: no such folder or zip; {HELP}")
    return DATASETS[name](folder, Path(download), options or {})


# -- folders and zips -------------------------------------------------------------------------------------------------


def image_tree(path: Path) -> dict[str, ImageSet]:
    """A folder or zip of `[<part>/]<class>/<image>`, e.g. `train/cat/0001.jpg`; without a part all is `train`.

    All images must have the size of the first. Raises ValueError where there are none, or for one that cannot be read.
    """
    found = sorted(_image_files(path), key=lambda file: file[0])
    parts: dict[str, list[tuple[str, str, Callable[[], bytes]]]] = {}
    for name, read in found:
        *outer, kind, _ = ("", *PurePosixPath(name).parts)
        part = next((word for word in reversed(outer) if word in ("train", "test", "val")), "train")
        parts.setdefault({"val": "test"}.get(part, part), []).append((name, kind, read))
    if "train" not in parts:
        raise ValueError(f"{path}: no images [train/]<class>/<image> ({', '.join(SUFFIXES)}) there; {HELP}")
    classes = tuple(sorted({kind for _, kind, _ in parts["train"]}))
    return {part: _decode(path, files, classes) for part, files in parts.items()}


def _image_files(path: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names below `path` with a function that reads each."""
    if path.is_dir():
        for file in path.rglob("*"):
            if file.suffix.lower() in SUFFIXES:
                yield file.relative_to(path).as_posix(), file.read_bytes
    elif zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        for name in archive.namelist():
            if name.lower().endswith(SUFFIXES):
                yield name, lambda name=name: archive.read(name)


def _decode(path: Path, files: list[tuple[str, str, Callable[[], bytes]]], classes: tuple[str, ...]) -> ImageSet:
    from PIL import Image, UnidentifiedImageError

    images, labels = [], []
    for name, kind, read in tqdm(files, desc=f"read {path.name}"):
        try:
            images.append(np.asarray(Image.open(io.BytesIO(read())).convert("RGB")))
            labels.append(classes.index(kind))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise ValueError(f"{path}: {name} cannot be used ({error})") from None
        if images[-1].shape != images[0].shape:
            raise ValueError(f"{path}: {name} is of another size than {files[0][0]}; bring all to one size")
    return ImageSet(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels), classes)


# -- pickles of arrays ------------------------------------------------------------------------------------------------


class ArrayUnpickler(pickle.Unpickler):
    """Reads arrays and plain containers; anything else that a pickle names is refused before it is called."""

    def find_class(self, module: str, name: str):
        module = module.replace("numpy.core", "numpy._core")
        allowed = {("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
                   ("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype,
                   ("numpy._core.multiarray", "scalar"): np.float64(0).__reduce__()[0],
                   ("_codecs", "encode"): _latin1}
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is neither an array nor a plain container")
        return allowed[module, name]


def unpickle_arrays(path: str | os.PathLike) -> dict:
    """The dict of arrays, lists and numbers in a pickle, Python 2's too. Raises ValueError for anything else."""
    with open(path, "rb") as file:
        try:
            found = ArrayUnpickler(file, encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"{path}: not a pickle of arrays ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: holds {type(found).__name__}, expected a dict")
    return found


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes in old protocols; no other codec is run."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it wants the codec {encoding!r}")
    return text.encode("latin1")
