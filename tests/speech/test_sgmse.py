"""`cdasr import-sgmse` on checkpoints that the test writes as the public code does: settings, EMA, safety, results."""

from __future__ import annotations

import json
import os
import sys
import types

import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.networks.ncsnpp import NCSNpp
from cdasr.speech.sgmse import load_sgmse, model_config, read_checkpoint
from cdasr.speech.signal_model import SpectrogramModel
from tests.conftest import TINY_LOGITS
from tests.speech.sgmse import BRIDGE, EARS, PESQ_BRIDGE, SMALL, V1, V2, WIDE_BRIDGE
from tests.training.helpers import COUPLED, add_noise


@pytest.fixture
def public_classes(monkeypatch):
    """Classes under the names that Lightning's pickles mention; gone again before the file is read."""
    made = {}
    for module, name in (("sgmse.data_module", "SpecsDataModule"),
                         ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
                         ("pytorch_lightning.utilities.parsing", "AttributeDict")):
        made[name] = type(name, (dict,) if name == "AttributeDict" else (), {"__module__": module})
        for part in range(1, module.count(".") + 2):
            path = ".".join(module.split(".")[:part])
            monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
        setattr(sys.modules[module], name, made[name])
    return made


@pytest.fixture
def write(tmp_path, public_classes, monkeypatch):
    """write(hyper_parameters, ema="all", **more) -> path of a checkpoint, whose EMA is not its last weights."""
    modules = {name: sys.modules[name] for name in sys.modules if name.split(".")[0] in ("sgmse", "pytorch_lightning")}

    def save(settings, ema="all", name="model.ckpt", **more):
        torch.manual_seed(5)
        for module in modules:
            monkeypatch.setitem(sys.modules, module, modules[module])
        size = {**SMALL, **{key: settings[key] for key in SMALL if key in settings}}
        network = NCSNpp(bins=64, init_scale=1.0, **size)
        last, average = network.state_dict(), dict(NCSNpp(bins=64, init_scale=1.0, **size).state_dict())
        average["all_modules.0.W"] = last["all_modules.0.W"]
        shadow = [value for key, value in average.items() if ema == "all" or key != "all_modules.0.W"]
        checkpoint = {
            "epoch": 7, "global_step": 1000, "pytorch-lightning_version": "1.6.5", "loops": {"fit_loop": {"epoch": 7}},
            "state_dict": {f"dnn.{key}": value for key, value in last.items()},
            "ema": {"decay": 0.999, "num_updates": 10, "shadow_params": shadow, "collected_params": None},
            "callbacks": {public_classes["ModelCheckpoint"]: {"best_model_score": torch.ones(()), "dirpath": "logs"}},
            "optimizer_states": [{"state": {0: {"step": 3, "exp_avg": torch.zeros(4)}}, "param_groups": []}],
            "hparams_name": "kwargs", "hyper_parameters": public_classes["AttributeDict"](
                settings, data_module_cls=public_classes["SpecsDataModule"]), **more}
        checkpoint = {key: value for key, value in checkpoint.items() if value is not None}
        torch.save(checkpoint, tmp_path / name)
        for module in modules:
            monkeypatch.delitem(sys.modules, module)
        save.last, save.average = last, average
        return tmp_path / name
    return save


def public_enhancement(network, score, wave, steps, seed, pad_mode):
    """The public code's `enhance` with its predictor-corrector, written out for one waveform (samples,)."""
    theta, low, high, snr, hop, n_fft = 1.5, 0.05, 0.5, 0.5, 32, 126
    window, generator = torch.hann_window(n_fft), torch.Generator().manual_seed(seed)
    log_ratio = torch.log(torch.tensor(high / low))
    spectrum = torch.stft(wave / wave.abs().max(), n_fft, hop, window=window, center=True, return_complex=True)
    y = (0.15 * spectrum.abs() ** 0.5 * torch.exp(1j * spectrum.angle()))[None, None]
    pad = {"reflection": torch.nn.ReflectionPad2d, "zero_pad": torch.nn.ZeroPad2d}[pad_mode]
    y = pad((0, -y.shape[-1] % 64, 0, 0))(y)

    def std(t):
        return (low**2 * torch.exp(-2 * theta * t) * (torch.exp(2 * (theta + log_ratio) * t) - 1) * log_ratio
                / (theta + log_ratio)).sqrt()

    def noise():
        return torch.randn(1, *y.shape[2:], dtype=y.dtype, generator=generator)[None]

    times = torch.linspace(1.0, 0.03, steps)
    x = y + std(torch.tensor(1.0)) * noise()
    for index, t in enumerate(times):
        size = 2 * (snr * std(t)) ** 2
        x = x + size * score(network, x, y, t, std(t)) + (2 * size).sqrt() * noise()
        step = t - times[index + 1] if index + 1 < steps else t
        diffusion = low * (high / low) ** t * (2 * log_ratio).sqrt()
        mean = x - theta * (y - x) * step + diffusion**2 * step * score(network, x, y, t, std(t))
        x = mean + (diffusion * step.sqrt() * noise() if index + 1 < steps else 0)
    spectrum = mean[0, 0] / 0.15
    spectrum = spectrum.abs() ** 2 * torch.exp(1j * spectrum.angle())
    return torch.istft(spectrum, n_fft, hop, window=window, center=True, length=len(wave)) * wave.abs().max()


