"""`cdasr import-enhancer` on folders in SpeechBrain's published form: results, strategies, refusals, safety."""

from __future__ import annotations

import json
import os
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.networks.ncsnpp import NCSNpp
from cdasr.speech.enhancers import PredictiveModel
from cdasr.speech.enhancers_import import load_enhancer, read_settings
from tests.speech import enhancers

KINDS = {"metricgan": enhancers.metricgan, "mimic": enhancers.mimic, "sepformer": enhancers.sepformer}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """By kind: a folder as it is published, and SpeechBrain's module with the same weights."""
    torch.manual_seed(3)
    return {kind: make(tmp_path_factory.mktemp(kind) / "hub") for kind, make in KINDS.items()}


@pytest.fixture(scope="module")
def packages(published, recogniser_dir, tmp_path_factory):
    """By kind: the package that the command makes of it."""
    made = {kind: tmp_path_factory.mktemp(kind) / "package" for kind in KINDS}
    for kind, (folder, _) in published.items():
        assert main(["import-enhancer", str(folder), "--output-dir", str(made[kind]), "--asr",
                     str(recogniser_dir)]) == 0
    return made


def by_speechbrain(kind: str, model, wave: torch.Tensor) -> torch.Tensor:
    """What SpeechBrain's own inference class makes of a wave (samples,) with these weights."""
    from speechbrain.inference.enhancement import SpectralMaskEnhancement, WaveformEnhancement
    from speechbrain.inference.separation import SepformerSeparation
    from speechbrain.processing.features import ISTFT, STFT, spectral_magnitude
    from speechbrain.processing.signal_processing import resynthesize

    if kind == "metricgan":
        options = {"sample_rate": 16000, "n_fft": 512, "win_length": 32, "hop_length": 16}
        stft, istft = STFT(**options), ISTFT(**options)
        own = SimpleNamespace(
            device="cpu", mods=SimpleNamespace(enhance_model=model), hparams=SimpleNamespace(
                compute_stft=stft, spectral_magnitude=partial(spectral_magnitude, power=0.5),
                resynth=partial(resynthesize, stft=stft, istft=istft)))
        own.compute_features = partial(SpectralMaskEnhancement.compute_features, own)
        return SpectralMaskEnhancement.enhance_batch(own, wave[None], lengths=torch.ones(1))[0]
    if kind == "mimic":
        own = SimpleNamespace(device="cpu", mods=SimpleNamespace(enhance_model=model))
        return WaveformEnhancement.enhance_batch(own, wave[None])[0]
    own = SimpleNamespace(device="cpu", mods=SimpleNamespace(**model), hparams=SimpleNamespace(num_spks=1))
    return SepformerSeparation.separate_batch(own, wave[None])[0, :, 0]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_package_enhances_as_speechbrain_does(published, packages, kind):
    """In a batch of other lengths, up to the scale, which MetricGAN+ and SepFormer do not keep there."""
    pipeline = Pipeline.from_pretrained(packages[kind], device="cpu")
    assert type(pipeline.signal) is PredictiveModel
    waves = [0.1 * torch.randn(samples) for samples in (6000, 4001, 6000)]
    found = pipeline.transcribe(waves, "enhanced")
    for wave, result in zip(waves, found):
        expected, enhanced = by_speechbrain(kind, published[kind][1], wave), result.wave
        assert len(enhanced) == len(wave) and result.nfe == {"signal": 1, "logits": 0, "classifier": 1}
        enhanced = enhanced[:len(expected)]
        if kind == "mimic":
            assert len(wave) - len(expected) == len(wave) % 64  # samples that SpeechBrain leaves out
        else:
            expected = expected * (enhanced @ expected) / expected.square().sum()
        torch.testing.assert_close(enhanced, expected, atol=2e-5 * float(expected.abs().max()), rtol=1e-4)
        assert 0.0 < float(enhanced.std() / wave.std()) < 2.0  # no louder peak of 1


def test_the_scale_of_a_sepformer_fits_the_input(packages):
    model, wave = Pipeline.from_pretrained(packages["sepformer"], device="cpu").signal, 0.1 * torch.randn(1, 4000)
    enhanced, _ = model.enhance(wave, torch.tensor([4000]))
    assert float((enhanced * (wave - enhanced)).sum()) == pytest.approx(0.0, abs=1e-4)  # no other scale is nearer


