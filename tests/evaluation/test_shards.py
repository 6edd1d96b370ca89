"""Shards: together they decode what one run decodes, to the last digit."""

import json

import pytest

from cdasr.cli import main
from cdasr.evaluation.evaluate import evaluate, read_decoded
from cdasr.evaluation.shards import batches, own_shard, parse_shard
from cdasr.speech.manifest import write_manifest

TIMES = ("seconds",)  # measured, so never the same twice


@pytest.fixture
def manifest(tmp_path, write_wav, tone):
    rows = []
    for number in range(7):
        wave = tone(0.4 + 0.05 * number, 200 + 50 * number)
        rows.append({"ID": f"u{number}", "duration": 0.4 + 0.05 * number, "wav": write_wav(f"{number}.wav", wave),
                     "text": "one two", "spk_id": f"s{number % 3}", "condition": "noise_5dB"})
    write_manifest(tmp_path / "set.csv", rows)
    return tmp_path / "set.csv"


def timeless(path):
    return [{key: value for key, value in entry.items() if key not in TIMES} for entry in read_decoded(path)]


def without_rtf(scores):
    return json.loads(json.dumps(scores["conditions"]), object_hook=lambda part: {
        key: value for key, value in part.items() if key != "rtf"})


def test_shards_merge_to_the_entries_of_one_run(manifest, package_dir, tmp_path, capsys):
    common = ["evaluate", "--manifest", str(manifest), "--model", str(package_dir), "--systems", "none,parallel",
              "--device", "cpu", "--batch-seconds", "1.2", "--output-dir"]
    assert main([*common, str(tmp_path / "one")]) == 0
    for shard in ("2/2", "1/2"):
        assert main([*common, str(tmp_path / "two"), "--shard", shard]) == 0
    assert not (tmp_path / "two" / "wer.json").exists() and "without --shard" in capsys.readouterr().out
    assert main([*common, str(tmp_path / "two")]) == 0
    for system in ("none", "parallel"):
        one, two = (tmp_path / name / "decode" / f"{system}.jsonl" for name in ("one", "two"))
        assert timeless(one) == timeless(two) and len(timeless(one)) == 7
        parts = [read_decoded(path) for path in (tmp_path / "two" / "shards").glob(f"*/decode/{system}.jsonl")]
        assert sorted(map(len, parts))[0] > 0 and sum(map(len, parts)) == 7
        taken = {entry["ID"]: entry for part in parts for entry in part}
        assert all(taken[entry["ID"]] == entry for entry in read_decoded(two)), "nothing was decoded again"
    one, two = (json.loads((tmp_path / name / "wer.json").read_text()) for name in ("one", "two"))
    assert without_rtf(one) == without_rtf(two)
    assert one["conditions"]["noise_5dB"]["parallel"]["by_speaker"]["count"] == 3


def test_shards_of_other_settings_are_refused(manifest, package_dir, tmp_path):
    evaluate(manifest, str(package_dir), ["none"], tmp_path / "out", device="cpu", seed=1, shard=(1, 2))
    with pytest.raises(ValueError, match="1of2 holds a shard of other settings; remove it"):
        evaluate(manifest, str(package_dir), ["none"], tmp_path / "out", device="cpu")
    evaluate(manifest, str(package_dir), ["none"], tmp_path / "out", device="cpu", overwrite=True)
    assert not list((tmp_path / "out" / "shards").glob("*"))


def test_batches_are_those_of_one_run_whatever_is_done():
    rows = [{"ID": str(number), "duration": 1 + number % 5} for number in range(23)]
    whole = list(batches(rows, set(), 7.0))
    assert sorted(row["ID"] for batch in whole for row in batch) == sorted(row["ID"] for row in rows)
    parts = [list(batches(rows, set(), 7.0, (number, 3))) for number in (1, 2, 3)]
    assert sorted(map(str, whole)) == sorted(str(batch) for part in parts for batch in part)
    done = {row["ID"] for row in (*whole[0], *whole[2][:1])}
    left = list(batches(rows, done, 7.0))
    assert left[:-1] == [whole[1], *whole[3:]] and left[-1] == whole[2][1:]


def test_a_shard_is_told_by_number_or_by_torchrun(monkeypatch):
    assert parse_shard("2/8") == (2, 8)
    for text in ("0/2", "3/2", "2", "a/b", "1/2/3", "-1/2", "auto"):
        with pytest.raises(ValueError, match="shard"):
            parse_shard(text)
    assert own_shard() is None
    with pytest.raises(ValueError, match="shard auto: RANK is not set; start it with torchrun"):
        own_shard(needed=True)
    as_process(monkeypatch, 1, 4)
    assert own_shard() == (2, 4)
    as_process(monkeypatch, 0, 1)
    assert own_shard() is None, "one process has it all"


def as_process(monkeypatch, rank, count):
    for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", count)):
        monkeypatch.setenv(name, str(value))


def test_torchrun_shares_the_work_and_its_first_process_scores(manifest, package_dir, tmp_path, monkeypatch, capsys):
    from cdasr.runtime import torchrun

    common = ["evaluate", "--manifest", str(manifest), "--model", str(package_dir), "--systems", "none,parallel",
              "--device", "cpu", "--batch-seconds", "1.2", "--output-dir"]
    assert main([*common, str(tmp_path / "one")]) == 0
    table, met = capsys.readouterr().out, []
    monkeypatch.setattr(torchrun, "wait_for_all", lambda: met.append(1))
    for rank in (2, 1, 0):  # the first one comes last, as if the others had waited for it
        as_process(monkeypatch, rank, 3)
        assert main([*common, str(tmp_path / "three")]) == 0
        assert (tmp_path / "three" / "wer.json").exists() == (rank == 0)
    assert len(met) == 3 and sorted(path.name for path in (tmp_path / "three/shards").iterdir()) == [
        "1of3", "2of3", "3of3"]
    shown = capsys.readouterr().out
    assert [line[:60] for line in shown.splitlines()[:4]] == [line[:60] for line in table.splitlines()[:4]]
    for system in ("none", "parallel"):
        assert timeless(tmp_path / "three/decode" / f"{system}.jsonl") == timeless(
            tmp_path / "one/decode" / f"{system}.jsonl")
    one, three = (json.loads((tmp_path / name / "wer.json").read_text()) for name in ("one", "three"))
    assert without_rtf(one) == without_rtf(three)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    import torch

    from cdasr.runtime.torchrun import own_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device("auto") == "auto", "without torchrun"
    as_process(monkeypatch, 1, 3)
    assert [own_device(device) for device in ("auto", "cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:1", "cuda:0", "cpu"]
    as_process(monkeypatch, 2, 3)
    with pytest.raises(ValueError, match="2 GPUs cannot serve 3 processes"):
        own_device("auto")
