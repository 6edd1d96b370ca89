"""Tables and plots of scores (`wer.json`), and the RESULTS.md that a recipe's last stage generates."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdasr.runtime.atomic import save_figure, write_text

MOST_INTERVALS = 5  # systems in a table that still has room for intervals


def table(scores: Mapping, markdown: bool = False) -> str:
    """Word error rates in per cent, conditions as rows, systems as columns; then what the systems cost.

    Each rate has its 95 % interval, in tables of many systems only their widest half-width is told. A dash stands
    where a system did not decode a condition.
    """
    systems = scores["systems"]
    entries = [entry for condition in scores["conditions"].values() for entry in condition.values()]
    widest = max((entry["interval"][1] - entry["interval"][0]) / 2 for entry in entries)
    narrow = len(systems) > MOST_INTERVALS
    lines = [["condition", "words", *systems]]
    for name, condition in scores["conditions"].items():
        rates = {system: f"{entry['wer']:.1f}" if narrow else rate_text(entry) for system, entry in condition.items()}
        lines.append([name, str(next(iter(condition.values()))["words"]), *(rates.get(name, "-") for name in systems)])
    title = f"WER % (95 % intervals: at most +-{widest:.1f})" if narrow else "WER % [95 % interval]"
    return f"{title}\n" + ("\n" if markdown else "") + f"{render(lines, markdown)}\n\n{costs(scores, markdown)}"


def costs(scores: Mapping, markdown: bool = False) -> str:
    """SI-SDR, use of the confidences, network evaluations and real-time factor, over the conditions that all have.

    SI-SDR leaves out conditions without it, such as clean ones. ECE is the expected calibration error of the words'
    confidences; the last WER is that of the 80 % of the utterances that the system is surest of.
    """
    common = [condition for condition in scores["conditions"].values() if condition.keys() >= set(scores["systems"])]
    if not common:
        return "No condition was decoded by all systems."
    keys = list(common[0][scores["systems"][0]]["nfe"])
    lines = [["system", "SI-SDR dB", *(f"NFE {key}" for key in keys), "RTF", "ECE", "WER % of the surest 80 %"]]
    for system in scores["systems"]:
        entries = [condition[system] for condition in common]
        lines.append([system, mean_text(entries, "si_sdr", 1),
                      *(f"{sum(entry['nfe'][key] for entry in entries) / len(entries):g}" for key in keys),
                      mean_text(entries, "rtf", 3), mean_text(entries, "calibration_error", 3),
                      mean_text(entries, "wer_surest", 1)])
    return render(lines, markdown)


def mean_text(entries: Sequence[Mapping], key: str, digits: int) -> str:
    """The mean of what the entries have of `key`, for a table."""
    known = [entry[key] for entry in entries if entry[key] is not None]
    return f"{sum(known) / len(known):.{digits}f}" if known else "-"


def averages(scored: Mapping[str, Mapping], systems: Sequence[str], reference: str, markdown: bool = True) -> str:
    """Averages `{title: scores by system}` with the change against `reference`, its interval and paired p-value."""
    lines = [["average over", "words", "system", "WER %", f"relative to {reference}, %", f"p against {reference}"]]
    for title, scores in scored.items():
        for system in filter(scores.__contains__, systems):
            entry, base = scores[system], scores[reference]["wer"]
            p_value = entry["p_values"].get(reference)
            lines.append([title, str(entry["words"]), system, rate_text(entry),
                          "" if p_value is None else _change(entry["wer"], base, entry["relative"][reference]),
                          "" if p_value is None else p_text(p_value)])
    return render(lines, markdown)


def comparisons(scores: Mapping, systems: Sequence[str], references: Sequence[str], markdown: bool = True) -> str:
    """The change of each of `systems` against each of `references` in per cent, with interval and paired p-value."""
    lines = [["WER relative to, %", *references]]
    for system in systems:
        entry = scores[system]
        lines.append([system, *(f"{_change(entry['wer'], scores[other]['wer'], entry['relative'][other])}, "
                                f"p {p_text(entry['p_values'][other])}" for other in references)])
    return render(lines, markdown)


def render(lines: Sequence[Sequence[str]], markdown: bool) -> str:
    """A table whose first line is the header."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in lines]
    rule = ["-" * width for width in widths]
    if markdown:
        return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))
    return "\n".join("  ".join(line).rstrip() for line in (padded[0], rule, *padded[1:]))


