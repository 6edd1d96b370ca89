"""`cdasr report`: what runs measured as one self-contained HTML page, and as Markdown with its figures beside it.

The page fetches nothing. Texts that come from data (names, transcripts) are escaped; see `html_page.text`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cdasr.coupled.evaluation import p_text
from cdasr.evaluation import html_figures, html_maps, html_page
from cdasr.evaluation.html_examples import MOST_BYTES, Example, show, worst
from cdasr.evaluation.html_runs import Run, find_runs
from cdasr.evaluation.report import difference, interval_text, mean_text, rate_text, render, shown
from cdasr.evaluation.statistics import holm
from cdasr.runtime.atomic import write_bytes, write_text
from cdasr.runtime.outputs import check_folder

MOST_NAMED = 4  # conditions, in words about a mean
Media = Callable[[Run], Callable[[str], Example | None]]  # of a run: sound and picture of an ID


@dataclass(frozen=True)
class Part:
    """A piece of a section: a table, a figure (SVG, its caption in `words`), HTML of its own, or words alone."""

    words: str = ""
    lines: Sequence[Sequence[str]] = ()
    svg: bytes | None = None
    html: str = ""


def write_report(paths: Sequence[str | os.PathLike], output_dir: str | os.PathLike, media: Media | None = None,
                 align: Callable[[Mapping], list] | None = None, examples: int = 8) -> Path:
    """Write `report.html`, `report.md` and `figures/` of the runs in `paths`; returns the path of the page.

    `media` gives sound and pictures of the `examples` worst items of each run, `align` an entry's words side by side.
    Raises ValueError for folders without results or an `output_dir` that cannot be written to.
    """
    output_dir = Path(output_dir)
    check_folder(output_dir)
    runs = find_runs(paths)
    if inside := [run for run in runs if output_dir.resolve() == run.folder]:
        raise ValueError(f"{output_dir} is the folder of the run {inside[0].name}; choose another --output-dir")
    sections, left = side_by_side(runs) if len(runs) > 1 else [], MOST_BYTES
    for run in runs:
        title = f"{run.name}: " if len(runs) > 1 else ""
        found, left = _worst(run, media, align, examples, left)
        sections += [(f"{title}{heading}", parts) for heading, parts in (
            *about(run), *rates(run), *tests(run), *costs(run), *confidences(run), found, *_settings(run))]
    title = f"Results of {', '.join(run.name for run in runs)}"
    warnings = [line for run in runs for line in run.warnings]
    for number, svg in enumerate(_pictures(sections), start=1):
        write_bytes(output_dir / "figures" / f"{number}.svg", svg)
    write_text(output_dir / "report.md", markdown(title, sections, warnings))
    write_text(output_dir / "report.html", html_page.page(title, [
        (heading, "\n".join(map(_as_html, parts))) for heading, parts in sections], warnings))
    return output_dir / "report.html"


Sections = list[tuple[str, list[Part]]]


# -- what stands in the sections ---------------------------------------------------------------------------------


def about(run: Run) -> Sections:
    """What was measured, and the best system."""
    how, settings, first = run.domain.evaluation, run.record["settings"], next(iter(run.decoded.values()))
    lines = [["what", "value"], ["set", str(settings.get("manifest", "-"))], [how.unit, str(len(first))],
             [f"{how.cluster or 'speaker'}s", str(len({entry[how.cluster] for entry in first if how.cluster in entry})
                                                  or "not known")],
             ["conditions", ", ".join(run.conditions)], ["systems", ", ".join(run.decoded)],
             ["measured", f"{run.record['time']}, commit {str(run.record['commit'])[:12]}"]]
    if run.average:
        entry = run.average[run.best]
        lines.insert(1, ["lowest error rate", f"{run.best}: {how.title} {rate_text(entry, run.domain)} %, mean over "
                                              f"{mean_over(run)}"])
    return [("What was measured", [Part(lines=lines)])]


def mean_over(run: Run) -> str:
    """The conditions of a mean in words; of many only how many."""
    others = [name for name in run.conditions if name not in run.averaged]
    if len(run.averaged) <= MOST_NAMED:
        return ", ".join(run.averaged)
    return f"{len(run.averaged)} conditions" + (f" (all but {', '.join(others)})" if 0 < len(others) <= MOST_NAMED
                                                else "" if others else " (all)")


def rates(run: Run) -> Sections:
    """Rates by condition with intervals, curves over SNR and heat maps."""
    how, domain, systems = run.domain.evaluation, run.domain, list(run.decoded)
    lines = [["condition", how.counted, *systems]]
    for name, part in [*run.scores["conditions"].items(), *([("mean", run.average)] if run.average else [])]:
        lines.append([name, str(next(iter(part.values()))[how.counted]),
                      *(rate_text(part[system], domain) if system in part else "-" for system in systems)])
    parts = [Part(f"{how.title} in per cent with 95 % intervals: bootstrap over {how.unit}; Wilson's where the "
                  "bootstrap cannot vary, as without errors.", lines)]
    curves, maps = html_figures.rates_over_snr(run.scores, domain), html_maps.snr_maps(run.scores, domain)
    if curves:
        parts.append(Part(f"{how.title} over SNR: each panel has one system in colour with its 95 % interval, all "
                          f"others in grey, {systems[0]} dotted. The axis is logarithmic where rates are far apart.",
                          svg=curves))
    if maps:
        parts.append(Part(f"{how.title} in per cent by kind of noise and SNR.", svg=maps))
    if rest := html_maps.other_map(run.scores, domain):
        parts.append(Part(f"{how.title} in per cent in the conditions without an SNR.", svg=rest))
    if others := _others(run):
        parts.append(Part("Kinds of errors in per cent, mean over the compared conditions.", others))
    return [("Error rates", parts)]


def _others(run: Run) -> list[list[str]]:
    """The domain's further rates of each system; empty where there are none."""
    how = run.domain.evaluation
    names = [name for name in how.other_rates if run.average and all(name in entry for entry in run.average.values())]
    lines = [["system", *(how.other_rates[name].title for name in names)]]
    for system, entry in run.average.items():
        lines.append([system, *(f"{shown(entry[name]['rate'], run.domain):.1f}" + (
            f" {interval_text(entry[name]['interval'], run.domain)}" if "interval" in entry[name] else "")
            for name in names)])
    return lines if names else []


