"""Results on disk are whole or not there, and JSON is valid."""

import errno
import json
import os
import stat

import pytest

from cdasr.runtime import atomic
from cdasr.runtime.atomic import file_key, replacing, replacing_folder, to_json, write_json, write_text
from cdasr.runtime.errors import SHOWN, Faults, explain


def test_what_is_written_takes_the_place_of_the_old_file(tmp_path):
    path = tmp_path / "deep" / ("n" * 240 + ".json")  # the new file's own name must not be too long
    write_json(path, {"a": 1})
    write_json(path, {"a": [2]})
    assert json.loads(path.read_text()) == {"a": [2]} and len(list(path.parent.iterdir())) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()


def _umask():
    os.umask(mask := os.umask(0))
    return mask


@pytest.mark.parametrize("fails", ["while writing", "at the end", "by Ctrl-C"])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, fails):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    full = OSError(errno.ENOSPC, "No space left on device", "elsewhere")
    if fails == "at the end":
        monkeypatch.setattr(atomic.os, "replace", lambda *paths: (_ for _ in ()).throw(full))
    with pytest.raises(KeyboardInterrupt if fails == "by Ctrl-C" else OSError) as caught, replacing(path) as partial:
        partial.write_text("half")
        if fails != "at the end":
            raise KeyboardInterrupt if fails == "by Ctrl-C" else full
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    if fails != "by Ctrl-C":
        assert explain(caught.value) == f"{path}: the disk is full; free some space and run again"


def test_a_folder_appears_whole_and_replaces_nothing(tmp_path):
    with pytest.raises(RuntimeError), replacing_folder(tmp_path / "new") as partial:
        (partial / "a").write_text("half")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with replacing_folder(tmp_path / "new") as partial:
        (partial / "a").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and (tmp_path / "new" / "a").read_text() == "whole"
    with pytest.raises(ValueError, match="not empty"), replacing_folder(tmp_path / "new"):
        pass


def test_json_has_no_nan(tmp_path):
    data = {"a": [float("nan"), 1.5, {"b": (float("-inf"), None, "NaN")}]}
    assert json.loads(to_json(data), parse_constant=pytest.fail) == {"a": [None, 1.5, {"b": [None, None, "NaN"]}]}
    write_json(tmp_path / "a.json", {"name": "bad\udcff", **data})
    assert json.loads((tmp_path / "a.json").read_bytes(), parse_constant=pytest.fail)["name"] == "bad\udcff"


def test_a_replaced_file_has_another_key_even_when_it_is_older(tmp_path):
    path = tmp_path / "a"
    path.write_text("one")
    key = file_key(path)
    other = tmp_path / "b"
    other.write_text("two")
    os.utime(other, ns=(1, 1))
    other.replace(path)
    assert file_key(path) != key and file_key(tmp_path / "gone") == ["gone"]


def test_what_a_person_can_mend_is_one_line_and_faults_of_the_code_are_not():
    import torch

    assert explain(MemoryError()).startswith("not enough memory")
    assert explain(torch.OutOfMemoryError("CUDA out of memory.\nTried")).startswith("not enough memory")
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert explain(caught.value).startswith("not enough memory")
    assert explain(ValueError("a.csv: one\n\n  a.csv: two")) == "a.csv: one\na.csv: two"
    assert explain(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad\nbyte")).count("\n") == 0
    assert explain(OSError("We could not connect\nto the hub")) == "We could not connect to the hub"
    assert "package PIL is missing" in explain(ModuleNotFoundError("No module named 'PIL'", name="PIL"))
    assert explain(ModuleNotFoundError("No module named 'cdasr.x'", name="cdasr.x")) is None
    for bug in (TypeError("x"), KeyError("x"), AssertionError(), RuntimeError("shape '[2]' is invalid")):
        assert explain(bug) is None
    many = explain(Faults([f"{number}.wav: gone" for number in range(SHOWN + 5)])).splitlines()
    assert len(many) == SHOWN + 1 and many[-1] == "and 5 more"
