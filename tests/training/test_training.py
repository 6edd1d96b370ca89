"""Training: a killed run ends at the same numbers, the recogniser never changes, batches follow the curriculum."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import speechbrain as sb
import torch

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.speech.audio import read_audio
from cdasr.speech.domain import SPEECH
from cdasr.speech.padded_data import unpad
from cdasr.speech.segments import collate_waves
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.speech.train_recogniser import dropout_rate
from cdasr.speech.utterances import FixedPairs, Utterances, noisy_and_clean
from cdasr.training.base import learning_rate_factor, log_epoch, parameter_groups
from cdasr.training.data import DurationBatchSampler, RoundedBatch, round_up
from cdasr.training.signal import SignalTrainer
from tests.conftest import TINY_SIGNAL
from tests.training.helpers import HPARAMS, add_noise, fingerprint, log, train_signal


def train(corpus, recogniser_dir, folder):
    folder.mkdir(exist_ok=True)
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    return train_signal(TINY_SIGNAL, recogniser, *corpus, folder, HPARAMS, add_noise, "cpu"), recogniser


@pytest.mark.parametrize("killed_at", [2, 4])
def test_a_killed_run_ends_at_the_same_numbers(corpus, recogniser_dir, tmp_path, monkeypatch, killed, killed_at):
    whole, _ = train(corpus, recogniser_dir, tmp_path / "whole")

    monkeypatch.setattr(SignalTrainer, "_should_save_intra_epoch_ckpt", lambda *_: True)  # one after each step
    killed(SignalTrainer, lambda run: run.optimizer_step == killed_at,
           lambda: train(corpus, recogniser_dir, tmp_path / "resumed"))
    resumed, _ = train(corpus, recogniser_dir, tmp_path / "resumed")
    assert fingerprint(resumed.network) == fingerprint(whole.network)


def test_mixed_precision_reaches_the_network_and_not_the_recogniser(corpus, recogniser_dir, tmp_path, monkeypatch):
    recogniser, seen, heard = CTCRecogniser.from_pretrained(recogniser_dir), [], []
    recogniser.model.register_forward_pre_hook(
        lambda module, given: heard.append((torch.is_autocast_enabled("cpu"), given[0].dtype)))
    forward = SignalTrainer.compute_forward

    def watched(self, batch, stage):
        conv = self.networks["network"].encoder[0].reduce
        hook = conv.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
        result = forward(self, batch, stage)
        hook.remove()
        assert result[0].dtype == torch.complex64
        return result

    monkeypatch.setattr(SignalTrainer, "compute_forward", watched)
    (tmp_path / "bf16").mkdir()
    model = train_signal(TINY_SIGNAL, recogniser, *corpus, tmp_path / "bf16", {**HPARAMS, "precision": "bf16"},
                         add_noise, "cpu")
    assert set(seen) == {torch.bfloat16} and set(heard) == {(False, torch.float32)}
    assert all(weight.dtype == torch.float32 and weight.isfinite().all() for weight in model.network.parameters())


def test_gradients_are_accumulated_and_a_killed_run_still_ends_the_same(corpus, recogniser_dir, tmp_path, monkeypatch,
                                                                        killed):
    def accumulate(folder, every=2):
        (tmp_path / folder).mkdir(exist_ok=True)
        return train_signal(TINY_SIGNAL, CTCRecogniser.from_pretrained(recogniser_dir), *corpus, tmp_path / folder,
                            {**HPARAMS, "batch_seconds": 0.7, "grad_accumulation": every}, add_noise, "cpu")

    steps, update = [], SignalTrainer.optimizers_step
    monkeypatch.setattr(SignalTrainer, "optimizers_step", lambda self: (steps.append(self.step), update(self))[1])
    whole = accumulate("whole")
    assert steps == [2, 4, 6] * 2, "six batches of one utterance an epoch"

    monkeypatch.setattr(sb.Brain, "_should_save_intra_epoch_ckpt", lambda *_: True)

    killed(SignalTrainer, lambda run: run.optimizer_step == 4 and run.step == 4,  # between steps of the optimiser
           lambda: accumulate("resumed"))
    assert fingerprint(accumulate("resumed").network) == fingerprint(whole.network)
    with pytest.raises(ValueError, match="grad_accumulation 7: an epoch has only 6 batches"):
        accumulate("none", every=7)


def test_training_leaves_the_recogniser_alone_and_lowers_the_loss(corpus, recogniser_dir, tmp_path):
    before = fingerprint(CTCRecogniser.from_pretrained(recogniser_dir))
    model, recogniser = train(corpus, recogniser_dir, tmp_path / "run")
    assert fingerprint(recogniser) == before == fingerprint(CTCRecogniser.from_pretrained(recogniser_dir))
    untrained = type(model).from_config(TINY_SIGNAL)
    assert fingerprint(model.network) != fingerprint(untrained.network)
    losses = [float(line.split('"train_loss": ')[1].split(",")[0])
              for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_the_loss_of_the_recogniser_trains_the_signal_process_and_nothing_else(corpus, recogniser_dir, tmp_path):
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    model = SpectrogramModel.from_config(TINY_SIGNAL)
    trainer = SignalTrainer(model, recogniser, tmp_path, {**HPARAMS, "recogniser_weight": 1.0, "kl_weight": 0.0,
                                                          "sequence_weight": 0.0}, "cpu", SPEECH)
    noisy, clean = (collate_waves([read_audio(row[name], 16_000)[0] for row in corpus[1]])
                    for name in ("wav", "clean_wav"))
    known = recogniser(*clean)
    degraded = model.analyse(*noisy)
    x0 = model.target(clean[0], degraded)
    best, worse = (trainer._classified_loss(x, degraded, known) for x in (x0, degraded.y))
    assert best < 0.05 * worse, "C of the clean spectra is C(x0) but for rounding; C(y) is far from it"

    x_hat = model.estimate(degraded.y, torch.ones(len(x0)), degraded)
    trainer._classified_loss(x_hat, degraded, known).backward()
    assert all(parameter.grad is None for parameter in recogniser.parameters())
    assert sum(float(parameter.grad.square().sum()) for parameter in model.network.parameters()
               if parameter.grad is not None) > 0


def test_batches_fit_cover_and_follow_the_curriculum():
    durations = np.random.default_rng(0).uniform(0.5, 5.0, 200)
    sampler = DurationBatchSampler(durations, batch_seconds=12.0, seed=3, curriculum={2: 1.5})
    assert durations[np.concatenate(list(sampler))].max() <= 1.5
    sampler.set_epoch(3)
    third = list(sampler)
    assert sorted(np.concatenate(third)) == list(range(200))
    assert all(durations[batch].max() * len(batch) <= 12.0 for batch in third)
    again = DurationBatchSampler(durations, 12.0, 3, {2: 1.5})
    again.set_epoch(3)
    assert list(again) == third and len(third) == again.steps(3)
    again.set_epoch(4)
    assert list(again) != third


def test_rounded_batches_hold_the_same_in_few_shapes(corpus, recogniser_dir, tmp_path):
    lengths = [round_up(length) for length in range(1, 5000)]
    assert all(0 <= rounded - length <= length / 8 for length, rounded in enumerate(lengths, 1))
    assert len(set(lengths) & set(range(1024, 2048))) == 8

    durations = np.random.default_rng(0).uniform(0.5, 5.0, 2000)
    batches = {rounded: list(DurationBatchSampler(durations, 40.0, seed=3, rounded=rounded))
               for rounded in (True, False)}
    assert sorted(np.concatenate(batches[True])) == list(range(2000))
    shapes = {rounded: {(round_up(int(1000 * durations[batch].max())), len(batch)) for batch in found}
              for rounded, found in batches.items()}
    assert len(shapes[True]) < len(shapes[False])

    items = [{"id": str(n), "wave": torch.randn(n), "hidden": torch.randn(n, 2)} for n in (1000, 1030)]
    batch = RoundedBatch(items)
    for item, wave, hidden in zip(items, unpad(batch.wave), unpad(batch.hidden)):
        assert torch.equal(wave, item["wave"]) and torch.equal(hidden, item["hidden"])
    assert batch.wave.data.shape == (2, 1152) and batch.hidden.data.shape == (2, 1152, 2)

    train = Utterances(corpus[0], 16_000, 5, True, noisy_and_clean(add_noise))
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    trainer = SignalTrainer(SpectrogramModel.from_config(TINY_SIGNAL), recogniser, tmp_path, HPARAMS, "cpu", SPEECH)
    valid = FixedPairs(corpus[1], 16_000)
    trainer.rounded = True
    trainer.run(train, valid)
    assert len((tmp_path / "train_log.jsonl").read_text().splitlines()) == 2


def test_items_depend_on_seed_and_epoch_only(corpus):
    data = Utterances(corpus[0], 16_000, 5, True, lambda wave, rng: {"wave": add_noise(wave, rng)[0]})
    first = data[1]["wave"]
    assert torch.equal(first, data[1]["wave"])
    data.epoch = 1
    assert not torch.equal(first, data[1]["wave"])


def test_dropout_follows_its_schedule():
    assert [dropout_rate({2: 0.0, 4: 0.1}, epoch) for epoch in range(1, 6)] == [0.0, 0.0, 0.1, 0.1, 0.1]
    assert dropout_rate({}, 3) == 0.0


def test_learning_rate_rises_then_falls():
    factors = [learning_rate_factor(progress, 0.1) for progress in np.linspace(0, 1, 101)]
    assert factors[10] == pytest.approx(1.0) and factors[0] < 0.02 and factors[-1] == pytest.approx(0.02)
    assert all(a >= b for a, b in zip(factors[10:], factors[11:]))


def test_each_parameter_learns_at_the_rate_of_its_name():
    networks = {"signal": torch.nn.Linear(2, 3), "logits": torch.nn.Linear(3, 1)}
    groups = parameter_groups(networks, {"signal.bias": 6.0, "logits.*": 0.3})
    sizes = {group["factor"]: sum(parameter.numel() for parameter in group["params"]) for group in groups}
    assert sizes == {6.0: 3, 0.3: 4, 1.0: 6}
    with pytest.raises(ValueError, match="no parameter for 'signal.inject'"):
        parameter_groups(networks, {"signal.inject": 2.0})


def test_a_signal_process_that_is_told_logits_from_the_start_listens_to_them(corpus, recogniser_dir, tmp_path):
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    hparams = {**HPARAMS, "conditions": {"none": 0.3, "heard": 0.2, "noised": 0.5}, "swapped": 0.3, "condition": 8}
    model = train_signal(TINY_SIGNAL, recogniser, *corpus, tmp_path, hparams, add_noise, "cpu")
    assert model.config["network"]["condition"] == 8
    assert all(weight.abs().sum() > 0 for name, weight in model.network.named_parameters() if "inject" in name)
    log = [json.loads(line) for line in (tmp_path / "train_log.jsonl").read_text().splitlines()]
    assert {"wer", "wer_told"} <= set(log[0])
    again = model.with_injection(model.config["network"]["tokens"], 16)
    assert again.config == model.config and fingerprint(again.network) == fingerprint(model.network)


def test_the_log_has_each_epoch_once_and_no_torn_line(tmp_path):
    path = tmp_path / "train_log.jsonl"
    for epoch in (1, 2):
        log_epoch(path, {"epoch": epoch, "wer": 50.0})
    log_epoch(path, {"epoch": 2, "wer": float("nan")})
    with path.open("a") as file:
        file.write('{"epo')
    log_epoch(path, {"epoch": 3, "wer": 40.0})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"epoch": 1, "wer": 50.0}, {"epoch": 2, "wer": None}, {"epoch": 3, "wer": 40.0}]


def test_curves_are_written_where_they_are_asked_for(corpus, recogniser_dir, tmp_path, monkeypatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder):
            self.folder = folder

        def add_scalar(self, *point):
            written.append(point)

        def flush(self):
            pass

    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    hparams = {**HPARAMS, "epochs": 1, "tensorboard": True}
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    train_signal(TINY_SIGNAL, recogniser, *corpus, tmp_path, hparams, add_noise, "cpu")
    entry = log(tmp_path)[0]
    assert written == [(name, value, 1) for name, value in entry.items() if name != "epoch"] and len(written) >= 3
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match=r"pip install 'cdasr\[tensorboard\]'"):
        train_signal(TINY_SIGNAL, recogniser, *corpus, tmp_path / "none", hparams, add_noise, "cpu")
