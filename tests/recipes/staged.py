"""A recipe run as its user runs it, and what every whole run has to leave behind."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_recipe(name, exp_dir, *options):
    """`bash recipes/NAME/run.sh --size tiny --exp-dir EXP_DIR ...`, from the repository's root."""
    return subprocess.run(["bash", f"recipes/{name}/run.sh", "--size", "tiny", "--exp-dir", str(exp_dir), *options],
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


def copy_of_results(exp_dir, other, training_seed):
    """The scored results of a run in the folder `other`, as if they were of another training seed."""
    shutil.copytree(exp_dir / "results", other / "results")
    record = json.loads((exp_dir / "coupled" / "record.json").read_text())
    record["settings"]["hparams"]["training_seed"] = training_seed
    (other / "coupled").mkdir()
    (other / "coupled" / "record.json").write_text(json.dumps(record))
    return other
