"""The log-mel front end is transformers' own, lets gradients through, and knows no neighbours."""

import pytest
import torch

from cdasr.classifiers.log_mel import LogMel


@pytest.fixture
def extractor():
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=20, chunk_length=2)


def batch(*lengths):
    waves = [torch.randn(length) * 0.1 for length in lengths]
    return waves, torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), torch.tensor(lengths)


def test_it_is_the_feature_extractor(extractor):
    waves, padded, lengths = batch(20_000, 32_000, 801)
    known = extractor([wave.numpy() for wave in waves], sampling_rate=16_000, return_tensors="pt").input_features
    torch.testing.assert_close(LogMel(extractor)(padded, lengths), known, atol=1e-4, rtol=0)


def test_what_lies_beyond_an_items_length_is_not_heard(extractor):
    _, padded, lengths = batch(20_000, 9000)
    noisy = padded.clone()
    noisy[1, 9000:] = 1.0
    features = LogMel(extractor)
    assert torch.equal(features(noisy, lengths), features(padded, lengths))
    torch.testing.assert_close(features(padded[1:, :9000], lengths[1:]), features(padded, lengths)[1:])


def test_gradients_pass_to_the_waveform_also_in_silence(extractor):
    _, padded, lengths = batch(20_000, 9000)
    padded[0, :4000] = 0.0
    LogMel(extractor)(padded.requires_grad_(), lengths).square().sum().backward()
    assert padded.grad.isfinite().all() and padded.grad[0, 5000:].abs().max() > 0
    assert padded.grad[1, 9000:].abs().max() == 0


def test_audio_longer_than_the_window_is_refused(extractor):
    with pytest.raises(ValueError, match="longer than the recogniser's window of 2 s"):
        LogMel(extractor)(torch.randn(1, 32_001), torch.tensor([32_001]))
