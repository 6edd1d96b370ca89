"""`cdasr evaluate`: decode rows of any domain with several systems, then score what was written.

Decoding appends one JSON line an item to `decode/<system>.jsonl`, so that an interrupted run goes on where it stopped.
Scoring reads those lines only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cdasr.coupled.domain import Domain, find_domain
from cdasr.coupled.evaluation import Evaluation, Row
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.coupled.recipe import load_recipe
from cdasr.coupled.strategies import check_strategies
from cdasr.evaluation.external import External, Frozen, Variant, find_external, system_names, with_external
from cdasr.evaluation.flat import write_flat
from cdasr.evaluation.report import table
from cdasr.evaluation.scoring import score
from cdasr.evaluation.shards import Shard, batches, merge_shards, shard_folder
from cdasr.evaluation.store import append_decoded, check_same_settings, keep_decoded, model_id, read_decoded
from cdasr.runtime.atomic import fingerprint, write_json, write_text
from cdasr.runtime.lock import locked
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.provenance import record


def evaluate(rows: str | os.PathLike | Sequence[Row], model, systems: Sequence[str] | None,
             output_dir: str | os.PathLike, *, domain: Domain | None = None, steps: int | None = None, samples: int = 1,
             guidance: float | None = None, batch_seconds: float = 20.0, device: str = "auto", seed: int = 0,
             limit: int | None = None, overwrite: bool = False,
             others: Mapping[str, tuple[CoupledPipeline, str]] | None = None, conditions: Sequence[str] | None = None,
             only: Mapping[str, str] | None = None, quality: Sequence[str] | None = None,
             external: Mapping[str, str | os.PathLike] | None = None, external_weight: float | None = None,
             remember: float = 0.0, shard: Shard | None = None) -> str:
    """Decode `rows` with each of `systems`, write scores, tables and flat files; return the table.

    They are `wer.json`, `table.txt`, `table.md`, `scores.csv` and `utterances.jsonl`.

    `rows` are a manifest or its rows. `model` is a package's name or folder, a pipeline, or a function that loads one
    of `domain` when all else is checked. `domain`: how errors are counted; by default the pipeline's or package's.
    `systems` None means all that it can run; `others` are systems of further packages, each a pipeline and its
    strategy, by the names that `systems` has for them. `limit` keeps the first rows only, `conditions` those of some
    conditions, `only` those of which the condition fits a system's regular expression; a later run can add others.
    `batch_seconds`: total duration of a batch; an image counts as 1. `steps`, `samples`, `guidance`: as in
    `CoupledPipeline.run`. `quality`: measures of the enhanced signals, by default the domain's.
    `external`: folders of what other enhancers made of the rows, by names; each is scored as the systems of
    `external.VARIANTS`, those of which `systems` names none behind `none`. `external_weight`: of the degraded signal in
    NAME_oa, by default the package's. `remember`: gigabytes for what a slow classifier makes of audio before it decodes
    (encoder states), so that systems share it; 0: nothing is kept. `shard`, (2, 8): decode the second of eight parts
    only, and score nothing; a run without it takes what shards have decoded, decodes the rest and scores all.
    Rows of which the signals have changed since they were decoded are decoded again.
    Raises ValueError for an unknown system, condition or measure, rows that cannot be used, a condition without an
    error rate, or an `output_dir` that cannot be written to, that another run writes to, or that holds results of other
    settings, before anything is written.
    """
    if systems is not None and not systems:
        raise ValueError("no systems to evaluate; name at least one, e.g. --systems none,enhanced")
    others, only, output_dir, made = others or {}, only or {}, Path(output_dir), system_names(external or {})
    if external_weight is not None and not 0.0 <= external_weight <= 1.0:
        raise ValueError(f"external_weight: expected a share from 0 to 1, got {external_weight}")
    if taken := [name for name in made if name in others]:
        raise ValueError(f"external {taken[0]}: a control has this name; choose another")
    check_strategies([name for name in (*(systems or ()), *only) if name not in others and name not in made])
    check_folder(output_dir)
    domain = _domain(model, domain)
    how = domain.evaluation
    measured = measures(how, quality)
    rows, source, settings = _rows(how, rows)
    manifest, rows = rows, _of_conditions(rows[:limit], conditions, source)
    how.check_rows(rows, source)
    enhancers = find_external(how, external or {}, manifest, rows, _condition)
    pipeline = _pipeline(domain, model, device)
    weight = pipeline.oa_weight if external and external_weight is None else external_weight or 0.0
    systems = with_external(systems or [*pipeline.strategies, *others], made, weight)
    pipeline.check([name for name in systems if name not in others and name not in made], steps, samples)
    about_others = {name: [model_id(other), strategy] for name, (other, strategy) in others.items()}
    settings |= {"model": model_id(pipeline), "steps": steps, "seed": seed}
    unusual = {"limit": (limit, None), "samples": (samples, 1), "guidance": (guidance, None),
               "precision": (pipeline.signal.precision or "fp32", "fp32"), "others": (about_others, {}),
               "decoding": (dict(getattr(pipeline, "decoding", {})), {}),
               "quality": (list(measured), list(how.measured))}
    settings |= {name: value for name, (value, usual) in unusual.items() if value != usual}
    known: dict[str, str] = {}
    keys = {row["ID"]: how.row_key(row, known) for row in rows}
    own = {name: System(*others.get(name, (pipeline, name)), keys, rows) for name in systems if name not in made}
    own |= {name: ExternalSystem(Frozen(pipeline, how, batch_seconds), enhancers[made[name][0]], made[name][1], weight,
                                 keys) for name in systems if name in made}
    wanted = _wanted({name: own[name].rows for name in systems}, only, source)
    target, about_shards = output_dir, {**settings, "batch_seconds": batch_seconds}
    if shard is not None:
        target, settings = shard_folder(output_dir, shard), about_shards
    with locked(target):
        check_same_settings(target, settings, overwrite)
        if shard is None:
            merge_shards(output_dir, about_shards, wanted, overwrite)
        with remembering(pipeline.classifier, remember):
            for name in systems:
                decode(wanted[name], own[name], target / "decode" / f"{name}.jsonl", batch_seconds, measured, how,
                       shard, steps=steps, samples=samples, guidance=guidance, seed=seed)
        if shard is not None:
            return (f"shard {shard[0]} of {shard[1]} is decoded; once all are, the same command without --shard scores "
                    "them")
        about = {"external": {name: found.about for name, found in enhancers.items()}, "external_weight": weight}
        return _write_scores(domain, systems, rows, output_dir, record(
            **settings, **how.scoring(), **(about if enhancers else {}), systems=list(systems),
            batch_seconds=batch_seconds, device=pipeline.device, threads=torch.get_num_threads()))


def remembering(classifier: nn.Module, gigabytes: float) -> AbstractContextManager:
    """A context in which the classifier encodes nothing twice, where it can remember."""
    keep = getattr(classifier, "remembering", None)
    return keep(gigabytes) if keep is not None and gigabytes else nullcontext()


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
    return model() if callable(model) else load_recipe(domain.name).load_package(model, device)


def measures(how: Evaluation, quality: Sequence[str] | None) -> dict:
    """The measures of enhanced signals by name. Raises ValueError for an unknown one, or one that is not installed."""
    names = how.measured if quality is None else how.qualities if list(quality) == ["all"] else quality
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
    """Score what was decoded and write all results; returns the table."""
    decoded = {system: read_decoded(output_dir / "decode" / f"{system}.jsonl") for system in systems}
    scores = score(decoded, domain, list(dict.fromkeys(map(_condition, rows))))
    write_json(output_dir / domain.evaluation.scores_file, {**scores, "record": record})
    write_flat(output_dir, decoded, scores, rows, domain, record["settings"])
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


def _wanted(rows: Mapping[str, Sequence[Row]], only: Mapping[str, str], source: object) -> dict[str, list[Row]]:
    """Those of each system's `rows` that it decodes. Raises ValueError where that is nothing for all of them."""
    wanted = {}
    for system in rows:
        try:
            fits = re.compile(only.get(system, ".*")).fullmatch
        except re.error as error:
            raise ValueError(f"only {system}: {only[system]!r} is not a regular expression ({error})") from None
        wanted[system] = [row for row in rows[system] if fits(_condition(row))]
    if not any(wanted.values()):
        known = ", ".join(dict.fromkeys(_condition(row) for part in rows.values() for row in part))
        raise ValueError(f"{source}: nothing to decode, none of the conditions fits {', '.join(only.values())}; "
                         f"there are {known}")
    return wanted


