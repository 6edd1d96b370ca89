"""The likelihood of one hypothesis by another observation of Whisper's decoder, and hypotheses put together."""

import pytest
import torch

from cdasr.classifiers.items import choose_items
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from tests.classifiers.test_whisper_decoder import noisy, speech
from tests.classifiers.test_whisper_decoder import whisper_dir as whisper_dir


@pytest.fixture(scope="module")
def heard(whisper_dir):
    """Two observations of the same items, each with a hypothesis of its own."""
    recogniser, (waves, lengths) = WhisperDecoderRecogniser.from_pretrained(whisper_dir), speech(4)
    return recogniser, (waves, noisy(waves, lengths)), lengths, recogniser(waves, lengths), recogniser(
        noisy(waves, lengths), lengths)


def test_it_is_that_of_the_teacher_forced_decoder(heard):
    recogniser, (waves, _), lengths, clean, other = heard
    assert clean.texts() != other.texts()
    forced = recogniser(waves, lengths, like=other)
    for item, (values, length) in enumerate(zip(forced.items(), other.lengths.tolist())):
        tokens = other.tokens[item, -other.values.shape[1]:][:length, None]
        known = clean.log_posterior(values).gather(-1, tokens).sum()
        torch.testing.assert_close(clean.log_likelihood(other)[item], known, atol=1e-3, rtol=1e-4)
    assert (clean.log_likelihood(clean) <= 0).all() and other.label_counts().equal(other.lengths)


def test_items_of_two_observations_become_one(heard):
    _, _, _, clean, other = heard
    chosen = choose_items([clean, other], [0, 1, 1, 0])
    known = [(clean, other)[which].texts()[item] for item, which in enumerate([0, 1, 1, 0])]
    assert chosen.texts() == known
    spoken = [(clean, other)[which].words()[item] for item, which in enumerate([0, 1, 1, 0])]
    assert [[word.word for word in row] for row in chosen.words()] == [[word.word for word in row] for row in spoken]
    for row, target in zip(chosen.words(), spoken):
        assert [word.end for word in row] == pytest.approx([word.end for word in target])
