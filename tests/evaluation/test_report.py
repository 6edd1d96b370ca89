"""Tables say what was scored; RESULTS.md is the same bytes whenever it is made from the same scores."""

import re

import numpy as np
import pytest

from cdasr.evaluation.experiment import extra_errors
from cdasr.evaluation.plots import plot_rates_by_snr
from cdasr.evaluation.report import averages, table, write_results
from cdasr.evaluation.scoring import pooled, score, score_by_clean_answer, score_conditions
from cdasr.speech.domain import SPEECH

CONDITIONS = ("clean", "seen_0dB", "seen_5dB", "unseen_0dB", "unseen_5dB")
RECORD = {"time": "2024-05-06T23:59:59+00:00", "command": "cdasr evaluate --manifest set.csv", "commit": "abcdef" * 6,
          "versions": {"python": "3.11", "torch": "2.11", "pesq": None}, "machine": {"cores": 2},
          "settings": {"device": "cpu", "threads": 2, "seed": 7}}


@pytest.fixture(scope="module")
def decoded():
    """40 utterances of 5 words a condition: `none` errs in half of the words in noise, `enhanced` in a fifth."""
    rng = np.random.default_rng(0)
    return {system: [entry(f"{name}{number}", name, 0 if name == "clean" else rng.binomial(5, rate), quality)
                     for name in CONDITIONS for number in range(40)]
            for system, rate, quality in (("none", 0.5, 2.0), ("enhanced", 0.2, 12.0))}


def entry(name, condition, errors, quality):
    made = {"ID": name, "condition": condition, "errors": int(errors), "words": 5, "duration": 2.0, "seconds": 0.1,
            "confidence": [0.9] * 5, "correct": [True] * (5 - int(errors)) + [False] * int(errors),
            "nfe": {"signal": 3, "logits": 0, "classifier": 1}}
    return made if condition == "clean" else {**made, "si_sdr": quality, "si_sdr_input": 2.0}


def test_table_has_every_condition_with_counts_and_intervals(decoded):
    scores = score(decoded, SPEECH, CONDITIONS[::-1])
    text = table(scores, SPEECH)
    assert re.findall(r"^(\S+)\s+200 ", text, re.MULTILINE) == list(CONDITIONS[::-1])
    assert re.search(r"clean\s+200\s+0\.0 \[0\.0, 1\.9\]\s+0\.0 \[0\.0, 1\.9\]", text), "Wilson: nothing was wrong"
    counted = 100 * sum(e["errors"] for e in decoded["none"] if e["condition"] == "seen_0dB") / 200
    assert re.search(rf"seen_0dB\s+200\s+{counted:.1f} \[", text)
    assert re.search(r"enhanced\s+12\.0\s+3\s+0\s+1\s+0\.050", text), "the clean condition has no SI-SDR"


def test_averages_have_the_relative_change_with_interval_and_p_value(decoded):
    scored = {"seen, 0 and 5 dB": score_conditions(decoded, SPEECH, ["seen_0dB", "seen_5dB"]),
              "clean": score_conditions(decoded, SPEECH, ["clean"])}
    noisy, clean = scored.values()
    shown = averages(scored, SPEECH, ["none", "enhanced"], "none")
    row = next(line for line in shown.splitlines() if "enhanced" in line)
    change, low, high = map(float, re.search(r"\| (-[\d.]+) \[(-[\d.]+), (-[\d.]+)\]", row).groups())
    assert change == pytest.approx(100 * (noisy["enhanced"]["wer"] / noisy["none"]["wer"] - 1), abs=0.06)
    assert low < change < high < -40.0 and "< 0.001" in row and "| 400 " in row
    assert clean["enhanced"]["relative"]["none"] is None and clean["enhanced"]["p_values"]["none"] == 1.0
    assert re.search(r"enhanced \| 0\.0 \[0\.0, 1\.9\]\s+\| -\s+\| 1\.000\s+\| 1\.000", shown)