# -- decoding -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class System:
    """A `strategy` of a package, scored on `rows`; `keys`: a fingerprint of what each ID is decoded from."""

    pipeline: CoupledPipeline
    strategy: str
    keys: Mapping[str, str]
    rows: Sequence[Row]

    def recognise(self, rows: Sequence[Row], signals: Sequence[Tensor], how: Evaluation, batch_seconds: float,
                  **sampling) -> tuple[Sequence, Sequence[Tensor | None]]:
        """A result for each of the signals, and what was made of it, None where it was not enhanced."""
        results = how.recognise(self.pipeline, signals, self.strategy, batch_seconds, **sampling)
        return results, [how.enhanced(result) for result in results]


class ExternalSystem:
    """What another enhancer made, scored in the way of a `variant`; as `System`."""

    def __init__(self, frozen: Frozen, external: External, variant: Variant, weight: float, keys: Mapping[str, str]):
        self.frozen, self.external, self.variant, self.weight = frozen, external, variant, weight
        self.pipeline, self.rows = frozen.pipeline, external.rows
        self.keys = external.keys(keys, *([weight] if variant.weighted else []))

    def recognise(self, rows: Sequence[Row], signals: Sequence[Tensor], how: Evaluation, batch_seconds: float,
                  **sampling) -> tuple[Sequence, Sequence[Tensor]]:
        """As in `System`; the classifier takes no sampling options."""
        made = [how.read_external(self.external.files[row["ID"]], self.pipeline.classifier, signal)
                for row, signal in zip(rows, signals)]
        return self.variant.run(self.frozen, signals, made, self.weight)


