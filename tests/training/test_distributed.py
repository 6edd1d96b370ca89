"""Training in two processes: shares of the batches, equal weights at the end, one writer."""

import json
import os
import subprocess
import sys

import numpy as np
import torch

from cdasr.recipe.stages import compute_device
from cdasr.speech.manifest import write_manifest
from cdasr.training.data import DurationBatchSampler

SCRIPT = """
import hashlib, json, sys
from pathlib import Path

import torch

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.speech.domain import SPEECH
from cdasr.speech.manifest import read_manifest
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.speech.utterances import FixedPairs, Utterances, noisy_and_clean
from cdasr.training.distributed import join_group, on_main, shard
from cdasr.training.signal import SignalTrainer
from tests.conftest import TINY_SIGNAL
from tests.training.helpers import HPARAMS, add_noise


def fingerprint(networks):
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in networks.state_dict().values())).hexdigest()


folder, recogniser = Path(sys.argv[1]), sys.argv[2]
device = join_group("cpu")
torch.manual_seed(1)
rows = read_manifest(folder / "valid.csv")
model = SpectrogramModel.from_config(TINY_SIGNAL)
trainer = SignalTrainer(model, CTCRecogniser.from_pretrained(recogniser), folder / "run", HPARAMS, device, SPEECH)
clean = [{**row, "wav": row["clean_wav"]} for row in rows]
heard = []
seen = trainer.fit_batch
trainer.fit_batch = lambda batch: heard.append(batch.id) or seen(batch)
end, ended = trainer.best_networks, []
trainer.best_networks = lambda: ended.append(fingerprint(trainer.networks)) or end()
best = trainer.run(Utterances(clean, 16000, 1, True, noisy_and_clean(add_noise)), FixedPairs(rows, 16000))
result = {"shard": shard(), "main": on_main(), "heard": heard, "trained": ended,
          "best": fingerprint(best)}
(folder / f"rank{shard()[0]}.json").write_text(json.dumps(result))
"""


def test_two_processes_end_with_the_same_weights(tmp_path, recogniser_dir, write_wav, tone):
    rows = []
    for number in range(8):
        clean = tone(0.4 + 0.05 * number, 200 + 100 * number)
        noisy = clean + 0.1 * np.random.default_rng(number).standard_normal(len(clean)).astype(np.float32)
        rows.append({"ID": f"u{number}", "duration": len(clean) / 16_000, "wav": write_wav(f"n{number}.wav", noisy),
                     "clean_wav": write_wav(f"c{number}.wav", clean), "text": "one two", "spk_id": "s"})
    write_manifest(tmp_path / "valid.csv", rows)
    (tmp_path / "train.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "train.py"), str(tmp_path), str(recogniser_dir)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])})
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["main"] and not second["main"] and second["shard"] == [1, 2]
    assert first["trained"] == second["trained"] and first["best"] == second["best"] != first["trained"][0]
    shares = [[tuple(ids) for ids in part["heard"]] for part in (first, second)]
    assert len(shares[0]) == len(shares[1]) > 2 and shares[0] != shares[1]
    log = (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in log] == [1, 2], "one process writes"
    assert 1 <= len(list((tmp_path / "run" / "checkpoints").iterdir())) <= 2, "the latest and the best"


def test_the_processes_share_the_threads(monkeypatch):
    before = torch.get_num_threads()
    try:
        for processes, threads in (("1", 4), ("2", 2), ("8", 1)):
            monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
            assert compute_device({"threads": 4, "device": "cpu"}) == "cpu" and torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_shares_of_the_batches_are_disjoint_and_of_one_size():
    durations = np.random.default_rng(0).uniform(0.5, 5.0, 100)
    whole = list(DurationBatchSampler(durations, 12.0, seed=3))
    shares = [DurationBatchSampler(durations, 12.0, seed=3, shard=(number, 3)) for number in range(3)]
    assert len({len(share) for share in shares}) == 1 and shares[0].steps(4) == shares[2].steps(4)
    dealt = [batch for share in shares for batch in share]
    assert len(dealt) == len(whole) // 3 * 3 and all(batch in whole for batch in dealt)
    assert len({index for batch in dealt for index in batch}) == sum(map(len, dealt))
    rest = [batch for number in range(3) for batch in DurationBatchSampler(durations, 12.0, 3, shard=(number, 3),
                                                                          even=False)]
    assert sorted(map(tuple, rest)) == sorted(map(tuple, whole)), "validation leaves nothing out"
