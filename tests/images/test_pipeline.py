"""Images through the shared core: strategies, batching, packages, the command line; and a perfect denoiser."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cdasr.cli import main
from cdasr.coupled.models import CoupledRun
from cdasr.coupled.strategies import STRATEGIES
from cdasr.diffusion import coupling
from cdasr.images.pipeline import ImagePipeline, read_image, write_image
from cdasr.images.signal_model import ImageModel
from cdasr.speech.pipeline import Pipeline
from tests.images.conftest import SIGNAL


@pytest.fixture
def images():
    return torch.rand(3, 3, 8, 8)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if not STRATEGIES[name].needs_rule])
def test_a_batch_equals_its_images(pipeline, images, strategy):
    whole = pipeline.classify(list(images), strategy)
    for image, result in zip(images, whole):
        single = pipeline(image, strategy)
        torch.testing.assert_close(single.posterior, result.posterior, atol=1e-4, rtol=1e-3)
        assert single.label == result.label == result.probabilities[0][0]
        assert result.confidence == pytest.approx(float(result.posterior.max()))
        if strategy in ("none", "card"):
            assert result.image is None and result.label_enhanced is None
        else:
            torch.testing.assert_close(single.image, result.image, atol=1e-4, rtol=1e-3)
            assert float(result.image.min()) >= 0.0 and float(result.image.max()) <= 1.0


def test_evaluations_are_counted_and_never_doubled(pipeline, images):
    counts = {name: tuple(pipeline(images[0], name).nfe.values()) for name in pipeline.strategies}
    assert counts == {"none": (0, 0, 1), "enhanced": (2, 0, 1), "oa": (2, 0, 1), "card": (0, 2, 1),
                      "cascade": (2, 2, 2), "parallel": (2, 2, 3), "alternating": (4, 4, 3), "nested": (6, 2, 4)}
    assert tuple(pipeline(images[0], "cascade", samples=3).nfe.values()) == (6, 6, 6)


def test_samples_are_averaged(pipeline, images):
    seeds = [pipeline.run([images[0]], "cascade", seed=seed, samples=2)[0] for seed in (0, 2)]
    drawn = torch.cat([outcome.logits.values.softmax(dim=-1) for outcome in seeds])
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4, "samples differ"
    torch.testing.assert_close(pipeline(images[0], "cascade", samples=4).posterior, drawn.mean(dim=0))


@pytest.mark.parametrize("process", ["vp", "sbve"])
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_any_number_of_steps_is_exact_for_a_perfect_denoiser(images, process, steps):
    class Perfect(torch.nn.Module):
        def forward(self, x_t, t, y, mask=None, logits=None):
            return 2.0 * images - 1.0

    model = ImageModel.from_config({**SIGNAL, "process": {"name": process}}).with_network(Perfect())
    for method in ("deterministic", "ancestral"):
        enhanced, nfe = model.enhance(torch.rand(3, 3, 8, 8), None, steps, method=method)
        torch.testing.assert_close(enhanced, images, atol=1e-6, rtol=0)
        assert nfe == steps
        side = model.reverse(model.analyse(torch.rand(3, 3, 8, 8)), steps=steps, method=method)
        side.sample(given=None)
        torch.testing.assert_close(side.trajectories[0].x, 2.0 * images - 1.0, atol=0.1, rtol=0)


def test_an_injection_starts_as_nothing(classifier, pipeline, images):
    plain = ImageModel.from_config(SIGNAL)
    with torch.no_grad():
        plain.network.last.weight.normal_(std=0.1)
    guided = plain.with_injection(pipeline.logits.tokens, 16)
    runs = [CoupledRun(classifier, model, pipeline.logits, images) for model in (plain, guided)]
    told = coupling.parallel(runs[1].signal, runs[1].start_logits, runs[1].observe)
    torch.testing.assert_close(told.signal, runs[0].signal.sample(given=None))


def test_packages_come_back_and_domains_are_told_apart(pipeline, images, tmp_path, package_dir):
    pipeline.config["strategy"] = "alternating"
    pipeline.save_pretrained(tmp_path / "package")
    again = ImagePipeline.from_pretrained(tmp_path / "package", device="cpu")
    assert again.default_strategy == "alternating" and again.classes == pipeline.classes
    for strategy in ("enhanced", "parallel", None):
        torch.testing.assert_close(again(images[0], strategy).posterior, pipeline(images[0], strategy).posterior)
    assert not list((tmp_path / "package").rglob("*.bin")) and not list((tmp_path / "package").rglob("*.pt"))
    with pytest.raises(ValueError, match="it is for images, not for speech"):
        Pipeline.from_pretrained(tmp_path / "package", device="cpu")
    with pytest.raises(ValueError, match="it is for speech, not for images"):
        ImagePipeline.from_pretrained(package_dir, device="cpu")


def test_files_are_read_at_the_size_of_the_model(tmp_path):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 4:28] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    torch.testing.assert_close(read_image(tmp_path / "wide.png", (8, 8)), torch.ones(3, 8, 8))
    assert read_image(tmp_path / "wide.png", (8, 8), colours=1).shape == (1, 8, 8)
    image = torch.rand(3, 8, 8)
    for colours in (1, 3):
        write_image(tmp_path / "out.png", image[:colours])
        again = read_image(tmp_path / "out.png", (8, 8), colours)
        torch.testing.assert_close(again, image[:colours], atol=0.5 / 255 + 1e-6, rtol=0)


def test_the_command_line(pipeline, tmp_path, capsys):
    pipeline.save_pretrained(tmp_path / "package")
    for name in ("a", "b"):
        write_image(tmp_path / f"{name}.png", torch.rand(3, 8, 8))
    (tmp_path / "text.png").write_text("no image")
    command = ["enhance-classify", *(str(tmp_path / name) for name in ("a.png", "text.png", "none.png", "b.png")),
               "--model", str(tmp_path / "package"), "--strategy", "parallel", "--device", "cpu", "--json",
               "--output-dir", str(tmp_path / "out")]
    assert main(command) == 2
    captured = capsys.readouterr()
    results = [json.loads(line) for line in captured.out.splitlines()]
    assert [result["file"] for result in results] == [str(tmp_path / name) for name in ("a.png", "b.png")]
    for result in results:
        assert set(result) == {"file", "label", "confidence", "top", "label_enhanced", "strategy", "out_of_domain",
                               "nfe"}
        assert len(result["top"]) == 5 and result["top"][0] == {"label": result["label"],
                                                                "probability": result["confidence"]}
        assert result["strategy"] == "parallel" and result["nfe"] == {"signal": 2, "logits": 2, "classifier": 3}
    complaints = [line for line in captured.err.splitlines() if line.startswith("cdasr:")]
    assert len(complaints) == 2 and "text.png" in complaints[0] and "none.png" in complaints[1]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.enhanced.png", "b.enhanced.png"]
    assert main([*command[:2], "--model", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main([*command[:2], "--model", str(tmp_path / "package")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'a.png'}: class ")


def test_pictures_of_one_name_and_a_full_disk(pipeline, tmp_path, monkeypatch, capsys):
    from cdasr.runtime import atomic

    pipeline.save_pretrained(tmp_path / "package")
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.png", "q/a.png", "b.png", "b.bmp"):
        write_image(tmp_path / name, torch.rand(3, 8, 8))
    replace = os.replace

    def full(source, target):
        if target.name == "b.bmp.enhanced.png":
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        replace(source, target)
    monkeypatch.setattr(atomic.os, "replace", full)
    assert main(["enhance-classify", "p/a.png", "q/a.png", "b.png", "b.bmp", "--model", "package", "--device", "cpu",
                 "--output-dir", "out"]) == 2
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    assert captured.err.splitlines()[-1] == ("cdasr: b.bmp: out/b.bmp.enhanced.png: the disk is full; free some space "
                                             "and run again")
    assert sorted(str(path) for path in Path("out").rglob("*.*")) == [
        "out/b.png.enhanced.png", "out/p/a.enhanced.png", "out/q/a.enhanced.png"]
