"""From a trajectory's move to the network there are at most three calls; a recording passes through few files."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import cdasr
from cdasr import Pipeline
from cdasr.coupled.models import CoupledRun
from cdasr.coupled.pipeline import STRATEGIES
from cdasr.diffusion.coupling import STRATEGIES as COUPLED
from cdasr.diffusion.preconditioning import Preconditioning
from cdasr.diffusion.processes import OUVE
from cdasr.diffusion.samplers import METHODS, ReverseProcess, Trajectory, sample, time_grid

HERE = str(Path(cdasr.__file__).parent)


class Watching(torch.nn.Module):
    """A network that says, of each call, which of our functions stand between a trajectory's move and it."""

    def __init__(self, network):
        super().__init__()
        self.network, self.paths = network, []

    def forward(self, *given, **options):
        frame, names = sys._getframe(1), []
        while frame.f_code is not Trajectory.move.__code__:
            if frame.f_code.co_filename.startswith(HERE):
                names.append(frame.f_code.co_qualname if hasattr(frame.f_code, "co_qualname") else frame.f_code.co_name)
            frame = frame.f_back
        self.paths.append(names)
        return self.network(*given, **options)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", COUPLED)
def test_three_calls_lead_from_a_move_to_the_network(package_dir, tone, name, guidance):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    networks = [Watching(model.network) for model in (pipeline.signal, pipeline.logits)]
    models = [model.with_network(network) for model, network in zip((pipeline.signal, pipeline.logits), networks)]
    waves = torch.from_numpy(tone(0.5))[None]
    run = CoupledRun(pipeline.classifier, *models, waves, torch.tensor([waves.shape[1]]), guidance=guidance)
    COUPLED[name](run.signal, run.start_logits, run.observe)
    paths = [path for network in networks for path in network.paths]
    assert paths and max(len(path) + 1 for path in paths) <= 3, paths  # the last call is that of the network itself
    assert [len(network.paths) for network in networks] == [run.nfe["signal"], run.nfe["logits"]]


@pytest.mark.parametrize("method", METHODS)
def test_no_sampler_and_no_preconditioning_needs_more(package_dir, tone, method):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    network, waves = Watching(pipeline.signal.network), torch.from_numpy(tone(0.5))[None]
    model = pipeline.signal.with_network(network)
    process = model.reverse(model.analyse(waves, torch.tensor([waves.shape[1]])))
    denoiser = replace(process.denoiser, process=OUVE(), preconditioning=Preconditioning("score", c_in="edm"))
    replace(process, process=OUVE(), denoiser=denoiser, method=method, grid=time_grid(OUVE(), 2)).sample(given=None)
    assert max(map(len, network.paths)) + 1 <= 3


def test_production_and_tests_run_the_same_loop(monkeypatch):
    y, grid, runs, run = torch.ones(1, 2), time_grid(OUVE(), 3), [], Trajectory.run
    monkeypatch.setattr(Trajectory, "run", lambda self, *given: runs.append(self) or run(self, *given))

    def halve(x_t, t, y, given):
        return 0.5 * x_t
    found = sample(OUVE(), halve, y, grid, noise=torch.zeros_like)
    process = ReverseProcess(OUVE(), halve, y, grid, noise=torch.zeros_like)
    assert torch.equal(process.sample(given=None), found.estimate) and len(runs) == 2


def test_a_recording_passes_through_at_most_18_files(tmp_path, write_wav, tone):
    path, pipeline, touched = write_wav("a.wav", tone(0.6)), Pipeline.from_pretrained("digits", device="cpu"), set()

    def watch(frame, event, argument):
        if frame.f_code.co_filename.startswith(HERE):
            touched.add(frame.f_code.co_filename.removeprefix(HERE))

    pipeline(path)
    before = sys.gettrace()
    sys.settrace(watch)
    try:
        result = pipeline(path)
    finally:
        sys.settrace(before)
    assert result.strategy == pipeline.default_strategy in set(STRATEGIES) - {"none", "enhanced", "oa"}
    assert len(touched) <= 18, sorted(touched)


def test_models_with_other_settings_are_new_ones(package_dir):
    pipeline = Pipeline.from_pretrained(package_dir, device="cpu")
    config = dict(pipeline.config)
    chosen = pipeline.with_choices(steps=7, strategy="cascade", strategies={"cascade": {"steps": 1}})
    assert (chosen.signal.sampling["steps"], chosen.default_strategy) == (7, "cascade")
    assert chosen.config["strategies"]["cascade"] == {"steps": 1} and chosen.oa_weight == pipeline.oa_weight
    assert pipeline.signal.sampling["steps"] == 2 and pipeline.config == config
    assert chosen.signal.network is pipeline.signal.network and chosen.recogniser is pipeline.recogniser
    half = pipeline.optimised("bf16")
    assert (half.precision, pipeline.precision) == ("bf16", "fp32")
    other = pipeline.recogniser.with_hidden_layers((0, -1))
    assert other.hidden_layers == (0, -1) and pipeline.recogniser.hidden_layers == (-1,)
    assert other.model is pipeline.recogniser.model
    with pytest.raises(ValueError, match="there is no layer 9"):
        pipeline.recogniser.with_hidden_layers((9,))
