"""Maps of a report as SVG: rates as coloured numbers, by noise and SNR, and by condition and system."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cdasr.coupled.domain import Domain
from cdasr.evaluation.html_figures import COLUMNS, by_kind, figures, parse_condition, svg
from cdasr.evaluation.report import shown

FEWEST = 3  # conditions without an SNR, for a map of them


def snr_maps(scores: Mapping, domain: Domain) -> bytes | None:
    """A map of kinds of noise and SNRs for each system; None without SNRs."""
    kinds, systems = by_kind(scores), scores["systems"]
    snrs = sorted({snr for points in kinds.values() for snr, _ in points})
    if not snrs:
        return None
    cells = {system: np.array([[_rate(dict(points).get(snr, {}), system, domain) for snr in snrs]
                               for points in kinds.values()]) for system in systems}
    top = max(np.nanmax(cell, initial=1.0) for cell in cells.values())
    columns = min(len(systems), COLUMNS)
    rows = -(-len(systems) // columns)
    with figures() as plt:
        figure, axes = plt.subplots(rows, columns, figsize=(1 + columns * max(0.5 + 0.45 * len(snrs), 1.4),
                                                            0.5 + rows * (0.5 + 0.35 * len(kinds))),
                                    squeeze=False, layout="constrained", sharex=True, sharey=True)
        for axis, (system, cell) in zip(axes.flat, cells.items()):
            _draw(plt, axis, cell, top, domain)
            axis.set_title(system, fontsize=9)
            axis.set_xticks(range(len(snrs)), [f"{snr:g}" for snr in snrs])
            axis.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
        for axis in axes.flat[len(systems):]:
            axis.set_axis_off()
        for axis in axes.flat[max(len(systems) - columns, 0):len(systems)]:  # the lowest of their columns
            axis.tick_params(labelbottom=True)
        figure.supxlabel("SNR, dB", fontsize=9)
        return svg(plt, figure)


def other_map(scores: Mapping, domain: Domain) -> bytes | None:
    """One map of the conditions without an SNR (rooms, codecs, ...) and the systems; None where there are few."""
    systems = scores["systems"]
    found = {name: part for name, part in scores["conditions"].items() if parse_condition(name) is None}
    if len(found) < FEWEST:
        return None
    cells = np.array([[_rate(part, system, domain) for system in systems] for part in found.values()])
    with figures() as plt:
        figure, axis = plt.subplots(figsize=(1.6 + 0.85 * len(systems), 0.7 + 0.27 * len(found)), layout="constrained")
        _draw(plt, axis, cells, np.nanmax(cells, initial=1.0), domain)
        axis.set_xticks(range(len(systems)), systems)
        axis.xaxis.tick_top()
        axis.set_yticks(range(len(found)), list(found))
        return svg(plt, figure)


def _rate(part: Mapping, system: str, domain: Domain) -> float:
    return shown(part[system][domain.rate], domain) if system in part else np.nan


def _draw(plt, axis, cells: np.ndarray, top: float, domain: Domain) -> None:
    """Cells (rows, columns) of rates up to `top`, each with its number; small rates differ in colour too."""
    accuracy = domain.evaluation.accuracy
    colours = plt.matplotlib.colors.PowerNorm(1.0 if accuracy else 0.5, 0, top)
    axis.imshow(cells, cmap="YlGn" if accuracy else "YlOrRd", norm=colours, aspect="auto")
    for (row, column), rate in np.ndenumerate(cells):
        if np.isfinite(rate):
            axis.text(column, row, f"{rate:.1f}", ha="center", va="center", fontsize=8,
                      color="white" if colours(rate) > 0.7 else "black")
