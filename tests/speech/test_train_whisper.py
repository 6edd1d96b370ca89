"""The control `retrained` of Whisper's decoder: a copy learns from the frozen one's answers to clean speech."""

import json

import pytest
import speechbrain as sb
import torch

from cdasr.classifiers.load import load_recogniser
from cdasr.speech.manifest import read_row
from cdasr.speech.train_whisper import WhisperTrainer, retrain_whisper
from cdasr.speech.whisper_labels import IGNORED, Label, LabelledUtterances, clean_answers, transcripts
from tests.classifiers.whisper import make_whisper
from tests.conftest import TRAINER
from tests.training.helpers import add_noise, fingerprint, log

HPARAMS = {**TRAINER, "seed": 1, "epochs": 2, "lr": 3e-3, "warmup": 0.1, "ema_decay": 0.5, "batch_seconds": 4.0,
           "labels": "clean", "parts": "encoder", "joined_seconds": 1.5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def frozen(folder):
    return load_recogniser(folder)


def noisy(wave, rng):
    return {"noisy": add_noise(wave, rng)[0]}


def train(corpus, frozen, output_dir, **changes):
    return retrain_whisper(frozen, frozen.model, *corpus, output_dir, {**HPARAMS, **changes}, noisy, 0.9, "cpu")


def changed(before, after) -> set[str]:
    """The parts of the model, such as `encoder`, whose parameters differ."""
    old = before.model.state_dict()
    return {name.removeprefix("model.").split(".")[0] for name, value in after.model.state_dict().items()
            if not torch.equal(value, old[name])}


def test_the_encoder_alone_learns_what_the_frozen_recogniser_writes(corpus, frozen, tmp_path):
    before = fingerprint(frozen)
    tuned = train(corpus, frozen, tmp_path, epochs=5)
    losses = [entry["train_loss"] for entry in log(tmp_path)]
    assert losses[-1] < 0.7 * losses[0]
    assert changed(frozen, tuned) == {"encoder"} and fingerprint(frozen) == before
    positions = "model.encoder.embed_positions.weight"
    assert torch.equal(tuned.model.state_dict()[positions], frozen.model.state_dict()[positions])
    assert not any(parameter.requires_grad for parameter in tuned.parameters())
    again = load_recogniser(tmp_path / "model")
    assert type(again) is type(frozen) and fingerprint(again.model) == fingerprint(tuned.model)
    wave, length = torch.randn(1, 8000), torch.tensor([8000])
    assert again(wave, length).texts() == tuned(wave, length).texts()


def test_all_parts_learn_from_transcripts_where_that_is_asked(corpus, frozen, tmp_path):
    rows = [{**row, "text": "ONE TWO" if number else ""} for number, row in enumerate(corpus[0])]
    before = fingerprint(frozen)
    tuned = train((rows, corpus[1]), frozen, tmp_path, parts="all", labels="transcripts", epochs=1)
    assert {"encoder", "decoder"} <= changed(frozen, tuned) and fingerprint(frozen) == before
    assert not (tmp_path / "answers").exists()
    with pytest.raises(ValueError, match="none of the 1 training rows serves: .* need a transcript"):
        train((rows[:1], corpus[1]), frozen, tmp_path, labels="transcripts")
    with pytest.raises(ValueError, match=r"they may have 1.8 s at most"):
        train(([{**rows[1], "duration": 1.9}], corpus[1]), frozen, tmp_path)


def test_labels_of_both_kinds_have_the_prefix_and_the_end(corpus, frozen, tmp_path):
    rows, end = [{**row, "text": text} for row, text in zip(corpus[0], ("ONE TWO", "on", " "))], frozen.ends[0]
    given = transcripts(frozen, rows, "cpu")
    texts = [frozen.processor.tokenizer.decode(label.tokens, skip_special_tokens=True) for label in given[:2]]
    assert texts == [" one two", " on"] and given[2] is None and given[0].tokens[-1] == end
    answers = clean_answers(frozen, rows, tmp_path, 2, "cpu")
    assert {tuple(label.tokens[:label.prefix]) for label in (*given[:2], *answers)} == {tuple(given[0].tokens[:4])}
    tensors = Label([7, 8, 5, 6, end], 2).tensors()
    assert tensors["tokens"].tolist() == [7, 8, 5, 6] and tensors["labels"].tolist() == [IGNORED, 5, 6, end]
    item = LabelledUtterances(rows, answers, 16_000, 1, noisy, 2.0)
    assert {row["duration"] for row in item.rows} == {2.0} and {"noisy", "tokens", "labels"} <= item[0].keys()


def test_answers_are_decoded_once_and_are_the_recognisers_own(corpus, frozen, tmp_path, monkeypatch):
    found = clean_answers(frozen, corpus[0], tmp_path, 4, "cpu")
    texts = [frozen.processor.tokenizer.decode(label.tokens, skip_special_tokens=True).split() for label in found]
    for row, text in zip(corpus[0], texts):
        wave = torch.from_numpy(read_row(row, 16_000))[None]
        assert frozen(wave, torch.tensor([wave.shape[1]])).texts()[0].split() == text
    with monkeypatch.context() as patch:  # nothing is left to decode
        patch.setattr(type(frozen), "forward", None)
        assert clean_answers(frozen, corpus[0], tmp_path, 4, "cpu") == found
    stored = json.loads((tmp_path / "000000.json").read_text())
    assert all(item["kept"] for item in stored)
    (tmp_path / "000000.json").write_text(json.dumps([{**item, "kept": False} for item in stored]))
    assert clean_answers(frozen, corpus[0], tmp_path, 4, "cpu").count(None) == 4
    assert clean_answers(frozen, corpus[0], tmp_path, 3, "cpu") == found, "batches of another size: decoded again"


def test_a_killed_training_ends_at_the_same_numbers(corpus, frozen, tmp_path, monkeypatch, killed):
    def run(name):
        return fingerprint(train(corpus, frozen, tmp_path / name).model)

    whole = run("whole")
    monkeypatch.setattr(sb.Brain, "_should_save_intra_epoch_ckpt", lambda *_: True)  # one after each step
    killed(WhisperTrainer, lambda trainer: trainer.optimizer_step == 3, lambda: run("resumed"))
    assert (tmp_path / "resumed" / "checkpoints").is_dir()
    assert run("resumed") == whole