def tests(run: Run) -> Sections:
    """The best system against all others, and all against the first: differences, p-values, Holm's correction."""
    scores, how = run.average, run.domain.evaluation
    systems, first = list(scores), next(iter(scores), None)
    pairs = list(dict.fromkeys([*((name, first) for name in systems if name != first),
                                *((run.best, name) for name in systems if name not in (run.best, first))]))
    if not pairs:
        return []
    by = f"by_{how.cluster}"
    clusters = by in scores[first]
    p_values = [difference(scores, *pair)[1] for pair in pairs]
    lines = [["system", "against", "difference, points", "p", "p (Holm)",
              *([f"over {how.cluster}s", "p", "p (Holm)"] if clusters else [])]]
    over = {name: entry[by] for name, entry in scores.items()} if clusters else {}
    over_p = holm([difference(over, *pair)[1] for pair in pairs]) if clusters else []
    for number, (pair, corrected) in enumerate(zip(pairs, holm(p_values))):
        bounds = difference(scores, *pair)[0]
        gap = scores[pair[0]][run.domain.rate] - scores[pair[1]][run.domain.rate]
        lines.append([*pair, f"{gap:+.1f} [{bounds[0]:+.1f}, {bounds[1]:+.1f}]", p_text(p_values[number]),
                      p_text(corrected)])
        if clusters:
            bounds, p_value = difference(over, *pair)
            lines[-1] += [f"[{bounds[0]:+.1f}, {bounds[1]:+.1f}]", p_text(p_value), p_text(over_p[number])]
    speakers = (f" Over {how.cluster}s, all of a {how.cluster}'s {how.unit} are drawn together: this tells whether the "
                f"difference holds for further {how.cluster}s. There are {over[first]['count']}; with fewer than about "
                "20 these intervals are too narrow.") if clusters else ""
    return [("Paired comparisons", [Part(
        f"Error rates, mean over {mean_over(run)}; below 0 the system makes fewer errors. Paired bootstrap, "
        f"95 % intervals; p (Holm) is corrected for all {len(pairs)} comparisons.{speakers}", lines)])]


def costs(run: Run) -> Sections:
    """Rates against what they cost."""
    if not run.average:
        return []
    how, front = run.domain.evaluation, html_figures.cost_points(run.average, run.domain)
    on_front = {title: html_figures.pareto(points) for title, points in front.items()}
    nfe = list(next(iter(run.average.values()))["nfe"])
    lines = [["system", f"{how.title} %", *(f"NFE {key}" for key in nfe), how.speed[0], "not beaten at its cost in"]]
    for system, entry in run.average.items():
        lines.append([system, rate_text(entry, run.domain), *(f"{entry['nfe'][key]:g}" for key in nfe),
                      how.speed[1](entry["rtf"]), ", ".join(title.partition(":")[0] for title, names in
                                                            on_front.items() if system in names) or "-"])
    return [("Errors against computing", [
        Part("Time was taken in batches, on the machine of the record; other work on it makes it longer.", lines),
        Part("Below and to the left is better.", svg=html_figures.rates_against_cost(run.average, run.domain))])]


