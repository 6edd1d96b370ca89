"""`cdasr app`: what is told before a model is loaded, the page, and requests as a browser sends them."""

import json
import os
import signal
import socket
import time

import pytest

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.speech import app as page

HOME = "http://127.0.0.1"


@pytest.fixture
def no_model(monkeypatch):
    """A package that must not be loaded."""
    def load(*arguments, **options):
        raise AssertionError("the package was loaded")
    monkeypatch.setattr(Pipeline, "from_pretrained", load)


def test_a_line_tells_that_gradio_is_missing(no_model, monkeypatch, capsys):
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert main(["app"]) == 2
    assert capsys.readouterr().err == "cdasr: the page needs the Python package gradio: pip install 'cdasr[app]'\n"


def test_a_line_tells_that_the_port_is_taken(no_model, monkeypatch, capsys):
    monkeypatch.setattr(page, "check_installed", lambda: None)
    with socket.socket() as other:
        other.bind((page.HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        assert main(["app", "--port", str(taken)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"cdasr: port {taken} of 127.0.0.1 cannot be used (") and "--port" in told
    assert told.count("\n") == 1
    assert main(["app", "--port", "65536"]) == 2 and "expected 0 to 65535" in capsys.readouterr().err


def test_the_page_listens_on_this_machine_alone():
    with page.listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("value", [None, True, "five", float("nan"), float("inf")])
def test_a_field_without_a_number_is_refused(value):
    with pytest.raises(ValueError, match="the SNR is not a number"):
        page.number(value, "SNR")


def test_the_introduction_has_every_strategy_of_the_package(package_dir):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    words = page.introduction(pipeline)
    assert all(f"- **{name}**" in words for name in pipeline.strategies) and "auto" not in words
    assert "20 MB, recordings 30 s" in words


# -- with gradio ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The folder of uploads."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**page.OFFLINE, "GRADIO_TEMP_DIR": str(folder)}.items():
            patch.setenv(name, value)
        yield folder


@pytest.fixture(scope="module")
def client(kept, package_dir):
    """A browser, as far as requests go."""
    from starlette.testclient import TestClient

    with TestClient(page.make_app(Pipeline.from_pretrained(package_dir, device="cpu"), seed=7), HOME) as client:
        yield client


def upload(client, path):
    with path.open("rb") as file:
        answer = client.post("/gradio_api/upload", files={"files": (path.name, file, "audio/wav")})
    assert answer.status_code == 200
    return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}


def transcribe(client, *fields):
    """The kind of the last event (complete or error) and its data."""
    asked = client.post("/gradio_api/call/transcribe", json={"data": list(fields)})
    assert asked.status_code == 200, asked.text
    lines = client.get(f"/gradio_api/call/transcribe/{asked.json()['event_id']}").text.strip().splitlines()
    return lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))


def test_the_page_keeps_to_this_machine(client):
    answer = client.get("/")
    assert answer.status_code == 200 and "default-src 'self'" in answer.headers["content-security-policy"]
    assert "fonts.googleapis.com" not in answer.text and "cdnjs" not in answer.text
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 400
    config = client.get("/config").json()
    assert not config["analytics_enabled"]
    fields = {part["props"].get("label"): part["props"] for part in config["components"]}
    assert "microphone" in fields["recording, at most 30 s"]["sources"]
    assert fields["recording, at most 30 s"]["buttons"] == [], "none of gradio's that shares a recording"
    assert fields["seed of noise and of sampling"]["value"] == 7
    assert {choice[0] for choice in fields["noise to add"]["choices"]} >= {"none", "a file", "babble", "crackle"}


def test_an_uploaded_recording_is_transcribed(client, kept, write_wav, tone):
    recording, noise = upload(client, write_wav("a.wav", tone(0.5))), upload(client, write_wav("b.wav", tone(0.3, 90)))
    assert recording["path"].startswith(str(kept))
    for name, file in (("none", None), ("babble", None), ("a file", noise)):
        kind, (html,) = transcribe(client, recording, name, file, 5, 1, ["none", "parallel"], "one two")
        assert kind == "complete" and html.count("<audio") == (2 if name == "none" else 3)
        assert ">parallel <small>" in html and " errors in 2 words" in html


def test_faults_are_a_line_on_the_page(client, write_wav, tone, tmp_path):
    (tmp_path / "<b>bad.wav").write_bytes(b"no sound")
    for fields, words in (((None, "none", None, 0, 0, ["none"], ""), "there is no recording"),
                          ((upload(client, tmp_path / "<b>bad.wav"), "none", None, 0, 0, ["none"], ""), "not an audio"),
                          ((upload(client, write_wav("long.wav", tone(31))), "none", None, 0, 0, ["none"], ""),
                           "at most 30 s"),
                          ((upload(client, write_wav("a.wav", tone(1))), "a file", None, 0, 0, ["none"], ""),
                           "no noise file")):
        kind, data = transcribe(client, *fields)
        assert kind == "error" and words in json.dumps(data) and "<b>" not in json.dumps(data)


def test_files_that_were_not_uploaded_are_refused(client):
    secret = {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}
    kind, data = transcribe(client, secret, "none", None, 0, 0, ["none"], "")
    assert kind == "error"


def test_an_upload_beyond_the_limit_is_refused(client, tmp_path):
    (tmp_path / "large.wav").write_bytes(bytes(page.LARGEST + 1))
    with (tmp_path / "large.wav").open("rb") as file:
        assert client.post("/gradio_api/upload", files={"files": file}).status_code == 413


def test_uploads_are_removed_after_a_while(kept, package_dir, write_wav, tone, monkeypatch):
    from starlette.testclient import TestClient

    monkeypatch.setattr(page, "LOOK", 0.2)
    monkeypatch.setattr(page, "KEPT", 0.1)
    with TestClient(page.make_app(Pipeline.from_pretrained(package_dir, device="cpu")), HOME) as client:
        recording = upload(client, write_wav("a.wav", tone(0.2, 77)))
        until = time.monotonic() + 20
        while os.path.exists(recording["path"]) and time.monotonic() < until:
            time.sleep(0.1)
        assert not os.path.exists(recording["path"])
        kind, data = transcribe(client, recording, "none", None, 0, 0, ["none"], "")
        assert kind == "error" and "no such file" in json.dumps(data), data


def test_uploads_are_removed_at_the_end(kept, package_dir, write_wav, tone, monkeypatch):
    import uvicorn
    from starlette.testclient import TestClient

    seen = {}

    def run(server, sockets):
        with TestClient(server.config.app, HOME) as client:
            seen["file"] = upload(client, write_wav("a.wav", tone(0.1)))["path"]
            assert os.path.isfile(seen["file"]) and seen["file"].startswith(os.environ["GRADIO_TEMP_DIR"])
            seen["folder"], seen["port"] = os.environ["GRADIO_TEMP_DIR"], sockets[0].getsockname()[1]
    monkeypatch.setattr(uvicorn.Server, "run", run)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(kept))
    before = signal.getsignal(signal.SIGTERM)
    try:
        page.serve(lambda: Pipeline.from_pretrained(package_dir, device="cpu"), 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not os.path.exists(seen["file"]) and not os.path.exists(seen["folder"]) and seen["port"]
