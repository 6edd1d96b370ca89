"""The registry of strategies: one entry is found by the command line, the pipeline, the evaluation and the tuning."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.coupled.pipeline import PLAIN
from cdasr.coupled.schema import Package
from cdasr.coupled.strategies import COMMON, STRATEGIES, Option, Strategy, options_of
from cdasr.diffusion import coupling
from cdasr.evaluation.evaluate import evaluate
from cdasr.evaluation.tuning import tune_strategies
from cdasr.recipe.check_hparams import conform
from cdasr.runtime.plain_data import checked

ROOT = Path(__file__).parents[2]


def backwards(signal, logits, observe, twist=1):
    """The logits first, then the signal given them."""
    heard = observe(signal.y)
    l = logits(heard).sample(given=heard)
    x = signal.sample(given=l)
    return coupling.Coupled(x, l, observe(x))


@pytest.fixture
def dummy(monkeypatch):
    """One strategy more, added in one place."""
    monkeypatch.setitem(STRATEGIES, "backwards", Strategy(
        "backwards", "the logits first, then the signal", coupled=True, function=backwards,
        options=(Option("twist", "has no effect", int, 1, 9),)))
    return "backwards"


@pytest.fixture
def rows(write_wav, tone):
    return [{"ID": f"u{number}", "wav": str(write_wav(f"{number}.wav", tone(0.4 + 0.1 * number))), "text": text,
             "duration": str(0.4 + 0.1 * number)} for number, text in enumerate(("one two", "three"))]


@pytest.mark.parametrize("verb", ["enhance-transcribe", "enhance-classify", "evaluate", "plot-trajectory"])
def test_the_help_of_each_verb_says_what_each_strategy_does(dummy, verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    for name, strategy in STRATEGIES.items():
        if verb != "plot-trajectory" or strategy.needs_signal and strategy.needs_logits:
            assert re.search(rf"^  {name} +{re.escape(strategy.about)}$", shown, re.M), name
    assert dummy in shown


def test_a_strategy_added_in_one_place_runs_everywhere(dummy, package_dir, rows, tmp_path, capsys):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    assert pipeline.strategies == [name for name in STRATEGIES if not STRATEGIES[name].needs_rule]
    assert dummy in pipeline.strategies
    assert main(["enhance-transcribe", rows[0]["wav"], "--model", str(package_dir), "--device", "cpu", "--strategy",
                 dummy, "--json"]) == 0
    assert f'"strategy": "{dummy}"' in capsys.readouterr().out
    (tmp_path / "set.csv").write_text("\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]))
    assert re.search(rf"^{dummy}\b", evaluate(tmp_path / "set.csv", pipeline, [dummy], tmp_path / "out",
                                                 steps=1), re.M)
    tuned, tried = tune_strategies(pipeline, rows, {dummy: {"steps": [1], "twist": [1, 2]}})
    assert [entry["options"]["twist"] for entry in tried[dummy]] == [1, 2] and tuned.default_strategy == dummy
    settings = {"tuning": {"strategies": {dummy: {"twist": [1]}}}, "coupled": {"validate": [dummy]}}
    assert conform(settings, settings) == settings


def test_a_package_stores_the_options_of_the_registry_and_no_others(dummy):
    package = {"format": 1, "signal": {}, "strategies": {dummy: {"steps": 2, "twist": 3}, "nested": {"inner": None}}}
    assert checked(Package, package).strategies == package["strategies"]
    for options, message in (({"twist": 0}, "strategies.backwards: twist: .*greater"), ({"inner": 1}, "unknown key")):
        with pytest.raises(ValueError, match=message):
            checked(Package, {**package, "strategies": {dummy: options}})


def test_the_registry_fits_the_functions():
    assert set(STRATEGIES) == {*PLAIN, *coupling.STRATEGIES}
    for name, function in coupling.STRATEGIES.items():
        own = [option.name for option in options_of(name) if option not in COMMON]
        assert sorted(own) == sorted(list(inspect.signature(function).parameters)[3:])
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name and len(strategy.about) <= 70
        assert not (strategy.coupled and strategy.baseline) and strategy.needs_logits >= strategy.coupled


@pytest.mark.parametrize("settings, message", [
    ({"coupled": {"validate": ["paralel"]}}, "coupled.validate: there is no strategy 'paralel'"),
    ({"ablation": {"strategy": "enhanced"}}, "ablation.strategy: there is no strategy 'enhanced' with a logits"),
    ({"tuning": {"strategies": {"nested": {"rounds": [1]}}}}, "tuning.strategies.nested: there is no option 'rounds'")])
def test_a_recipe_names_strategies_and_options_that_there_are(settings, message):
    with pytest.raises(ValueError, match=message):
        conform(settings, settings)


def test_the_table_of_the_documentation_is_the_registry():
    text = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \| (.*?) \|", text, re.M)[:len(STRATEGIES)] == [
        (name, strategy.about) for name, strategy in STRATEGIES.items()]


def test_the_registry_loads_nothing_heavy():
    code = "import sys, cdasr.coupled.strategies; print([m for m in ('torch', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
