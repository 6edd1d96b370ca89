"""Figures of a report as bytes: rates over SNR, rates against cost, calibration. Maps are in `html_maps.py`."""

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
TICKS = [digit * 10.0**power for power in range(-4, 5) for digit in (1, 2, 5)]
LOWEST = 0.01  # per cent, of intervals: a logarithmic axis has no 0
COLUMNS = 5  # panels in a line
PLACES = ((5, 4, "left"), (5, -11, "left"), (-5, 4, "right"), (-5, -11, "right"), (5, 15, "left"), (5, -22, "left"),
          (-5, 15, "right"), (-5, -22, "right"))  # of a point's name, in points from it


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
    """`rates_figure` as SVG; None without SNRs."""
    with figures() as plt:
        figure = rates_figure(plt, scores, domain)
        return None if figure is None else svg(plt, figure)


def rates_figure(plt, scores: Mapping, domain: Domain):
    """Rates over SNR: for each kind of noise a block with a panel for each system, or None without SNRs.

    A panel has its system in colour with its interval, the others in grey, and the first of all systems dotted. Kinds
    of a single SNR are left out where others have more: they are no curves.
    """
    kinds, systems = by_kind(scores), scores["systems"]
    if not kinds:
        return None
    kinds = {kind: points for kind, points in kinds.items() if len(points) > 1} or kinds
    columns = min(len(systems), COLUMNS)
    rows = -(-len(systems) // columns)
    figure = plt.figure(figsize=(max(1.0 + 2.05 * columns, 4.0), len(kinds) * (0.75 + 1.75 * rows)),
                        layout="constrained")
    for block, (kind, points) in zip(figure.subfigures(len(kinds), 1, squeeze=False)[:, 0], kinds.items()):
        axes = block.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for axis, own in zip(axes.flat, systems):
            for system in (*(name for name in systems if name != own), own):
                _curve(axis, points, system, domain, system == own, system == systems[0])
            axis.set_title(own, fontsize=9)
            axis.set_xticks([snr for snr, _ in points])
            axis.grid(alpha=0.3)
        for axis in axes.flat[len(systems):]:
            axis.set_axis_off()
        for axis in axes.flat[max(len(systems) - columns, 0):len(systems)]:  # the lowest of their columns
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("SNR, dB", fontsize=9)
        for line in axes:
            line[0].set_ylabel(f"{domain.evaluation.title} %")
        _log_axis(axes[0, 0], [entry[domain.rate] for part in scores["conditions"].values() for entry in part.values()],
                  domain)
        if len(kinds) > 1 or kind != "noise":
            block.suptitle(kind.replace("_", " "), fontsize=11)
    return figure


def _curve(axis, points: Sequence[tuple[float, Mapping]], system: str, domain: Domain, own: bool, first: bool) -> None:
    known = [(snr, point[system]) for snr, point in points if system in point]
    if not known:
        return
    at, entries = zip(*known)
    rates = [shown(entry[domain.rate], domain) for entry in entries]
    axis.plot(at, rates, color="C0" if own else "0.35" if first else "0.8", linestyle="-" if own or not first else ":",
              marker="o" if own else None, markersize=3.5, linewidth=1.6 if own else 1.1, zorder=2 + own, label=system)
    if own:
        bounds = np.array([[shown(bound, domain) for bound in entry["interval"]] for entry in entries])
        axis.fill_between(at, *np.maximum(bounds, LOWEST).T, color="C0", alpha=0.18, zorder=1)


def _log_axis(axis, rates: Sequence[float], domain: Domain) -> None:
    """Make the axis of error rates logarithmic where they are far apart; where some are 0, with a linear part below."""
    some = [rate for rate in rates if rate > 0]
    if domain.evaluation.accuracy or not some or max(some) < LOG_FROM * min(some):
        axis.set_ylim(0 if not domain.evaluation.accuracy else None, None)
        return
    from matplotlib.ticker import FixedLocator

    least = max(min(some), 0.1)
    if len(some) < len(rates):
        axis.set_yscale("symlog", linthresh=least, linscale=0.4)
        axis.set_ylim(-0.05 * least, 1.4 * max(some))
    else:
        axis.set_yscale("log")
        axis.set_ylim(0.6 * least, 1.4 * max(some))
    axis.yaxis.set_major_locator(FixedLocator([0, *(tick for tick in TICKS if 0.6 * least <= tick <= 1.4 * max(some))]))
    _plain_numbers(axis.yaxis)


def _plain_numbers(axis) -> None:
    """Ticks as plain numbers: those of a logarithmic axis are formulas otherwise, which are not drawn here."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


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
    each = "a second" if domain.evaluation.durations else "an item"
    return {f"{'RTF' if domain.evaluation.durations else 'time'}: seconds of computing for {each}": rtf,
            "NFE: evaluations of both networks": nfe}


def rates_against_cost(entries: Mapping[str, Mapping], domain: Domain) -> bytes:
    """The rate of each system against its cost, with the front of those that no other beats in both."""
    with figures() as plt:
        found = cost_points(entries, domain)
        figure, axes = plt.subplots(1, len(found), figsize=(11, 4.2), sharey=True, layout="constrained")
        for axis, (title, points) in zip(axes, found.items()):
            points = {name: (cost, shown(rate, domain)) for name, (cost, rate) in points.items()}
            front = pareto(found[title])
            axis.plot(*zip(*(points[name] for name in front)), color="C3", drawstyle="steps-post", alpha=0.5,
                      label="Pareto front")
            for name, point in points.items():
                axis.plot(*point, "o", color="C3" if name in front else "0.5")
            if "NFE" not in title and all(cost > 0 for cost, _ in points.values()):
                axis.set_xscale("log")
                _plain_numbers(axis.xaxis)
                axis.xaxis.set_major_locator(plt.matplotlib.ticker.FixedLocator(TICKS))
            axis.set_xlabel(title)
            axis.grid(alpha=0.3)
            axis.margins(x=0.15, y=0.12)
        axes[0].set_ylabel(f"{domain.evaluation.title} %")
        axes[0].legend(fontsize=8, loc="best")
        _log_axis(axes[0], [entry[domain.rate] for entry in entries.values()], domain)
        figure.draw_without_rendering()  # the names are placed by where the points are then
        for axis, points in zip(axes, found.values()):
            _name_points(figure, axis, {name: (cost, shown(rate, domain)) for name, (cost, rate) in points.items()})
        return svg(plt, figure)


def _name_points(figure, axis, points: Mapping[str, tuple[float, float]]) -> None:
    """The names of points beside them, each at the first of `PLACES` where it covers no other name and no point."""
    renderer, taken = figure.canvas.get_renderer(), []
    dots = [axis.transData.transform(point) for point in points.values()]
    for name, point in sorted(points.items(), key=lambda item: item[1]):
        for place in PLACES:
            label = axis.annotate(name, point, xytext=place[:2], textcoords="offset points", fontsize=8, ha=place[2])
            box = label.get_window_extent(renderer)
            inside = axis.bbox.x0 <= box.x0 and box.x1 <= axis.bbox.x1 and axis.bbox.y0 <= box.y0
            if inside and not any(box.overlaps(other) for other in taken) and not any(box.contains(*dot)
                                                                                      for dot in dots):
                break
            if place != PLACES[-1]:
                label.remove()
        taken.append(box)


def calibration(decoded: Mapping[str, Sequence[Mapping]], bins: int = 10) -> bytes | None:
    """How many of the words (or items) of a confidence are right, one panel a system; None without confidences."""
    pairs = {system: [(value, right) for entry in entries for value, right in zip(entry["confidence"],
                                                                                  entry["correct"])]
             for system, entries in decoded.items()}
    pairs = {system: np.array(found, float) for system, found in pairs.items() if found}
    if not pairs:
        return None
    columns = min(len(pairs), COLUMNS)
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
            axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlim=(-0.05, 1.05), ylim=(-0.05, 1.05))
            axis.grid(alpha=0.3)
        for axis in list(axes.flat)[len(pairs):]:
            axis.set_axis_off()
        figure.supxlabel("confidence", fontsize=9)
        figure.supylabel("share that is right", fontsize=9)
        return svg(plt, figure)
