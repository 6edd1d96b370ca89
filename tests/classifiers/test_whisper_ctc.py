"""Whisper's encoder with a CTC head: transformers' numbers, batches as alone, trained by stage 2 and then frozen."""

import hashlib
import json
from copy import deepcopy

import pytest
import torch

from cdasr import Pipeline
from cdasr.classifiers.load import load_recogniser
from cdasr.classifiers.whisper_ctc import CTCHead, WhisperCTCRecogniser
from cdasr.classifiers.whisper_loading import load_encoder
from tests.conftest import TRAINER

LENGTHS = (9000, 32_000, 70_000, 400)
HEAD = {"dim": 16, "blocks": 2, "kernel": 3}


@pytest.fixture
def recogniser(whisper_dir, tmp_path):
    from cdasr.speech.train_recogniser import make_processor

    encoder, extractor, source = load_encoder(whisper_dir)
    tokenizer = make_processor(["one two three"], tmp_path / "tokenizer", 16_000).tokenizer
    return WhisperCTCRecogniser(encoder, CTCHead(3, 24, len(tokenizer), **HEAD), extractor, tokenizer, source)


def test_states_are_those_of_transformers(recogniser, whisper_dir):
    from transformers import WhisperFeatureExtractor, WhisperModel

    waves = [torch.randn(length) * 0.3 for length in (9000, 32_000)]
    extractor = WhisperFeatureExtractor.from_pretrained(whisper_dir)
    inputs = extractor([wave.numpy() for wave in waves], sampling_rate=16_000, return_tensors="pt").input_features
    plain = WhisperModel.from_pretrained(whisper_dir).eval().encoder(inputs, output_hidden_states=True).hidden_states
    padded, lengths = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor([9000, 32_000])
    states = recogniser.encode(padded, lengths)
    assert len(states) == len(plain) == 3
    for state, known in zip(states, plain):
        torch.testing.assert_close(state, known, atol=1e-4, rtol=1e-3)
    recogniser = recogniser.with_hidden_layers((1, -1))
    known = torch.cat([torch.nn.functional.layer_norm(plain[layer], (24,)) for layer in (1, -1)], dim=-1)
    torch.testing.assert_close(recogniser(padded, lengths).hidden, known, atol=1e-3, rtol=1e-3)


