"""The strategy `auto`: likelihoods of answers, the choice among them, and that a package without a rule has none."""

import json
from itertools import product

import pytest
import torch

from cdasr.classifiers.items import choose_items
from cdasr.classifiers.logits import ClassLogits, CTCLogits
from cdasr.cli import main
from cdasr.coupled.auto import SCORES, AutoRule, compare
from cdasr.coupled.schema import Package
from cdasr.runtime.plain_data import checked


class Letters:
    """Stands for a CTC classifier of a blank, a and b."""

    blank = 0

    def decode(self, values, lengths):
        paths = [row[:length].argmax(dim=-1).tolist() for row, length in zip(values, lengths.tolist())]
        return [collapsed(path) for path in paths]


def collapsed(path) -> str:
    return " ".join("_ab"[now] for before, now in zip([0, *path], path) if now not in (0, before))


def always(names, strategy, bias=100.0):
    rule = {"mean": [0.0] * len(SCORES), "scale": [1.0] * len(SCORES), "weights": [0.0] * len(SCORES)}
    return {"strategy": strategy, "rules": {name: {**rule, "bias": bias} for name in names}}


def ctc(*best, frames=4):
    """Logits of one item whose best path is given."""
    values = torch.randn(1, frames, 3, generator=torch.Generator().manual_seed(len(best)))
    values[0, range(len(best)), best] += 5.0
    return CTCLogits(values, torch.tensor([len(best)]), classifier=Letters())


def test_a_likelihood_of_ctc_logits_is_the_sum_over_all_alignments():
    heard, answer = ctc(1, 0, 2, 0), ctc(1, 1, 2)
    scores = heard.values[0].log_softmax(dim=-1)
    paths = [path for path in product(range(3), repeat=4) if collapsed(path) == "a b"]
    known = torch.logsumexp(torch.stack([sum(scores[frame, token] for frame, token in enumerate(path))
                                         for path in paths]), dim=0)
    torch.testing.assert_close(heard.log_likelihood(answer)[0], known)
    assert answer.label_counts().tolist() == [2]
    assert ctc(1, frames=1).log_likelihood(ctc(1, 0, 1)).isneginf().all(), "no room for two labels"


def test_a_likelihood_of_class_logits_is_the_posterior_of_the_class():
    values = torch.randn(3, 5)
    answer = ClassLogits(torch.eye(5)[[4, 0, 1]], None)
    known = values.log_softmax(dim=-1)[range(3), [4, 0, 1]]
    torch.testing.assert_close(ClassLogits(values, None).log_likelihood(answer), known)


def test_items_of_several_answers_become_one():
    short, long = ctc(1, 2, frames=2), ctc(2, 0, 1, 2)
    both = [CTCLogits(torch.cat([answer.values] * 2), answer.lengths.repeat(2), classifier=answer.classifier)
            for answer in (short, long)]
    chosen = choose_items(both, [1, 0])
    assert chosen.texts() == ["b a b", "a b"] and chosen.lengths.tolist() == [4, 2] and chosen.hidden is None


def test_scores_say_how_likely_an_answer_is_by_each_signal():
    answers = {"none": ctc(1, 0, 0, 0), "enhanced": ctc(1, 0, 2, 0), "parallel": ctc(1, 0, 0, 2)}
    signal = torch.ones(8)
    found = compare(answers, [2 * signal], [signal])
    for name in ("enhanced", "parallel"):
        scores = dict(zip(SCORES, found.scores[name][0].tolist()))
        assert scores["likelihood"] < 0 < scores["likelihood_enhanced"] and scores["confidence"] <= 0
        assert scores["agreement"] == 1.0 and scores["length"] == pytest.approx(0.5)
        assert scores["residual"] == pytest.approx(0.0, abs=1e-6) and bool(found.differs[name])
    rule = AutoRule.from_config(always(["parallel"], "parallel", bias=0.5))
    for out, chosen in ((None, "parallel"), ([False], "parallel"), ([True], "none")):
        assert rule.choose(compare(answers, [2 * signal], [signal], out)) == [chosen], "more caution out of domain"
    alike = compare({**answers, "enhanced": answers["none"], "parallel": answers["none"]}, [signal], [signal])
    assert not any(bool(differs.any()) for differs in alike.differs.values())
    assert AutoRule.from_config(always(["parallel"], "parallel")).choose(alike) == ["none"]


def test_a_package_without_a_rule_does_not_offer_it(pipeline, rebuilt, signals):
    assert "auto" not in pipeline.strategies
    with pytest.raises(ValueError, match="'auto' needs a rule fitted on development data, which this package does not"):
        pipeline.run(signals, "auto")
    assert "auto" in rebuilt({"auto": always([], "parallel")}).strategies
    assert "auto" not in rebuilt({"auto": always([], "parallel")}, logits=False).strategies
    assert "auto" in rebuilt({"auto": always([], "enhanced")}, logits=False).strategies


