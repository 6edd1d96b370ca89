"""Copies of a recogniser and a package to be tampered with, and the one line in which each must end."""

from __future__ import annotations

import json
import os
import shutil

import pytest


class Code:
    """Unpickled, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch '{self.marker}'",)


def edit(path, **changes) -> None:
    """Change keys of a JSON file; None takes one out."""
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


@pytest.fixture
def folder(recogniser_dir, tmp_path):
    """A recogniser's folder of this test's own."""
    return shutil.copytree(recogniser_dir, tmp_path / "asr")


@pytest.fixture
def package(package_dir, tmp_path):
    """A model package of this test's own."""
    return shutil.copytree(package_dir, tmp_path / "package")


@pytest.fixture
def refused():
    """refused(load, *words): it raises ValueError in one line with these words in it, which is returned."""
    def check(load, *words):
        with pytest.raises(ValueError) as error:
            load()
        message = str(error.value)
        assert "\n" not in message and len(message) < 2000 and all(word in message for word in words), message
        return message
    return check
