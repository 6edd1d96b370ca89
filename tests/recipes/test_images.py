"""recipes/images from scikit-learn's digits, and from a folder of pictures, to RESULTS.md, as a user runs it."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from cdasr.images.data import ImageSet
from tests.recipes.staged import ROOT, check_whole_run, copy_of_results, run_recipe


def run(exp_dir, *options):
    return run_recipe("images", exp_dir, "--threads", "1", *options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("exp")
    done = run(exp_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    return exp_dir, done


def test_all_stages_run_and_say_so(finished):
    exp_dir, done = finished
    check_whole_run(exp_dir, done, (
        "pixel noise level 0.3", "gaussian blur kernel 5 sigma 2.0", "cascade", "alternating", "nested",
        "enhanced_matched", "retrained", "oracle", "ECE", "PSNR", "top-5", "Targets"))
    assert (exp_dir / "results" / "pictures.png").stat().st_size > 5000


def test_all_systems_saw_the_same_images(finished):
    exp_dir, _ = finished
    clean = ImageSet.load(exp_dir / "data" / "eval.safetensors")
    for condition in ("pixel_noise", "gaussian_blur"):
        degraded = ImageSet.load(exp_dir / "data" / "eval" / f"{condition}.safetensors")
        assert degraded.labels.equal(clean.labels) and not degraded.images.equal(clean.images)
    inputs = []
    for path in (exp_dir / "results" / "decode").glob("*.jsonl"):
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        inputs.append({entry["ID"]: (entry.get("psnr_input"), entry["label"]) for entry in entries})
        assert len(entries) == len(inputs[-1]) == 3 * len(clean)
    assert len(inputs) == 11 and all(found == inputs[0] for found in inputs)


def test_a_second_run_redoes_nothing_and_the_package_works(finished, tmp_path):
    exp_dir, _ = finished
    before = {path: path.stat().st_mtime_ns for path in exp_dir.rglob("*") if path.is_file()}
    again = run(exp_dir)
    assert again.returncode == 0 and again.stdout.count("done already") == 10
    assert {path: path.stat().st_mtime_ns for path in exp_dir.rglob("*") if path.is_file()} == before
    from cdasr.images.pipeline import write_image

    write_image(tmp_path / "digit.png", ImageSet.load(exp_dir / "data" / "eval.safetensors").images[0] / 255.0)
    done = subprocess.run([sys.executable, "-m", "cdasr.cli", "enhance-classify", str(tmp_path / "digit.png"),
                           "--model", str(exp_dir / "package"), "--json"], capture_output=True, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)["label"] in "0123456789"


def test_training_seeds_are_compared(finished, tmp_path):
    exp_dir, _ = finished
    other = copy_of_results(exp_dir, tmp_path / "other", training_seed=7)
    done = run(exp_dir, "--stage", "9", "--stop-stage", "9", "--redo", "true", "--results", str(tmp_path / "R.md"),
               "--other-seeds", f"[{other}, {exp_dir}]")
    assert done.returncode == 0, done.stderr[-3000:]
    text = (tmp_path / "R.md").read_text()
    assert "each with all 3 seeds" in text
    table = text[text.index("## Training seeds"):text.index("## Targets")]
    assert table.count("| 0.00 ") == 11, "the same run three times has no spread"
    assert re.search(r"\| system +\| seed 1 +\| seed 7 +\| seed 1 +\| mean ", table)


@pytest.fixture
def begun(finished, tmp_path):
    """A copy of the run, whose stages can be done again in another way."""
    return shutil.copytree(finished[0], tmp_path / "exp", symlinks=True)


def again(exp_dir, stage, *options):
    done = run(exp_dir, "--stage", stage, "--stop-stage", stage, "--redo", "true", *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_several_processes_train_from_another_package(finished, begun):
    again(begun, "signal", "--nproc", "2", "--signal-init", str(finished[0] / "package"))
    record = json.loads((begun / "signal" / "record.json").read_text())["settings"]
    assert record["hparams"]["nproc"] == 2 and set(record["tuning"]["steps"]) == {"1", "2"}
    config = json.loads((begun / "package" / "config.json").read_text())
    assert "tokens" not in config["signal"]["network"] and config["about"]["vocabulary"] == "the digits 0 to 9"
    again(begun, "signal", "--signal-init", str(finished[0] / "package"), "--signal.epochs", "0")
    assert not (begun / "signal" / "checkpoints").exists(), "it is taken as it is"


def test_one_control_and_the_mean_of_samples(begun):
    again(begun, "controls", "--controls", "[matched]")
    assert (begun / "matched" / "package").is_dir() and not (begun / "retrained").exists()
    again(begun, "decode", "--controls", "[matched]", "--decode.samples", "2", "--decode.systems", "[parallel]",
          "--decode.conditions", "[pixel_noise]")
    lines = (begun / "results" / "samples-2" / "decode" / "parallel.jsonl").read_text().splitlines()
    assert len(lines) == 40 and json.loads(lines[0])["condition"] == "pixel_noise"
    assert json.loads(lines[0])["nfe"]["signal"] == 2 * 2, "of both samples"


def test_the_earlier_entry_point_works(finished):
    command = [sys.executable, "-m", "cdasr.images.recipe", "run", "--recipe", "recipes/images", "--size", "tiny",
               "--exp-dir", str(finished[0]), "--threads", "1", "--stop-stage", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("done already") == 9


def test_wrong_use_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    for options, reason in ((("--dataset", "cifar10", "--data-dir", str(tmp_path / "empty")), "no images"),
                            (("--no-such-key", "1"), "no key 'no_such_key'"), (("--dataset", "mnist"), "mnist")):
        done = run(tmp_path / "exp", *options)
        assert done.returncode == 2 and reason in done.stderr and "Traceback" not in done.stderr
