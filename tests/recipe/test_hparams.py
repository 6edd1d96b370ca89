"""Hyper-parameters: references and overrides work, code does not run, mistakes are named."""

import pytest

from cdasr.recipe.hparams import load_hparams


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.yaml"
    path.write_text("seed: 3\nsignal: {lr: 0.1, seed: !ref <seed>}\nmap: {1: 2.0}\nname: x\n")
    return path


def test_references_and_overrides(base, tmp_path):
    change = tmp_path / "change.yaml"
    change.write_text("signal: {lr: 0.2}\nmap: {7: 1.0}\n")
    hparams = load_hparams([base, change], ["--seed", "5", "--signal.lr=0.3"])
    assert hparams["signal"] == {"lr": 0.3, "seed": 5} and hparams["map"][7] == 1.0 and hparams["name"] == "x"
    assert load_hparams([base, change])["signal"]["lr"] == 0.2


@pytest.mark.parametrize("tag", ["!new:os.path.join", "!apply:os.system", "!applyref:os.system", "!name:os.system",
                                 "!module:os", "!!python/object/apply:os.system"])
def test_code_is_refused(tmp_path, tag):
    path = tmp_path / "evil.yaml"
    path.write_text(f"seed: 1\nx: {tag}\n  - touch {tmp_path}/ran\n")
    with pytest.raises(ValueError, match="could run code"):
        load_hparams([path])
    assert not (tmp_path / "ran").exists()


def test_an_empty_mapping_takes_any_keys(base):
    base.write_text("options: {}\nseed: 1\n")
    assert load_hparams([base], ["--options", "{dtype: bfloat16}"])["options"] == {"dtype": "bfloat16"}
    assert load_hparams([base], ["--options.dtype", "float16"])["options"] == {"dtype": "float16"}


def test_options_of_strategies_and_rates_of_parts_may_be_new(base):
    base.write_text("tuning: {strategies: {parallel: {steps: [2]}}}\nlr_factors: {a: 1.0}\n")
    hparams = load_hparams([base], ["--tuning.strategies", "{parallel: {switch: [1.0]}, nested: {inner: [1]}}",
                                    "--lr_factors", "{b.*: 0.2}"])
    assert hparams["tuning"]["strategies"] == {"parallel": {"steps": [2], "switch": [1.0]}, "nested": {"inner": [1]}}
    assert hparams["lr_factors"] == {"a": 1.0, "b.*": 0.2}
    with pytest.raises(ValueError, match="no key 'tuning.strategy'"):
        load_hparams([base], ["--tuning.strategy", "{}"])


def test_an_open_mapping_can_be_emptied(base, tmp_path):
    base.write_text("recogniser: {curriculum: {3: 4.0}, lr_factors: {a: 1.0}, lr: 0.1}\n")
    size = tmp_path / "size.yaml"
    size.write_text("recogniser: {curriculum: {}}\n")
    assert load_hparams([base, size])["recogniser"] == {"curriculum": {}, "lr_factors": {"a": 1.0}, "lr": 0.1}
    assert load_hparams([base], ["--recogniser", "{}"])["recogniser"]["lr"] == 0.1, "settings have names of their own"
    assert load_hparams([base], ["--recogniser.lr_factors", "{}"])["recogniser"]["lr_factors"] == {}


def test_mistakes_are_named(base):
    for overrides, reason in ((["--signal.rate", "1"], "no key 'signal.rate'"), (["--seed"], "needs a value"),
                              (["seed", "1"], "expected --key value")):
        with pytest.raises(ValueError, match=reason):
            load_hparams([base], overrides)
    with pytest.raises(ValueError, match="no such hparams file"):
        load_hparams([base.parent / "none.yaml"])


def test_another_name_brings_its_own_options(base):
    base.write_text("model: {process: {name: sbve, k: 2.6, c: 0.4}, size: 3}\nk: 1\n")
    for override in (["--model.process", "{name: vp, beta_max: 9.0}"],
                     ["--model.process.name", "vp", "--model.process.beta_max", "9.0"]):
        assert load_hparams([base], override)["model"] == {"process": {"name": "vp", "beta_max": 9.0}, "size": 3}
    for same in (["--model.process", "{name: sbve, c: 0.5}"], ["--model.process.c", "0.5"]):
        assert load_hparams([base], same)["model"]["process"] == {"name": "sbve", "k": 2.6, "c": 0.5}
    with pytest.raises(ValueError, match="'model.process.beta_max'"):
        load_hparams([base], ["--model.process.beta_max", "9.0"])
