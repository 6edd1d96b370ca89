"""RESULTS.md of both domains: one report, with every number that the two reports of the first version had."""

import json
import re
from pathlib import Path

import pytest

from cdasr.evaluation.results import write_recipe_results
from cdasr.evaluation.scoring import read_scores, score
from cdasr.evaluation.store import read_decoded
from cdasr.images.domain import IMAGES
from cdasr.speech.domain import SPEECH
from tests.evaluation import experiments

REPORTS = Path(__file__).parent / "reports"  # as the first version wrote them for these experiments
RECORD = {"time": "2024-05-06T23:59:59+00:00", "command": "cdasr evaluate --manifest set.csv", "commit": "abcdef" * 6,
          "versions": {"python": "3.11", "torch": "2.11", "pesq": None}, "machine": {"cores": 2},
          "settings": {"device": "cpu", "threads": 2, "seed": 7}}
NUMBER = re.compile(r"(?<![\w.-])[+-]?\d+(?:\.\d+)?")


def report(domain, make, kind, folder):
    """The text of a report, made from entries and records as the first version wrote them."""
    exp_dir, hparams = make(folder)
    decoded = {system: read_decoded(exp_dir / "results" / "decode" / f"{system}.jsonl") for system in kind["systems"]}
    scores = score(decoded, domain, list(kind["conditions"]))
    for part in (*scores["conditions"].values(), scores.get("average", {})):
        for entry in part.values():  # the names of the first version
            entry[f"{domain.rate}_surest"] = entry.pop(f"{domain.rate}_at_80_coverage")
            if "top5" in entry:
                entry["top5"][domain.rate] = entry["top5"].pop("rate")
    (exp_dir / "results" / domain.evaluation.scores_file).write_text(json.dumps({**scores, "record": RECORD}))
    write_recipe_results(domain, exp_dir, hparams, folder / "RESULTS.md")
    return (folder / "RESULTS.md").read_text()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return {"speech": report(SPEECH, experiments.speech, experiments.SPEECH, tmp_path_factory.mktemp("speech")),
            "images": report(IMAGES, experiments.images, experiments.IMAGES, tmp_path_factory.mktemp("images"))}


def rows_of(text):
    """`(label, numbers)` of each table row; the label is what its first cell says."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("| --"):
            first, *cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
            yield first, NUMBER.findall(" ".join(cells))


@pytest.mark.parametrize("name", ["speech", "images"])
def test_every_number_of_the_first_version_is_there(written, name):
    old, new = (list(rows_of(text)) for text in ((REPORTS / f"{name}.md").read_text(), written[name]))
    renamed = {"right on clean speech": "right when clean", "wrong on clean speech": "wrong when clean",
               "accuracy %": "Top-1 accuracy %"}
    for label, numbers in old:
        rest = [row for other, row in new if other == renamed.get(label, label)]
        assert any(all(row.count(number) >= numbers.count(number) for number in numbers) for row in rest), (
            label, numbers, rest)
    assert len(old) > 50
    kept, made = (set(NUMBER.findall(" ".join(line for line in text.splitlines() if not line.startswith("|"))))
                  for text in ((REPORTS / f"{name}.md").read_text(), written[name]))
    assert kept <= made, "numbers outside of the tables"


def test_both_domains_have_the_same_sections(written):
    speech, images = (re.findall(r"(?m)^## (.*)$", text) for text in written.values())
    only_speech = {"Error rates", "Averages", "Consensus of samples", "Speed"}  # of what was decoded
    assert set(speech) - set(images) == only_speech and set(images) - set(speech) == {"Accuracy"}
    assert "Coupled strategies against the others, all seeds" in images
    assert "Where the classifier is right on clean signals, and where not" in images


def test_other_rates_are_in_the_tables_where_entries_have_them(tmp_path):
    decoded = experiments.decoded(experiments.SPEECH, experiments.utterance, 0)
    for entries in decoded.values():
        for entry in entries:
            entry |= {"substitutions": entry["errors"], "deletions": 0, "insertions": 0,
                      "character_errors": 2 * entry["errors"], "characters": 5 * entry["words"]}
    scores = score(decoded, SPEECH)
    noisy = scores["conditions"]["seen_0dB"]["none"]
    assert noisy["substitutions"] == {"rate": noisy["wer"]} and noisy["deletions"] == {"rate": 0.0}
    assert noisy["cer"]["rate"] == pytest.approx(0.4 * noisy["wer"])
    assert noisy["cer"]["interval"] == pytest.approx([0.4 * bound for bound in noisy["interval"]])
    (tmp_path / "wer.json").write_text(json.dumps({**scores, "record": RECORD}))
    assert read_scores(tmp_path / "wer.json", SPEECH)["conditions"]["seen_0dB"]["none"]["cer"] == json.loads(
        json.dumps(noisy["cer"]))
