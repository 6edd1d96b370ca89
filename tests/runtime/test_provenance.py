"""Records say where a result comes from and nothing about the machine's folders."""

import json
import subprocess
import sys

from cdasr.runtime.atomic import write_json
from cdasr.runtime.provenance import machine, record


def test_a_record_has_what_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["/some/where/bin/cdasr", "evaluate", "--manifest", "/home/me/data/set.csv"])
    made = record(seed=3)
    assert made["command"] == "cdasr evaluate --manifest set.csv" and made["settings"] == {"seed": 3}
    assert made["versions"]["torch"] and made["versions"]["python"] and made["machine"]["cores"] >= 1
    assert "/home" not in json.dumps(made)
    write_json(tmp_path / "deep" / "record.json", made)
    assert json.loads((tmp_path / "deep" / "record.json").read_text()) == made
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_no_folder_of_this_machine_is_recorded(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cdasr", "x", "--noise=/home/me/noise", f"--out={tmp_path}/exp/a", "a/b.csv",
                                      "../sibling/set"])
    hparams = {"data_dir": "/home/me/fsdd", "url": "https://a.org/b.zip", "rates": (1, 2)}
    made = record(hparams=hparams, exp=tmp_path / "e")
    assert made["command"] == "cdasr x --noise=noise --out=exp/a a/b.csv set"
    assert made["settings"] == {"hparams": {"data_dir": "fsdd", "url": "https://a.org/b.zip", "rates": [1, 2]},
                                "exp": "e"}


def test_a_gpu_that_was_used_is_recorded(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    assert "gpu" not in machine()
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "Some GPU")
    assert machine()["gpu"] == "Some GPU"


def test_nothing_heavy_is_imported():
    code = ("import sys, cdasr.runtime.provenance as p; p.record(); "
            "print([m for m in ('torch', 'numpy') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