@pytest.mark.parametrize("strategy", ["cascade", "nested", "enhanced"])
def test_the_answer_is_that_of_what_was_chosen(rebuilt, signals, strategy):
    def answers(name, **config):
        return rebuilt(config).run(signals, name)[0]
    alone, own = answers("none"), answers(strategy)
    careful, bold = (answers("auto", auto=always([strategy], strategy, bias)) for bias in (-1.0, 1.0))
    assert careful.chosen == ["none"] * len(signals)
    torch.testing.assert_close(careful.logits.values, alone.logits.values, atol=1e-5, rtol=1e-4)
    assert bold.logits.texts() == own.logits.texts()
    same = [one == other for one, other in zip(own.logits.texts(), alone.logits.texts())]
    assert bold.chosen == ["none" if alike else strategy for alike in same]
    more = 1 if strategy == "enhanced" else 0  # it does not observe y
    for outcome in (careful, bold):
        assert outcome.evaluations == {**own.evaluations, "classifier": own.evaluations["classifier"] + more}
        torch.testing.assert_close(outcome.enhanced.signals, own.enhanced.signals)


def test_none_has_no_context_and_the_others_have(package_dir, tone):
    from cdasr import Pipeline

    plain = Pipeline.from_pretrained(package_dir, device="cpu")
    waves = [torch.from_numpy(tone(0.4)), torch.from_numpy(tone(0.7, 300))]
    config = {**plain.config, "context": {"seconds": 0.1}}

    def transcribe(strategy, **more):
        return Pipeline(plain.recogniser, plain.signal, {**config, **more}, "cpu", plain.logits).transcribe(
            waves, strategy)
    alone, own = transcribe("none"), transcribe("cascade")
    careful = transcribe("auto", auto=always(["cascade"], "cascade", -1.0))
    bold = transcribe("auto", auto=always(["cascade"], "cascade"))
    for known, found, wave in (*zip(alone, careful, waves), *zip(own, bold, waves)):
        assert found.text == known.text and found.duration == known.duration and found.wave.shape == wave.shape
        assert found.nfe["classifier"] == own[0].nfe["classifier"] + 1, "the recording without context is one more"
        if found.chosen == known.strategy:
            assert [(word.start, word.end) for word in found.words] == [(word.start, word.end) for word in known.words]


def test_a_batch_equals_its_items(rebuilt, signals):
    pipeline = rebuilt({"auto": always(["enhanced", "parallel"], "parallel")})
    together = pipeline.run(signals, "auto")[0]
    alone = [pipeline.run([signal], "auto")[0] for signal in signals]
    assert together.logits.texts() == [outcome.logits.texts()[0] for outcome in alone]
    assert together.chosen == [outcome.chosen[0] for outcome in alone]


def test_what_was_chosen_is_in_the_results(package_dir, tmp_path, write_wav, tone, capsys):
    from cdasr import Pipeline

    pipeline = Pipeline.from_pretrained(package_dir, device="cpu").with_choices(auto=always(["cascade"], "cascade"))
    pipeline.save_pretrained(tmp_path / "package")
    path = write_wav("a.wav", tone(0.5))
    assert main(["enhance-transcribe", str(path), "--model", str(tmp_path / "package"), "--device", "cpu", "--json",
                 "--strategy", "auto"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["strategy"] == "auto" and result["chosen"] in ("none", "cascade")
    (tmp_path / "set.csv").write_text(f"ID,duration,wav,text\nu1,0.5,{path},one\n")
    assert main(["evaluate", "--manifest", str(tmp_path / "set.csv"), "--model", str(tmp_path / "package"), "--systems",
                 "none,auto", "--output-dir", str(tmp_path / "out"), "--device", "cpu"]) == 0
    entry = json.loads((tmp_path / "out" / "decode" / "auto.jsonl").read_text())
    assert entry["chosen"] == result["chosen"] and entry["text"] == result["text"]
    assert "chosen" not in json.loads((tmp_path / "out" / "decode" / "none.jsonl").read_text())


@pytest.mark.parametrize("change, message", [
    ({"strategy": "paralel"}, "unknown strategy 'paralel'"), ({"strategy": "auto"}, "'auto': expected enhanced"),
    ({"strategy": "card"}, "'card': expected"), ({"strategy": "nested"}, "rules.parallel: there are rules for")])
def test_a_rule_that_cannot_be_used_is_refused(change, message):
    package = {"format": 1, "signal": {}, "auto": {**always(["parallel"], "parallel"), **change}}
    with pytest.raises(ValueError, match=message):
        checked(Package, package)


def test_a_rule_has_a_number_for_each_score():
    config = always(["parallel"], "parallel")
    config["rules"]["parallel"]["weights"] = [1.0]
    with pytest.raises(ValueError, match="auto.rules.parallel.weights: expected 8 numbers, for likelihood"):
        AutoRule.from_config(config)
