"""A recogniser that the package has never met, by the protocol alone: every strategy, stages 3 to 5, the evaluation."""

from __future__ import annotations

import json
from itertools import groupby

import numpy as np
import pytest
import torch

from cdasr import Pipeline, evaluate
from cdasr.classifiers.hypothesis import Word
from cdasr.classifiers.logits import CTCLogits
from cdasr.coupled.pipeline import STRATEGIES
from cdasr.evaluation.tuning import classifier_alone, tune_strategies
from cdasr.speech.domain import SPEECH
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.trajectory import plot_trajectory
from cdasr.training.logits import train_logits
from tests.conftest import TINY_LOGITS, TINY_SIGNAL, TRAINER
from tests.training.helpers import cache_of, train_coupled, train_signal

BASE = {**TRAINER, "seed": 1, "epochs": 1, "lr": 2e-3, "warmup": 0.1, "ema_decay": 0.9, "batch_seconds": 2.5,
        "start_prob": 0.3, "kl_weight": 0.5, "sequence_weight": 1.0, "condition": 8, "swapped": 0.5,
        "recogniser_weight": 0.1, "magnitude_weight": 0.5, "excerpt_weight": 0.0}
SIGNAL = {**BASE, "conditions": {"none": 0.4, "heard": 0.3, "noised": 0.3}}
LOGITS = {**BASE, "drop_seen": 0.2, "drop_hidden": 0.2}
COUPLED = {**LOGITS, "condition_steps": 2, "logits_weight": 0.3, "scheduled_sampling_prob": 0.5,
           "validate": ["parallel"], "conditions": {"none": 0.3, "heard": 0.2, "estimate": 0.3, "noised": 0.2}}
HERTZ = {"one": 500, "two": 2500, "three": 4500, "four": 6500}  # of the tones that are its words


class BandRecogniser(torch.nn.Module):
    """Four words, each a tone in a band of its own: logits are the levels of the bands in frames of 25 ms."""

    kind, blank, tokens = CTCLogits, 0, ["<blank>", *HERTZ]
    sample_rate, logits_size, hidden_size, hidden_layers = 16_000, 5, 4, (-1,)

    def __init__(self):
        super().__init__()
        self.floor = torch.nn.Parameter(torch.tensor([-1.0]), requires_grad=False)  # what is fainter is blank

    def with_hidden_layers(self, layers):
        return self

    def forward(self, waves, lengths, like=None):
        frames = lengths // 400
        spectra = torch.fft.rfft(waves[:, :int(frames.max()) * 400].unflatten(1, (-1, 400))).abs()[..., :200]
        levels = (spectra.square().unflatten(-1, (4, 50)).mean(dim=-1) + 1e-3).log()
        return CTCLogits(torch.cat([self.floor.expand_as(levels[..., :1]), levels], dim=-1), frames, levels, self)

    def words(self, values, lengths):
        found = [groupby(enumerate(row[:length].argmax(dim=-1).tolist()), key=lambda at: at[1])
                 for row, length in zip(values, lengths.tolist())]
        runs = [[(token, [frame for frame, _ in run]) for token, run in item] for item in found]
        return [[Word(self.tokens[token], 0.025 * frames[0], 0.025 * (frames[-1] + 1), 0.9)
                 for token, frames in item if token != self.blank] for item in runs]

    def decode(self, values, lengths):
        return [" ".join(word.word for word in item) for item in self.words(values, lengths)]

    def frame_times(self, frames):
        return 0.025 * (torch.arange(frames) + 0.5)

    def save_pretrained(self, folder):
        raise NotImplementedError


def say(words) -> np.ndarray:
    time = np.arange(3200) / 16_000
    spoken = [np.concatenate([0.3 * np.sin(2 * np.pi * HERTZ[word] * time), np.zeros(800)]) for word in words.split()]
    return np.concatenate(spoken).astype(np.float32)


def add_noise(wave, rng):
    return wave + 0.05 * rng.standard_normal(len(wave)).astype(np.float32), wave


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Clean and noisy utterances, as (training rows, validation rows, noisy manifest)."""
    import soundfile

    folder, noisy = tmp_path_factory.mktemp("corpus"), []
    for number, text in enumerate(("one two", "three", "four one", "two four three", "three one", "four")):
        wave = say(text)
        for name, samples in (("clean", wave), ("noisy", add_noise(wave, np.random.default_rng(number))[0])):
            soundfile.write(folder / f"{name}{number}.wav", samples, 16_000)
        noisy.append({"ID": f"u{number}", "duration": len(wave) / 16_000, "wav": folder / f"noisy{number}.wav",
                      "clean_wav": folder / f"clean{number}.wav", "text": text, "condition": "white"})
    write_manifest(folder / "noisy.csv", noisy)
    valid = read_manifest(folder / "noisy.csv")
    return [{**row, "wav": row["clean_wav"]} for row in valid], valid, folder / "noisy.csv"


@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    """The recogniser with both models, after stages 3 to 5."""
    folder, recogniser = tmp_path_factory.mktemp("exp"), BandRecogniser()
    for stage in ("signal", "logits", "coupled"):
        (folder / stage).mkdir()
    signal = train_signal(TINY_SIGNAL, recogniser, rows[0], rows[1], folder / "signal", SIGNAL, add_noise, "cpu")
    settings = {"passes": 1, "batch_seconds": 2.5, "steps": [1], "workers": 0}
    cache = cache_of(folder / "logits" / "bank", rows[0], add_noise, recogniser, signal, settings)
    logits = train_logits(TINY_LOGITS, recogniser, cache, cache, folder / "logits", LOGITS, "cpu", SPEECH)
    models = train_coupled(signal, logits, recogniser, *rows[:2], folder / "coupled", COUPLED, add_noise, "cpu")
    return Pipeline(recogniser, models[0], {}, "cpu", models[1]), folder


def test_it_hears_its_words(rows):
    assert classifier_alone(BandRecogniser(), SPEECH, rows[0])["wer"] == 0.0


def test_stages_3_to_5_train_around_it(trained):
    pipeline, folder = trained
    for stage in ("signal", "logits", "coupled"):
        lines = (folder / stage / "train_log.jsonl").read_text().splitlines()
        assert lines and np.isfinite(json.loads(lines[0])["train_loss"])
    assert pipeline.signal.config["network"]["tokens"] == pipeline.logits.tokens == 5
    assert not any(weight.requires_grad for weight in pipeline.recogniser.parameters())


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if not STRATEGIES[name].needs_rule])
def test_every_strategy_runs(trained, rows, strategy):
    pipeline, _ = trained
    result = pipeline(rows[1][3]["wav"], strategy)
    assert " ".join(word.word for word in result.words) == result.text and result.nfe["classifier"] > 0
    sampled = pipeline(rows[1][3]["wav"], strategy, samples=2)
    assert sampled.strategy == strategy


def test_it_is_evaluated_tuned_and_shown(trained, rows, tmp_path):
    pipeline, _ = trained
    table = evaluate(rows[2], pipeline, None, tmp_path / "results", device="cpu")
    assert all(name in table for name in pipeline.strategies)
    tuned, tried = tune_strategies(pipeline, rows[1], {"cascade": {"steps": [1, 2]}})
    assert len(tried["cascade"]) == 2 and tuned.default_strategy == "cascade"
    plot_trajectory(rows[1][0]["wav"], pipeline, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 0
