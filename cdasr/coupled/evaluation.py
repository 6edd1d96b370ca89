"""What evaluation needs to know of a domain: how rows are read, what an entry holds, and how results are worded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor, nn

Row = Mapping[str, object]  # ID, condition (or none), duration, and what a domain reads


@dataclass(frozen=True)
class Quality:
    """A measure of an enhanced signal, called `title` in tables and shown there with so many `digits`.

    `measure(signal, clean, classifier)` gives a number, or None where it is not defined. `check()` raises ValueError
    where a package that it needs is not installed. Entries hold the number rounded to `stored` digits.
    """

    title: str
    measure: Callable[[Tensor, Tensor, nn.Module], float | None]
    digits: int = 1
    stored: int = 3
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class OtherRate:
    """A further error rate: entries hold its `errors` and what they are `counted` against; `title` is in tables."""

    title: str
    errors: str
    counted: str
    interval: bool = True


@dataclass(frozen=True)
class Target:
    """A target of a recipe, what was `measured`, and whether it is `met`; None: not known."""

    text: str
    measured: str
    met: bool | None


def whole_id(entry: Mapping) -> str:
    """The ID of an entry whose IDs say nothing of the condition."""
    return entry["ID"]


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one domain, as functions and words.

    Rows and entries:
    - `read_rows(path)`: the rows of a manifest, checked; `row_files(path)`: the files that the manifest is made of.
    - `check_rows(rows, source)`: raises ValueError for rows without an error rate.
    - `row_key(row, known)`: a fingerprint of what a row's entry depends on; `known` keeps those of files.
    - `read_noisy(row, classifier)` and `read_clean(row, classifier, noisy)`: signals as the pipeline takes them; the
      clean one is None where the row has none.
    - `example(pipeline, seconds)`: a made-up signal for a pipeline.
    - `recognise(pipeline, signals, strategy, batch_seconds, **sampling)`: a result for each signal, in which `nfe` are
      the evaluations of each network and `enhanced(result)` is the signal, None where nothing was enhanced.
    - `entry(row, result)`: errors, what they are counted against, duration, confidences and which of them are right.
    - `external_files(folder, rows)`: what another enhancer wrote for rows, by ID; `check_external(name, files, rows)`
      raises ValueError for files that cannot be used; `read_external(path, classifier, degraded)` reads one. None: the
      domain has no such files.
    - `recount(entry)`: an entry of other `scoring` with its errors counted again; None where that cannot be done.
    - `right_parts(entry)`: whether each part of the truth, such as a word of the reference, was found. None: not known.

    Scores:
    - `scoring()`: how errors are counted, for the record of scores.
    - `counted`: what errors are counted against, as entries name it; `scores_file`: where scores are written.
    - `qualities` by name, of which `measured` are the default; `other_rates` by name.
    - `average(conditions)`: those over which `average` is taken, called `average_title`; none: no such average.
    - `averages(conditions)`: further averages, `{title: conditions}`.
    - `cluster`: the key of entries that says who or what several items are of, such as `speaker`; none: empty.
    - `item(entry)`: which item an entry is of, the same in every condition.

    Words:
    - `title`: of the error rate in tables; with `accuracy` they show 100 % minus the rate, and gains in points.
    - `unit`: of what is decoded; `durations`: what sums of durations are (`s of audio`), where they are not items.
    - `speed`: title and text of the real-time factor.
    - `most_intervals`: systems in a table that still has room for an interval in each cell.

    Report of a recipe (`found` is a `cdasr.evaluation.experiment.Experiment`):
    - `name(hparams)`: of the recipe; `about(found)`: what was measured.
    - `compared(hparams, conditions)`: title and conditions over which strategies are compared.
    - `targets(found)`: the recipe's targets.
    - `picture(signal)`: a signal as an array (H, W[, C]) in [0, 1], and `caption(result)`, for a grid of examples.
    """

    counted: str
    read_noisy: Callable[[Row, nn.Module], Tensor]
    recognise: Callable[..., Sequence]
    entry: Callable[[Row, object], dict]
    read_clean: Callable[[Row, nn.Module, Tensor], Tensor | None] = lambda row, classifier, noisy: None
    enhanced: Callable[[object], Tensor | None] = lambda result: None
    read_rows: Callable[[Path], list[Row]] | None = None
    row_files: Callable[[Path], list[Path]] = lambda path: [Path(path)]
    check_rows: Callable[[Sequence[Row], object], None] = lambda rows, source: None
    row_key: Callable[[Row, dict[str, str]], str] = lambda row, known: row["ID"]
    example: Callable[[object, float], Tensor] | None = None

    external_files: Callable[[Path, Sequence[Row]], dict[str, Path]] | None = None
    check_external: Callable[[str, Mapping[str, Path], Sequence[Row]], None] = lambda name, files, rows: None
    read_external: Callable[[Path, nn.Module, Tensor], Tensor] | None = None
    fuse_external: Callable | None = None
    recount: Callable[[Mapping], Mapping | None] = lambda entry: entry
    right_parts: Callable[[Mapping], list[bool]] | None = None

    scoring: Callable[[], dict] = dict
    scores_file: str = "scores.json"
    qualities: Mapping[str, Quality] = field(default_factory=dict)
    measured: tuple[str, ...] = ()
    other_rates: Mapping[str, OtherRate] = field(default_factory=dict)
    average: Callable[[Sequence[str]], list[str]] = lambda conditions: []
    average_title: str = "average"
    averages: Callable[[Sequence[str]], dict[str, list[str]]] = lambda conditions: {}
    cluster: str = ""
    item: Callable[[Mapping], str] = whole_id

    title: str = "error rate"
    accuracy: bool = False
    unit: str = "items"
    durations: str = ""
    speed: tuple[str, Callable[[float], str]] = ("RTF", lambda factor: f"{factor:.3f}")
    most_intervals: int = 5

    name: Callable[[Mapping], str] = lambda hparams: Path(hparams["exp_dir"]).name
    about: Callable[[object], str] = lambda found: ""
    compared: Callable[[Mapping, Sequence[str]], tuple[str, list[str]]] = lambda hparams, names: (
        "All conditions but clean ones", [name for name in names if name != "clean"])
    targets: Callable[[object], list[Target]] = lambda found: []
    picture: Callable[[Tensor], np.ndarray] | None = None
    caption: Callable[[object], str] = str


def p_text(value: float) -> str:
    """A p-value for a table."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
