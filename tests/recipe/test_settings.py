"""One base.yaml holds every default; the recipes' files are short, and what they resolve to stays as it was."""

import inspect
import json
import re

import pytest
import yaml

from cdasr.cli import main
from cdasr.coupled.recipe import RECIPES, load_recipe
from cdasr.recipe.command import functions, order
from cdasr.recipe.hparams import BASES, load_hparams
from cdasr.recipe.markers import ELSEWHERE, _owner
from tests.recipe.settings import KEPT, ROOT, SIZES, resolved


def changed(kept, found, path=""):
    """Paths of what differs or is missing in `found`; what is new there does not count."""
    if isinstance(kept, dict) and isinstance(found, dict):
        return [fault for key in kept for fault in (changed(kept[key], found[key], f"{path}.{key}") if key in found
                                                    else [f"{path}.{key} is missing"])]
    return [] if kept == found else [f"{path}: {kept} was, {found} is"]


@pytest.mark.parametrize("recipe, size", [(recipe, size) for recipe, sizes in SIZES.items() for size in sizes])
def test_resolved_settings_are_those_of_the_dump(recipe, size, tmp_path):
    kept = json.loads((KEPT / f"{recipe}-{size.replace(',', '+')}.json").read_text(encoding="utf-8"))
    found = resolved(recipe, size, tmp_path)
    assert changed(kept, found) == [] and changed(found, kept) == [], "write a new dump where a setting was added"


def test_recipes_state_differences_in_at_most_80_lines():
    files = [*ROOT.glob("recipes/*/hparams/*.yaml"), *(ROOT / "cdasr" / "recipe" / "templates").glob("*.yaml")]
    assert len(files) >= 14
    for path in files:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 80, path


@pytest.mark.parametrize("base", BASES.values(), ids=BASES.keys())
def test_every_default_has_its_comment(base):
    lines = base.read_text(encoding="utf-8").splitlines()
    root = yaml.compose(base.read_text(encoding="utf-8"))
    explained = {key.value for _, section in root.value if isinstance(section, yaml.MappingNode)
                 for key, _ in section.value if "#" in lines[key.start_mark.line]}
    for key, section in root.value:
        if isinstance(section, yaml.ScalarNode):
            assert "#" in lines[key.start_mark.line], key.value
        elif section.value and isinstance(section, yaml.MappingNode):
            bare = [name.value for name, _ in section.value if name.value not in explained
                    and "#" not in lines[name.start_mark.line]]
            assert set(bare) <= {"process", "network", "sampling", "stft", "model", "steps"}, (key.value, bare)


def test_a_complete_default_of_an_earlier_version_overrides_the_whole_base(tmp_path):
    kept = json.loads((KEPT / "digits-default.json").read_text(encoding="utf-8"))
    kept["signal"]["lr"], kept["coupled"]["lr_factors"] = 0.5, {}
    kept["tuning"]["strategies"] = {"nested": {"inner": [1]}}
    del kept["signal"]["patience_warmup"]
    path = tmp_path / "default.yaml"
    path.write_text(yaml.safe_dump(kept), encoding="utf-8")
    found = json.loads(json.dumps(load_hparams([path], base="speech")))
    assert changed(kept, found) == [] and found["signal"]["patience_warmup"] == 0
    assert list(found["tuning"]["strategies"]) == ["nested"] and found["coupled"]["lr_factors"] == {}


def test_the_command_prints_what_a_recipe_ends_up_with(capsys):
    digits = str(ROOT / "recipes" / "digits")
    assert main(["config", digits, "--size", "tiny", "--signal.lr", "1e-3", "--decode.samples=4"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["signal"]["lr"] == 0.001 and shown["decode"]["samples"] == 4 and shown["exp_dir"] == "exp/digits-tiny"
    assert main(["config", digits, "--signal.epoch", "2"]) == 2
    assert "'signal.epoch' to override; did you mean signal.epochs?" in capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_belongs_to_the_first_stage_that_reads_it(name):
    recipe = load_recipe(name)
    settings, stages, made = load_hparams([BASES[name]]), order(recipe), functions(recipe)
    named = {key.split(".")[0] for stage in stages for key in stage.reads}
    assert set(settings) <= named | set(ELSEWHERE), "a setting that no stage names makes all stages stale"
    assert {key for key in named if key not in settings} <= {"download", "manifests"}
    for number, stage in enumerate(stages):
        source = inspect.getsource(made[stage.name])
        source += "".join(inspect.getsource(getattr(recipe, hook))
                          for hook in set(re.findall(r"recipe\.(\w+)\(", source)))
        for outer, inner in re.findall(r'hparams\["(\w+)"\](?:\["(\w+)"\])?', source):
            inners = [inner] if inner else list(settings[outer]) if isinstance(settings.get(outer), dict) else []
            first = min(_owner(stages, path) for path in [f"{outer}.{key}" for key in inners] or [outer])
            known = outer in ELSEWHERE or first <= number or (number, inner) == (2, "hidden_layers")
            assert known, (stage.name, outer, inner)


def test_settings_of_earlier_versions_are_read_with_a_note(tmp_path, capsys):
    (tmp_path / "old.yaml").write_text("base: speech\nsignal: {start_share: 0.5, told: {none: 1.0}}\n")
    found = load_hparams([tmp_path / "old.yaml"], ["--coupled.own_states", "0.25", "--signal.reverb-share", "0.1"])
    assert found["signal"]["start_prob"] == 0.5 and found["signal"]["conditions"] == {"none": 1.0}
    assert found["coupled"]["scheduled_sampling_prob"] == 0.25 and found["signal"]["reverb_prob"] == 0.1
    notes = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'old.yaml'}: start_share is called start_prob now" in notes and len(notes) == 4
