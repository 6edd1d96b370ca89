"""A recipe run as its user runs it, and what every whole run has to leave behind."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).parents[2]


def run_recipe(name, exp_dir, *options, size="tiny"):
    """`bash recipes/NAME/run.sh --size tiny --exp-dir EXP_DIR ...`, from the repository's root."""
    return subprocess.run(["bash", f"recipes/{name}/run.sh", "--size", size, "--exp-dir", str(exp_dir), *options],
                          cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHON": sys.executable})


def check_whole_run(exp_dir, done, words):
    """All stages said so and left their marks; the results hold all of `words`. Returns the results."""
    for stage in range(10):
        assert f"stage {stage} (" in done.stdout and (exp_dir / "done" / f"stage{stage}").is_file(), stage
    results = (exp_dir / "RESULTS.md").read_text()
    for word in words:
        assert word in results, word
    return results


def check_nothing_is_redone(name, exp_dir, *options, size="tiny", stages=10):
    """A second run with the same options starts no process and leaves every file and folder as it was.

    It runs in this process: `run.sh` only names the command.
    """
    from cdasr.recipe import command, runner

    before = times(exp_dir)
    words = ["recipe", "run", "--recipe", str(ROOT / "recipes" / name), "--size", size, "--exp-dir", str(exp_dir)]
    with mock.patch.object(sys, "argv", [*words, *options]), contextlib.redirect_stdout(io.StringIO()) as said, \
            mock.patch.object(runner, "_run_stage", side_effect=AssertionError("a stage was started")):
        assert command.main() == 0
    assert said.getvalue().count("done already") == stages, said.getvalue()
    assert times(exp_dir) == before


def times(folder):
    """When each file and folder below `folder` was last changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def copy_of_results(exp_dir, other, training_seed):
    """The scored results of a run in the folder `other`, as if they were of another training seed."""
    shutil.copytree(exp_dir / "results", other / "results")
    record = json.loads((exp_dir / "coupled" / "record.json").read_text())
    record["settings"]["hparams"]["training_seed"] = training_seed
    (other / "coupled").mkdir()
    (other / "coupled" / "record.json").write_text(json.dumps(record))
    return other


def load_prepare(name):
    """The prepare.py of a recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", ROOT / "recipes" / name / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_ctc(folder, texts):
    """A CTC recogniser of wav2vec2's kind for the letters of `texts`, with random weights, in `folder/asr`."""
    import torch

    from cdasr.speech.train_recogniser import make_model, make_processor
    from tests.conftest import TINY_WAV2VEC2

    torch.manual_seed(0)
    processor = make_processor(texts, folder / "tokenizer", 16_000)
    for part in (make_model({**TINY_WAV2VEC2, "num_hidden_layers": 1}, processor), processor):
        part.save_pretrained(folder / "asr")
    return folder / "asr"


def spoken(texts, rate, voice="en-us+f2"):
    """Each of `texts` in eSpeak's voice: `(samples,)` float32 at `rate` Hz."""
    from cdasr.speech.audio import resample
    from cdasr.speech.synthesis import speak

    return [0.4 * resample(*speak(text.lower(), voice, 220), rate) for text in texts]


def tiny_hparams(name, exp_dir, *options):
    """The settings of `--size tiny` with further options, as the stages get them."""
    from cdasr.recipe.hparams import load_hparams

    folder = ROOT / "recipes" / name / "hparams"
    return load_hparams([folder / "default.yaml", folder / "tiny.yaml"], ["--exp-dir", str(exp_dir), *options])