@pytest.mark.parametrize("kind", KINDS)
def test_strategies_without_guidance_run_and_others_refuse(packages, kind, write_wav, tone, capsys):
    pipeline = Pipeline.from_pretrained(packages[kind], device="cpu")
    assert pipeline.strategies == ["none", "enhanced", "oa", "fused"]
    wave, package = str(write_wav("a.wav", tone(0.5))), str(packages[kind])
    for name in pipeline.strategies:
        assert main(["enhance-transcribe", wave, "--model", package, "--strategy", name, "--json", "--device",
                     "cpu"]) == 0
        evaluations = json.loads(capsys.readouterr().out)["nfe"]
        assert evaluations["signal"] == (name != "none")
    for options, reason in ((["--strategy", "parallel"], "a signal process that logits can guide"),
                            (["--strategy", "cascade"], "needs a logits process"),
                            (["--steps", "4"], "one step, got 4"),
                            (["--samples", "2"], "draws no samples")):
        assert main(["enhance-transcribe", wave, "--model", package, "--device", "cpu", *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and reason in error


def test_auto_chooses_among_its_answers(packages, tone):
    rule = {"mean": [0.0] * 8, "scale": [1.0] * 8, "weights": [0.0] * 8, "bias": 1.0}
    pipeline = Pipeline.from_pretrained(packages["mimic"], device="cpu")
    pipeline.config["auto"] = {"strategy": "enhanced", "rules": {"enhanced": rule}}
    result = pipeline.transcribe([torch.from_numpy(tone(0.5))], "auto")[0]
    assert "auto" in pipeline.strategies and result.chosen in ("none", "enhanced")


def test_it_cannot_be_trained_or_guided(packages):
    from cdasr.recipe.stages import initial_signal
    from cdasr.speech.recipe import RECIPE

    model = initial_signal(str(packages["mimic"]), RECIPE)
    with pytest.raises(ValueError, match="no diffusion process that could be trained"):
        model.with_injection(8, 4)
    with pytest.raises(ValueError, match="cannot be guided by logits"):
        model.reverse(model.analyse(torch.zeros(1, 800), torch.tensor([800]))).sample(given=torch.zeros(1, 2, 8))


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["dnn.", ""])
def test_a_score_model_becomes_a_diffusion_model(tmp_path, recogniser_dir, prefix):
    """Its checkpoint holds averages under the names of SpeechBrain's `ScoreModel`, or of the backbone itself."""
    network = NCSNpp(bins=64, nf=8, ch_mult=(1, 1, 2), num_res_blocks=1, attn_resolutions=(16,), init_scale=1.0)
    weights = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    folder = enhancers.folder_of(tmp_path / "hub", enhancers.SCORE, score_model_ema=weights)
    assert main(["import-enhancer", str(folder), "--output-dir", str(tmp_path / "out"), "--asr",
                 str(recogniser_dir)]) == 0
    model = Pipeline.from_pretrained(tmp_path / "out", device="cpu").signal
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in model.network.state_dict().items())
    assert model.sampling == {"steps": 3, "method": "pc", "spacing": "to_zero", "snr": 0.4, "corrector_steps": 1}
    assert model.config["prediction"]["network_scaling"] == "1/t" and model.config["padding"]["mode"] == "reflect"
    assert model.stft.n_fft == 126 and model.stft.hop == 32 and model.stft.scale == 0.15


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_code_in_settings_or_weights_is_not_run(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = enhancers.MIMIC + ("attack: !apply:os.system ['touch attacked']\n"
                                  "python: !!python/object/apply:os.system ['touch attacked']\n")
    folder = enhancers.folder_of(tmp_path / "settings", settings, enhance_model=published["mimic"][1])
    assert type(load_enhancer(folder)) is PredictiveModel
    assert read_settings(folder / "hyperparams.yaml")["attack"] == ["touch attacked"]
    bad = enhancers.folder_of(tmp_path / "weights", enhancers.MIMIC)
    torch.save({"DNN.w": Attack()}, bad / "enhance_model.ckpt")
    with pytest.raises(ValueError, match="which could run code"):
        load_enhancer(bad)
    assert not (tmp_path / "attacked").exists()


def test_folders_that_do_not_fit_are_one_line(published, recogniser_dir, tmp_path, capsys):
    mimic, sepformer = published["mimic"][1], dict(published["sepformer"][1].items())
    make = enhancers.folder_of
    nan = {name: torch.full_like(value, float("nan")) for name, value in mimic.state_dict().items()
           if value.is_floating_point()}
    cases = {
        make(tmp_path / "a", enhancers.MIMIC): "none of the weights enhance_model.ckpt",
        make(tmp_path / "b", enhancers.MIMIC.replace("[4, 8]", "[4, 9]"), enhance_model=mimic): "has other shapes",
        make(tmp_path / "c", enhancers.MIMIC, enhance_model=nan): "NaN",
        make(tmp_path / "d", "n_fft: [", enhance_model=mimic): "hyperparams.yaml is no YAML",
        make(tmp_path / "e", "n_fft: 128", enhance_model=mimic): "says no sample_rate",
        make(tmp_path / "f", enhancers.SEPFORMER.replace("16000", "8000"), **sepformer): "takes 16000 Hz and",
        make(tmp_path / "g", enhancers.SEPFORMER.replace("norm: ln", "norm: gln"), **sepformer): "norm 'gln'",
        make(tmp_path / "h", enhancers.SEPFORMER.replace("spks: 1", "spks: 2"), **sepformer): "separates 2 speakers",
        make(tmp_path / "i", enhancers.MIMIC.replace("[4, 8]", "[60000, 60000]"), enhance_model=mimic): "can fill",
        tmp_path / "nothing": "no such folder"}
    for folder, message in cases.items():
        assert main(["import-enhancer", str(folder), "--output-dir", str(tmp_path / "out"), "--asr",
                     str(recogniser_dir)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error, error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("half", [False, True])
def test_a_package_can_be_saved_again(packages, tmp_path, half):
    pipeline = Pipeline.from_pretrained(packages["mimic"], device="cpu")
    pipeline.save_pretrained(tmp_path / "again", half=half)
    wave = 0.1 * torch.randn(3000)
    again = Pipeline.from_pretrained(tmp_path / "again", device="cpu").transcribe([wave], "enhanced")[0].wave
    torch.testing.assert_close(again, pipeline.transcribe([wave], "enhanced")[0].wave, atol=1e-3 if half else 0, rtol=0)
