"""What `cdasr enhance-transcribe` reads and writes, with a recogniser that hears the length of a recording."""

import io
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from cdasr.speech.comparison import compare
from cdasr.speech.inputs import gather
from cdasr.speech.outputs import SETTINGS, TOGETHER, Outputs
from cdasr.speech.subtitles import cues_of, srt
from cdasr.speech.transcribe import transcribe_files


@dataclass
class Word:
    word: str
    start: float
    end: float
    confidence: float = 0.5


@dataclass
class Heard:
    text: str
    duration: float
    words: list
    strategy: str = "none"
    nfe: dict = field(default_factory=dict)
    text_enhanced = wave = out_of_domain = chosen = nbest = None


class Recogniser(SimpleNamespace):
    sample_rate, device, default_strategy, strategies = 16_000, "cpu", "none", ["none"]

    def check(self, names):
        assert names == ["none"]

    def __call__(self, wave, **options):
        if len(wave) < 500:
            raise ValueError("too short")
        return Heard(f"n{len(wave)}", len(wave) / 16_000, [Word(f"n{len(wave)}", 0.1, 0.2)])


def run(folder, files, **options):
    """Transcribe, one by one, and return the exit code."""
    sources, faults = gather(files)
    return transcribe_files(sources, faults, Recogniser, Outputs(folder, **options), batch_seconds=0.01)


@pytest.fixture
def files(tmp_path):
    return make_files(tmp_path)


def make_files(tmp_path):
    paths = [tmp_path / "in" / name for name in ("a.wav", "b.wav", "c.wav")]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        soundfile.write(path, np.zeros(1000 + number), 16_000)
    return paths


def test_formats(tmp_path, files):
    out = tmp_path / "out"
    assert run(out, files, formats=["txt", "json", "jsonl", "srt", "vtt", "ctm", "tsv"]) == 0
    assert {path.name for path in out.iterdir()} == {SETTINGS, TOGETHER, *(
        f"{name}.{form}" for name in "abc" for form in ("txt", "json", "srt", "vtt", "ctm", "tsv"))}
    assert (out / "a.txt").read_text() == "n1000\n" and json.loads((out / "b.json").read_text())["text"] == "n1001"
    assert (out / "a.srt").read_text() == "1\n00:00:00,100 --> 00:00:00,200\nn1000\n"
    assert (out / "a.vtt").read_text() == "WEBVTT\n\n00:00:00.100 --> 00:00:00.200\nn1000\n"
    assert (out / "a.ctm").read_text().endswith("a 1 0.100 0.100 n1000 0.5000\n")
    assert (out / "a.tsv").read_text().splitlines()[1] == "0.100\t0.200\tn1000\t0.5000"
    lines = [json.loads(line) for line in (out / TOGETHER).read_text().splitlines()]
    assert [line["file"] for line in lines] == list(map(str, files))


def test_resume(tmp_path, files):
    out, made = tmp_path / "out", {"formats": ["txt", "jsonl"], "settings": {"seed": 0}}
    assert run(out, files[:2], **made) == 0
    (out / "b.txt").unlink()
    with (out / TOGETHER).open("a") as file:
        file.write('{"file": "torn')
    (out / "a.txt").write_text("kept\n")
    assert run(out, files, resume=True, **made) == 0
    assert [(out / f"{name}.txt").read_text() for name in "abc"] == ["kept\n", "n1001\n", "n1002\n"]
    assert [json.loads(line)["text"] for line in (out / TOGETHER).read_text().splitlines()] == [
        "n1000", "n1001", "n1002"]
    with pytest.raises(ValueError, match="another seed"):
        run(out, files, resume=True, **{**made, "settings": {"seed": 1}})


