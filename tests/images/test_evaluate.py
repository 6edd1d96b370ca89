"""Evaluation of images: entries are counted right, runs go on, scores agree with their definitions."""

import json

import numpy as np
import pytest
import torch

from cdasr.evaluation.evaluate import evaluate
from cdasr.evaluation.scoring import score
from cdasr.evaluation.store import read_decoded
from cdasr.images.data import ImageSet
from cdasr.images.domain import IMAGES
from cdasr.images.evaluation import image_rows
from cdasr.images.metrics import HIGHEST, psnr, ssim
from tests.images.conftest import CLASSES


@pytest.fixture
def sets():
    torch.manual_seed(3)
    clean = ImageSet(torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8), torch.randint(0, 7, (9,)), tuple(CLASSES))
    noisy = ImageSet((clean.images.float() * 0.5).byte(), clean.labels, clean.classes)
    return {"clean": clean, "dark": noisy}, clean


def test_what_is_decoded_is_what_the_pipeline_says_and_runs_go_on(pipeline, sets, tmp_path):
    options = {"batch_seconds": 4, "others": {"enhanced_matched": (pipeline, "enhanced")}}
    systems = ["none", "enhanced", "enhanced_matched", "parallel"]
    table = evaluate(image_rows(*sets), pipeline, systems, tmp_path, **options)
    assert "Top-1 accuracy" in table and "degraded, average" in table
    path = tmp_path / "decode" / "parallel.jsonl"
    entries = read_decoded(path)
    assert len(entries) == 18 and len({entry["ID"] for entry in entries}) == 18
    dark = [entry for entry in entries if entry["condition"] == "dark"]
    for entry, image, label in zip(dark, sets[0]["dark"].images.float() / 255.0, sets[1].labels.tolist()):
        result = pipeline(image, "parallel")
        assert entry["answer"] == result.label and entry["label"] == CLASSES[label]
        assert entry["errors"] == int(result.label != CLASSES[label])
        assert entry["errors_top5"] == int(CLASSES[label] not in [name for name, _ in result.probabilities])
    assert all("psnr" not in entry for entry in entries if entry["condition"] == "clean")
    scores = json.loads((tmp_path / "accuracy.json").read_text())
    errors = [entry["errors"] for entry in dark]
    assert scores["conditions"]["dark"]["parallel"]["error"] == pytest.approx(100 * np.mean(errors))
    assert scores["average"]["enhanced_matched"]["difference"]["enhanced"] == [0.0, 0.0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:7]) + b'{"ID": "torn')
    again = evaluate(image_rows(*sets), pipeline, systems, tmp_path, **options)
    assert again.split("system")[0] == table.split("system")[0]
    with pytest.raises(ValueError, match="results of other settings"):
        evaluate(image_rows(*sets), pipeline, systems, tmp_path, seed=1, **options)
    with pytest.raises(ValueError, match="unknown strategy"):
        evaluate(image_rows(*sets), pipeline, ["magic"], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_scores_are_accuracies_with_paired_tests():
    rng = np.random.default_rng(0)

    def entries(rate, confidence):
        made = []
        for index in range(400):
            wrong = int(rng.random() < rate)
            made.append({"ID": f"n-{index:06d}", "condition": "n", "errors": wrong, "errors_top5": 0, "images": 1,
                         "nfe": {"signal": 1}, "confidence": [confidence], "correct": [not wrong], "seconds": 0.1,
                         "duration": 1.0, "psnr": 20.0, "psnr_input": 10.0, "ssim": 0.5, "ssim_input": 0.2})
        return made
    decoded = {"bad": entries(0.5, 0.5), "good": entries(0.2, 0.8)}
    scores = score(decoded, IMAGES, ["n"])
    good, bad = scores["conditions"]["n"]["good"], scores["conditions"]["n"]["bad"]
    low, high = good["interval"]
    assert low < good["error"] < high and high - low == pytest.approx(2 * 196 * (0.2 * 0.8 / 400) ** 0.5, rel=0.2)
    assert good["p_values"]["bad"] < 0.001 and good["difference"]["bad"][1] < 0
    assert good["calibration_error"] == pytest.approx(abs(0.8 - (1 - good["error"] / 100)), abs=1e-6)
    assert bad["top5"]["rate"] == 0.0 and good["psnr"] == 20.0 and good["rtf"] == pytest.approx(0.1)


def test_quality_follows_its_definition():
    clean, noise = torch.rand(3, 16, 16), 0.1 * torch.randn(3, 16, 16)
    assert psnr(clean + noise, clean) == pytest.approx(-10 * np.log10(float(noise.square().mean())), abs=1e-3)
    assert psnr(clean, clean) == HIGHEST and ssim(clean, clean) == pytest.approx(1.0)
    assert ssim(clean + noise, clean) > ssim(clean + 3 * noise, clean)
    assert abs(ssim(torch.rand(1, 8, 8), torch.rand(1, 8, 8))) < 1
