"""The strategy `rover`: its fit on development speech, and its words in results."""

import json

import pytest

from cdasr import Pipeline
from cdasr.classifiers.hypothesis import Word
from cdasr.cli import main as command
from cdasr.coupled.voting import size
from cdasr.speech.rover_rule import Heard, add_rover, fit_vote, main
from cdasr.speech.words import normalise_text


def said(text: str, confidence: float) -> list[Word]:
    return [Word(word, float(place), place + 1.0, confidence) for place, word in enumerate(text.split())]


def heard(number: int) -> Heard:
    """In noise `none` adds a doubtful word and `enhanced` has a wrong one; clean speech is right."""
    noisy = number % 2 == 1
    answers = {"none": said("one two three" + " uh" * noisy, 0.9)[:3] + said("uh", 0.2) * noisy,
               "enhanced": said("one two tree" if noisy else "one two three", 0.6)}
    return Heard(answers, "one two three", "noisy" if noisy else "clean", f"u{number // 2}")


def test_the_vote_has_fewer_errors_than_each_answer():
    vote = fit_vote([heard(number) for number in range(40)], "enhanced", ["none", "enhanced"])
    expected = vote.measured["expected"]
    assert expected["noisy"] == {"none": pytest.approx(100 / 3, abs=0.01), "enhanced": pytest.approx(100 / 3, abs=0.01),
                                 "rover": 0.0}
    assert expected["clean"] == {"none": 0.0, "enhanced": 0.0, "rover": 0.0} and vote.measured["items"] == 40


@pytest.fixture
def rows(write_wav, tone, package_dir):
    """Noisy recordings whose text is what an untrained recogniser hears there, so that there is something to learn."""
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    made = [{"ID": f"u{number}_noisy", "wav": str(write_wav(f"{number}.wav", tone(0.4 + 0.1 * number, 200 + number))),
             "clean_wav": str(write_wav(f"clean{number}.wav", tone(0.4 + 0.1 * number))), "text": "one two",
             "condition": "noisy", "duration": str(0.4 + 0.1 * number)} for number in range(3)]
    return [{**row, "text": pipeline(row["wav"], "none").text} for row in made]


def test_a_package_stores_its_vote_and_runs_it(package_dir, rows, tmp_path, capsys):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    assert add_rover(pipeline, rows, tolerance=1000.0).config["rover"]["answers"] == ["none", "enhanced", "oa"]
    pipeline.with_choices(strategy="cascade").save_pretrained(tmp_path / "package")
    (tmp_path / "set.csv").write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    arguments = [str(tmp_path / "package"), str(tmp_path / "set.csv"), "--tolerance", "1000"]
    assert main([*arguments, "--answers", "none,parallel"]) == 2
    assert "--answers: the package gives none called parallel" in capsys.readouterr().err
    assert main([*arguments, "--answers", "none,cascade"]) == 0
    stored = json.loads((tmp_path / "package" / "config.json").read_text())["rover"]
    assert stored["strategy"] == "cascade" and len(stored["weights"]) == size(2)
    assert stored["measured"]["items"] == 6 and stored["measured"]["expected"].keys() == {"noisy", "clean"}
    capsys.readouterr()
    assert command(["enhance-transcribe", rows[0]["wav"], "--model", str(tmp_path / "package"), "--device", "cpu",
                    "--json", "--strategy", "rover"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["strategy"] == "rover"
    assert result["text"].split() == [word["word"].lower() for word in result["words"]]


def test_the_words_of_a_unanimous_vote_are_those_of_the_answers(package_dir, rows):
    """Weights that always take what `none` says give its words, though other answers vote too."""
    weights = [9.0] + [0.0] * (size(2) - 1)
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu").with_choices(
        rover={"strategy": "cascade", "answers": ["none", "cascade"], "weights": weights})
    alone, other, voted = (pipeline(rows[1]["wav"], strategy) for strategy in ("none", "cascade", "rover"))
    assert voted.text == normalise_text(alone.text) and voted.duration == alone.duration and voted.wave is not None
    assert {(word.start, word.end) for word in voted.words} <= {  # in the sound of the answer that is surest
        (word.start, word.end) for word in [*alone.words, *other.words]}