def test_utterances_are_parted_by_the_answer_to_clean_speech():
    noisy, errors = ("unseen_0dB", "unseen_5dB"), {"none": 4, "enhanced": 1}
    decoded = {system: [entry(f"u{number}_{condition}", condition, (number == 0) if condition == "clean" else
                              5 if number == 0 else count, 2.0) for condition in ("clean", *noisy)
                        for number in range(4)] for system, count in errors.items()}
    parts = score_by_clean_answer(decoded, SPEECH, noisy)
    for title, words, rates in (("right when clean", 30, [80.0, 20.0]),
                                ("wrong when clean", 10, [100.0, 100.0])):
        assert [parts[title][system]["wer"] for system in errors] == rates
        assert parts[title]["none"]["words"] == words
    alone = {"enhanced": decoded["enhanced"]}
    assert not score_by_clean_answer(alone, SPEECH, noisy), "there is no telling without `none`"


def test_seeds_are_pooled_item_by_item(decoded):
    again = {"none": decoded["none"][::-1], "enhanced": [{**entry, "errors": 5} for entry in decoded["enhanced"][1:]]}
    both = pooled([decoded, again], SPEECH)
    assert {entry["ID"] for entry in decoded["enhanced"]} - {entry["ID"] for entry in both["enhanced"]} == {"clean0"}
    first, second = ({entry["ID"]: entry for entry in run["none"]} for run in (decoded, both))
    assert all(second[name]["errors"] == 2 * first[name]["errors"] and second[name]["words"] == 10 for name in first)
    scores = score_conditions(both, SPEECH, ["seen_0dB", "seen_5dB"])
    alone = score_conditions(decoded, SPEECH, ["seen_0dB", "seen_5dB"])
    assert scores["none"]["wer"] == alone["none"]["wer"] and scores["none"]["interval"] == alone["none"]["interval"]
    assert scores["enhanced"]["wer"] == pytest.approx((alone["enhanced"]["wer"] + 100.0) / 2)
    assert list(pooled([decoded, {"none": decoded["none"]}], SPEECH)) == ["none"]


def test_results_are_the_same_bytes_again(decoded, tmp_path):
    for name in ("a.md", "b.md"):
        scores = score(decoded, SPEECH)
        sections = [("WER", table(scores, SPEECH, markdown=True)), ("More", " free \n")]
        write_results(tmp_path / name, "Results", RECORD, sections)
    text = (tmp_path / "a.md").read_text()
    assert (tmp_path / "b.md").read_text() == text
    for words in ("# Results", "measured 2024-05-06", "`abcdefabcdef`", "python 3.11, torch 2.11.", "seed 7",
                  "`cdasr evaluate --manifest set.csv`", "## WER", "| unseen_5dB |", "## More\n\nfree\n"):
        assert words in text


