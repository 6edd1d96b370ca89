"""`cdasr evaluate`: decode a manifest with several systems, then score what was written.

Decoding appends one JSON line an utterance to `decode/<system>.jsonl`, so that an interrupted run goes on where it
stopped. Scoring reads those lines only.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cdasr.evaluation.report import table
from cdasr.evaluation.scoring import score
from cdasr.evaluation.store import (
    append_decoded,
    audio_key,
    claim,
    fingerprint,
    keep_decoded,
    model_id,
    read_decoded,
)
from cdasr.runtime.atomic import write_json, write_text
from cdasr.runtime.lock import locked
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.provenance import record
from cdasr.speech.manifest import manifest_files, read_clean, read_manifest, read_row
from cdasr.speech.segments import transcribe_recordings
from cdasr.speech.words import correct_words, word_errors

if TYPE_CHECKING:
    from cdasr.speech.pipeline import Pipeline


def evaluate(manifest: str | os.PathLike, model, systems: Sequence[str] | None, output_dir: str | os.PathLike, *,
             steps: int | None = None, samples: int = 1, guidance: float | None = None, batch_seconds: float = 20.0,
             device: str = "auto", seed: int = 0, limit: int | None = None, overwrite: bool = False,
             others: Mapping[str, tuple[Pipeline, str]] | None = None,
             conditions: Sequence[str] | None = None, only: Mapping[str, str] | None = None) -> str:
    """Decode `manifest` with each of `systems`, write `wer.json`, `table.txt` and `table.md`, and return the table.

    `model` is a package's name or folder, a `Pipeline`, or a function that loads one when all else is checked;
    `systems` None means all that it can run; `others` are systems of further packages, each a pipeline and its
    strategy, by the names that `systems` has for them. `limit` keeps the manifest's first utterances only, `conditions`
    those of some conditions, `only` those of which the name fits a system's regular expression; a later run can add
    others. `steps`, `samples`, `guidance`: as in `Pipeline.transcribe`.
    Recordings that have changed since they were decoded are decoded again.
    Raises ValueError for an unknown system or condition, a bad manifest, recordings that cannot be used, a condition
    without words, or an `output_dir` that cannot be written to, that another run writes to, or that holds results of
    other settings, before anything is written.
    """
    from cdasr.coupled.strategies import check_strategies
    from cdasr.speech.pipeline import Pipeline

    if systems is not None and not systems:
        raise ValueError("no systems to evaluate; name at least one, e.g. --systems none,enhanced")
    others = others or {}
    check_strategies([name for name in (*(systems or ()), *(only or {})) if name not in others])
    check_folder(output_dir)
    rows, output_dir = read_manifest(manifest, empty_text=True)[:limit], Path(output_dir)
    rows = _of_conditions(rows, conditions, manifest)
    _check_words(rows, manifest)
    if callable(model) and not isinstance(model, Pipeline):
        model = model()
    pipeline = model if isinstance(model, Pipeline) else Pipeline.from_pretrained(model, device=device)
    systems = systems or [*pipeline.strategies, *others]
    pipeline.check([name for name in systems if name not in others], steps, samples)
    settings = {"manifest": Path(manifest).name, "manifest_sha256": fingerprint(
                    path.read_bytes() for path in manifest_files(manifest)),
                "model": model_id(pipeline), "steps": steps, "seed": seed}
    about_others = {name: [model_id(other), strategy] for name, (other, strategy) in others.items()}
    unusual = {"limit": (limit, None), "samples": (samples, 1), "guidance": (guidance, None),
               "precision": (pipeline.precision, "fp32"), "others": (about_others, {})}
    settings |= {name: value for name, (value, usual) in unusual.items() if value != usual}
    wanted = _wanted(rows, systems, only or {}, manifest)
    keys = _keys(rows)
    with locked(output_dir):
        claim(output_dir, settings, overwrite)
        for system in systems:
            decode(wanted[system], *others.get(system, (pipeline, system)), output_dir / "decode" / f"{system}.jsonl",
                   batch_seconds, keys, steps=steps, samples=samples, guidance=guidance, seed=seed)
        scores = score({system: read_decoded(output_dir / "decode" / f"{system}.jsonl") for system in systems},
                       conditions=list(dict.fromkeys(map(_condition, rows))))
        scores["record"] = record(**settings, systems=list(systems), batch_seconds=batch_seconds,
                                  device=pipeline.device, threads=_threads())
        write_json(output_dir / "wer.json", scores)
        for suffix, markdown in (("txt", False), ("md", True)):
            write_text(output_dir / f"table.{suffix}", table(scores, markdown) + "\n")
    return table(scores)


def _keys(rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """A fingerprint, by ID, of the audio that an entry depends on."""
    known: dict[str, str] = {}
    return {row["ID"]: audio_key(filter(None, (row["wav"], row.get("clean_wav"))), known) for row in rows}


def _condition(row: Mapping[str, str]) -> str:
    return row.get("condition") or "all"


def _of_conditions(rows: Sequence[Mapping[str, str]], conditions: Sequence[str] | None,
                   manifest: str | os.PathLike) -> Sequence[Mapping[str, str]]:
    known = list(dict.fromkeys(map(_condition, rows)))
    if unknown := sorted(set(conditions or ()) - set(known)):
        raise ValueError(f"{manifest}: no condition {', '.join(unknown)}; it has {', '.join(known)}")
    return [row for row in rows if _condition(row) in (conditions or known)]


def _wanted(rows: Sequence[Mapping[str, str]], systems: Sequence[str], only: Mapping[str, str],
            manifest: str | os.PathLike) -> dict[str, list[Mapping[str, str]]]:
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
        raise ValueError(f"{manifest}: nothing to decode, none of the conditions fits {', '.join(only.values())}; "
                         f"there are {known}")
    return wanted


def _check_words(rows: Sequence[Mapping[str, str]], manifest: str | os.PathLike) -> None:
    """A word error rate needs words: find out before decoding, not after."""
    spoken = {_condition(row) for row in rows if row["text"].strip()}
    if silent := sorted({_condition(row) for row in rows} - spoken):
        raise ValueError(f"{manifest}: no words in the text column of condition {', '.join(silent)}; the word error "
                         "rate is not defined there, leave it out")


# -- decoding -----------------------------------------------------------------------------------------------------


def decode(rows: Sequence[Mapping[str, str]], pipeline: Pipeline, strategy: str, path: Path, batch_seconds: float,
           keys: Mapping[str, str], **sampling) -> None:
    """Append what `strategy` hears of every row that `path` does not hold yet, in batches sorted by length.

    `keys`: a fingerprint of each ID's audio; entries of other audio are replaced.
    """
    done = keep_decoded(path, keys)
    waiting = sorted((row for row in rows if row["ID"] not in done), key=lambda row: float(row["duration"]))
    append_decoded(path, _batches(waiting, batch_seconds),
                   lambda batch: _decode_batch(batch, pipeline, strategy, batch_seconds, keys, **sampling), len(rows),
                   "utt")


def _decode_batch(batch: Sequence[Mapping[str, str]], pipeline: Pipeline, strategy: str, batch_seconds: float,
                  keys: Mapping[str, str], **sampling) -> list[dict]:
    import torch

    waves = [torch.from_numpy(read_row(row, pipeline.sample_rate)) for row in batch]
    started = time.perf_counter()
    results = transcribe_recordings(pipeline, waves, strategy, batch_seconds=batch_seconds, **sampling)
    seconds = time.perf_counter() - started
    share = seconds / sum(result.duration for result in results)
    return [{**_entry(row, wave, result, share * result.duration, pipeline.sample_rate), "audio": keys[row["ID"]]}
            for row, wave, result in zip(batch, waves, results)]


def _entry(row: Mapping[str, str], wave, result, seconds: float, rate: int) -> dict:
    import torch

    from cdasr.speech.metrics import si_sdr

    errors, words = word_errors(row["text"], result.text)
    entry = {"ID": row["ID"], "condition": _condition(row), "reference": row["text"], "text": result.text,
             "text_enhanced": result.text_enhanced, "errors": errors, "words": words, "nfe": result.nfe,
             "duration": round(result.duration, 4), "seconds": round(seconds, 6),
             "confidence": [round(word.confidence, 4) for word in result.words],
             "correct": correct_words(row["text"], " ".join(word.word for word in result.words))}
    if row.get("clean_wav"):
        clean = torch.from_numpy(read_clean(row, rate, len(wave)))
        if not torch.equal(wave, clean):  # the ratio of a clean input is unbounded and would rule every average
            entry["si_sdr_input"] = round(float(si_sdr(wave, clean)), 3)
            entry["si_sdr"] = round(float(si_sdr(wave if result.wave is None else result.wave, clean)), 3)
    return entry


def _batches(rows: Sequence[Mapping[str, str]], batch_seconds: float) -> Iterator[list[Mapping[str, str]]]:
    """Consecutive rows, sorted by duration, whose padded size stays within `batch_seconds`."""
    batch: list[Mapping[str, str]] = []
    for row in rows:
        if batch and float(row["duration"]) * (len(batch) + 1) > batch_seconds:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _threads() -> int:
    import torch

    return torch.get_num_threads()