def test_inputs(tmp_path, files):
    folder = files[0].parent
    soundfile.write(folder / "a.enhanced.wav", np.zeros(1000), 16_000)
    (folder / "notes.txt").write_text("no audio")
    (tmp_path / "list").write_text(f"{files[2]}\n\n{files[0]}\n")
    assert [source.path for source in gather([folder], recursive=True)[0]] == files
    assert [source.path for source in gather([folder / "[bc].wav"])[0]] == files[1:]
    assert [source.path for source in gather([files[0]], lists=[tmp_path / "list"])[0]] == [files[0], files[2]]
    assert "--recursive" in gather([folder])[1][folder]
    assert "no file matches" in gather([folder / "*.mp3"])[1][folder / "*.mp3"]
    (tmp_path / "m.csv").write_text(f"ID,duration,wav,text\nu.1,0.0625,{files[0]},\n")
    (source,), faults = gather([], manifest=tmp_path / "m.csv")
    assert not faults and str(source.name) == "u.1" and len(source.read(16_000)) == 1000


def test_ffmpeg_decodes_what_soundfile_does_not_read(tmp_path, files, monkeypatch):
    bin_, movie = tmp_path / "bin", tmp_path / "talk.m4a"
    movie.write_bytes(b"no format that soundfile reads")
    monkeypatch.setenv("PATH", str(bin_))
    monkeypatch.setattr("cdasr.speech.inputs.find_spec", lambda name: None)
    assert "install ffmpeg" in gather([movie])[1][movie]
    bin_.mkdir()
    (bin_ / "ffmpeg").write_text(f'#!/bin/sh\nfor last; do :; done\n/bin/cp "{files[1]}" "$last"\n')
    os.chmod(bin_ / "ffmpeg", 0o755)
    (source,), faults = gather([movie])
    assert not faults and len(source.read(16_000)) == 1001


