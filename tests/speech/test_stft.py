"""The signal space is invertible, and long recordings can be cut and put together."""

import pytest
import torch

from cdasr.speech.segments import segments
from cdasr.speech.signal_model import CompressedSTFT


@pytest.mark.parametrize("n_fft, hop", [(510, 255), (510, 128), (512, 160)])
@pytest.mark.parametrize("samples", [16_000, 16_001, 777])
def test_synthesis_inverts_analysis(n_fft, hop, samples):
    stft = CompressedSTFT(n_fft=n_fft, hop=hop)
    waves = 0.1 * torch.randn(2, samples)
    spectra = stft.analyse(waves)
    assert spectra.shape == (2, 1, stft.bins, int(stft.frame_lengths(torch.tensor(samples))))
    torch.testing.assert_close(stft.synthesise(spectra, samples), waves, atol=2e-5, rtol=0)


def test_compression_brings_noise_to_the_level_of_the_processes():
    spectra = CompressedSTFT().analyse(0.1 * torch.randn(1, 32_000))
    assert 0.25 < float(spectra.abs().square().mean().sqrt()) < 0.5


def test_zero_padding_does_not_change_the_frames():
    stft, wave = CompressedSTFT(), torch.randn(1, 5000)
    alone = stft.analyse(wave)
    padded = stft.analyse(torch.nn.functional.pad(wave, (0, 3000)))
    torch.testing.assert_close(padded[..., :alone.shape[-1]], alone)


@pytest.mark.parametrize("window, samples", [("hann", 4000), ("sqrthann", 4001), ("hann", 300)])
def test_reflected_edges_are_those_of_torch(window, samples):
    stft, wave = CompressedSTFT(hop=128, scale=0.15, window=window, edges="reflect"), 0.1 * torch.randn(1, samples)
    hann = torch.hann_window(510)
    known = torch.stft(wave, 510, 128, window=hann.sqrt() if window == "sqrthann" else hann, center=True,
                       pad_mode="reflect", return_complex=True)
    known = 0.15 * known.abs() ** 0.5 * torch.exp(1j * known.angle())
    spectra = stft.analyse(wave)
    torch.testing.assert_close(spectra[:, 0], known, atol=1e-5, rtol=1e-4)
    assert spectra.shape[-1] == int(stft.frame_lengths(torch.tensor(samples))) == samples // 128 + 1
    torch.testing.assert_close(stft.synthesise(spectra, samples), wave, atol=2e-5, rtol=0)


def test_reflected_edges_of_a_batch_are_those_of_its_items():
    stft, lengths = CompressedSTFT(hop=128, edges="reflect"), torch.tensor([3000, 1111, 640])
    waves = 0.1 * torch.randn(3, 3000) * (torch.arange(3000) < lengths[:, None])
    spectra = stft.analyse(waves, lengths)
    whole = stft.synthesise(spectra, 3000, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = stft.analyse(waves[row:row + 1, :length])
        torch.testing.assert_close(spectra[row, ..., :alone.shape[-1]], alone[0])
        torch.testing.assert_close(whole[row, :length], waves[row, :length], atol=2e-5, rtol=0)


def test_a_hop_that_loses_samples_is_refused():
    with pytest.raises(ValueError, match="hop"):
        CompressedSTFT(n_fft=510, hop=400)


def test_unknown_windows_and_edges_are_named():
    for options, message in (({"window": "hamming"}, "window 'hamming'.*hann, sqrthann"), ({"edges": "wrap"}, "edges")):
        with pytest.raises(ValueError, match=message):
            CompressedSTFT(**options)


def test_long_recordings_are_cut_where_it_is_quiet():
    wave = torch.randn(50 * 1000)
    wave[17_000:17_200] = 0
    parts = list(segments([wave], rate=1000))
    assert all(torch.equal(wave[part.start:part.start + len(part.wave)], part.wave) for part in parts)
    assert max(len(part.wave) for part in parts) <= 20_000 and 17_000 <= len(parts[0].wave) <= 17_200
    ends = [part.start + len(part.wave) for part in parts]
    assert [part.start for part in parts] == [0, ends[0], ends[1] - 3000], "an overlap where there is no pause"
    assert ends[-1] == len(wave) and len(list(segments([wave[:20_000]], rate=1000))) == 1
