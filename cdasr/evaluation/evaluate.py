"""`cdasr evaluate`: decode rows of any domain with several systems, then score what was written.

Decoding appends one JSON line an item to `decode/<system>.jsonl`, so that an interrupted run goes on where it stopped.
Scoring reads those lines only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from cdasr.coupled.domain import Domain, find_domain
from cdasr.coupled.evaluation import Evaluation, Row
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.coupled.strategies import check_strategies
from cdasr.evaluation.report import table
from cdasr.evaluation.scoring import score
from cdasr.evaluation.store import append_decoded, check_same_settings, keep_decoded, model_id, read_decoded
from cdasr.runtime.atomic import fingerprint, write_json, write_text
from cdasr.runtime.batching import batches_within
from cdasr.runtime.lock import locked
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.provenance import record


def evaluate(rows: str | os.PathLike | Sequence[Row], model, systems: Sequence[str] | None,
             output_dir: str | os.PathLike, *, domain: Domain | None = None, steps: int | None = None, samples: int = 1,
             guidance: float | None = None, batch_seconds: float = 20.0, device: str = "auto", seed: int = 0,
             limit: int | None = None, overwrite: bool = False,
             others: Mapping[str, tuple[CoupledPipeline, str]] | None = None, conditions: Sequence[str] | None = None,
             only: Mapping[str, str] | None = None, quality: Sequence[str] | None = None) -> str:
    """Decode `rows` with each of `systems`, write scores (`wer.json`), `table.txt` and `table.md`; return the table.

    `rows` are a manifest or its rows. `model` is a package's name or folder, a pipeline, or a function that loads one
    of `domain` when all else is checked. `domain`: how errors are counted; by default the pipeline's or package's.
    `systems` None means all that it can run; `others` are systems of further packages, each a pipeline and its
    strategy, by the names that `systems` has for them. `limit` keeps the first rows only, `conditions` those of some
    conditions, `only` those of which the condition fits a system's regular expression; a later run can add others.
    `batch_seconds`: total duration of a batch; an image counts as 1. `steps`, `samples`, `guidance`: as in
    `CoupledPipeline.run`. `quality`: measures of the enhanced signals, by default the domain's.
    Rows of which the signals have changed since they were decoded are decoded again.
    Raises ValueError for an unknown system, condition or measure, rows that cannot be used, a condition without an
    error rate, or an `output_dir` that cannot be written to, that another run writes to, or that holds results of other
    settings, before anything is written.
    """
    if systems is not None and not systems:
        raise ValueError("no systems to evaluate; name at least one, e.g. --systems none,enhanced")
    others, only, output_dir = others or {}, only or {}, Path(output_dir)
    check_strategies([name for name in (*(systems or ()), *only) if name not in others])
    check_folder(output_dir)
    domain = _domain(model, domain)
    how = domain.evaluation
    measured = _measured(how, quality)
    rows, source, settings = _rows(how, rows)
    rows = _of_conditions(rows[:limit], conditions, source)
    how.check_rows(rows, source)
    pipeline = _pipeline(domain, model, device)
    systems = systems or [*pipeline.strategies, *others]
    pipeline.check([name for name in systems if name not in others], steps, samples)
    about_others = {name: [model_id(other), strategy] for name, (other, strategy) in others.items()}
    settings |= {"model": model_id(pipeline), "steps": steps, "seed": seed}
    unusual = {"limit": (limit, None), "samples": (samples, 1), "guidance": (guidance, None),
               "precision": (pipeline.signal.precision or "fp32", "fp32"), "others": (about_others, {}),
               "quality": (list(measured), list(how.measured))}
    settings |= {name: value for name, (value, usual) in unusual.items() if value != usual}
    wanted, known = _wanted(rows, systems, only, source), {}
    keys = {row["ID"]: how.row_key(row, known) for row in rows}
    with locked(output_dir):
        check_same_settings(output_dir, settings, overwrite)
        for system in systems:
            decode(wanted[system], *others.get(system, (pipeline, system)), output_dir / "decode" / f"{system}.jsonl",
                   batch_seconds, keys, measured, how, steps=steps, samples=samples, guidance=guidance, seed=seed)
        return _write_scores(domain, systems, rows, output_dir, record(
            **settings, **how.scoring(), systems=list(systems), batch_seconds=batch_seconds, device=pipeline.device,
            threads=torch.get_num_threads()))


def _domain(model, domain: Domain | None) -> Domain:
    """The one that is given, or that of the pipeline or package."""
    if domain is None and isinstance(model, CoupledPipeline):
        return model.domain
    if domain is None and isinstance(model, (str, os.PathLike)):
        return find_domain(model)
    if domain is None:
        raise ValueError("evaluate: say of which `domain` the pipeline is that this function loads")
    return domain


def _pipeline(domain: Domain, model, device: str) -> CoupledPipeline:
    if isinstance(model, CoupledPipeline):
        return model
    return model() if callable(model) else domain.recipe.load_package(model, device)


def _measured(how: Evaluation, quality: Sequence[str] | None) -> dict:
    """The measures of enhanced signals by name. Raises ValueError for an unknown one, or one that is not installed."""
    names = how.measured if quality is None else quality
    if unknown := [name for name in names if name not in how.qualities]:
        raise ValueError(f"unknown quality measure {unknown[0]!r}; known: {', '.join(how.qualities)}")
    for name in names:
        how.qualities[name].check()
    return {name: how.qualities[name] for name in names}


def _rows(how: Evaluation, rows: str | os.PathLike | Sequence[Row]) -> tuple[Sequence[Row], object, dict]:
    """The rows, what to call them in messages, and what of their source is part of the settings."""
    if not isinstance(rows, (str, os.PathLike)):
        return rows, "the rows", {}
    if how.read_rows is None:
        raise ValueError(f"{rows}: rows of this domain are not read from a file")
    return how.read_rows(rows), rows, {
        "manifest": Path(rows).name,
        "manifest_sha256": fingerprint(path.read_bytes() for path in how.row_files(rows))}


def _write_scores(domain: Domain, systems: Sequence[str], rows: Sequence[Row], output_dir: Path,
                  record: Mapping) -> str:
    """Score what was decoded; returns the table."""
    scores = score({system: read_decoded(output_dir / "decode" / f"{system}.jsonl") for system in systems}, domain,
                   list(dict.fromkeys(map(_condition, rows))))
    write_json(output_dir / domain.evaluation.scores_file, {**scores, "record": record})
    for suffix, markdown in (("txt", False), ("md", True)):
        write_text(output_dir / f"table.{suffix}", table(scores, domain, markdown) + "\n")
    return table(scores, domain)


def _condition(row: Row) -> str:
    return row.get("condition") or "all"


def _of_conditions(rows: Sequence[Row], conditions: Sequence[str] | None, source: object) -> Sequence[Row]:
    known = list(dict.fromkeys(map(_condition, rows)))
    if unknown := sorted(set(conditions or ()) - set(known)):
        raise ValueError(f"{source}: no condition {', '.join(unknown)}; it has {', '.join(known)}")
    return [row for row in rows if _condition(row) in (conditions or known)]


def _wanted(rows: Sequence[Row], systems: Sequence[str], only: Mapping[str, str],
            source: object) -> dict[str, list[Row]]:
    """The rows that each system decodes. Raises ValueError where that is nothing for all of them."""
    wanted = {}
    for system in systems:
        try:
            fits = re.compile(only.get(system, ".*")).fullmatch
        except re.error as error:
            raise ValueError(f"only {system}: {only[system]!r} is not a regular expression ({error})") from None
        wanted[system] = [row for row in rows if fits(_condition(row))]
    if not any(wanted.values()):
        known = ", ".join(dict.fromkeys(map(_condition, rows)))
        raise ValueError(f"{source}: nothing to decode, none of the conditions fits {', '.join(only.values())}; "
                         f"there are {known}")
    return wanted


# -- decoding -----------------------------------------------------------------------------------------------------


def decode(rows: Sequence[Row], pipeline: CoupledPipeline, strategy: str, path: Path, batch_seconds: float,
           keys: Mapping[str, str], measured: Mapping, how: Evaluation, **sampling) -> None:
    """Append what `strategy` makes of every row that `path` does not hold yet, in batches sorted by duration.

    `keys`: a fingerprint of each ID's signals; entries of other signals are replaced. `measured`: quality by name.
    Entries whose errors were counted otherwise are counted again.
    """
    done = keep_decoded(path, keys, how.unit, how.recount)
    waiting = sorted((row for row in rows if row["ID"] not in done), key=lambda row: float(row["duration"]))
    append_decoded(path, batches_within(waiting, [float(row["duration"]) for row in waiting], batch_seconds),
                   lambda batch: _decode_batch(batch, pipeline, strategy, batch_seconds, keys, measured, how,
                                               **sampling), len(rows), how.unit)


def _decode_batch(batch: Sequence[Row], pipeline: CoupledPipeline, strategy: str, batch_seconds: float,
                  keys: Mapping[str, str], measured: Mapping, how: Evaluation, **sampling) -> list[dict]:
    signals = [how.read_noisy(row, pipeline.classifier) for row in batch]
    started = time.perf_counter()
    results = how.recognise(pipeline, signals, strategy, batch_seconds, **sampling)
    seconds = time.perf_counter() - started
    entries = [how.entry(row, result) for row, result in zip(batch, results)]
    share = seconds / sum(entry["duration"] for entry in entries)
    return [{"ID": row["ID"], "condition": _condition(row), **entry, "seconds": round(share * entry["duration"], 6),
             **_quality(row, pipeline, signal, how.enhanced(result), measured), "source": keys[row["ID"]]}
            for row, signal, result, entry in zip(batch, signals, results, entries)]


def _quality(row: Row, pipeline: CoupledPipeline, noisy: torch.Tensor, enhanced: torch.Tensor | None,
             measured: Mapping) -> dict[str, float]:
    """Each measure of the input and of what was made of it; none where the input is clean already.

    The ratio of a clean input is unbounded and would rule every average.
    """
    clean = pipeline.domain.evaluation.read_clean(row, pipeline.classifier, noisy) if measured else None
    if clean is None or torch.equal(noisy, clean):
        return {}
    found = {f"{name}{suffix}": (quality.measure(signal, clean, pipeline.classifier), quality.stored)
             for name, quality in measured.items()
             for suffix, signal in (("_input", noisy), ("", noisy if enhanced is None else enhanced))}
    return {name: round(value, digits) for name, (value, digits) in found.items() if value is not None}
