"""Logits and coupled training: banks go on and hold what was heard, the recogniser stays, losses fall, runs resume."""

import hashlib

import numpy as np
import pytest
import torch

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.logits import sequence_loss
from cdasr.diffusion.objectives import categorical_loss
from cdasr.speech.domain import SPEECH
from cdasr.speech.manifest import read_clean, read_row
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.training.condition_mix import swap_spans
from cdasr.training.logits import train_logits
from tests.conftest import TINY_LOGITS, TINY_SIGNAL
from tests.training.helpers import BANK, COUPLED, LOGITS, add_noise, cache_of, fingerprint, log, train_coupled


@pytest.fixture
def recogniser(recogniser_dir):
    return CTCRecogniser.from_pretrained(recogniser_dir)


@pytest.fixture
def signal():
    model = SpectrogramModel.from_config(TINY_SIGNAL)
    with torch.no_grad():
        model.network.decoder[-1].expand.weight.normal_(std=0.02)
    return model


def build(folder, corpus, recogniser, signal, degrade=add_noise):
    return cache_of(folder, corpus[0], degrade, recogniser, signal, BANK)


def test_a_bank_holds_what_the_recogniser_says_and_goes_on(corpus, recogniser, signal, tmp_path):
    bank = build(tmp_path / "bank", corpus, recogniser, signal, None)
    assert len(bank) == 2 * len(corpus[0]) and {row["text"] for row in bank.rows} == {"one two"}
    for row, item in zip(bank.rows, bank):
        wav = next(r for r in corpus[0] if row["ID"].rsplit("-", 1)[0] == r["ID"])
        noisy = read_row(wav, 16_000)
        clean = read_clean(wav, 16_000, len(noisy))
        for name, wave in (("heard", noisy), ("clean", clean)):
            known = recogniser(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
            torch.testing.assert_close(item[name], known.values[0], atol=5e-3, rtol=5e-3)
        assert item["seen"].shape == item["heard"].shape and item["seen_hidden"].shape[-1] == 32
    written = {path: path.read_bytes() for path in (tmp_path / "bank").iterdir()}
    lost = sorted(path for path in written if path.suffix == ".safetensors")[1]
    lost.unlink()
    times = {path: path.stat().st_mtime_ns for path in written if path != lost and path.suffix == ".safetensors"}
    build(tmp_path / "bank", corpus, recogniser, signal, None)
    assert {path: path.read_bytes() for path in (tmp_path / "bank").iterdir()} == written
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_both_trainings_leave_the_recogniser_alone_and_learn(corpus, recogniser, signal, tmp_path):
    before = fingerprint(recogniser)
    bank = build(tmp_path / "bank", corpus, recogniser, signal)
    (tmp_path / "logits").mkdir()
    logits = train_logits(TINY_LOGITS, recogniser, bank, bank, tmp_path / "logits", LOGITS, "cpu", SPEECH)
    entries = log(tmp_path / "logits")
    assert entries[-1]["train_loss"] < entries[0]["train_loss"]
    assert {"wer_enhanced", "wer_clean"} <= set(entries[0])
    assert entries[0]["wer"] == pytest.approx((entries[0]["wer_cascade"] + entries[0]["wer_card"]) / 2, abs=1e-3)
    values = torch.cat([logits.space.encode(item["clean"]).flatten() for item in bank])
    assert float(values.square().mean()) == pytest.approx(1.0, abs=1e-3)

    (tmp_path / "coupled").mkdir()
    models = train_coupled(signal, logits, recogniser, *corpus, tmp_path / "coupled", COUPLED, add_noise, "cpu")
    guided, trained = models
    assert fingerprint(recogniser) == before
    assert guided.config["network"]["tokens"] == logits.config["network"]["tokens"]
    assert all(layer.weight.detach().abs().max() > 0 for layer in guided.network.trunk.inject), "injection has learnt"
    assert fingerprint(trained.network) != fingerprint(logits.network)
    assert {"wer", "wer_parallel", "wer_parallel_signal"} <= set(log(tmp_path / "coupled")[0])


def test_coupled_training_starts_from_the_signal_process_as_it_is(recogniser, signal):
    from cdasr.coupled.models import LogitsModel

    tokens = recogniser.model.config.vocab_size
    logits = LogitsModel.from_config({**TINY_LOGITS, "network": {**TINY_LOGITS["network"], "tokens": tokens}})
    guided = signal.with_injection(logits.tokens, 8)
    assert guided.config["network"]["centred"] and guided.network.embed_logits.centred
    waves, lengths = 0.1 * torch.randn(2, 8000), torch.tensor([8000, 5000])
    spectra = signal.analyse(waves, lengths)
    told = torch.randn(2, spectra.y.shape[-1], tokens)
    t = torch.rand(2)
    assert torch.equal(guided.estimate(spectra.y, t, spectra, told), signal.estimate(spectra.y, t, spectra))
    assert SpectrogramModel.from_config(guided.config).network.load_state_dict(guided.network.state_dict())


def test_a_killed_coupled_run_ends_at_the_same_numbers(corpus, recogniser, signal, tmp_path,
                                                       killed):
    from cdasr.training.coupled import CoupledTrainer

    bank = build(tmp_path / "bank", corpus, recogniser, signal)
    for name in ("logits", "whole", "resumed"):
        (tmp_path / name).mkdir()
    logits = train_logits(TINY_LOGITS, recogniser, bank, bank, tmp_path / "logits", {**LOGITS, "epochs": 1}, "cpu",
                          SPEECH)

    def train(folder):
        return train_coupled(signal, logits, recogniser, *corpus, tmp_path / folder, COUPLED, add_noise, "cpu")

    def both(models):
        return hashlib.sha256("".join(fingerprint(model.network) for model in models).encode()).hexdigest()

    logits_before = fingerprint(logits.network)
    whole = both(train("whole"))
    assert fingerprint(logits.network) == logits_before, "training works on its own copies"
    killed(CoupledTrainer, lambda run: run.optimizer_step == 3, lambda: train("resumed"))
    assert both(train("resumed")) == whole


def test_categorical_loss_is_the_divergence():
    l_hat, l0 = torch.randn(2, 5, 4), torch.randn(2, 5, 4)
    known = torch.nn.functional.kl_div(l_hat.log_softmax(-1), l0.softmax(-1), reduction="none").sum(-1)
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    assert float(categorical_loss(l_hat, l0)) == pytest.approx(float(known.mean()), abs=1e-6)
    assert float(categorical_loss(l_hat, l0, mask)) == pytest.approx(float(known[mask.bool()].mean()), abs=1e-6)
    assert float(categorical_loss(l0 + 3.0, l0)) == pytest.approx(0.0, abs=1e-6)
    assert np.isfinite(float(categorical_loss(1e4 * l_hat, l0)))


def test_sequence_loss_asks_for_the_words_and_not_for_their_frames():
    def logits(path):
        return 8.0 * torch.nn.functional.one_hot(torch.tensor([path]), 4).float()

    def loss(path, lengths=(8,)):
        return float(sequence_loss(logits(path), logits([0, 1, 1, 0, 2, 0, 2, 0]), torch.tensor(lengths), blank=0))

    right = loss([0, 1, 1, 0, 2, 0, 2, 0])
    assert loss([1, 1, 0, 0, 2, 0, 0, 2]) == pytest.approx(right, abs=0.05), "the same labels at other frames"
    for wrong in ([0, 1, 1, 0, 2, 0, 0, 0], [0, 1, 1, 0, 2, 2, 2, 0], [0, 3, 3, 0, 2, 0, 2, 0], [0] * 8):
        assert loss(wrong) > right + 0.5
    assert loss([0, 1, 1, 0, 2, 0, 3, 3], lengths=(6,)) == pytest.approx(loss([0, 1, 1, 0, 2, 0, 2, 0], lengths=(6,)))


def test_a_span_of_the_next_items_logits_is_swapped_in():
    logits = torch.arange(4.0)[:, None, None].expand(4, 50, 3)
    swapped = swap_spans(logits, 1.0, torch.Generator().manual_seed(1))
    other = logits.roll(1, dims=0)
    assert ((swapped == logits) | (swapped == other)).all()
    held = (swapped == other).all(dim=-1).float()
    assert (held.sum(dim=1) <= 26).all() and held.sum() > 0
    assert (held.diff(dim=1).clamp(min=0).sum(dim=1) + held[:, 0] <= 1).all(), "one span an item"
    assert torch.equal(swap_spans(logits, 0.0, torch.Generator()), logits)
    assert torch.equal(swap_spans(logits[:, 0], 1.0, torch.Generator()), other[:, 0])
