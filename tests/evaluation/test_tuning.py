"""Tuning: every combination is tried, and the package takes the best of what was measured."""

from copy import deepcopy

import pytest

from cdasr import Pipeline
from cdasr.evaluation.tuning import tune, tune_strategies
from cdasr.speech.words import word_errors


@pytest.fixture
def rows(write_wav, tone):
    return [{"wav": str(write_wav(f"{number}.wav", tone(0.4 + 0.1 * number, 200 + 90 * number))), "text": text,
             "duration": 0.4 + 0.1 * number} for number, text in enumerate(("one two", "three", "four one"))]


def test_the_package_takes_the_best_options(package_dir, rows):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    before = deepcopy(pipeline.config)
    tuned, tried = tune_strategies(pipeline, rows,
                                   {"parallel": {"steps": [1, 2], "switch": [0.4, 1.0]}, "cascade": {}})
    assert pipeline.config == before, "the pipeline that is tuned stays as it is"
    assert [entry["options"] for entry in tried["parallel"]] == [
        {"steps": steps, "switch": switch} for steps in (1, 2) for switch in (0.4, 1.0)]
    assert tried["cascade"] == [{"options": {}, "wer": tried["cascade"][0]["wer"]}]
    for strategy, entries in tried.items():
        best = min(entry["wer"] for entry in entries)
        assert tuned.config["strategies"][strategy] == next(e["options"] for e in entries if e["wer"] == best)
        counts = [word_errors(row["text"], tuned(row["wav"], strategy).text) for row in rows]
        assert best == pytest.approx(100 * sum(c[0] for c in counts) / sum(c[1] for c in counts))
    assert tuned.default_strategy == min(tried, key=lambda name: min(entry["wer"] for entry in tried[name]))


def test_steps_and_observation_adding_are_those_of_lowest_wer(package_dir, rows):
    choices = tune(Pipeline.from_pretrained(package_dir, device="cpu"), rows, [1, 3], [0.0, 0.5])
    assert set(choices["steps"]) == {1, 3} and set(choices["weights"]) == {0.0, 0.5}
    assert choices["steps"][choices["best_steps"]] == min(choices["steps"].values())
    assert choices["weights"][0.0] == pytest.approx(choices["steps"][choices["best_steps"]])
    assert choices["weights"][choices["best_weight"]] == min(choices["weights"].values())
