"""The worst items of a run: which they are, and how a page and a Markdown file show them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cdasr.evaluation.html_page import aligned, paragraph, picture, player, table, text
from cdasr.evaluation.html_runs import Run

MOST_BYTES = 8_000_000  # of sound and pictures in a page


@dataclass(frozen=True)
class Example:
    """An item as FLAC files by title and one PNG picture, with a `remark` or none."""

    sounds: Mapping[str, bytes]
    picture: bytes | None
    remark: str = ""

    @property
    def size(self) -> int:
        return sum(map(len, self.sounds.values())) + len(self.picture or b"")


def worst(run: Run, number: int) -> list[dict]:
    """The entries of the run's best system with most errors, of each item only one; none without errors."""
    counted, item = run.domain.evaluation.counted, run.domain.evaluation.item
    entries = sorted(run.decoded[run.best], key=lambda entry: (-entry["errors"], -entry["errors"] / max(
        entry[counted], 1), entry["ID"]))
    first: dict[str, dict] = {}
    for entry in entries:
        if entry["errors"]:
            first.setdefault(item(entry), entry)
    return list(first.values())[:number]


def show(run: Run, entries: Sequence[Mapping], media: Callable[[str], Example | None],
         align: Callable[[Mapping], list] | None, left: int = MOST_BYTES) -> tuple[str, int]:
    """HTML of `entries` with what each system made of them, and the bytes that are left for more of them.

    `media(ID)` gives sound and picture, or None; beyond `left` bytes they are left out, which the page says.
    """
    parts, by_id = [], {system: {entry["ID"]: entry for entry in found} for system, found in run.decoded.items()}
    for entry in entries:
        shown = media(entry["ID"]) if left > 0 else None
        sounds = ""
        if shown is not None and shown.size <= left:
            left -= shown.size
            sounds = " ".join(player(data, title) for title, data in shown.sounds.items())
            sounds += paragraph(shown.remark) if shown.remark else ""
            sounds += picture(shown.picture, "image/png", f"spectrograms of {entry['ID']}") if shown.picture else ""
        elif shown is not None:
            left = 0
            sounds = paragraph("Sound left out: the page would grow too large.")
        made = [(system, found[entry["ID"]]) for system, found in by_id.items() if entry["ID"] in found]
        parts.append(f'<div class="example"><h3>{text(entry["ID"])} <small>({text(entry["condition"])})</small></h3>'
                     f"{sounds}{_transcripts(made, align)}</div>")
    return "".join(parts), left


def _transcripts(made: Sequence[tuple[str, Mapping]], align: Callable[[Mapping], list] | None) -> str:
    """What systems made of one item: aligned words, those of equal texts together; or answers, where none are."""
    if align is None or "reference" not in made[0][1]:
        return table([["system", "right", "answer"], *([system, str(entry.get("label")), str(entry.get("answer"))]
                                                       for system, entry in made)])
    groups: dict[str, list[tuple[str, Mapping]]] = {}
    for system, entry in made:
        groups.setdefault(entry["text"], []).append((system, entry))
    return "".join(f'<div class="answer"><p>{text(", ".join(system for system, _ in group))}<br><small>'
                   f"{_errors(group[0][1]['errors'])}</small></p>{aligned(align(group[0][1]))}</div>"
                   for group in groups.values())


def _errors(count: int) -> str:
    return "1 error" if count == 1 else f"{count or 'no'} errors"