def score_v2(network, x, y, t, std):
    return network(x, t.view(1), y) / std


def score_v1(network, x, y, t, std):
    return -network(x, t.view(1), y)


@pytest.mark.parametrize("settings, score, pad_mode", [(V2, score_v2, "reflection"), (V1, score_v1, "zero_pad")],
                         ids=["ncsnpp_v2", "ncsnpp"])
@torch.no_grad()
def test_the_package_enhances_as_the_public_code_does(write, recogniser_dir, tmp_path, settings, score, pad_mode):
    path = write(settings)
    assert main(["import-sgmse", str(path), "--output-dir", str(tmp_path / "package"), "--asr", str(recogniser_dir),
                 "--steps", "4"]) == 0
    pipeline = Pipeline.from_pretrained(tmp_path / "package", device="cpu")
    network = NCSNpp(bins=64, scale_by_sigma=settings is V1, **SMALL).eval()
    network.load_state_dict(write.average)
    for samples, exact in ((63 * 32 + 9, 63 * 32 + 9), (1500, 1500 - 126)):  # 64 frames, and 47
        wave = 0.3 * torch.randn(samples)
        expected = public_enhancement(network, score, wave, 4, seed=3, pad_mode=pad_mode)
        result = pipeline.transcribe([wave], "enhanced", seed=3)[0]
        assert result.nfe["signal"] == 8
        # frames beyond the end are left out of our synthesis; the public code lets them into the last window
        tolerance = 2e-4 * float(expected.abs().max())
        torch.testing.assert_close(result.wave[:exact], expected[:exact], atol=tolerance, rtol=0)


@pytest.mark.parametrize("ema", ["all", "trained only"])
def test_average_weights_go_to_the_parameters_in_their_order(write, ema):
    """torch_ema 0.3 keeps all parameters, older versions only those that are trained."""
    path = write(V2, ema)
    for average, known in ((True, write.average), (False, write.last)):
        loaded = load_sgmse(path, ema=average).network.state_dict()
        assert list(loaded) == list(known) and all(torch.equal(loaded[key], known[key]) for key in known)
    assert not torch.equal(write.average["output_layer.weight"], write.last["output_layer.weight"])


def test_settings_become_process_stft_and_sampler(write):
    model = load_sgmse(write({**V2, "theta": 2.0, "t_eps": 0.04, "spec_factor": 0.2, "window": "sqrthann", "N": 11}))
    assert model.process.config() == {"name": "ouve", "theta": 2.0, "sigma_min": 0.05, "sigma_max": 0.5, "t_min": 0.04}
    assert model.stft.config() == {"sample_rate": 16000, "n_fft": 126, "hop": 32, "exponent": 0.5, "scale": 0.2,
                                   "window": "sqrthann", "edges": "reflect"}
    assert model.sampling == {"steps": 11, "method": "pc", "spacing": "to_zero", "snr": 0.5, "corrector_steps": 1}
    bridge = model_config(BRIDGE)
    assert bridge["process"] == {"name": "sbve", "k": 2.6, "c": 0.4} and bridge["prediction"]["target"] == "x0"
    assert bridge["sampling"] == {"steps": 3, "method": "deterministic", "spacing": "uniform"}
    real = model_config({"backbone": "ncsnpp", "sde": "ouve"})  # all at the public code's defaults
    assert real["stft"]["n_fft"] == 510 and real["stft"]["hop"] == 128 and real["network"]["nf"] == 128
    assert real["sampling"]["steps"] == 30 and real["network"]["scale_by_sigma"] is True
    objective = model_config({**V2, "loss_type": "denoiser", "network_scaling": None, "c_in": "edm"})["prediction"]
    assert objective["target"] == "mean" and objective["c_in"] == "edm"