def test_a_batch_equals_single_in_one_pass_also_beyond_the_window(recogniser, monkeypatch):
    waves = [torch.randn(length) * 0.3 for length in LENGTHS]
    padded = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True).requires_grad_()
    passes, plain = [], recogniser.model.conv1.forward
    monkeypatch.setattr(recogniser.model.conv1, "forward", lambda *a, **k: passes.append(1) or plain(*a, **k))
    logits = recogniser(padded, torch.tensor(LENGTHS))
    assert len(passes) == 1 and logits.lengths.tolist() == [29, 100, 219, 2]
    assert logits.values.shape == (4, 219, recogniser.logits_size) and logits.hidden.shape == (4, 219, 24)
    for row, wave in enumerate(waves):
        alone = recogniser(wave[None], torch.tensor([len(wave)]))
        frames = int(logits.lengths[row])
        assert alone.values.shape[1] == frames
        torch.testing.assert_close(logits.values[row, :frames], alone.values[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(logits.hidden[row, :frames], alone.hidden[0], atol=1e-4, rtol=1e-3)
    logits.values[0, :29].square().sum().backward()
    assert padded.grad[0, :9000].abs().max() > 0 and padded.grad[1:].abs().max() == 0
    assert padded.grad[0, 9000:].abs().max() == 0
    assert not any(part.requires_grad for part in recogniser.parameters()) and not recogniser.train().head.training


def test_each_utterance_fills_the_shortest_window_that_holds_it(recogniser):
    """The states are those of the utterance and silence of a window, as if it was an excerpt of so many frames."""
    shorter = WhisperCTCRecogniser(recogniser.model, recogniser.head, recogniser.processor.feature_extractor,
                                   recogniser.processor.tokenizer, recogniser.encoder_source, (0.3, 1.0, 1.6))
    waves = [torch.randn(length) * 0.3 for length in (4000, 9000, 16_000, 16_001, 35_000)]  # the last: 1.6 s and a rest
    padded, lengths = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor([*map(len, waves)])
    logits = shorter(padded, lengths)
    assert logits.lengths.tolist() == recogniser(padded, lengths).lengths.tolist()
    pieces = [(0, waves[0], 4800), (1, waves[1], 16_000), (2, waves[2], 16_000), (3, waves[3], 25_600),
              (4, waves[4][:25_600], 25_600)]
    together = shorter.encode(padded, lengths)
    for row, wave, size in pieces:
        filled = torch.nn.functional.pad(wave, (0, size - len(wave)))[None]
        frames = int(shorter.frame_lengths(torch.tensor([len(wave)])))
        for state, known in zip(together[1:], shorter.excerpt_states(filled)):
            torch.testing.assert_close(state[row, :frames], known[0, :frames], atol=1e-4, rtol=1e-3)
        alone = shorter(wave[None], torch.tensor([len(wave)])).values[0]
        if len(wave) == len(waves[row]):
            torch.testing.assert_close(logits.values[row, :frames], alone, atol=1e-4, rtol=1e-3)
    rest = torch.nn.functional.pad(waves[4][25_600:], (0, 16_000 - 9400))[None]
    torch.testing.assert_close(together[-1][4, 80:110], shorter.excerpt_states(rest)[-1][0, :30], atol=1e-4, rtol=1e-3)


def test_windows_are_kept_and_checked(recogniser, whisper_dir, tmp_path):
    parts = (recogniser.model, recogniser.head, recogniser.processor.feature_extractor, recogniser.processor.tokenizer,
             recogniser.encoder_source)
    shorter = WhisperCTCRecogniser(*parts, windows=(0.5, 1.5))
    shorter.save_pretrained(tmp_path)
    again, wave, length = load_recogniser(tmp_path), torch.randn(1, 9000), torch.tensor([9000])
    assert again.windows == again.with_head(again.head).windows == (0.5, 1.5)
    assert (shorter(wave, length).values - recogniser(wave, length).values).abs().max() > 1e-4
    torch.testing.assert_close(again(wave, length).values, shorter(wave, length).values, atol=1e-6, rtol=0)
    for wrong in ((1.5, 0.5), (0.5, 0.5), (0.001,), (1.0, 31.0)):
        with pytest.raises(ValueError, match="in ascending order, the last of them .* at most"):
            WhisperCTCRecogniser(*parts, windows=wrong)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "windows": ["long"]}))
    with pytest.raises(ValueError, match="windows"):
        load_recogniser(tmp_path)


def test_frame_times_are_where_the_frames_hear(recogniser):
    assert recogniser.stride == 320 and recogniser.frame_times(3).tolist() == pytest.approx([0.0, 0.02, 0.04])
    features = torch.randn(1, 20, 200, requires_grad=True)
    convolved = recogniser.model.conv2(torch.nn.functional.gelu(recogniser.model.conv1(features)))
    convolved[0, :, 30].sum().backward()
    heard = features.grad[0].abs().sum(dim=0).nonzero()[:, 0] * recogniser.features.hop / 16_000
    assert float(heard.mean()) == pytest.approx(float(recogniser.frame_times(31)[30]))
    with pytest.raises(ValueError, match="shorter than one frame"):
        recogniser(torch.randn(1, 300), torch.tensor([300]))


