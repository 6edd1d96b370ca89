"""Figures of a report as bytes: rates over SNR, heat maps of noise and SNR, rates against cost, calibration."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from cdasr.coupled.domain import Domain
from cdasr.evaluation.report import shown

CONDITION = re.compile(r"(?:(?P<kind>.*?)_?(?P<snr>-?[\d.]+)dB|(?P<other>.*?)_?snr(?P<level>-?\d+(?:\.\d+)?))")
LOG_FROM = 3.0  # ratio of the largest and smallest rate from which an axis is logarithmic


def parse_condition(name: str) -> tuple[str, float] | None:
    """Kind of noise and SNR in dB of `<kind>_<snr>dB`, or of `snr<snr>` as `cdasr simulate` has it; else None."""
    match = CONDITION.fullmatch(name)
    return match and (match["kind"] or match["other"] or "noise", float(match["snr"] or match["level"]))


def by_kind(scores: Mapping) -> dict[str, list[tuple[float, Mapping]]]:
    """SNR and scores of the conditions of each kind of noise, in the order of SNRs."""
    kinds: dict[str, list[tuple[float, Mapping]]] = {}
    for name, condition in scores["conditions"].items():
        if found := parse_condition(name):
            kinds.setdefault(found[0], []).append((found[1], condition))
    return {kind: sorted(points, key=lambda point: point[0]) for kind, points in kinds.items()}


@contextmanager
def figures() -> Iterator[tuple]:
    """pyplot without a screen, that reads no formulas in names, and writes the same bytes again."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"text.parse_math": False, "svg.hashsalt": "cdasr", "font.size": 9}):
        yield plt


def svg(plt, figure) -> bytes:
    """A figure as SVG; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def rates_over_snr(scores: Mapping, domain: Domain) -> bytes | None:
    """One panel for each system and kind of noise, the other systems in grey behind it; None without SNRs."""
    kinds, systems = by_kind(scores), scores["systems"]
    if not kinds:
        return None
    with figures() as plt:
        figure, axes = plt.subplots(len(kinds), len(systems), figsize=(1.2 + 1.9 * len(systems), 0.7 + 2 * len(kinds)),
                                    sharex="row", sharey=True, squeeze=False, layout="constrained")
        for line, (kind, points) in zip(axes, kinds.items()):
            for axis, own in zip(line, systems):
                for system in (*(name for name in systems if name != own), own):
                    _curve(axis, points, system, domain, system == own)
                axis.set_title(own if len(kinds) == 1 else f"{own}, {kind}", fontsize=9)
                axis.set_xticks([snr for snr, _ in points])
                axis.grid(alpha=0.3)
            line[0].set_ylabel(f"{domain.evaluation.title} %")
        _log_axis(axes[0, 0], scores, domain)
        figure.supxlabel("SNR, dB", fontsize=9)
        return svg(plt, figure)


def _curve(axis, points: Sequence[tuple[float, Mapping]], system: str, domain: Domain, own: bool) -> None:
    known = [(snr, point[system]) for snr, point in points if system in point]
    if not known:
        return
    at, entries = zip(*known)
    rates = [shown(entry[domain.rate], domain) for entry in entries]
    axis.plot(at, rates, color="C0" if own else "0.8", marker="o" if own else None, markersize=3, zorder=3 - (not own))
    if own:
        bounds = [[shown(bound, domain) for bound in entry["interval"]] for entry in entries]
        axis.fill_between(at, *zip(*bounds), color="C0", alpha=0.18, zorder=1)


def _log_axis(axis, scores: Mapping, domain: Domain) -> None:
    """Make the axis of error rates logarithmic where they are far apart; rates of 0 stay on a linear part below."""
    rates = [entry[domain.rate] for part in scores["conditions"].values() for entry in part.values()]
    some = [rate for rate in rates if rate > 0]
    if domain.evaluation.accuracy or not some or max(some) < LOG_FROM * min(some):
        axis.set_ylim(0 if not domain.evaluation.accuracy else None, None)
        return
    from matplotlib.ticker import FuncFormatter, NullFormatter

    least = max(min(some), 0.1)
    axis.set_yscale("symlog", linthresh=least, linscale=0.4)
    axis.set_ylim(0, None)
    ticks = [0, *(tick for tick in (0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if least <= tick <= 1.3 * max(some))]
    axis.set_yticks(ticks)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def heat_maps(scores: Mapping, domain: Domain) -> bytes | None:
    """A map of kinds of noise and SNRs for each system; None without SNRs."""
    kinds, systems = by_kind(scores), scores["systems"]
    snrs = sorted({snr for points in kinds.values() for snr, _ in points})
    if not snrs:
        return None
    cells = {system: np.array([[shown(dict(points).get(snr, {}).get(system, {domain.rate: np.nan})[domain.rate], domain)
                                for snr in snrs] for points in kinds.values()]) for system in systems}
    top = max(np.nanmax(cell, initial=1.0) for cell in cells.values())
    columns = min(len(systems), 5)
    rows = -(-len(systems) // columns)
    with figures() as plt:
        figure, axes = plt.subplots(rows, columns, figsize=(1 + columns * (0.7 + 0.45 * len(snrs)),
                                                            rows * (0.9 + 0.35 * len(kinds))),
                                    squeeze=False, layout="constrained", sharex=True, sharey=True)
        for axis, (system, cell) in zip(axes.flat, cells.items()):
            axis.imshow(cell, cmap="YlOrRd" if not domain.evaluation.accuracy else "YlGn", vmin=0, vmax=top,
                        aspect="auto")
            for (row, column), rate in np.ndenumerate(cell):
                if np.isfinite(rate):
                    axis.text(column, row, f"{rate:.1f}", ha="center", va="center", fontsize=7,
                              color="white" if rate > 0.65 * top else "black")
            axis.set_title(system, fontsize=9)
            axis.set_xticks(range(len(snrs)), [f"{snr:g}" for snr in snrs])
            axis.set_yticks(range(len(kinds)), list(kinds))
        for axis in list(axes.flat)[len(systems):]:
            axis.set_axis_off()
        figure.supxlabel("SNR, dB", fontsize=9)
        return svg(plt, figure)


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names of `{name: (cost, rate)}` than which none is at once as cheap and as good, and better in one of both;
    in the order of their costs."""
    front, best = [], float("inf")
    for name, (_, rate) in sorted(points.items(), key=lambda item: item[1]):
        if rate < best:
            front.append(name)
            best = rate
    return front