def plot_wer_by_snr(scores: Mapping, path: str | os.PathLike) -> None:
    """WER over SNR for each system, one panel for each kind of condition named `<kind>_<snr>dB`, with intervals."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    kinds: dict[str, list[tuple[float, Mapping]]] = {}
    for name, condition in scores["conditions"].items():
        if match := re.fullmatch(r"(.*?)_?(-?[\d.]+)dB", name):
            kinds.setdefault(match[1], []).append((float(match[2]), condition))
    if not kinds:
        return
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.8 * len(kinds), 3.6), sharey=True, squeeze=False,
                                layout="constrained")
    for axis, (kind, points) in zip(axes[0], kinds.items()):
        points.sort(key=lambda point: point[0])
        snrs = [snr for snr, _ in points]
        for number, system in enumerate(scores["systems"]):  # of one colour in every panel
            if known := [(snr, point[system]) for snr, point in points if system in point]:
                at, entries = zip(*known)
                axis.plot(at, [entry["wer"] for entry in entries], f"C{number}", marker="o", label=system)
                axis.fill_between(at, *zip(*(entry["interval"] for entry in entries)), color=f"C{number}", alpha=0.15)
        axis.set(title=f"{kind} noise", xlabel="SNR (dB)", xticks=snrs)
        axis.grid(alpha=0.3)
    axes[0, 0].set(ylabel="WER (%)", ylim=(0, None))
    shown = {line.get_label(): line for axis in axes[0] for line in axis.lines}
    figure.legend(handles=[shown[system] for system in scores["systems"] if system in shown], fontsize="small",
                  loc="outside right upper")  # ten systems would hide curves
    save_figure(figure, path)
    plt.close(figure)


def extra_errors(found: Mapping, few: int, many: int, rate: str) -> float | None:
    """Points of error rate that `few` steps of both processes have above `many`; None where `found` lacks either."""
    rates = {entry["variant"]: entry[rate] for entry in found["variants"]}
    first, last = (rates.get(f"{found['strategy']}, {count} + {count} steps") for count in (few, many))
    return None if first is None or last is None else first - last


def training_seeds(folders: Sequence[Path], stage: str) -> list[int]:
    """The training seed of each run, as the record of one of its stages has it."""
    records = (json.loads((folder / stage / "record.json").read_text(encoding="utf-8")) for folder in folders)
    return [record["settings"]["hparams"]["training_seed"] for record in records]


def write_results(path: str | os.PathLike, title: str, record: Mapping, sections: Sequence[tuple[str, str]]) -> None:
    """Write RESULTS.md from `sections` (heading, Markdown); the same record and sections give the same bytes."""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    lines = [f"# {title}", "", f"Generated from the scored runs; measured {record['time'][:10]} with commit "
             f"`{(record['commit'] or 'unknown')[:12]}` on {record['machine']['cores']} cores "
             f"({record['settings']['device']}, {record['settings']['threads']} threads); {versions}.", "",
             f"Decoded by `{record['command']}`, seed {record['settings']['seed']}.", ""]
    for heading, body in sections:
        lines += [f"## {heading}", "", body.strip(), ""]
    write_text(path, "\n".join(lines))


def _change(rate: float, base: float, bounds: Sequence[float] | None) -> str:
    if not base:
        return "-"  # nothing to reduce
    return f"{100 * (rate - base) / base:+.1f}" + (f" [{bounds[0]:+.1f}, {bounds[1]:+.1f}]" if bounds else "")


def p_text(value: float) -> str:
    """A p-value for a table."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def rate_text(entry: Mapping) -> str:
    """A word error rate in per cent with its interval, for a table."""
    low, high = entry["interval"]
    return f"{entry['wer']:.1f} [{low:.1f}, {high:.1f}]"