@pytest.mark.parametrize("change, message", [
    ({"sde": "bbed"}, "sde 'bbed' is not supported.*ouve or sbve"),
    ({"backbone": "dcunet"}, "backbone 'dcunet' is not supported"),
    ({"backbone": "ncsnpp_48k"}, r"attn_resolutions \[16\] is not supported: only \(\)"),
    ({"transform_type": "log"}, "transform_type 'log' is not supported"), ({"window": "hamming"}, "window 'hamming'"),
    ({"loss_type": "flow_matching"}, "loss_type 'flow_matching'"), ({"c_in": "2"}, "c_in '2'"),
    ({"centered": False}, "centered False is not supported"), ({"sampler_type": "rk"}, "sampler_type 'rk'"),
    ({"n_fft": 512}, "n_fft 512 is not supported: it gives 257 frequencies.*built for 64"),
    ({"progressive": "none"}, "progressive 'none'"), ({"sde": "sbve"}, "sde 'sbve'.*data_prediction")])
def test_settings_that_are_not_supported_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        SpectrogramModel.from_config(model_config({**V2, **change}))


def test_checkpoints_that_do_not_fit_are_one_line(write, tmp_path, recogniser_dir, capsys):
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    other = write({**V2, "nf": 12}, name="other.ckpt", hyper_parameters={**V2})
    torch.save({"state_dict": {}}, tmp_path / "bare.ckpt")
    torn = write(V2, name="torn.ckpt")
    torn.write_bytes(torn.read_bytes()[:20_000])
    cases = {tmp_path / "none.ckpt": "no such file", tmp_path / "text.ckpt": "not a checkpoint",
             write({**V2, "sde": "bbed"}, name="sde.ckpt"): "sde 'bbed' is not supported",
             torn: "not a checkpoint", tmp_path / "bare.ckpt": "no hyper_parameters", other: "weights are not those"}
    for path, message in cases.items():
        assert main(["import-sgmse", str(path), "--output-dir", str(tmp_path / "out"), "--asr",
                     str(recogniser_dir)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error and str(path) in error
    assert main(["import-sgmse", str(write(V2)), "--output-dir", str(tmp_path / "out"), "--asr", "nobody/nothing"]) == 2
    assert "nobody/nothing" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_without_an_average_the_last_weights_are_taken_on_request(write, tmp_path):
    path = write(V2)
    checkpoint = read_checkpoint(path)
    torch.save({"state_dict": checkpoint["state_dict"], "hyper_parameters": dict(V2)}, tmp_path / "bare.ckpt")
    path = tmp_path / "bare.ckpt"
    with pytest.raises(ValueError, match="no EMA weights in it.*--no-ema"):
        load_sgmse(path)
    assert torch.equal(load_sgmse(path, ema=False).network.output_layer.bias, write.last["output_layer.bias"])


class Attack:
    def __reduce__(self):
        return os.system, ("touch attacked",)


def test_code_in_a_checkpoint_is_refused_and_not_run(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(V2, callbacks={"attack": Attack()})
    with pytest.raises(ValueError, match="refused, as its pickle uses .*system, which could run code"):
        load_sgmse(path)
    assert not (tmp_path / "attacked").exists()


def test_coupled_training_starts_from_the_imported_process(write, corpus, recogniser_dir, tmp_path):
    from cdasr.classifiers.ctc import CTCRecogniser
    from cdasr.coupled.models import LogitsModel
    from tests.training.helpers import train_coupled

    recogniser, signal = CTCRecogniser.from_pretrained(recogniser_dir), load_sgmse(write({**V2, "N": 2}))
    tokens = recogniser.model.config.vocab_size
    logits = LogitsModel.from_config({**TINY_LOGITS, "network": {**TINY_LOGITS["network"], "tokens": tokens}})
    guided = signal.with_injection(logits.tokens, 8)
    spectra = signal.analyse(0.1 * torch.randn(2, 6000), torch.tensor([6000, 4000]))
    told = torch.randn(2, spectra.y.shape[-1], tokens)
    given = spectra.y, torch.tensor([0.3, 1.0]), spectra
    assert torch.equal(guided.estimate(*given, told), signal.estimate(*given))
    rows = [part[:2] for part in corpus]
    trained, _ = train_coupled(signal, logits, recogniser, *rows, tmp_path, {**COUPLED, "epochs": 1}, add_noise, "cpu")
    assert all(injection.project.weight.abs().max() > 0 for injection in trained.network.inject)
    assert set(signal.network.state_dict()) < set(trained.network.state_dict())
    assert trained.config["prediction"] == signal.config["prediction"]


def test_a_recipe_takes_a_checkpoint_or_its_package(write, recogniser_dir, tmp_path):
    from cdasr.recipe.stages import initial_signal
    from cdasr.speech.recipe import RECIPE

    path = write(V2)
    assert main(["import-sgmse", str(path), "--output-dir", str(tmp_path / "out"), "--asr", str(recogniser_dir)]) == 0
    for start in (path, tmp_path / "out"):
        model = initial_signal(str(start), RECIPE)
        assert all(torch.equal(value, write.average[name]) for name, value in model.network.state_dict().items())


def test_a_bridge_runs_from_the_command_line(write, recogniser_dir, tmp_path, write_wav, tone, capsys):
    out = tmp_path / "package"
    assert main(["import-sgmse", str(write(BRIDGE)), "--output-dir", str(out), "--asr", str(recogniser_dir)]) == 0
    assert "deterministic in 3 steps" in capsys.readouterr().out
    assert main(["enhance-transcribe", str(write_wav("a.wav", tone(0.4))), "--model", str(out), "--json", "--strategy",
                 "enhanced", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["nfe"] == {"signal": 3, "logits": 0, "classifier": 1}
    assert json.loads((out / "config.json").read_text())["imported"]["file"] == "model.ckpt"


@torch.no_grad()
def test_the_backbone_for_48_khz_gives_the_public_outputs():
    """Numbers of the public `NCSNpp_48k(nf=8, ch_mult=(1, 1, 2), num_res_blocks=1)` with these weights and inputs."""
    def waves(shape, rate, phase=0.0):
        return torch.sin(torch.arange(torch.Size(shape).numel(), dtype=torch.float64) * rate + phase).view(shape)

    network = load_network({**EARS, "scale_by_sigma": True}, 96).eval()
    for index, weight in enumerate(network.state_dict().values()):
        weight.copy_(0.3 * waves(weight.shape, 0.7, index))
    x, y = (torch.complex(*(waves((1, 1, 96, 16), part).float() for part in (rate, rate + 0.1))) for rate in (0.3, 0.5))
    found = network(x, torch.tensor([0.4]), y)
    expected = torch.tensor([0.71036434 + 0.53425811j, 1.00446689 + 0.31774199j, 1.43706799 - 0.00826471j,
                             0.75739110 + 0.51425725j])
    torch.testing.assert_close(found[0, 0, [0, 1, 40, 95], [0, 15, 7, 3]], expected, atol=1e-5, rtol=0)
    assert float(found.abs().mean()) == pytest.approx(1.03162563, abs=1e-5)


def load_network(settings, bins):
    config = model_config({**settings, "n_fft": 2 * bins - 2})
    return SpectrogramModel.from_config(config).network


def test_a_checkpoint_of_48_khz_makes_a_package_at_48_khz(recogniser_dir, tmp_path, write_wav, tone, capsys):
    model = SpectrogramModel.from_config(model_config(EARS))
    assert model.stft.sample_rate == 48_000 and model.padding == {"multiple": 64, "mode": "reflect"}
    weights = model.network.state_dict()
    torch.save({"state_dict": {f"dnn.{name}": value for name, value in weights.items()}, "hyper_parameters": EARS,
                "ema": {"shadow_params": list(weights.values())}}, tmp_path / "ears.ckpt")
    assert main(["import-sgmse", str(tmp_path / "ears.ckpt"), "--output-dir", str(tmp_path / "out"), "--asr",
                 str(recogniser_dir), "--steps", "2"]) == 0
    assert "48000 Hz" in capsys.readouterr().out
    pipeline = Pipeline.from_pretrained(tmp_path / "out", device="cpu")
    assert pipeline.sample_rate == 48_000 and pipeline.recogniser.recogniser.sample_rate == 16_000
    result = pipeline(write_wav("a.wav", tone(0.4, rate=48_000), 48_000), "enhanced")
    assert len(result.wave) == 19_200 and result.nfe["signal"] == 4
    plain = Pipeline(pipeline.recogniser.recogniser, SpectrogramModel.from_config(
        {**model.config, "stft": {**model.config["stft"], "sample_rate": 16_000}}), {}, "cpu")
    slow, fast = plain(write_wav("b.wav", tone(0.4)), "none"), pipeline(tmp_path / "b.wav", "none")
    assert fast.duration == pytest.approx(slow.duration) == pytest.approx(0.4)
    waves, lengths = pipeline.recogniser.resampled(torch.randn(2, 9600), torch.tensor([9600, 4801]))
    assert waves.shape == (2, 3200) and lengths.tolist() == [3200, 1601] and not waves[1, 1601:].any()


def test_a_bridge_at_48_khz_has_no_attention_to_levels():
    """ReverbFX and the authors' demonstration: `ncsnpp_v2` with more frequencies than it has by default."""
    model = SpectrogramModel.from_config(model_config(WIDE_BRIDGE))
    assert model.sample_rate == 48_000 and model.network.bins == 96 and not any(model.network.attends)
    with pytest.raises(ValueError, match=r"n_fft 190 is not supported: it gives 96 frequencies, .* at \(16,\)"):
        model_config({**WIDE_BRIDGE, "attn_resolutions": [16]})


def test_weights_of_the_loss_are_left_out(write, tmp_path):
    checkpoint = read_checkpoint(write(PESQ_BRIDGE))
    checkpoint["state_dict"]["pesq_loss.bank"] = torch.full((3, 3), float("nan"))
    torch.save({**checkpoint, "hyper_parameters": dict(PESQ_BRIDGE), "callbacks": {}}, tmp_path / "m8.ckpt")
    loaded = load_sgmse(tmp_path / "m8.ckpt").network.state_dict()
    assert all(torch.equal(loaded[key], write.average[key]) for key in write.average)


@pytest.mark.parametrize("form", ["the backbone alone", "the whole model", "a state dict with its average"])
def test_weights_alone_are_read_with_the_settings_of_their_training(write, tmp_path, recogniser_dir, capsys, form):
    checkpoint = read_checkpoint(write(BRIDGE))
    whole, average = checkpoint["state_dict"], "average" in form
    saved = {"state_dict": whole, "ema": checkpoint["ema"]} if average else whole if "whole" in form else write.last
    torch.save(saved, tmp_path / "bridge.pt")
    command = ["import-sgmse", str(tmp_path / "bridge.pt"), "--asr", str(recogniser_dir), "--output-dir"]
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "weights alone, say how they were trained, e.g. --setting backbone=ncsnpp_v2" in capsys.readouterr().err
    given = {**{key: BRIDGE[key] for key in ("backbone", "sde", "loss_type", "sr", *SMALL, "n_fft", "hop_length",
                                             "image_size")}, "c_in": 1}
    settings = [word for name, value in given.items() for word in ("--setting", f"{name}={value}")]
    if not average:
        assert main([*command, str(tmp_path / "out"), *settings]) == 2 and "--no-ema" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "out"), *settings, *([] if average else ["--no-ema"])]) == 0
    known = write.average if average else write.last
    loaded = Pipeline.from_pretrained(tmp_path / "out", device="cpu").signal.network.state_dict()
    assert all(torch.equal(loaded[key], known[key]) for key in known)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["imported"]["settings"].startswith(
        "backbone=ncsnpp_v2, sde=sbve, ")


@pytest.mark.parametrize("setting, message", [
    ("bakbone=ncsnpp", "there is no such setting; did you mean backbone"), ("sde", "not of the form NAME=VALUE"),
    ("theta=[1", "theta: "), ("sde=bbed", "sde 'bbed' is not supported")])
def test_wrong_settings_are_one_line(write, recogniser_dir, tmp_path, capsys, setting, message):
    command = ["import-sgmse", str(write(V2)), "--asr", str(recogniser_dir), "--output-dir", str(tmp_path / "out")]
    assert main([*command, "--setting", setting]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