def test_plot_has_a_panel_for_each_kind_of_noise(decoded, tmp_path):
    plot_rates_by_snr(score(decoded, SPEECH), SPEECH, tmp_path / "wer.png")
    assert (tmp_path / "wer.png").read_bytes()[:4] == b"\x89PNG"
    plot_rates_by_snr(score({"none": [entry("a", "clean", 1, 0.0)]}, SPEECH), SPEECH, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists(), "no condition has an SNR"


def test_each_system_has_a_panel_of_its_own_for_each_kind_of_noise(decoded, tmp_path, monkeypatch):
    parts = {"none": decoded["none"], "enhanced": [part for part in decoded["enhanced"] if "unseen" in part["ID"]],
             "card": decoded["enhanced"]}
    kept = []
    monkeypatch.setattr("matplotlib.pyplot.close", kept.append)
    plot_rates_by_snr(score(parts, SPEECH), SPEECH, tmp_path / "wer.png")
    seen, unseen = kept[0].subfigs
    assert [part.get_suptitle() for part in (seen, unseen)] == ["seen", "unseen"]
    for block, systems in ((seen, ["none", "card"]), (unseen, ["none", "enhanced", "card"])):
        assert [axis.get_title() for axis in block.axes] == ["none", "enhanced", "card"]
        for axis in block.axes:
            colours = {line.get_label(): line.get_color() for line in axis.lines}
            assert sorted(colours) == sorted(systems)
            assert [name for name, colour in colours.items() if colour == "C0"] == (
                [axis.get_title()] if axis.get_title() in systems else [])


def test_ten_low_curves_are_drawn_on_a_logarithmic_axis_with_plain_numbers(tmp_path, monkeypatch):
    from cdasr.evaluation.html_figures import figures, rates_figure

    names = [f"system{number}" for number in range(10)]
    def condition(snr):
        return {name: {"wer": rate, "interval": [0.0, 2 * rate]} for name, rate in zip(names, (
            0.0 if snr else 60.0, *(1.0 + number for number in range(9))))}
    scores = {"systems": names, "conditions": {"snr0": condition(0), "snr5": condition(5)}}
    with figures() as plt:
        figure = rates_figure(plt, scores, SPEECH)
        figure.canvas.draw()
        axes = [axis for axis in figure.subfigs[0].axes if axis.axison]
        assert len(axes) == 10 and {axis.get_yscale() for axis in axes} == {"symlog"}
        ticks = [label.get_text() for label in axes[0].get_yticklabels()]
        assert ticks[:4] == ["0", "1", "2", "5"] and ticks[-1] == "50"
        low, high = axes[1].transData.transform([(0, 1.0), (0, 2.0)])[:, 1]
        assert high - low > 10, "rates of 1 and 2 % are apart where others are 60 %"
        plt.close(figure)


def test_single_snrs_are_no_curves_and_what_has_no_snr_has_a_map(tmp_path):
    from cdasr.evaluation.html_figures import figures, rates_figure
    from cdasr.evaluation.html_maps import other_map, snr_maps

    part = {"none": {"wer": 12.3, "interval": [10.0, 15.0]}, "card": {"wer": 0.4, "interval": [0.0, 1.0]}}
    names = ["clean", "city_0dB", "city_5dB", "reverb_city_5dB", "mp3_32k", "clip_20"]
    scores = {"systems": ["none", "card"], "conditions": {name: dict(part) for name in names}}
    del scores["conditions"]["clip_20"]["card"]
    with figures() as plt:
        figure = rates_figure(plt, scores, SPEECH)
        assert [block.get_suptitle() for block in figure.subfigs] == ["city"]
        plt.close(figure)
    drawn = other_map(scores, SPEECH).decode()
    assert drawn.count("<!-- 12.3 -->") == 3 and drawn.count("<!-- 0.4 -->") == 2, "a system did not decode clip_20"
    assert "<!-- mp3_32k -->" in drawn and "reverb" not in drawn
    assert "<!-- reverb city -->" in snr_maps(scores, SPEECH).decode()
    del scores["conditions"]["mp3_32k"]
    assert other_map(scores, SPEECH) is None, "the table says it"


def test_the_names_of_points_do_not_cover_each_other():
    from cdasr.evaluation.html_figures import rates_against_cost

    entries = {f"system{number}": {"wer": 10.0 + 0.1 * number, "rtf": 0.02 + 0.0005 * number,
                                   "nfe": {"signal": 2, "logits": 2, "classifier": 1}} for number in range(4)}
    drawn = rates_against_cost(entries, SPEECH).decode()
    assert "mathdefault" not in drawn and "RTF: seconds of computing" in drawn and drawn.count("system3") == 2



def test_extra_errors_of_few_steps_are_those_of_the_ablated_strategy():
    found = {"strategy": "parallel", "variants": [{"variant": "parallel, as the package runs it", "wer": 8.0},
                                                  {"variant": "parallel, 4 + 4 steps", "wer": 7.5},
                                                  {"variant": "parallel, 50 + 50 steps", "wer": 7.0}]}
    assert extra_errors(found, 4, 50, "wer") == 0.5
    assert extra_errors(found, 4, 16, "wer") is None