def cost_points(entries: Mapping[str, Mapping], domain: Domain) -> dict[str, dict[str, tuple[float, float]]]:
    """Cost and error rate of each system, by what the cost is: real-time factor, evaluations of both processes."""
    rtf = {name: (entry["rtf"], entry[domain.rate]) for name, entry in entries.items()}
    nfe = {name: (float(entry["nfe"].get("signal", 0) + entry["nfe"].get("logits", 0)), entry[domain.rate])
           for name, entry in entries.items()}
    return {"seconds of computing for a second" if domain.evaluation.durations else "seconds for an item": rtf,
            "evaluations of both networks (NFE)": nfe}


def rates_against_cost(entries: Mapping[str, Mapping], domain: Domain) -> bytes:
    """The rate of each system against its cost, with the front of those that no other beats in both."""
    with figures() as plt:
        found = cost_points(entries, domain)
        figure, axes = plt.subplots(1, len(found), figsize=(10, 3.8), sharey=True, layout="constrained")
        for axis, (title, points) in zip(axes, found.items()):
            front = pareto(points)
            axis.plot([points[name][0] for name in front], [shown(points[name][1], domain) for name in front],
                      color="C3", drawstyle="steps-post", alpha=0.6, label="Pareto front")
            for name, (cost, rate) in points.items():
                axis.plot(cost, shown(rate, domain), "o", color="C3" if name in front else "0.5")
                axis.annotate(name, (cost, shown(rate, domain)), xytext=(4, 4), textcoords="offset points", fontsize=8)
            if "NFE" not in title and all(cost > 0 for cost, _ in points.values()):
                axis.set_xscale("log")
            axis.set_xlabel(title)
            axis.margins(0.15)
            axis.grid(alpha=0.3)
        axes[0].set_ylabel(f"{domain.evaluation.title} %")
        axes[0].legend(fontsize=8)
        return svg(plt, figure)


def calibration(decoded: Mapping[str, Sequence[Mapping]], bins: int = 10) -> bytes | None:
    """How many of the words (or items) of a confidence are right, one panel a system; None without confidences."""
    pairs = {system: [(value, right) for entry in entries for value, right in zip(entry["confidence"],
                                                                                  entry["correct"])]
             for system, entries in decoded.items()}
    pairs = {system: np.array(found, float) for system, found in pairs.items() if found}
    if not pairs:
        return None
    columns = min(len(pairs), 5)
    rows = -(-len(pairs) // columns)
    with figures() as plt:
        figure, axes = plt.subplots(rows, columns, figsize=(0.6 + 2.1 * columns, 0.5 + 2.1 * rows), squeeze=False,
                                    sharex=True, sharey=True, layout="constrained")
        for axis, (system, found) in zip(axes.flat, pairs.items()):
            place = np.minimum((found[:, 0] * bins).astype(int), bins - 1)
            count = np.bincount(place, minlength=bins)
            used = count > 0
            mean = [np.bincount(place, part, minlength=bins)[used] / count[used] for part in found.T]
            axis.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
            axis.plot(*mean, color="C0", linewidth=0.8)
            axis.scatter(*mean, s=4 + 80 * count[used] / count.max(), color="C0")
            axis.set_title(system, fontsize=9)
        for axis in list(axes.flat)[len(pairs):]:
            axis.set_axis_off()
        figure.supxlabel("confidence", fontsize=9)
        figure.supylabel("share that is right", fontsize=9)
        return svg(plt, figure)
