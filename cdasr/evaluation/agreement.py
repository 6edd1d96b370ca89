"""Where systems differ from `none`, the frozen classifier alone: what each wins and loses, and what a choice could win.

A system may be no better than `none` on average and still right where `none` is wrong. These tables show it: the errors
that a system removes and adds, the rate of the better answer of each item, and which parts of the
references (words) the systems get right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from cdasr.coupled.domain import Domain
from cdasr.evaluation.report import render, shown
from cdasr.evaluation.statistics import error_rate

Entries = Mapping[str, Mapping[str, dict]]  # of each system, by ID


def gains_and_losses(decoded: Mapping[str, Sequence[dict]], domain: Domain, conditions: Sequence[str],
                     base: str = "none", markdown: bool = True) -> str:
    """A table of the items that each system changes for the better and for the worse, against those of `base`.

    The last column takes the better of a system's answer and that of `base` for each item, which only who knows the
    truth can; the last line takes the best of all systems. Systems that lack a condition are left out, and there is no
    table without two systems.
    """
    found = by_item(decoded, conditions)
    if base not in found or len(found) < 2:
        return ""
    counted, own = domain.evaluation.counted, found[base]
    total = sum(entry[counted] for entry in own.values())
    rate = f"{domain.evaluation.title} %"
    lines = [["system", rate, "items better", "items worse", "errors removed", "errors added",
              f"at best with {base}, %"]]
    for system, entries in found.items():
        gains = [own[name]["errors"] - entry["errors"] for name, entry in entries.items()]
        removed, added = sum(gain for gain in gains if gain > 0), -sum(gain for gain in gains if gain < 0)
        errors = sum(entry["errors"] for entry in own.values())
        lines.append([system, _rate(errors - removed + added, total, domain),
                      *map(str, (sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains), removed, added)),
                      _rate(errors - removed, total, domain)])
    best = sum(min(entries[name]["errors"] for entries in found.values()) for name in own)
    lines.append(["best of all", "", "", "", "", "", _rate(best, total, domain)])
    return render(lines, markdown)


def right_parts(decoded: Mapping[str, Sequence[dict]], domain: Domain, conditions: Sequence[str],
                systems: Sequence[str], markdown: bool = True) -> str:
    """A table of the parts of the references by which of `systems` have them right, the most frequent kind first.

    Empty where the domain does not know the parts, or where a system lacks a condition.
    """
    found = by_item(decoded, conditions)
    if domain.evaluation.right_parts is None or not found.keys() >= set(systems) or len(systems) < 2:
        return ""
    kinds: Counter = Counter()
    for name in found[systems[0]]:
        kinds.update(zip(*(domain.evaluation.right_parts(found[system][name]) for system in systems), strict=True))
    total = sum(kinds.values())
    lines = [[*systems, domain.evaluation.counted, "%"]]
    lines += [[*("right" if right else "wrong" for right in kind), str(count), f"{100 * count / total:.1f}"]
              for kind, count in kinds.most_common()]
    return render(lines, markdown)


def by_item(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str]) -> Entries:
    """The entries of `conditions` by system and ID, of systems that have them all; the same items for each."""
    found = {system: {entry["ID"]: entry for entry in entries if entry["condition"] in conditions}
             for system, entries in decoded.items()}
    full = {system: entries for system, entries in found.items()
            if {entry["condition"] for entry in entries.values()} == set(conditions)}
    common = set.intersection(*map(set, full.values())) if full else set()
    return {system: {name: entries[name] for name in sorted(common)} for system, entries in full.items()}


def _rate(errors: int, total: int, domain: Domain) -> str:
    return f"{shown(float(error_rate(errors, total)), domain):.1f}"
