"""The signal model with NCSN++ and the conventions of published score networks: batches equal their items."""

import pytest
import torch

from cdasr.speech.signal_model import SpectrogramModel

STFT = {"n_fft": 62, "hop": 16, "scale": 0.15, "edges": "reflect"}
NETWORK = {"name": "ncsnpp", "nf": 8, "ch_mult": [1, 1, 2], "num_res_blocks": 1, "attn_resolutions": [8],
           "init_scale": 1.0}
PUBLIC = {"stft": STFT, "network": NETWORK, "level": "peak", "padding": {"multiple": 4, "mode": "reflect"},
          "process": {"name": "ouve", "theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5},
          "prediction": {"target": "score", "network_scaling": "1/sigma", "sign": -1},
          "sampling": {"steps": 3, "method": "pc", "spacing": "to_zero"}}
BRIDGE = {"stft": {"n_fft": 62, "hop": 16}, "network": NETWORK, "process": {"name": "sbve"}}
LENGTHS = torch.tensor([900, 500, 333])


@pytest.fixture
def waves():
    return 0.1 * torch.randn(3, 900) * (torch.arange(900) < LENGTHS[:, None])


@pytest.mark.parametrize("config", [PUBLIC, {**PUBLIC, "padding": {"multiple": 8, "mode": "zeros"}}, BRIDGE],
                         ids=["reflect", "zeros", "bridge"])
@torch.no_grad()
def test_a_batch_is_enhanced_as_its_items_are(config, waves):
    model = SpectrogramModel.from_config(config).eval()
    together, nfe = model.enhance(waves, LENGTHS)
    assert nfe == (6 if config["process"]["name"] == "ouve" else 3) and together.shape == waves.shape
    for row, length in enumerate(LENGTHS.tolist()):
        alone, _ = model.enhance(waves[row:row + 1, :length], LENGTHS[row:row + 1])
        torch.testing.assert_close(together[row, :length], alone[0], atol=1e-4 * float(alone.abs().max()), rtol=0)
        assert together[row, length:].abs().sum() == 0


@torch.no_grad()
def test_peak_level_and_padding_are_those_of_the_public_code(waves):
    model = SpectrogramModel.from_config(PUBLIC)
    spectra = model.analyse(waves, LENGTHS)
    torch.testing.assert_close((waves * spectra.gain[:, None]).abs().amax(dim=1), torch.ones(3))
    for row, length in enumerate(LENGTHS.tolist()):
        y = model.stft.analyse(waves[row:row + 1, :length] / waves[row].abs().max())
        y = torch.nn.functional.pad(y.real, (0, -y.shape[-1] % 4, 0, 0), mode="reflect")
        assert int(spectra.mask[row].sum()) == y.shape[-1]
        torch.testing.assert_close(spectra.y[row, ..., :y.shape[-1]].real, y[0], atol=1e-6, rtol=1e-4)
        assert spectra.y[row, ..., y.shape[-1]:].abs().sum() == 0
    torch.testing.assert_close(model.synthesise(spectra.y, spectra), waves, atol=1e-5, rtol=0)


def test_silence_stays_silent():
    for config in (PUBLIC, BRIDGE):
        model = SpectrogramModel.from_config(config)
        spectra = model.analyse(torch.zeros(1, 500), torch.tensor([500]))
        assert spectra.y.isfinite().all() and model.synthesise(spectra.y, spectra).abs().max() < 1e-6


def test_unknown_levels_and_paddings_are_named():
    for padding in ({"multiple": 4}, {"multiple": 4, "mode": "wrap"}):
        with pytest.raises(ValueError, match="padding .*give multiple, and mode zeros or reflect"):
            SpectrogramModel.from_config({**BRIDGE, "padding": padding})
    with pytest.raises(ValueError, match="level 'loud'.*power, peak"):
        SpectrogramModel.from_config({**BRIDGE, "level": "loud"})