def decode(rows: Sequence[Row], system: System | ExternalSystem, path: Path, batch_seconds: float, measured: Mapping,
           how: Evaluation, shard: Shard | None = None, **sampling) -> None:
    """Append what `system` makes of every row that `path` does not hold yet, in batches sorted by duration.

    Entries of other signals than the system's keys say are replaced. `measured`: quality by name. Entries whose errors
    were counted otherwise are counted again.
    """
    done = keep_decoded(path, system.keys, how.unit, how.recount)
    append_decoded(path, batches(rows, done, batch_seconds, shard),
                   lambda batch: _decode_batch(batch, system, batch_seconds, measured, how, **sampling),
                   len(rows) // (shard[1] if shard else 1), how.unit)


def _decode_batch(batch: Sequence[Row], system: System | ExternalSystem, batch_seconds: float, measured: Mapping,
                  how: Evaluation, **sampling) -> list[dict]:
    signals = [how.read_noisy(row, system.pipeline.classifier) for row in batch]
    started = time.perf_counter()
    results, enhanced = system.recognise(batch, signals, how, batch_seconds, **sampling)
    seconds = time.perf_counter() - started
    entries = [how.entry(row, result) for row, result in zip(batch, results)]
    share = seconds / sum(entry["duration"] for entry in entries)
    return [{"ID": row["ID"], "condition": _condition(row), **entry, "seconds": round(share * entry["duration"], 6),
             **_quality(row, system.pipeline.classifier, how, signal, made, measured), "source": system.keys[row["ID"]]}
            for row, signal, made, entry in zip(batch, signals, enhanced, entries)]


def _quality(row: Row, classifier: nn.Module, how: Evaluation, noisy: Tensor, enhanced: Tensor | None,
             measured: Mapping) -> dict[str, float]:
    """Each measure of the input and of what was made of it; none where the input is clean already.

    The ratio of a clean input is unbounded and would rule every average.
    """
    clean = how.read_clean(row, classifier, noisy) if measured else None
    if clean is None or torch.equal(noisy, clean):
        return {}
    found = {f"{name}{suffix}": (quality.measure(signal, clean, classifier), quality.stored)
             for name, quality in measured.items()
             for suffix, signal in (("_input", noisy), ("", noisy if enhanced is None else enhanced))}
    return {name: round(value, digits) for name, (value, digits) in found.items() if value is not None}
