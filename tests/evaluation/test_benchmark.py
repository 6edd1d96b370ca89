"""Speed and memory: every system is measured, and the numbers are those of what ran."""

import json

import pytest
import torch

from cdasr.cli import main
from cdasr.evaluation.benchmark import PeakMemory, benchmark_models, markdown, measure
from cdasr.speech.published import PUBLISHED, published_models


def test_the_published_network_is_measured_under_both_samplers(monkeypatch):
    network = {"nf": 4, "ch_mult": [1, 1, 1, 1, 1], "num_res_blocks": 1, "attn_resolutions": []}
    bridge, public = (config["sampling"] for config in PUBLISHED.values())
    assert (bridge["steps"], public["steps"], public["method"]) == (4, 30, "pc")
    monkeypatch.setitem(public, "steps", 8)
    found = benchmark_models(published_models("cpu", seconds=0.1, network=network), "cpu", 0.1, repeats=1)
    assert [row["evaluations"] for row in found] == [4, 16]
    assert found[1]["cpu"] > found[0]["cpu"] > 0
    table = markdown(found)
    assert table.count("\n| NCSN++ v2") == 2 and "0.1 s of audio" in table


def test_time_is_that_of_the_repeats():
    ran = []

    def run():
        ran.append(sum(range(200_000)))
        return 7

    found = measure(run, 2.0, 3, "cpu")
    assert len(ran) == 3 and found["evaluations"] == 7 and 0 < found["cpu"] <= 3 * found["rtf"] + 0.01


def test_peak_memory_sees_what_was_allocated():
    with PeakMemory("cpu", interval=0.001) as before:
        torch.zeros(10).sum()
    if before.peak is None:
        pytest.skip("the system does not say")
    with PeakMemory("cpu", interval=0.001) as during:
        kept = torch.ones(60_000_000)  # 0.24 GB
        for _ in range(5):
            kept.mul_(1.0)
    assert during.peak - before.peak > 0.2


def test_every_strategy_of_a_package_from_the_command_line(package_dir, capsys):
    command = ["benchmark", "--model", str(package_dir), "--seconds", "0.4", "--repeats", "1", "--device", "cpu"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["system"]: row for row in found["measured"]}
    assert set(rows) == {"none", "enhanced", "oa", "fused", "card", "cascade", "parallel", "alternating", "nested"}
    assert rows["none"]["evaluations"] == 0 and rows["enhanced"]["evaluations"] == 2
    assert all(row["rtf"] > 0 and row["precision"] == "fp32" for row in rows.values())
    assert found["record"]["versions"]["torch"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("| system | precision | evaluations | RTF |")
