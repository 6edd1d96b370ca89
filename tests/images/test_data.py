"""Data sets: official layouts are read, splits are disjoint and seeded, and no file can run code."""

import hashlib
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from cdasr.images.data import ImageSet, load_dataset, split, unpickle_arrays

REAL = Path(__file__).parents[3] / "shared" / "data" / "cifar10_jpeg_train.zip"


def write_tree(folder, count=3):
    for part in ("train", "test"):
        for kind in ("cat", "dog"):
            for number in range(count):
                path = folder / part / kind / f"{number:04d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 6), (number, 100, 200)).save(path)


def test_digits_are_on_board(tmp_path):
    digits = load_dataset("digits", None, tmp_path)["train"]
    assert digits.images.shape == (1797, 1, 8, 8) and digits.images.dtype == torch.uint8
    assert int(digits.images.max()) == 255 and digits.classes == tuple("0123456789")
    assert digits.labels.bincount().min() > 150


def test_a_folder_and_its_zip_are_the_same(tmp_path):
    write_tree(tmp_path / "tree")
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
        for path in (tmp_path / "tree").rglob("*.png"):
            archive.write(path, path.relative_to(tmp_path / "tree"))
    read = [load_dataset("cifar10", tmp_path / name, tmp_path) for name in ("tree", "tree.zip")]
    for parts in read:
        assert set(parts) == {"train", "test"} and parts["train"].classes == ("cat", "dog")
        assert parts["train"].images.shape == (6, 3, 6, 4) and parts["train"].labels.tolist() == [0] * 3 + [1] * 3
        assert parts["train"].images[4, :, 0, 0].tolist() == [1, 100, 200]
    assert torch.equal(read[0]["test"].images, read[1]["test"].images)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_torchvisions_layout_is_read_after_its_md5(name, tmp_path, monkeypatch):
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    folder, key = tmp_path / kind.base_folder, {"cifar10": "labels", "cifar100": "fine_labels"}[name]
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(file, content):
        (folder / file).write_bytes(pickle.dumps(content))
        return [file, hashlib.md5((folder / file).read_bytes()).hexdigest()]

    def batch(count):
        return {"data": rng.integers(0, 256, (count, 3072), dtype=np.uint8), key: rng.integers(0, 3, count).tolist()}

    known = batch(4)
    monkeypatch.setattr(kind, "train_list", [write("one", known), write("two", batch(5))])
    monkeypatch.setattr(kind, "test_list", [write("three", batch(3))])
    meta = write("meta", {kind.meta["key"]: ["cat", "dog", "frog"]})
    monkeypatch.setattr(kind, "meta", {"filename": meta[0], "key": kind.meta["key"], "md5": meta[1]})
    for given in (tmp_path, folder):
        parts = load_dataset(name, given, tmp_path / "unused")
        assert [len(parts[part]) for part in ("train", "test")] == [9, 3]
        assert torch.equal(parts["train"].images[:4].flatten(1), torch.from_numpy(known["data"]))
        assert parts["train"].labels[:4].tolist() == known[key] and parts["test"].classes == ("cat", "dog", "frog")
    (folder / "two").write_bytes(pickle.dumps({"data": Evil(tmp_path / "ran")}))
    with pytest.raises(ValueError, match="not the official files"):
        load_dataset(name, tmp_path, tmp_path / "unused")
    assert not (tmp_path / "ran").exists()


