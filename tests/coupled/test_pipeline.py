"""What pipelines of all domains share: which strategies run, batches of samples, packages, and what is refused."""

import pytest
import torch

from cdasr.coupled.strategies import STRATEGIES


def test_without_a_logits_process_the_strategies_are_those_that_need_none(pipeline, rebuilt):
    plain = rebuilt({}, logits=False)
    assert plain.strategies == [name for name, strategy in STRATEGIES.items()
                                if not strategy.needs_logits and not strategy.needs_rule]
    with pytest.raises(ValueError, match="'card' needs a logits process.*choose one of none, enhanced, oa"):
        plain.check(["card"])


@pytest.mark.parametrize("given, message", [
    ({"names": ["paralel"]}, "unknown strategy 'paralel'; known: none"),
    ({"names": ["none"], "steps": 0}, "steps must"),
    ({"names": ["none"], "samples": 0}, "number of samples must be at least 1, got 0")])
def test_what_cannot_be_run_is_refused_before_anything_is_computed(pipeline, given, message):
    with pytest.raises(ValueError, match=message):
        pipeline.check(**given)


def test_the_package_chooses_the_strategy_and_says_what_it_is_for(pipeline, rebuilt):
    assert rebuilt({"strategy": "cascade"}).default_strategy == "cascade" and pipeline.default_strategy == "enhanced"
    assert pipeline.about == "" and rebuilt({"about": {"task": "digits", "language": "en"}}).about == \
        "task digits, language en"


def test_samples_stand_in_a_row_and_have_seeds_of_their_own(pipeline, signals):
    outcome, batch, _ = pipeline.run(signals, "cascade", samples=2, seed=3)
    assert len(batch.rows()) == len(outcome.logits.values) == 4
    assert torch.equal(batch.rows()[0], batch.rows()[1]) and not torch.equal(batch.rows()[1], batch.rows()[2])
    drawn = outcome.enhanced.rows()
    assert not torch.allclose(drawn[0], drawn[1])
    again = pipeline.run(signals, "cascade", samples=2, seed=3)[0].enhanced.rows()
    assert all(torch.equal(one, other) for one, other in zip(drawn, again))
    assert len(pipeline.run(signals, "none", samples=2)[0].logits.values) == 2


def test_a_stored_option_counts_unless_steps_are_given(rebuilt, signals):
    pipeline = rebuilt({"strategies": {"nested": {"steps": 1, "logits_steps": 3, "inner": 1}}})
    assert pipeline.run(signals, "nested")[0].evaluations == {"signal": 2, "logits": 3, "classifier": 3}
    assert pipeline.run(signals, "nested", steps=2)[0].evaluations == {"signal": 4, "logits": 2, "classifier": 3}


def test_logits_that_are_not_finite_are_refused(rebuilt, signals):
    pipeline = rebuilt({})
    weight = next(parameter for parameter in pipeline.logits.parameters() if parameter.dim() > 1)
    with torch.no_grad():
        kept, weight[:] = weight.clone(), float("nan")
    try:
        with pytest.raises(ValueError, match="'card' gave logits that are not finite"):
            pipeline.run(signals, "card")
    finally:
        with torch.no_grad():
            weight[:] = kept


@pytest.mark.parametrize("strategy", ["oa", "parallel"])
def test_a_package_comes_back_with_the_same_answers(pipeline, signals, strategy, tmp_path):
    pipeline.save_pretrained(tmp_path / "package")
    again = type(pipeline).from_pretrained(tmp_path / "package", device="cpu")
    assert again.strategies == pipeline.strategies
    found, known = (one.run(signals, strategy)[0] for one in (again, pipeline))
    assert torch.equal(found.logits.values, known.logits.values) and found.evaluations == known.evaluations
    (tmp_path / "package" / "signal.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="not a usable cdasr model package") as caught:
        type(pipeline).from_pretrained(tmp_path / "package", device="cpu")
    assert "\n" not in str(caught.value)
