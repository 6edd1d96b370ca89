"""Evaluation needs nothing of speech: a domain of two numbers, made here, is decoded, scored, tuned and reported."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cdasr.coupled.domain import Domain
from cdasr.coupled.evaluation import Evaluation, Quality
from cdasr.evaluation.benchmark import real_time_factors
from cdasr.evaluation.evaluate import evaluate
from cdasr.evaluation.plots import plot_examples
from cdasr.evaluation.report import table
from cdasr.evaluation.results import write_recipe_results
from cdasr.evaluation.store import read_decoded
from cdasr.evaluation.tuning import classifier_alone, tune


class Sign(nn.Module):
    """Two classes: whether the first number is positive."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, signals, lengths=None):
        return SimpleNamespace(values=torch.stack([-signals[:, 0], signals[:, 0]], dim=1) * self.scale)


class Shift(nn.Module):
    """Enhancement: takes away what was added, a bit in each step."""

    precision = None

    def enhance(self, signals, lengths=None, steps=None):
        return signals + torch.tensor([0.5 * (steps or 2), 0.0]), steps or 2


@dataclass
class Answer:
    side: int
    confidence: float
    nfe: dict
    signal: torch.Tensor | None


def errors(classifier, logits, truths):
    return [(int(best != truth), 1) for best, truth in zip(logits.values.argmax(dim=1).tolist(), truths)]


def recognise(pipeline, signals, strategy, batch_seconds, **sampling):
    batch, enhanced = torch.stack(list(signals)), None
    if strategy == "enhanced":
        enhanced, _ = pipeline.signal.enhance(batch, steps=sampling.get("steps"))
    posterior = pipeline.classifier(batch if enhanced is None else enhanced).values.softmax(dim=1)
    return [Answer(int(row.argmax()), float(row.max()), {"signal": 2 * (enhanced is not None), "classifier": 1},
                   None if enhanced is None else enhanced[place]) for place, row in enumerate(posterior)]


SIDES = Domain(
    name="sides", truth="side", rate="wrong", errors=errors, collate=lambda signals: (torch.stack(list(signals)), None),
    lengths=lambda padded: None, signal_loss=None, logits_loss=None, quality=("distance", None),
    evaluation=Evaluation(
        counted="points", read_noisy=lambda row, classifier: torch.tensor(row["noisy"]),
        read_clean=lambda row, classifier, noisy: torch.tensor(row["clean"]), recognise=recognise,
        entry=lambda row, answer: {
            "answer": answer.side, "errors": int(answer.side != row["side"]), "points": 1, "duration": 1.0,
            "confidence": [answer.confidence], "correct": [answer.side == row["side"]], "nfe": answer.nfe},
        enhanced=lambda answer: answer.signal, measured=("distance",), title="Wrong side",
        qualities={"distance": Quality("distance", lambda signal, clean, classifier: float((signal - clean).norm()))},
        picture=lambda signal: signal.clamp(0, 1).reshape(1, 2).numpy(), caption=lambda answer: str(answer.side)))


class Toy(SimpleNamespace):
    def batch(self, signals):
        return SimpleNamespace(signals=SIDES.collate(signals)[0], lengths=None)

    def check(self, names, steps=None, samples=1):
        assert set(names) <= set(self.strategies)


@pytest.fixture
def pipeline(monkeypatch):
    from cdasr.evaluation import evaluate as module
    monkeypatch.setattr(module, "CoupledPipeline", Toy)
    return Toy(domain=SIDES, classifier=Sign(), signal=Shift(), logits=None, config={}, device="cpu",
               strategies=["none", "enhanced"], default_strategy="enhanced")


@pytest.fixture
def rows():
    clean = torch.randn(60, 2).tolist()
    return [{"ID": f"{condition}{number}", "condition": condition, "duration": 1.0, "side": int(point[0] > 0),
             "clean": point, "noisy": [point[0] - shift, point[1]]}
            for condition, shift in (("clean", 0.0), ("pushed_5dB", 0.6), ("pushed_0dB", 1.0))
            for number, point in enumerate(clean)]


def test_a_toy_domain_is_decoded_scored_tuned_and_reported(pipeline, rows, tmp_path):
    shown = evaluate(rows, pipeline, None, tmp_path / "results", batch_seconds=7)
    scores = json.loads((tmp_path / "results" / "scores.json").read_text())
    pushed = scores["conditions"]["pushed_0dB"]
    assert shown.startswith("Wrong side % [95 % interval]\ncondition ") and "points" in shown.splitlines()[1]
    assert pushed["none"]["wrong"] > 20.0 and pushed["enhanced"]["wrong"] == 0.0, "two steps undo the push"
    assert pushed["enhanced"]["distance"] == pytest.approx(0.0, abs=1e-6) and pushed["none"]["distance"] == 1.0
    assert shown == table(scores, SIDES)
    path = tmp_path / "results" / "decode" / "none.jsonl"
    before = path.read_bytes()
    assert evaluate(rows, pipeline, None, tmp_path / "results") == shown and path.read_bytes() == before
    assert classifier_alone(pipeline.classifier, SIDES, rows[:60]) == {"wrong": 0.0, "points": 60, "utterances": 60}
    choices = tune(pipeline, rows[120:], [1, 2, 3], [0.0, 0.5])
    assert (choices["best_steps"], choices["best_weight"]) == (2, 0.0) and choices["steps"][1] > choices["steps"][2]
    assert set(real_time_factors(pipeline, rows[:5], ["none"])["rtf"]) == {"none"}
    plot_examples(pipeline, rows, tmp_path / "grid.png", seed=0, columns=4)
    assert (tmp_path / "grid.png").read_bytes()[:4] == b"\x89PNG"
    assert len(read_decoded(path)) == 180


def test_a_recipe_of_a_toy_domain_has_a_report(pipeline, rows, tmp_path):
    evaluate(rows, pipeline, None, tmp_path / "results")
    for stage, settings in (("recogniser", {}), ("signal", {"tuning": {"steps": {"1": 9.0, "2": 3.0}}})):
        (tmp_path / stage).mkdir()
        (tmp_path / stage / "record.json").write_text(json.dumps(
            {"settings": {"hparams": {"training_seed": 1}, **settings}, "machine": {"cores": 1}}))
    write_recipe_results(SIDES, tmp_path, {"exp_dir": "exp/sides", "other_seeds": []}, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert text.startswith("# Results of recipes/sides\n") and "| Wrong side %" in text
    assert (tmp_path / "results" / "wrong.png").is_file()


def test_unknown_measures_and_rows_that_are_no_file_are_refused(pipeline, rows, tmp_path):
    with pytest.raises(ValueError, match="unknown quality measure 'loudness'; known: distance"):
        evaluate(rows, pipeline, None, tmp_path / "out", quality=["loudness"])
    with pytest.raises(ValueError, match="rows of this domain are not read from a file"):
        evaluate(tmp_path / "rows.csv", pipeline, None, tmp_path / "out")
    with pytest.raises(ValueError, match="say of which `domain`"):
        evaluate(rows, lambda: pipeline, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluation_loads_neither_domain():
    files = sorted(Path("cdasr/evaluation").glob("*.py"))
    names = [file.stem for file in files if file.stem != "__init__"]
    assert len(names) > 10
    code = (f"import sys, importlib\nfor name in {names}: importlib.import_module(f'cdasr.evaluation.{{name}}')\n"
            "print([name for name in sys.modules if name.startswith(('cdasr.speech', 'cdasr.images'))])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
