"""SI-SDR against its definition; PESQ and STOI rank enhanced above noisy."""

import sys

import numpy as np
import pytest
import torch

from cdasr.speech.metrics import pesq_wb, si_sdr, stoi


def test_si_sdr_of_orthogonal_noise_is_the_snr():
    time = torch.arange(16_000) / 16_000
    speech, noise = torch.sin(2 * torch.pi * 100 * time), torch.sin(2 * torch.pi * 200 * time)
    for snr in (-5.0, 0.0, 20.0):
        estimate = 3.0 * (speech + 10 ** (-snr / 20) * noise) + 0.5
        assert float(si_sdr(estimate, speech)) == pytest.approx(snr, abs=1e-3)
    assert si_sdr(torch.stack([speech, noise]), speech).shape == (2,)
    assert float(si_sdr(estimate.numpy(), speech.numpy())) == float(si_sdr(estimate, speech))
    assert torch.isfinite(si_sdr(torch.zeros(10), torch.ones(10)))


def test_perceptual_metrics_fall_with_noise():
    from cdasr.speech.synthesis import speak
    wave, rate = speak("one two three four five six seven", "en-us")
    from cdasr.speech.audio import resample
    clean = resample(wave, rate, 16_000)
    noise = np.random.default_rng(0).standard_normal(len(clean)).astype(np.float32)
    little, much = clean + 0.003 * noise, clean + 0.1 * noise
    assert pesq_wb(little, clean) > pesq_wb(much, clean) >= 1.0
    assert stoi(clean, clean) > 0.99 > stoi(much, clean) > stoi(much, clean, extended=True)
    assert pesq_wb(clean[:100], clean[:100]) is None and stoi(clean[:100], clean[:100]) is None


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(ValueError, match=r"pip install 'cdasr\[metrics\]'"):
        pesq_wb(np.ones(16_000), np.ones(16_000))
