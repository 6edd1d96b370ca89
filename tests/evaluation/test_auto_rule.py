"""The fit of the rule of `auto`: it is found, it keeps its tolerance, and it is left out where there is too little."""

import json

import pytest
import torch

from cdasr import Pipeline
from cdasr.coupled.auto import SCORES, Compared
from cdasr.evaluation.auto_rule import Development, add_auto, fit_rule, gather, main

ITEMS = 400


def development(clean_loss=0.5):
    """Items of which the first score tells whether an answer is better; clean ones, where it mostly is not."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(ITEMS, len(SCORES), generator=generator, dtype=torch.float64)
    clean = torch.arange(ITEMS) % 2 == 0
    better = torch.sigmoid(4 * scores[:, 0]) > torch.rand(ITEMS, generator=generator)
    better &= ~clean | (torch.rand(ITEMS, generator=generator) > clean_loss)
    none = torch.where(better, 2, 0)
    return Development(Compared({"enhanced": scores}, {"enhanced": torch.ones(ITEMS, dtype=torch.bool)},
                                torch.zeros(ITEMS, dtype=torch.bool)),
                       {"none": none, "enhanced": torch.where(better, 0, 1)}, torch.full((ITEMS,), 4),
                       ["clean" if row else "noisy" for row in clean.tolist()], [str(item) for item in range(ITEMS)])


def test_the_rule_takes_what_is_better_and_keeps_its_tolerance():
    found = development()
    rule = fit_rule(found, "enhanced", tolerance=0.3)
    chosen = rule.choose(found.compared)
    assert found.allows(chosen, 0.3) and set(chosen) == {"none", "enhanced"}
    rates, alone = found.rates(chosen), {name: found.rates([name] * ITEMS) for name in ("none", "enhanced")}
    assert rates["noisy"] < min(alone["none"]["noisy"], alone["enhanced"]["noisy"])
    assert rule.measured["items"] == {"clean": 200, "noisy": 200} and rule.measured["tolerance"] == 0.3
    assert rule.measured["expected"]["noisy"]["none"] == pytest.approx(alone["none"]["noisy"], abs=1e-3)
    strict = fit_rule(development(clean_loss=0.97), "enhanced", tolerance=0.0)
    assert strict.measured["margin"] > rule.measured["margin"], "the clean items allow less"
    assert strict.measured["expected"]["clean"]["auto"] <= strict.measured["expected"]["clean"]["none"] + 0.13


def test_an_answer_that_is_hardly_ever_better_has_no_rule():
    found = development()
    worse = Development(found.compared, {**found.errors, "enhanced": found.errors["none"] + 1}, found.counted,
                        found.conditions, found.groups)
    rule = fit_rule(worse, "enhanced")
    assert rule.rules == {} and rule.choose(found.compared) == ["none"] * ITEMS


def test_one_error_of_a_small_condition_forbids_nothing():
    found = Development(Compared({}, {"enhanced": torch.ones(2, dtype=torch.bool)}, torch.zeros(2)),
                        {"none": torch.tensor([0, 0]), "enhanced": torch.tensor([1, 2])}, torch.tensor([3, 0]),
                        ["noisy", "noise alone"], ["a", "b"])
    assert found.allows(["enhanced", "none"], 0.3) and not found.allows(["none", "enhanced"], 0.3)
    assert found.rates(["enhanced", "enhanced"]) == {"noisy": pytest.approx(100 / 3), "noise alone": 200.0}


@pytest.fixture
def rows(write_wav, tone):
    return [{"ID": f"u{number}_noisy", "wav": str(write_wav(f"{number}.wav", tone(0.4 + 0.1 * number, 200 + number))),
             "clean_wav": str(write_wav(f"clean{number}.wav", tone(0.4 + 0.1 * number))), "text": "one two",
             "condition": "noisy", "duration": str(0.4 + 0.1 * number)} for number in range(3)]


def test_clean_versions_are_one_condition_more(package_dir, rows):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    found = gather(pipeline, rows, "cascade", items=2)
    assert sorted(found.conditions) == ["clean"] * 3 + ["noisy"] * 3 and sorted(set(found.groups)) == ["u0", "u1", "u2"]
    assert set(found.errors) == {"none", "enhanced", "cascade", "fused"} and found.counted.tolist() == [2] * 6
    assert found.compared.scores["cascade"].shape == (6, len(SCORES))
    assert add_auto(pipeline, rows) is pipeline, "six items are too few"


def test_the_command_says_what_it_cannot_use(package_dir, rows, tmp_path, capsys):
    (tmp_path / "set.csv").write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    before = (package_dir / "config.json").read_text()
    assert main([str(package_dir), str(tmp_path / "set.csv")]) == 2
    assert "too few rows on which the answers differ" in capsys.readouterr().err
    assert main([str(tmp_path / "none"), str(tmp_path / "set.csv")]) == 2
    assert (package_dir / "config.json").read_text() == before and "auto" not in json.loads(before)
