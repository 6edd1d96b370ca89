"""Records say where a result comes from and nothing about the machine's folders."""

import json
import sys

from cdasr.provenance import record, write_json


def test_a_record_has_what_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["/some/where/bin/cdasr", "evaluate", "--manifest", "/home/me/data/set.csv"])
    made = record(seed=3)
    assert made["command"] == "cdasr evaluate --manifest set.csv" and made["settings"] == {"seed": 3}
    assert made["versions"]["torch"] and made["versions"]["python"] and made["machine"]["cores"] >= 1
    assert "/home" not in json.dumps(made)
    write_json(tmp_path / "deep" / "record.json", made)
    assert json.loads((tmp_path / "deep" / "record.json").read_text()) == made
    assert len(list((tmp_path / "deep").iterdir())) == 1
