"""Values of hyper-parameters are checked by type and range at the start; each fault names key and value."""

import pytest
import yaml

from cdasr.recipe import hparams as module
from cdasr.recipe.hparams import load_hparams

BASE = """
signal: {epochs: 3, lr: 0.1, warmup: 0.1, batch_seconds: 24, compile: false, epoch_items: null, precision: auto,
         snr_range: [-5, 20], told: {}}
data: {snrs: [0, 5], families: [a], eval_split: dev}
curriculum: {8: 1.3}
tuning: {steps: [1, 2]}
asr: ""
controls: [matched]
seeds: []
kept_states: []
process: {name: vp, beta: 1.0}
"""


@pytest.fixture
def base(tmp_path, monkeypatch):
    (tmp_path / "base.yaml").write_text(BASE)
    monkeypatch.setitem(module.BASES, "speech", tmp_path / "base.yaml")
    path = tmp_path / "default.yaml"
    path.write_text("base: speech\ndata: {strings: 7}\n")
    return path


@pytest.mark.parametrize("key, value, said", [
    ("signal.epochs", "two", "signal.epochs must be a whole number, got 'two'"),
    ("signal.epochs", "2.5", "must be a whole number, got 2.5"), ("signal.epochs", "-1", "must not be negative"),
    ("signal.epochs", "true", "whole number, got True"), ("signal.epochs", "null", "whole number, got None"),
    ("signal.lr", "fast", "must be a number"), ("signal.lr", ".nan", "must be finite"), ("signal.lr", ".inf", "finite"),
    ("signal.lr", "0", "must be more than 0"), ("signal.warmup", "1.5", "a share from 0 to 1"),
    ("signal.compile", "1", "must be true or false, got 1"), ("signal.epoch_items", "many", "a whole number"),
    ("signal.precision", "fp8", "is one of auto, fp32, bf16, fp16"), ("signal.snr_range", "[20, -5]", "a lowest and"),
    ("signal.conditions", "[heard]", "must be a mapping"),
    ("signal.conditions", "{heard: .nan}", "conditions.heard must be finite"),
    ("signal", "5", "signal must be a mapping"), ("data.snrs", "5", "must be a list"),
    ("data.snrs", "[low]", r"data.snrs\[0\] must be a number"), ("data.families", "[1]", "must be a text, got 1"),
    ("data.eval_split", "train", "eval_split is one of dev, test"), ("tuning.steps", "[]", "at least one value"),
    ("asr", "7", "asr must be a text, got 7"), ("controls", "[machted]", "is one of matched, retrained"),
    ("curriculum", "{8: long}", "curriculum.8 must be a number"), ("seeds", "exp/a", "must be a list"),
    ("kept_states", "[0, long]", r"kept_states\[1\] must be a number"),
    ("process.beta", "[1]", "process.beta must be a number")])
def test_values_that_cannot_be_meant_are_named(base, key, value, said):
    with pytest.raises(ValueError, match=said) as error:
        load_hparams([base], [f"--{key}", value])
    assert "\n" not in str(error.value) and str(error.value).startswith(str(base))


def test_values_that_can_be_meant_are_taken(base):
    found = load_hparams([base], ["--signal.lr", "1e-3", "--signal.batch_seconds", "2.5", "--data.snrs", "[-5, 2.5]",
                                  "--signal.epoch_items", "4", "--process", "{name: other, gamma: [1, 2]}",
                                  "--signal.conditions", "{heard: 0.5}", "--asr=", "--curriculum", "{3: 1}"])
    assert found["signal"]["lr"] == 0.001 and found["data"]["snrs"] == [-5, 2.5] and found["asr"] == ""
    assert found["process"] == {"name": "other", "gamma": [1, 2]} and found["curriculum"] == {8: 1.3, 3: 1}
    assert load_hparams([base], ["--signal.lr", "1"])["signal"]["lr"] == 1
    assert found["data"]["strings"] == 7 and "base" not in found


def test_all_faults_are_told_at_once(base):
    with pytest.raises(ValueError, match="epochs must be .*; data.snrs must be"):
        load_hparams([base], ["--signal.epochs", "two", "--data.snrs", "5"])


@pytest.mark.parametrize("text, said", [
    ("base: speech\nsignal: {lr: 1.0}\nseeds: []\nsignal: {}\n", "the key 'signal' comes twice"),
    ("base: speech\nsignl: {lr: 1.0}\n", "no key 'signl' to override; did you mean signal"),
    ("base: speech\nsignal: {rate: 1.0}\n", "no key 'signal.rate'"), ("base: sound\n", "no base 'sound'"),
    ("base: speech\nsignal: {epochs: two}\n", "signal.epochs must be a whole number"),
    ("base: speech\nsignal:\n", "signal must be a mapping"), ("- a\n- b\n", "expected `key: value` lines"),
    ("a: &a [1, 2]\nb: *c\n", "undefined alias"), ("a: &a [*a]\n", "nested deeper"), ("? [1]\n: 2\n", "a key must be"),
    ("a: [\n", "expected"), ("a: " + "[" * 3000 + "]" * 3000, "nested"), ("a: \udcff", "decode")])
def test_files_that_are_no_settings_are_one_line(base, text, said):
    base.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=said) as error:
        load_hparams([base])
    assert "\n" not in str(error.value) and str(error.value).startswith(str(base))


def test_bombs_and_huge_files_are_bounded(base):
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    base.write_text("\n".join(levels))
    with pytest.raises(ValueError, match="more than 20000 values"):
        load_hparams([base])
    base.write_text(f"a: {'x' * 1_100_000}\n")
    with pytest.raises(ValueError, match="no hparams file; at most"):
        load_hparams([base])


def test_a_few_aliases_are_fine(base):
    base.write_text("a: &a {lr: 1.0}\nb: *a\n")
    assert load_hparams([base], ["--b.lr", "2.0"]) == {"a": {"lr": 1.0}, "b": {"lr": 2.0}}


def test_suggestions_reach_into_sections(base):
    for words, said in ((["--lr", "1"], "did you mean signal.lr?"), (["--signal.epoch", "1"], "mean signal.epochs?"),
                        (["--lr"], "--lr needs a value"), (["--signal.lr", "1", "--signal", "5"], "must be a mapping")):
        with pytest.raises(ValueError, match=said):
            load_hparams([base], words)


def test_every_recipe_file_is_data_that_a_plain_reader_understands():
    for path in module.BASES.values():
        assert isinstance(yaml.compose(path.read_text(encoding="utf-8")), yaml.MappingNode)
