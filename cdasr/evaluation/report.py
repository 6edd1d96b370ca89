"""Tables of scores, and the RESULTS.md that a recipe's last stage generates, for any domain.

Rates are error rates in per cent; a domain of which tables show accuracies has 100 % minus the rate, and gains in
points instead of changes in per cent of the rate.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from cdasr.coupled.domain import Domain
from cdasr.coupled.evaluation import p_text
from cdasr.evaluation.scoring import at_coverage
from cdasr.evaluation.statistics import holm
from cdasr.runtime.atomic import write_text


def table(scores: Mapping, domain: Domain, markdown: bool = False) -> str:
    """Rates in per cent, conditions as rows, systems as columns; then what the systems cost.

    Each rate has its 95 % interval; in tables of many systems only their widest half-width is told. A dash stands where
    a system did not decode a condition.
    """
    how, systems, parts = domain.evaluation, scores["systems"], dict(scores["conditions"])
    entries = [entry for condition in parts.values() for entry in condition.values()]
    widest = max((entry["interval"][1] - entry["interval"][0]) / 2 for entry in entries)
    narrow = len(systems) > how.most_intervals
    if scores.get("average") and len(parts) > 1:
        parts[how.average_title] = scores["average"]
    lines = [["condition", how.counted, *systems]]
    for name, condition in parts.items():
        rates = {system: f"{shown(entry[domain.rate], domain):.1f}" if narrow else rate_text(entry, domain)
                 for system, entry in condition.items()}
        lines.append([name, str(next(iter(condition.values()))[how.counted]),
                      *(rates.get(name, "-") for name in systems)])
    title = f"{how.title} % " + (f"(95 % intervals: at most +-{widest:.1f})" if narrow else "[95 % interval]")
    return f"{title}\n" + ("\n" if markdown else "") + f"{render(lines, markdown)}\n\n{costs(scores, domain, markdown)}"


def costs(scores: Mapping, domain: Domain, markdown: bool = False) -> str:
    """Quality, network evaluations, speed, use of the confidences and further rates of each system.

    They are means over the domain's average or, where it has none, over the conditions that all systems decoded.
    Quality leaves out conditions without it, such as clean ones. ECE is the expected calibration error of the
    confidences; the rate beside it is that of the 80 % of the items that the system is most confident of.
    """
    how, systems = domain.evaluation, scores["systems"]
    parts = [part for part in (scores.get("average"), *scores["conditions"].values())
             if part and part.keys() >= set(systems)]
    if not parts:
        return "No condition was decoded by all systems."
    parts = parts[:1] if parts[0] is scores.get("average") else parts
    first = parts[0][systems[0]]
    measured = [name for name in how.qualities if name in how.measured
                or any(part[system].get(name) is not None for part in parts for system in systems)]
    others = [name for name in how.other_rates if all(name in part[system] for part in parts for system in systems)]
    lines = [["system", *(how.qualities[name].title for name in measured), *(f"NFE {key}" for key in first["nfe"]),
              how.speed[0], "ECE", f"{how.title} % of the most confident 80 %",
              *(how.other_rates[name].title for name in others)]]
    for system in systems:
        entries = [part[system] for part in parts]
        lines.append([system, *(mean_text(entries, name, f".{how.qualities[name].digits}f") for name in measured),
                      *(f"{sum(entry['nfe'][key] for entry in entries) / len(entries):g}" for key in first["nfe"]),
                      how.speed[1](sum(entry["rtf"] for entry in entries) / len(entries)),
                      mean_text(entries, "calibration_error", ".3f"), coverage_text(entries, domain),
                      *(_other_text([entry[name] for entry in entries], domain) for name in others)])
    return render(lines, markdown)


def mean_text(entries: Sequence[Mapping], key: str, form: str, change: Callable[[float], float] = float) -> str:
    """The mean of what the entries have of `key`, for a table."""
    known = [entry[key] for entry in entries if entry.get(key) is not None]
    return f"{change(sum(known) / len(known)):{form}}" if known else "-"


def coverage_text(entries: Sequence[Mapping], domain: Domain) -> str:
    """The mean rate of the items that a system is most confident of, for a table."""
    return mean_text(entries, at_coverage(domain), ".1f", lambda rate: shown(rate, domain))


def _other_text(entries: Sequence[Mapping], domain: Domain) -> str:
    """One of the further rates, with its interval where it is of one part only."""
    if len(entries) == 1 and "interval" in entries[0]:
        return rate_text({domain.rate: entries[0]["rate"], **entries[0]}, domain)
    return mean_text(entries, "rate", ".1f", lambda rate: shown(rate, domain))


def averages(scored: Mapping[str, Mapping], domain: Domain, systems: Sequence[str], reference: str,
             markdown: bool = True) -> str:
    """Averages `{title: scores by system}` with the change against `reference`, its interval and paired p-value.

    The last p-value is corrected by Holm for all comparisons of the table. Where entries say of which speaker they are,
    the interval and the p-value over speakers stand beside.
    """
    how = domain.evaluation
    against = f"points over {reference}" if how.accuracy else f"relative to {reference}, %"
    rows = [(title, system, scores[system]) for title, scores in scored.items()
            for system in filter(scores.__contains__, systems)]
    compared = [entry["p_values"][reference] for _, _, entry in rows if reference in entry["p_values"]]
    corrected, by = iter(holm(compared)), f"by_{how.cluster}"
    clusters = bool(how.cluster) and all(by in entry for _, _, entry in rows)
    lines = [["average over", how.counted, "system", f"{how.title} %", *([f"over {how.cluster}s"] if clusters else []),
              against, f"p against {reference}", "p (Holm)", *([f"p over {how.cluster}s"] if clusters else [])]]
    for title, system, entry in rows:
        p_value, same = entry["p_values"].get(reference), [title, str(entry[how.counted]), system]
        over = [f"{interval_text(entry[by]['interval'], domain)} ({entry[by]['count']})"] if clusters else []
        lines.append([*same, rate_text(entry, domain), *over, *([""] * (4 if clusters else 3) if p_value is None else [
            change_text(scored[title], domain, system, reference), p_text(p_value), p_text(next(corrected)),
            *([p_text(entry[by]["p_values"][reference])] if clusters else [])])])
    return render(lines, markdown)


def comparisons(scores: Mapping, domain: Domain, systems: Sequence[str], references: Sequence[str],
                markdown: bool = True) -> str:
    """The change of each of `systems` against each of `references`, with interval and paired p-value.

    Behind the p-value stands that corrected by Holm for all comparisons of the table.
    """
    pairs = [(system, other) for system in systems for other in references]
    p_values = [difference(scores, *pair)[1] for pair in pairs]
    corrected = dict(zip(pairs, zip(p_values, holm(p_values))))
    lines = [["points over" if domain.evaluation.accuracy else f"{domain.evaluation.title} relative to, %",
              *references]]
    for system in systems:
        lines.append([system, *(f"{change_text(scores, domain, system, other)}, p {p_text(corrected[system, other][0])}"
                                f" (Holm {p_text(corrected[system, other][1])})" for other in references)])
    return render(lines, markdown)


def difference(scores: Mapping, system: str, other: str) -> tuple[tuple[float, float], float]:
    """Interval of the rate of `system` minus that of `other` in points, and the p-value; whichever comes first."""
    if other in scores[system]["p_values"]:
        return tuple(scores[system]["difference"][other]), scores[system]["p_values"][other]
    low, high = scores[other]["difference"][system]
    return (0.0 - high, 0.0 - low), scores[other]["p_values"][system]


def change_text(scores: Mapping, domain: Domain, system: str, other: str) -> str:
    """The gain of `system` over `other` in points of accuracy, or its change in per cent of the other's error rate."""
    rate, base = (scores[name][domain.rate] for name in (system, other))
    if domain.evaluation.accuracy:
        low, high = difference(scores, system, other)[0]
        return f"{base - rate:+.1f} [{0.0 - high:+.1f}, {0.0 - low:+.1f}]"
    if not base:
        return "-"  # nothing to reduce
    bounds = scores[system]["relative"].get(other)
    return f"{100 * (rate - base) / base:+.1f}" + (f" [{bounds[0]:+.1f}, {bounds[1]:+.1f}]" if bounds else "")


def shown(rate: float, domain: Domain) -> float:
    """An error rate in per cent as tables of the domain have it."""
    return 100.0 - rate if domain.evaluation.accuracy else rate


def interval_text(bounds: Sequence[float], domain: Domain) -> str:
    """An interval of an error rate, for a table."""
    low, high = sorted(shown(bound, domain) for bound in bounds)
    return f"[{low:.1f}, {high:.1f}]"


def rate_text(entry: Mapping, domain: Domain) -> str:
    """A rate in per cent with its interval, for a table."""
    return f"{shown(entry[domain.rate], domain):.1f} {interval_text(entry['interval'], domain)}"


def render(lines: Sequence[Sequence[str]], markdown: bool) -> str:
    """A table whose first line is the header."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths)] for line in lines]
    rule = ["-" * width for width in widths]
    if markdown:
        return "\n".join("| " + " | ".join(line) + " |" for line in (padded[0], rule, *padded[1:]))
    return "\n".join("  ".join(line).rstrip() for line in (padded[0], rule, *padded[1:]))


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
