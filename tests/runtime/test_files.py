"""JSON and other files: a wrong path or a damaged file is one line that names it."""

import os

import pytest

from cdasr.runtime.atomic import write_json
from cdasr.runtime.files import check_file
from cdasr.runtime.plain_data import read_json


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, "ß"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, "ß"]}
    (tmp_path / "bom.json").write_text("[1]", encoding="utf-8-sig")
    assert read_json(tmp_path / "bom.json", list) == read_json(tmp_path / "bom.json", None) == [1]


@pytest.mark.parametrize("data, reason", [
    (b"", "line 1 is not JSON"), (b'{"a": 1,\n "b"', "line 2 is not JSON"), (b"\xff\xfe{}", "not text in UTF-8"),
    (b"[1]", "expected an object of JSON, found a list"), (b"null", "found NoneType"),
    (b"[" * 99_999, "not usable|not JSON"), (b"[" + b"9" * 9999 + b"]", "digits")])
def test_damaged_json_is_one_line(tmp_path, data, reason):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=reason) as caught:
        read_json(path, called=path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_file_is_said(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "file").touch()
    assert check_file(tmp_path / "file") == tmp_path / "file"
    for name, reason in (("none", "no such list"), ("link", "a link to gone"), ("pipe", "is a pipe, not a list; write"),
                         ("", "is a folder, not a list"), ("file/x", "cannot be a list"), ("x" * 300, "cannot be"),
                         ("\0", "cannot be a list")):
        with pytest.raises(ValueError, match=reason):
            check_file(tmp_path / name, "list")