def pipe(monkeypatch, data, terminal=False):
    """Have `data` come in on standard input."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: terminal))


def test_standard_input_is_a_recording_like_others(tmp_path, files, monkeypatch, capsys):
    pipe(monkeypatch, files[0].read_bytes())
    assert run(tmp_path / "out", [Path("-"), files[1]], formats=["txt", "ctm"]) == 0
    assert capsys.readouterr().out == f"-: n1000\n{files[1]}: n1001\n"
    assert (tmp_path / "out/stdin.txt").read_text() == "n1000\n"


@pytest.mark.parametrize("what, line", [
    (b"this is not audio", "-: soundfile cannot read this file; if it is audio of another format, install ffmpeg"),
    (b"", "-: nothing came in on standard input"), ("cut", "-: the file is truncated"),
    ("terminal", "-: standard input is the terminal"), (None, "-: standard input is closed")])
def test_bad_standard_input_does_not_stop_the_others(tmp_path, files, monkeypatch, capsys, what, line):
    monkeypatch.setattr("cdasr.speech.inputs.decoder", lambda: None)
    soundfile.write(tmp_path / "long.wav", np.zeros(10_000), 16_000)
    if what is None:
        monkeypatch.setattr(sys, "stdin", None)
    else:
        data = (tmp_path / "long.wav").read_bytes()[:5000]
        pipe(monkeypatch, what if isinstance(what, bytes) else data, what == "terminal")
    assert run(tmp_path / "out", [Path("-"), files[1]], formats=["txt"]) == 2
    shown = capsys.readouterr()
    assert shown.out == f"{files[1]}: n1001\n" and shown.err.startswith(f"cdasr: {line}") and shown.err.count("\n") == 1
    if isinstance(what, bytes):
        pipe(monkeypatch, what)
    assert compare(*gather([Path("-")]), lambda: pytest.fail("nothing to compare")) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_standard_input_of_another_format_is_decoded(tmp_path, files, monkeypatch, capsys):
    def decoded(path, target):
        assert path.read_bytes() == b"of another format"
        target.write_bytes(files[2].read_bytes())
    monkeypatch.setattr("cdasr.speech.inputs.decoder", lambda: "ffmpeg")
    monkeypatch.setattr("cdasr.speech.inputs._by_ffmpeg", decoded)
    pipe(monkeypatch, b"of another format")
    assert run(None, [Path("-")]) == 0 and capsys.readouterr().out == "n1002\n"


def test_a_recording_that_goes_away_does_not_stop_the_others(tmp_path, files, capsys):
    sources, faults = gather(files)

    def load():
        files[1].unlink()
        return Recogniser()
    assert transcribe_files(sources, faults, load, Outputs(), batch_seconds=0.01) == 2
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 2 and shown.err == f"cdasr: {files[1]}: no such file\n"


def test_what_is_done_is_kept_when_interrupted(tmp_path, files):
    class Interrupted(Recogniser):
        def __call__(self, wave, **options):
            if len(wave) == 1001:
                raise KeyboardInterrupt
            return super().__call__(wave, **options)
    sources, faults = gather(files)
    outputs = Outputs(tmp_path / "out", formats=["txt", "jsonl"])
    with pytest.raises(KeyboardInterrupt):
        transcribe_files(sources, faults, Interrupted, outputs, batch_seconds=0.0626)  # a batch each, read together
    assert (tmp_path / "out/a.txt").read_text() == "n1000\n" and not (tmp_path / "out/b.txt").exists()
    assert run(tmp_path / "out", files, formats=["txt", "jsonl"], resume=True) == 0
    assert [json.loads(line)["text"] for line in (tmp_path / "out" / TOGETHER).read_text().splitlines()] == [
        "n1000", "n1001", "n1002"]


def test_a_recording_that_cannot_be_compared_is_named(tmp_path, capsys):
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16_000)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'short.wav'}: too short$"):
        compare(*gather([tmp_path / "short.wav"]), Recogniser)


def test_files_that_are_replaced_are_announced(tmp_path, files, capsys):
    out, made = tmp_path / "out", {"formats": ["txt", "jsonl"]}
    assert run(out, files[:1], **made) == 0 and not capsys.readouterr().err
    assert run(out, files[:2], **made) == 0
    assert capsys.readouterr().err == (f"cdasr: {out}: 2 files are there already and will be replaced; --resume keeps "
                                       "what is finished\n")
    assert run(out, files[2:], formats=["txt"]) == 0 and not capsys.readouterr().err
    assert run(out, files[2:], formats=["txt"]) == 0 and "out: c.txt is there already" in capsys.readouterr().err
    assert run(out, files, resume=True, **made) == 0 and "replaced" not in capsys.readouterr().err


@pytest.mark.parametrize("form", ["srt", "jsonl"])
def test_resume_tells_recordings_of_one_name_apart(tmp_path, files, monkeypatch, form):
    out, other, made = tmp_path / "out", tmp_path / "other", {"formats": [form], "resume": True}
    other.mkdir()
    soundfile.write(other / "a.wav", np.zeros(2000), 16_000)
    monkeypatch.chdir(files[0].parent)
    assert run(out, [Path("a.wav")], **made) == 0 and run(out, [Path("a.wav"), Path("b.wav")], **made) == 0
    monkeypatch.chdir(other)
    with pytest.raises(ValueError, match=f"was made of {files[0]}, not of {other / 'a.wav'}; choose another folder"):
        run(out, [Path("a.wav")], **made)
    if form == "srt":
        with pytest.raises(ValueError, match="was made of"):
            run(out, [Path("a.wav")], formats=["txt", "wav"], resume=True)
    files[0].unlink()  # as where all recordings have moved
    os.utime(other / "a.wav", (0, 0))
    assert run(out, [Path("a.wav")], **made) == 0


def test_names_of_any_kind_stay_in_one_line(tmp_path, files, capsys):
    names = [b"two\nlines.wav", "ünï 日本 'q\".wav".encode(), b"latin\xe9.wav"]
    for name in names:
        (files[0].parent / os.fsdecode(name)).write_bytes(files[0].read_bytes())
    (files[0].parent / "no\naudio.wav").write_text("x")
    assert run(tmp_path / "out", [files[0].parent / os.fsdecode(name) for name in (*names, b"no\naudio.wav")],
               formats=["txt", "json", "ctm"]) == 2
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 3 and all(line.endswith(": n1000") for line in shown.out.splitlines())
    assert shown.err.startswith(f"cdasr: {files[0].parent}/no\\naudio.wav: not an audio file")
    assert shown.err.count("\n") == 1
    assert {os.fsencode(path.name) for path in (tmp_path / "out").glob("*.json")} >= {
        name.replace(b".wav", b".json") for name in names}


def test_subtitles_are_readable():
    words = [Word("word" + "s" * (number % 5), 0.4 * number, 0.4 * number + 0.3) for number in range(60)]
    words += [Word("later", 40.0, 40.1), Word("x" * 60, 40.3, 40.6)]
    cues = cues_of(words, 41.0)
    assert " ".join(line for cue in cues for line in cue.lines).replace(" ", "") == "".join(w.word for w in words)
    assert all(len(cue.lines) <= 2 and cue.end - cue.start <= 7.0 for cue in cues)
    assert all(len(line) <= 42 for cue in cues for line in cue.lines if "xx" not in line)
    assert all(one.start < one.end <= other.start for one, other in zip(cues, cues[1:]))
    assert "00:00:40,000 --> " in srt(cues)


def spoken(text, start=0.0, word=0.25, pauses=()):
    """Words of a text, each `word` s long, with `pauses` (s) after some of them by their number."""
    words = []
    for number, one in enumerate(text.split()):
        words.append(Word(one, start, start + word))
        start += word + dict(pauses).get(number, 0.02)
    return words


def test_subtitles_end_with_sentences_clauses_and_pauses():
    def texts(words):
        return [" ".join(cue.lines) for cue in cues_of(words, words[-1].end + 1.0)]
    assert texts(spoken("we went there. nobody saw us, which was odd. later, when it was dark, we went home.")) == [
        "we went there. nobody saw us, which was odd.", "later, when it was dark, we went home."]
    assert texts(spoken("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
                        "sixteen seventeen eighteen", pauses=[(7, 0.3)])) == [
        "one two three four five six seven eight",
        "nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen"]
    assert texts(spoken("a long pause ends one", pauses=[(2, 0.9)])) == ["a long pause", "ends one"]


def test_subtitles_stand_long_enough_and_not_too_long():
    words = [*spoken("yes."), *spoken("quickly said again and again.", 3.0, 0.1), Word("and", 8.0, 30.0)]
    cues = cues_of(words, 31.0)
    assert [cue.end - cue.start for cue in cues] == [1.0, 1.0, 7.0]
    hurried = cues_of(spoken("no. yes. no. yes. no. yes. no. yes. no. yes.", word=0.1), 5.0)
    assert all(cue.end - cue.start >= 1.0 for cue in hurried) and len(hurried) == 1


def test_lines_of_a_subtitle_break_at_a_clause():
    (cue,) = cues_of(spoken("when the rain had stopped at last, all of us went out", word=0.2), 9.0)
    assert cue.lines == ("when the rain had stopped at last,", "all of us went out")
    (cue,) = cues_of(spoken("when the rain had stopped at last all of us went out", word=0.2), 9.0)
    assert abs(len(cue.lines[0]) - len(cue.lines[1])) <= 6


def test_subtitles_of_an_hour_are_made_at_once():
    words = spoken("so it went on and on, for a long time, without an end. " * 300, pauses=[(50, 2.0)])
    cues = cues_of(words, 4000.0)
    assert all(one.end <= other.start for one, other in zip(cues, cues[1:]))
    assert all(cue.end - cue.start <= 7.0 and len(cue.lines) <= 2 for cue in cues)
    assert cues_of([], 3.0) == []