def test_a_saved_recogniser_names_its_encoder_or_holds_it(recogniser, whisper_dir, tmp_path):
    waves, lengths = torch.randn(1, 9000), torch.tensor([9000])
    known = recogniser(waves, lengths).values
    recogniser.save_pretrained(tmp_path / "named")
    recogniser.encoder_source = None
    recogniser.save_pretrained(tmp_path / "whole")
    assert not (tmp_path / "named" / "encoder").exists()
    assert json.loads((tmp_path / "named" / "config.json").read_text())["encoder"]["name"] == str(whisper_dir)
    assert (tmp_path / "whole" / "encoder" / "model.safetensors").is_file()
    for name in ("named", "whole"):
        again = load_recogniser(tmp_path / name)
        assert isinstance(again, WhisperCTCRecogniser) and again.tokens == recogniser.tokens
        torch.testing.assert_close(again(waves, lengths).values, known, atol=1e-6, rtol=0)
    assert load_recogniser(tmp_path / "named", dtype="bfloat16").model.dtype == torch.bfloat16
    for name in ("nothing", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad" / "config.json").write_text('{"model_type": "whisper-ctc"}')
    with pytest.raises(ValueError, match="no Whisper CTC recogniser could be loaded"):
        load_recogniser(tmp_path / "bad")
    with pytest.raises(ValueError, match="no Whisper encoder could be loaded"):
        load_encoder(tmp_path / "nothing")


def fingerprint(module) -> str:
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in module.state_dict().values())).hexdigest()


@pytest.mark.parametrize("kept_states", [[], [0, 1.5]], ids=["encoded", "kept"])
def test_stage_2_trains_the_head_alone_and_a_package_uses_it(kept_states, whisper_dir, package_dir, tmp_path, write_wav,
                                                             tone):
    from cdasr.speech.train_whisper_head import train_whisper_head

    rows = []
    for number, (text, hertz) in enumerate([("a", 300), ("b", 1200)] * 24):
        path = write_wav(f"{text}.wav", tone(0.6, hertz))
        rows.append({"ID": f"u{number}", "duration": "0.6", "wav": str(path), "text": text})
    hparams = {**TRAINER, "seed": 1, "sample_rate": 16_000, "units": "characters", "epochs": 8, "lr": 0.006,
               "warmup": 0.1, "ema_decay": 0.7, "batch_seconds": 3.7, "speeds": [100], "curriculum": {}, "dropout": {},
               "kept_states": kept_states, "windows": [],
               "masked_spans": 0, "head": {**HEAD, "dim": 32, "dropout": 0.0}}
    before = fingerprint(load_encoder(whisper_dir)[0])
    trained = train_whisper_head(whisper_dir, rows, rows[:4], tmp_path, hparams, lambda wave, rng: wave, "cpu")
    assert fingerprint(trained.model) == before and not any(part.requires_grad for part in trained.parameters())
    waves = torch.stack([torch.from_numpy(tone(0.6, hertz)) for hertz in (300, 1200)])
    logits = trained(waves, torch.tensor([waves.shape[1]] * 2))
    assert trained.decode(logits.values, logits.lengths) == ["A", "B"]

    again = load_recogniser(tmp_path / "model")
    pipeline = Pipeline(again, Pipeline.from_pretrained(package_dir, "cpu").signal, device="cpu")
    pipeline.save_pretrained(tmp_path / "package")
    package = Pipeline.from_pretrained(tmp_path / "package", "cpu")
    assert package(waves[1].numpy(), strategy="none").text == "b"
    assert [word.word for word in package(waves[1].numpy(), strategy="enhanced").words]


