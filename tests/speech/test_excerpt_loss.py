"""The loss of a recogniser's hidden states: its zero, its gradient, its mask, and one training step with it."""

from types import SimpleNamespace

import pytest
import torch

from cdasr.classifiers.load import load_recogniser
from cdasr.speech.domain import excerpt_loss
from tests.classifiers.whisper import make_whisper

HPARAMS = SimpleNamespace(excerpt_seconds=0.5)


@pytest.fixture(scope="module", params=["whisper", "ctc"])
def recogniser(request, tmp_path_factory, recogniser_dir):
    if request.param == "ctc":
        return load_recogniser(recogniser_dir)
    return load_recogniser(make_whisper(tmp_path_factory.mktemp("whisper")))


def waves():
    torch.manual_seed(0)
    lengths = torch.tensor([16_000, 12_000, 4000])
    clean = 0.1 * torch.randn(3, 16_000) * (torch.arange(16_000) < lengths[:, None])
    return clean, lengths


def loss(recogniser, estimate, clean, lengths):
    return excerpt_loss(recogniser, estimate, clean, lengths, HPARAMS, torch.Generator().manual_seed(1))


def test_it_is_zero_for_the_clean_waveform_alone_and_has_a_gradient(recogniser):
    clean, lengths = waves()
    assert float(loss(recogniser, clean, clean, lengths)) == 0.0
    estimate = (clean + 0.05 * torch.randn_like(clean)).requires_grad_()
    found = loss(recogniser, estimate, clean, lengths)
    found.backward()
    assert float(found) > 0 and float(estimate.grad.abs().sum(dim=1).min()) > 0
    assert all(parameter.grad is None for parameter in recogniser.parameters())


def test_half_a_second_of_each_item_counts(recogniser):
    clean, lengths = waves()
    estimate = (clean + 0.05).requires_grad_()
    loss(recogniser, estimate, clean, lengths).backward()
    assert ((estimate.grad != 0).sum(dim=1) <= 8000).all()


def test_whispers_states_of_an_excerpt_are_those_of_its_encoder(tmp_path):
    recogniser = load_recogniser(make_whisper(tmp_path))
    window = recogniser.log_mel.window_samples
    wave = 0.1 * torch.randn(1, window)
    known = recogniser.encode(wave, torch.tensor([window]))
    torch.testing.assert_close(recogniser.excerpt_states(wave)[-1], known)
