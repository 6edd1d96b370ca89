"""A Whisper whose logits are only read takes no isometry, and hears the same."""

import pytest
import torch

from cdasr import Pipeline
from cdasr.classifiers import whisper_decoder
from cdasr.classifiers.resampled import ResampledRecogniser
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from cdasr.coupled.models import LogitsModel
from cdasr.speech.signal_model import SpectrogramModel
from tests.classifiers.whisper import make_whisper
from tests.conftest import TINY_LOGITS, TINY_SIGNAL

LENGTHS = torch.tensor([32_000, 20_000, 9_000])


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory):
    return WhisperDecoderRecogniser.from_pretrained(make_whisper(tmp_path_factory.mktemp("whisper")))


@pytest.fixture(scope="module")
def waves():
    time = torch.arange(32_000) / 16_000
    chirps = 0.2 * torch.sin(2 * torch.pi * torch.tensor([200.0, 700.0, 1500.0])[:, None] * time * (1 + time))
    return chirps * (torch.arange(32_000) < LENGTHS[:, None])


def test_it_hears_the_same_and_its_logits_differ_by_a_constant(recogniser, waves):
    reader = recogniser.reader()
    ours, plain = recogniser(waves, LENGTHS), reader(waves, LENGTHS)
    assert plain.classifier.only_read and not recogniser.only_read and len(set(ours.texts())) > 1
    assert torch.equal(plain.read, ours.read) and torch.equal(plain.lengths, ours.lengths)
    assert plain.texts() == ours.texts()
    torch.testing.assert_close(plain.log_probs, ours.log_probs, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.boundaries, ours.boundaries)
    posteriors = [logits.log_posterior(logits.values)[logits.mask] for logits in (plain, ours)]
    torch.testing.assert_close(*posteriors, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(plain.log_likelihood(ours), ours.log_likelihood(plain), atol=1e-3, rtol=1e-4)
    assert torch.equal(plain.fused(reader(waves.flip(0), LENGTHS.flip(0)), 0.3).read,
                       ours.fused(recogniser(waves.flip(0), LENGTHS.flip(0)), 0.3).read)
    assert isinstance(ResampledRecogniser(recogniser, 32_000).reader(), ResampledRecogniser)
    assert recogniser.double().reader() is recogniser
    recogniser.float()


def test_the_isometry_is_found_when_a_logits_process_asks_for_it(recogniser, waves, monkeypatch):
    found = []
    isometry = whisper_decoder.isometry
    monkeypatch.setattr(whisper_decoder, "isometry", lambda weight: found.append(weight) or isometry(weight))
    recogniser.isometries.clear()
    signal, logits = SpectrogramModel.from_config(TINY_SIGNAL), LogitsModel.from_config(
        {**TINY_LOGITS, "network": {**TINY_LOGITS["network"], "tokens": 32}})
    rows = [wave[:length] for wave, length in zip(waves, LENGTHS.tolist())]
    alone, both = (Pipeline(recogniser, signal, {}, "cpu", process) for process in (None, logits))
    heard = {name: [result.text for result in alone.transcribe(rows, name)]
             for name in ("none", "enhanced", "oa", "fused")}
    assert [result.text for result in both.transcribe(rows, "none")] == heard["none"] and not found
    assert {name: [result.text for result in both.transcribe(rows, name)] for name in heard} == heard
    both.transcribe(rows, "card")
    assert len(found) == 1, "it is found once for all that share the model"
    recogniser(waves.clone().requires_grad_(), LENGTHS).values.sum().backward()  # after an inference, gradients as well
