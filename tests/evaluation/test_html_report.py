"""`cdasr report`: one page that needs nothing else, with everything from data escaped."""

import json
import re
from html.parser import HTMLParser

import pytest

from cdasr.cli import main
from cdasr.evaluation.html_figures import pareto, parse_condition
from cdasr.evaluation.html_page import text
from cdasr.speech.manifest import write_manifest
from cdasr.speech.report_examples import align

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "img", "br"}


class Tags(HTMLParser):
    """Opens and closes tags, and keeps them with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def run(package_dir, tmp_path_factory):
    """An evaluation of six utterances of two speakers, clean and at two SNRs, with names that are markup."""
    import numpy as np
    import soundfile

    folder, rows = tmp_path_factory.mktemp("report"), []
    for number in range(6):
        wave = 0.1 * np.random.default_rng(number).standard_normal(8000)
        soundfile.write(folder / f"{number}.wav", wave, 16_000)
        rows.append({"ID": f"{number}<b>&", "duration": 0.5, "wav": folder / f"{number}.wav", "text": "one <i>two",
                     "spk_id": f"s{number % 2}", "clean_wav": folder / f"{number}.wav",
                     "condition": ("clean", "city_0dB", "city_5dB")[number % 3]})
    write_manifest(folder / "set.csv", rows)
    assert main(["evaluate", "--manifest", str(folder / "set.csv"), "--model", str(package_dir), "--systems",
                 "none,enhanced,parallel", "--device", "cpu", "--output-dir", str(folder / "run")]) == 0
    for path in (folder / "run" / "decode").glob("*.jsonl"):
        lines = [{**json.loads(line), "text": f"one {EVIL}", "errors": 2, "confidence": [0.5, 0.9],
                  "correct": [True, False]} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def page(run, package_dir):
    assert main(["report", str(run / "run"), "--output-dir", str(run / "page"), "--manifest", str(run / "set.csv"),
                 "--model", str(package_dir), "--examples", "3"]) == 0
    return (run / "page" / "report.html").read_text()


def test_the_page_is_whole_and_fetches_nothing(page):
    tags = Tags(page)
    assert tags.open == [], "every tag is closed, in order"
    for tag, attributes in tags.seen:
        assert tag != "script" and not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith(("data:", "#s"))
    assert "url(" not in page and "@import" not in page and "default-src 'none'" in page


def test_texts_of_data_are_escaped(page, run):
    assert EVIL not in page and "<b>&" not in page and "<i>" not in page
    assert "&lt;b&gt;&amp;" in page
    words = (run / "page" / "report.md").read_text()
    assert "<b>" not in words and "<script" not in words


def test_the_page_has_its_sections_sounds_and_pictures(page, run):
    headings = re.findall(r"<h2 [^>]*>(.*?)</h2>", page)
    assert headings == ["What was measured", "Error rates", "Paired comparisons", "Errors against computing",
                        "Calibration", "Worst items", "Configuration and versions"]
    assert page.count("<audio") >= 4 and page.count("data:image/svg+xml") == 4 and "data:image/png" in page
    assert re.findall(r"<label>(\w+) <audio", page)[:4] == ["noisy", "enhanced", "parallel", "clean"]
    assert '<span class="pair ' in page and "1 error<" not in page and "2 errors<" in page
    assert "few words" in page and "p (Holm)" in page and "over speakers" in page
    assert "transformers" in page.split("Configuration and versions")[-1]
    words = (run / "page" / "report.md").read_text()
    assert [line[3:] for line in words.splitlines() if line.startswith("## ")] == headings
    for figure in re.findall(r"\((figures/\d\.svg)\)", words):
        drawn = (run / "page" / figure).read_bytes()
        assert b"<svg" in drawn and b"mathdefault" not in drawn, "no formulas stand in place of numbers"


def test_runs_stand_side_by_side_and_without_audio_where_there_is_none(run, tmp_path, capsys):
    import shutil

    shutil.copytree(run / "run", tmp_path / "mini-tiny")
    assert main(["report", str(run / "run"), str(tmp_path / "mini-tiny"), "--output-dir", str(tmp_path / "two")]) == 0
    page = (tmp_path / "two" / "report.html").read_text()
    assert "All runs are of the same items" in page and "a run of size tiny" in page and "<audio" not in page
    assert "without sound" in capsys.readouterr().err


def test_what_cannot_be_reported_is_told_in_a_line(run, tmp_path, capsys):
    for arguments, words in (([str(tmp_path)], "no results are there"),
                             ([str(run / "run"), str(run / "run")], "is given twice")):
        assert main(["report", *arguments, "--output-dir", str(tmp_path / "out")]) == 2
        assert words in capsys.readouterr().err
    assert main(["report", str(run / "run"), "--output-dir", str(run / "run")]) == 2
    assert "choose another --output-dir" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_words_are_aligned():
    found = align({"reference": "One two, three four", "text": "one too three four five"})
    assert found == [("equal", "one", "one"), ("sub", "two", "too"), ("equal", "three", "three"),
                     ("equal", "four", "four"), ("ins", "", "five")]
    assert align({"reference": "one two", "text": ""}) == [("del", "one", ""), ("del", "two", "")]
    assert align({"reference": "", "text": "one"}) == [("ins", "", "one")]


def test_conditions_and_fronts():
    assert parse_condition("unseen_-5dB") == ("unseen", -5.0) and parse_condition("snr10") == ("noise", 10.0)
    assert parse_condition("clean") is None and parse_condition("reverb_city_2.5dB") == ("reverb_city", 2.5)
    assert pareto({"a": (1, 9.0), "b": (2, 5.0), "c": (3, 6.0), "d": (4, 4.0)}) == ["a", "b", "d"]
    assert text("a\x00\u202e<") == "a\ufffd\ufffd&lt;"
