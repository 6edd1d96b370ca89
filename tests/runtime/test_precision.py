"""Mixed precision, torch.compile and channels-last change speed, not results; the recogniser stays in fp32."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch

from cdasr import Pipeline
from cdasr.cli import main
from cdasr.networks.ncsnpp import NCSNpp
from cdasr.runtime.device import resolve_precision


@pytest.fixture
def waves(tone):
    return [torch.from_numpy(tone(seconds, hertz)) for seconds, hertz in ((0.6, 300), (0.4, 500))]


def small_ncsnpp(**options):
    return NCSNpp(bins=16, nf=8, ch_mult=(1,), num_res_blocks=1, attn_resolutions=(), init_scale=1.0, **options).eval()


def inputs(frames=12):
    x_t, y = torch.randn(2, 2, 1, 16, frames, dtype=torch.complex64)
    return x_t, torch.tensor([0.3, 0.9]), y, torch.arange(frames) < torch.tensor([[frames], [frames - 5]])


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_close_and_keeps_the_recogniser_out(package_dir, waves, precision):
    exact = Pipeline.from_pretrained(package_dir, device="cpu").transcribe(waves, "parallel")
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu", precision=precision)
    heard, seen = [], []
    pipeline.recogniser.model.register_forward_pre_hook(
        lambda module, given, named: heard.append((torch.is_autocast_enabled("cpu"), given[0].dtype)), with_kwargs=True)
    for model in (pipeline.signal, pipeline.logits):
        model.network.register_forward_pre_hook(lambda module, given: seen.append(torch.is_autocast_enabled("cpu")))
    rounded = pipeline.transcribe(waves, "parallel")
    assert set(heard) == {(False, torch.float32)} and len(seen) == 4 and all(seen)
    for one, other in zip(exact, rounded):
        difference = (one.wave - other.wave).abs().max() / one.wave.abs().max()
        assert 0 < difference < 0.03, "close, and not the same"
    assert pipeline.precision == precision


@torch.no_grad()
def test_ncsnpp_in_bf16_is_close():
    network, given = small_ncsnpp(), inputs()
    exact = network(*given)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(*given)
    assert rounded.dtype == torch.complex64
    assert 0 < (rounded - exact).abs().max() < 0.05 * exact.abs().max()


def test_channels_last_gives_the_same(package_dir, waves):
    plain = Pipeline.from_pretrained(package_dir, device="cpu").transcribe(waves, "enhanced")
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu", channels_last=True)
    weight = pipeline.signal.network.encoder[0].reduce.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    for one, other in zip(plain, pipeline.transcribe(waves, "enhanced")):
        torch.testing.assert_close(one.wave, other.wave, atol=1e-5, rtol=0)


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="needs a C++ compiler")
@torch.no_grad()
def test_a_compiled_network_gives_the_same():
    network, given = small_ncsnpp(), inputs()
    plain = network(*given)
    network.compile(dynamic=True)
    torch.testing.assert_close(network(*given), plain, atol=1e-4, rtol=0)


def test_compiling_keeps_names_and_copies():
    network = small_ncsnpp()
    names, original = list(network.state_dict()), network.evaluate
    network.compile()
    assert list(network.state_dict()) == names and network.compiled is not None
    twin = copy.deepcopy(network)
    assert twin.compiled is None and twin.evaluate.__self__ is twin and network.evaluate == original


def test_flags_of_the_command_line(package_dir, tmp_path, write_wav, tone, capsys):
    path = str(write_wav("a.wav", tone(0.5)))
    assert main(["enhance-transcribe", path, "--model", str(package_dir), "--precision", "bf16", "--channels-last",
                 "--device", "cpu", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nfe"]["signal"] == 2
    (tmp_path / "m.csv").write_text(f"ID,duration,wav,text\nu,0.5,{path},one\n")
    command = ["evaluate", "--manifest", str(tmp_path / "m.csv"), "--model", str(package_dir), "--systems", "enhanced",
               "--output-dir", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*command, "--precision", "bf16"]) == 0
    settings = json.loads((tmp_path / "out" / "wer.json").read_text())["record"]["settings"]
    assert settings["precision"] == "bf16"
    assert main(command) == 2, "results in another precision are not mixed"


def test_unknown_precisions_are_named():
    with pytest.raises(ValueError, match="precision 'fp8': choose auto, fp32, bf16 or fp16"):
        resolve_precision("fp8", "cpu")