def test_states_are_computed_once_whatever_becomes_of_a_run(recogniser, tmp_path, write_wav, tone, monkeypatch):
    from cdasr.speech.train_recogniser import clean_speech
    from cdasr.speech.train_whisper_head import WhisperHeadTrainer, kept_states

    rows = [{"ID": f"u{number}", "duration": "0.5", "wav": str(write_wav(f"{number}.wav", tone(0.5, 300 + number))),
             "text": "one two"} for number in range(6)]
    hparams = {**TRAINER, "seed": 1, "sample_rate": 16_000, "units": "characters", "epochs": 1, "lr": 0.006,
               "warmup": 0.1, "ema_decay": 0.7, "batch_seconds": 1.6, "speeds": [100], "curriculum": {}, "dropout": {},
               "kept_states": [0, 1.2], "windows": [], "masked_spans": 2}
    head = deepcopy(recogniser.head).requires_grad_(True)
    trainer = WhisperHeadTrainer(recogniser, head, tmp_path, hparams, "cpu")
    data = clean_speech(rows, rows[:2], hparams, lambda wave, rng: wave, recogniser.processor.tokenizer)
    train, valid = kept_states(tmp_path / "bank", *data, trainer)
    names = [row["ID"] for row in train.rows]
    assert {name for name in names if "+" not in name} == {f"u{number}-0" for number in range(6)}
    joined = [row for row in train.rows if "+" in row["ID"]]
    assert joined and all(row["text"].count("one two") == round(row["duration"] / 0.5) for row in joined)
    item = valid[0]
    assert item["tokens"].tolist() == recogniser.processor.tokenizer.convert_tokens_to_ids(list("ONE|TWO"))
    wave = torch.from_numpy(tone(0.5, 300 + int(item["id"][1])))[None]
    alone = recogniser.encode(wave, torch.tensor([8000]))
    kept = [state[None] for state in item["states"].unbind(dim=1)]
    frames = recogniser.frame_lengths(torch.tensor([8000]))
    torch.testing.assert_close(recogniser.head(kept, frames), recogniser.head(alone, frames), atol=5e-3, rtol=0)

    before = {path.name: path.read_bytes() for path in (tmp_path / "bank" / "train").iterdir()}
    (tmp_path / "bank" / "train" / "000001.safetensors").unlink()
    encoded, encode = [], type(recogniser).encode
    monkeypatch.setattr(type(recogniser), "encode", lambda self, *given: encoded.append(1) or encode(self, *given))
    kept_states(tmp_path / "bank", *data, trainer)
    assert len(encoded) == 1, "the batch that was missing"
    assert {path.name: path.read_bytes() for path in (tmp_path / "bank" / "train").iterdir()} == before
    encoded.clear()
    trainer.run(train, valid)
    assert not encoded


def test_what_was_heard_is_not_encoded_again(recogniser, tone, monkeypatch):
    waves = torch.stack([torch.from_numpy(tone(0.7, hertz)) for hertz in (300, 500)])
    lengths, calls = torch.tensor([11_200, 9_000]), []
    known = recogniser(waves, lengths)
    encode = type(recogniser).encode
    monkeypatch.setattr(type(recogniser), "encode", lambda self, *given: calls.append(1) or encode(self, *given))
    with recogniser.remembering(0.1):
        for _ in range(2):
            again = recogniser(waves, lengths)
            assert torch.equal(again.values, known.values) and torch.equal(again.hidden, known.hidden)
        recogniser(0.5 * waves, lengths)
        recogniser(waves.clone().requires_grad_(), lengths).values.sum().backward()
    recogniser(waves, lengths)
    assert len(calls) == 4, "once, once of other audio, with gradients, and after it"


def test_the_coupled_strategies_run_with_it(recogniser, tone):
    from cdasr.coupled.models import LogitsModel
    from cdasr.speech.signal_model import SpectrogramModel
    from tests.conftest import TINY_LOGITS, TINY_SIGNAL

    tokens = {"tokens": recogniser.logits_size}
    network = {**TINY_SIGNAL["network"], **tokens, "condition": 8}
    signal = SpectrogramModel.from_config({**TINY_SIGNAL, "network": network})
    logits = LogitsModel.from_config({**TINY_LOGITS, "network": {**TINY_LOGITS["network"], **tokens, "hidden": 48},
                                      "hidden_layers": [1, -1]})
    pipeline = Pipeline(recogniser, signal, device="cpu", logits=logits)
    waves = [torch.from_numpy(tone(seconds, 500)) for seconds in (0.5, 0.9)]
    for strategy in ("parallel", "nested"):
        together = pipeline.transcribe(waves, strategy)
        for wave, result in zip(waves, together):
            alone = pipeline.transcribe([wave], strategy)[0]
            assert alone.text == result.text and alone.nfe == result.nfe
            torch.testing.assert_close(alone.wave, result.wave, atol=1e-4, rtol=0)