def test_imagenet32_is_a_seeded_subset_of_the_official_batches(tmp_path):
    rng = np.random.default_rng(0)
    for name in (*(f"train_data_batch_{number}" for number in range(1, 11)), "val_data"):
        batch = {"data": rng.integers(0, 256, (40, 3072), dtype=np.uint8), "mean": np.zeros(3072),
                 "labels": rng.integers(1, 1001, 40).tolist()}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
        known = batch
    parts = load_dataset("imagenet32", tmp_path, tmp_path, {"classes": 500, "seed": 3})
    again = load_dataset("imagenet32", tmp_path, tmp_path, {"classes": 500, "seed": 3})
    other = load_dataset("imagenet32", tmp_path, tmp_path, {"classes": 500, "seed": 4})
    assert parts["train"].classes == again["train"].classes != other["train"].classes
    assert len(parts["train"].classes) == 500 and parts["test"].images.shape[1:] == (3, 32, 32)
    kept = [row for row, label in enumerate(known["labels"]) if str(label) in parts["test"].classes]
    assert torch.equal(parts["test"].images.flatten(1), torch.from_numpy(known["data"][kept]))
    assert [parts["test"].classes[label] for label in parts["test"].labels] == [
        str(known["labels"][row]) for row in kept]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_hold_arrays_or_are_refused(tmp_path):
    arrays = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "more": (b"bytes", np.float32(1))}
    for protocol in (0, 2, 4):
        (tmp_path / "good").write_bytes(pickle.dumps(arrays, protocol=protocol))
        found = unpickle_arrays(tmp_path / "good")
        assert np.array_equal(found["data"], arrays["data"]) and found["labels"] == [1, 2]
    for protocol in (0, 4):
        (tmp_path / "bad").write_bytes(pickle.dumps({"data": Evil(tmp_path / "ran")}, protocol=protocol))
        with pytest.raises(ValueError, match="not a pickle of arrays.*neither an array"):
            unpickle_arrays(tmp_path / "bad")
    (tmp_path / "objects").write_bytes(pickle.dumps({"data": np.array([Evil(tmp_path / "ran")], dtype=object)}))
    with pytest.raises(ValueError, match="not a pickle of arrays"):
        unpickle_arrays(tmp_path / "objects")
    assert not (tmp_path / "ran").exists()


def test_what_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("CDASR_IMAGES", raising=False)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad" / "cifar-10-batches-py").mkdir(parents=True)
    for name, folder, reason in (("cifar10", tmp_path / "none", "no such folder"), ("imagenet32", None, "--data-dir"),
                                 ("cifar10", tmp_path / "empty", "no images"), ("mnist", None, "unknown data set"),
                                 ("cifar10", tmp_path / "bad", "not the official files"),
                                 ("imagenet32", tmp_path / "empty", "train_data_batch_1, ")):
        with pytest.raises(ValueError, match=reason) as error:
            load_dataset(name, folder, tmp_path)
        assert "\n" not in str(error.value)
    write_tree(tmp_path / "tree")
    (tmp_path / "tree" / "train" / "cat" / "0000.png").write_text("no image")
    with pytest.raises(ValueError, match="train/cat/0000.png cannot be used"):
        load_dataset("cifar10", tmp_path / "tree", tmp_path)


def test_splits_are_disjoint_and_follow_the_seed(tmp_path):
    data = ImageSet(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20), ("a",) * 20)
    parts = split(data, {"dev": 5, "valid": 3}, seed=1)
    assert {name: len(part) for name, part in parts.items()} == {"train": 12, "dev": 5, "valid": 3}
    assert sorted(label for part in parts.values() for label in part.labels.tolist()) == list(range(20))
    assert all(torch.equal(part.labels, part.images.flatten().long()) for part in parts.values())
    assert torch.equal(parts["dev"].labels, split(data, {"dev": 5, "valid": 3}, seed=1)["dev"].labels)
    assert not torch.equal(parts["dev"].labels, split(data, {"dev": 5, "valid": 3}, seed=2)["dev"].labels)
    with pytest.raises(ValueError, match="cannot be split"):
        split(data, {"dev": 20}, seed=1)
    parts["dev"].save(tmp_path / "dev.safetensors")
    again = ImageSet.load(tmp_path / "dev.safetensors")
    assert torch.equal(again.images, parts["dev"].images) and again.classes == data.classes


@pytest.mark.skipif(not REAL.is_file(), reason="needs the CIFAR-10 images, which are not part of the repository")
def test_the_real_zip_has_the_expected_layout():
    with zipfile.ZipFile(REAL) as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")]
    assert len(names) == 50_000 and len({name.split("/")[1] for name in names}) == 10