def confidences(run: Run) -> Sections:
    """Calibration of confidences."""
    wanted = {system: [entry for entry in entries if entry["condition"] in run.averaged]
              for system, entries in run.decoded.items()}
    if not run.average or (drawn := html_figures.calibration(wanted)) is None:
        return []
    lines = [["system", "ECE"], *([system, mean_text([entry], "calibration_error", ".3f")]
                                  for system, entry in run.average.items())]
    return [("Calibration", [Part("Expected calibration error: the mean distance of confidence and share that is "
                                  "right; 0 is best.", lines),
                             Part("On the line, confidences are honest; below it, too high. The area of a point is the "
                                  "number of answers.", svg=drawn)])]


def _worst(run: Run, media: Media | None, align, number: int, left: int) -> tuple[tuple[str, list[Part]], int]:
    entries = worst(run, number)
    html, left = show(run, entries, media(run) if media else lambda _: None, align, left)
    lines = [["ID", "condition", "errors", "said", "understood"], *(
        [entry["ID"], entry["condition"], f"{entry['errors']} of {entry[run.domain.evaluation.counted]}",
         str(entry.get("reference", entry.get("label"))), str(entry.get("text", entry.get("answer")))]
        for entry in entries)]
    words = (f"The {len(entries)} with most errors of {run.best}, chosen because they are bad: they say nothing of the "
             f"average. Orange: another word; red: left out; blue: put in.")
    return ("Worst items", [Part(words, () if align else lines, html=html if entries else "")]), left


def _settings(run: Run) -> Sections:
    """Everything that the record of the run holds, nested parts by their names with dots between."""
    return [("Configuration and versions", [Part(lines=[["what", "value"], *_flat(run.record)])])]


def _flat(record: Mapping, before: str = "") -> list[list[str]]:
    lines = []
    for name, value in record.items():
        if isinstance(value, Mapping) and value:
            lines += _flat(value, f"{before}{name}.")
        else:
            shown_as = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
            lines.append([f"{before}{name}", "-" if shown_as in (None, "") else str(shown_as)])
    return lines


def side_by_side(runs: Sequence[Run]) -> Sections:
    """The rates of all runs, and whether they are of the same set."""
    domain = runs[0].domain
    if any(run.domain.name != domain.name for run in runs):
        raise ValueError("runs of speech and of images cannot stand in one report; make one of each")
    lines = [["run", "system", "mean over", f"{domain.evaluation.title} %"]]
    for run in runs:
        lines += [[run.name, system, mean_over(run), rate_text(entry, domain)]
                  for system, entry in run.average.items()]
    items = [frozenset(entry["ID"] for entry in next(iter(run.decoded.values()))) for run in runs]
    same = "All runs are of the same items." if len(set(items)) == 1 else (
        "The runs are of different items: their rates cannot be compared.")
    return [("Runs side by side", [Part(f"{same} The intervals are each run's own, not of differences.", lines)])]


# -- how they are written ------------------------------------------------------------------------------------------


def _pictures(sections: Sections) -> list[bytes]:
    return [part.svg for _, parts in sections for part in parts if part.svg]


def _as_html(part: Part) -> str:
    if part.svg:
        return html_page.picture(part.svg, "image/svg+xml", part.words)
    return ((html_page.paragraph(part.words) if part.words else "")
            + (html_page.table(part.lines) if part.lines else "") + part.html)


def markdown(title: str, sections: Sections, warnings: Sequence[str]) -> str:
    """The report without sound, figures as links; texts of data cannot end a cell or be markup."""
    lines, number = [f"# {_plain(title)}", ""], 0
    for warning in warnings:
        lines += [f"> {_plain(warning)}", ""]
    for heading, parts in sections:
        lines += [f"## {_plain(heading)}", ""]
        for part in parts:
            if part.svg:
                number += 1
                lines += [f"![{_plain(part.words)}](figures/{number}.svg)", ""]
                continue
            lines += [_plain(part.words), ""] if part.words else []
            if part.lines:
                lines += [render([[_plain(cell) for cell in line] for line in part.lines], markdown=True), ""]
            if part.html:
                lines += ["See report.html.", ""]
    return "\n".join(lines)


def _plain(words: str) -> str:
    """`words` on one line, as text of Markdown."""
    shown = html_page.text(" ".join(words.split()))
    return "".join(f"\\{char}" if char in "\\`*_[]|" else char for char in shown)
