"""Downloads go on where they stopped, are checked, and unpack whole or not at all."""

import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cdasr.recipe import download
from cdasr.recipe.download import fetch, unpack

DATA = bytes(range(256)) * 40
MD5 = hashlib.md5(DATA).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves DATA at /data with ranges, at /plain without, and at /breaks only half of what it promised."""

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if self.path != "/plain" else 0
        self.server.asked.append((self.path, self.headers.get("Range")))
        if self.path == "/none":
            return self.send_error(404)
        if start >= len(DATA):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(DATA)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(DATA) - 1}/{len(DATA)}")
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        stop = start + max((len(DATA) - start) // 2, 1) if self.path == "/breaks" else None
        self.wfile.write(DATA[start:stop])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_download_goes_on_where_it_stopped(server, tmp_path):
    target = tmp_path / "deep" / "file.bin"
    with pytest.raises(ValueError, match="goes on where it stopped"):
        fetch([f"{server.url}/breaks"], target, MD5, pause=0)
    partial = tmp_path / "deep" / "file.bin.partial"
    have = partial.stat().st_size
    assert 0 < have < len(DATA) and not target.exists()
    assert fetch([f"{server.url}/data"], target, MD5, pause=0).read_bytes() == DATA
    assert server.asked[-1] == ("/data", f"bytes={have}-") and not partial.exists()
    asked = len(server.asked)
    fetch([f"{server.url}/data"], target, MD5, pause=0)
    assert len(server.asked) == asked, "a file that is there is not fetched again"


def test_a_complete_partial_file_and_a_server_without_ranges(server, tmp_path):
    for name, path in (("whole", "/data"), ("other", "/plain")):
        (tmp_path / f"{name}.partial").write_bytes(DATA if name == "whole" else b"something else")
        assert fetch([f"{server.url}{path}"], tmp_path / name, MD5, pause=0).read_bytes() == DATA


def test_a_wrong_checksum_deletes_the_file(server, tmp_path):
    for _ in range(2):  # also one that lies there already
        with pytest.raises(ValueError, match=f"has the MD5 {MD5}"):
            fetch([f"{server.url}/data"], tmp_path / "file", "0" * 32, pause=0)
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "file").write_bytes(DATA)


def test_a_mirror_stands_in_and_none_is_one_line(server, tmp_path):
    fetch([f"{server.url}/none", f"{server.url}/data"], tmp_path / "file", MD5, pause=0)
    with pytest.raises(ValueError, match="404") as error:
        fetch([f"{server.url}/none"], tmp_path / "more", pause=0)
    assert "\n" not in str(error.value)


def make_tar(path, names, damaged=False):
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"abc"))
    if damaged:
        path.write_bytes(path.read_bytes()[:-30])


def test_archives_unpack_whole_or_not_at_all(tmp_path):
    make_tar(tmp_path / "good.tar.gz", ["Corpus/part/a.txt", "Corpus/README.TXT"])
    assert unpack(tmp_path / "good.tar.gz", tmp_path / "out", "Corpus/part") == tmp_path / "out" / "Corpus" / "part"
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()) \
        == ["Corpus/README.TXT", "Corpus/part/a.txt"]
    make_tar(tmp_path / "cut.tar.gz", [f"Corpus/other/{number}" for number in range(50)], damaged=True)
    make_tar(tmp_path / "evil.tar.gz", ["Corpus/other/a", "../escaped"])
    make_tar(tmp_path / "less.tar.gz", ["Corpus/more/a"])
    for name, reason in (("cut", "cannot be unpacked"), ("evil", "cannot be unpacked"), ("less", "no folder")):
        with pytest.raises(ValueError, match=reason):
            unpack(tmp_path / f"{name}.tar.gz", tmp_path / "out", "Corpus/other")
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["Corpus"]
    assert not (tmp_path / "escaped").exists() and not (tmp_path / "out" / "Corpus" / "other").exists()
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("Zip/a", "1")
    assert (unpack(tmp_path / "z.zip", tmp_path / "out", "Zip") / "a").read_text() == "1"


def test_too_small_a_disc_is_named(tmp_path):
    download.check_space(tmp_path / "not" / "there", 0.0)
    with pytest.raises(ValueError, match="GB are free"):
        download.check_space(tmp_path, 1e9)
