"""`cdasr evaluate`: decode a manifest with several systems, then score what was written.

Decoding appends one JSON line an utterance to `decode/<system>.jsonl`, so that an interrupted run goes on where it
stopped. Scoring reads those lines only.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from cdasr.evaluation.report import table
from cdasr.evaluation.statistics import (
    bootstrap,
    calibration_error,
    interval,
    paired_p_value,
    relative_interval,
    surest,
    wer,
)
from cdasr.provenance import record, write_json
from cdasr.speech.audio import read_audio
from cdasr.speech.manifest import read_clean, read_manifest
from cdasr.speech.words import correct_words, word_errors

if TYPE_CHECKING:
    from cdasr.pipeline import Pipeline


def evaluate(manifest: str | os.PathLike, model, systems: Sequence[str] | None, output_dir: str | os.PathLike, *,
             steps: int | None = None, batch_seconds: float = 60.0, device: str = "auto", seed: int = 0,
             limit: int | None = None, overwrite: bool = False,
             others: Mapping[str, tuple[Pipeline, str]] | None = None,
             conditions: Sequence[str] | None = None) -> str:
    """Decode `manifest` with each of `systems`, write `wer.json`, `table.txt` and `table.md`, and return the table.

    `model` is a package's name or folder, or a `Pipeline`; `systems` None means all that it can run; `others` are
    systems of further packages, each a pipeline and its strategy, by the names that `systems` has for them. `limit`
    keeps the manifest's first utterances only, `conditions` those of some conditions; a later run can add others.
    Raises ValueError for an unknown system or condition, a bad manifest, a condition without words, or an
    `output_dir` that holds results of other settings, before anything is written.
    """
    from cdasr.pipeline import Pipeline, check_strategies

    if systems is not None and not systems:
        raise ValueError("no systems to evaluate; name at least one, e.g. --systems none,enhanced")
    others = others or {}
    check_strategies([name for name in systems or () if name not in others])
    rows, output_dir = read_manifest(manifest)[:limit], Path(output_dir)
    fingerprint = _hash([str(rows)])
    rows = _of_conditions(rows, conditions, manifest)
    _check_words(rows, manifest)
    pipeline = model if isinstance(model, Pipeline) else Pipeline.from_pretrained(model, device=device)
    systems = systems or [*pipeline.strategies, *others]
    pipeline.check([name for name in systems if name not in others])
    settings = {"manifest": Path(manifest).name, "manifest_sha256": fingerprint, "model": _model_id(pipeline),
                "steps": steps, "seed": seed}
    if pipeline.precision != "fp32":
        settings["precision"] = pipeline.precision
    if others:
        settings["others"] = {name: [_model_id(other), strategy] for name, (other, strategy) in others.items()}
    _claim(output_dir, settings, overwrite)
    for system in systems:
        decode(rows, *others.get(system, (pipeline, system)), output_dir / "decode" / f"{system}.jsonl", steps,
               batch_seconds, seed)
    scores = score({system: read_decoded(output_dir / "decode" / f"{system}.jsonl") for system in systems},
                   conditions=list(dict.fromkeys(map(_condition, rows))))
    scores["record"] = record(**settings, systems=list(systems), batch_seconds=batch_seconds, device=pipeline.device,
                              threads=_threads())
    write_json(output_dir / "wer.json", scores)
    for suffix, markdown in (("txt", False), ("md", True)):
        (output_dir / f"table.{suffix}").write_text(table(scores, markdown) + "\n", encoding="utf-8")
    return table(scores)


def _condition(row: Mapping[str, str]) -> str:
    return row.get("condition") or "all"


def _of_conditions(rows: Sequence[Mapping[str, str]], conditions: Sequence[str] | None,
                   manifest: str | os.PathLike) -> Sequence[Mapping[str, str]]:
    known = list(dict.fromkeys(map(_condition, rows)))
    if unknown := sorted(set(conditions or ()) - set(known)):
        raise ValueError(f"{manifest}: no condition {', '.join(unknown)}; it has {', '.join(known)}")
    return [row for row in rows if _condition(row) in (conditions or known)]


def _check_words(rows: Sequence[Mapping[str, str]], manifest: str | os.PathLike) -> None:
    """A word error rate needs words: find out before decoding, not after."""
    spoken = {_condition(row) for row in rows if row["text"].strip()}
    if silent := sorted({_condition(row) for row in rows} - spoken):
        raise ValueError(f"{manifest}: no words in the text column of condition {', '.join(silent)}; the word error "
                         "rate is not defined there, leave it out")


# -- decoding -----------------------------------------------------------------------------------------------------


def decode(rows: Sequence[Mapping[str, str]], pipeline: Pipeline, strategy: str, path: Path, steps: int | None,
           batch_seconds: float, seed: int) -> None:
    """Append what `strategy` hears of every row that `path` does not hold yet, in batches sorted by length."""
    done = {entry["ID"] for entry in read_decoded(path)}
    waiting = sorted((row for row in rows if row["ID"] not in done), key=lambda row: float(row["duration"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file, tqdm(total=len(rows), initial=len(done), unit="utt",
                                                        desc=f"decode {path.stem}") as bar:
        for batch in _batches(waiting, batch_seconds):
            lines = [json.dumps(entry, ensure_ascii=False) + "\n"
                     for entry in _decode_batch(batch, pipeline, strategy, steps, seed)]
            file.write("".join(lines))
            file.flush()
            bar.update(len(batch))


def read_decoded(path: Path) -> list[dict]:
    """The decoded utterances in `path`; a last line torn by a crash is cut off the file."""
    if not path.is_file():
        return []
    data = path.read_bytes()  # not text: the tear may be inside a character
    whole = data[:data.rfind(b"\n") + 1]
    if whole != data:
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.split(b"\n") if line]  # str.splitlines cuts at U+2028 as well


def _decode_batch(batch: Sequence[Mapping[str, str]], pipeline: Pipeline, strategy: str, steps: int | None,
                  seed: int) -> list[dict]:
    import torch

    waves = [torch.from_numpy(read_audio(row["wav"], pipeline.sample_rate)[0]) for row in batch]
    started = time.perf_counter()
    results = pipeline.transcribe(waves, strategy=strategy, steps=steps, seed=seed)
    seconds = time.perf_counter() - started
    share = seconds / sum(result.duration for result in results)
    return [_entry(row, wave, result, share * result.duration, pipeline.sample_rate)
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


# -- scoring ------------------------------------------------------------------------------------------------------


def score(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str] | None = None) -> dict:
    """Word error rates by condition (in the order of `conditions`) and system, with 95 % bootstrap intervals.

    A system's p-values are those of its difference to every earlier system, paired by utterance; `relative` holds the
    interval of that difference in per cent of the earlier system's rate.
    """
    systems = list(decoded)
    conditions = conditions or list(dict.fromkeys(entry["condition"] for entry in decoded[systems[0]]))
    return {"systems": systems, "conditions": {name: score_conditions(decoded, [name]) for name in conditions}}


def score_conditions(decoded: Mapping[str, Sequence[dict]], conditions: Sequence[str]) -> dict:
    """The scores of each system averaged over `conditions`, each condition counting alike."""
    systems = list(decoded)
    groups = [{system: sorted((entry for entry in decoded[system] if entry["condition"] == condition),
                              key=lambda entry: entry["ID"]) for system in systems} for condition in conditions]
    counts = [(np.array([[entry["errors"] for entry in group[system]] for system in systems]),
               np.array([entry["words"] for entry in group[systems[0]]])) for group in groups]
    rates = bootstrap(counts)
    scores = {}
    for index, system in enumerate(systems):
        entries = [entry for group in groups for entry in group[system]]
        scores[system] = {
            "wer": float(np.mean([wer(errors[index], words) for errors, words in counts])),
            "interval": interval(rates[:, index]),
            "p_values": {systems[other]: paired_p_value(rates, index, other) for other in range(index)},
            "relative": {systems[other]: relative_interval(rates, index, other) for other in range(index)},
            "words": int(sum(words.sum() for _, words in counts)), "utterances": len(entries),
            **{key: _mean([entry[key] for entry in entries if key in entry]) for key in ("si_sdr_input", "si_sdr")},
            **_confidence(entries),
            "nfe": {key: _mean([entry["nfe"][key] for entry in entries]) for key in entries[0]["nfe"]},
            "rtf": sum(entry["seconds"] for entry in entries) / sum(entry["duration"] for entry in entries)}
    return scores


def _confidence(entries: Sequence[Mapping]) -> dict[str, float | None]:
    """Calibration of the word confidences, and the word error rate of the surest 80 % of the utterances."""
    kept = [entries[index] for index in surest([entry["confidence"] for entry in entries])]
    words = sum(entry["words"] for entry in kept)
    return {"calibration_error": calibration_error([value for entry in entries for value in entry["confidence"]],
                                                   [right for entry in entries for right in entry["correct"]]),
            "wer_surest": 100.0 * sum(entry["errors"] for entry in kept) / words if words else None}


def _mean(numbers: Sequence[float]) -> float | None:
    return float(np.mean(numbers)) if numbers else None


# -- settings -----------------------------------------------------------------------------------------------------


def _claim(output_dir: Path, settings: dict, overwrite: bool) -> None:
    """Keep results of different settings apart: one set of settings an `output_dir`."""
    path = output_dir / "evaluate.json"
    if path.is_file() and (found := json.loads(path.read_text(encoding="utf-8"))) != settings:
        if not overwrite:
            changed = ", ".join(key for key in {**settings, **found} if found.get(key) != settings.get(key))
            raise ValueError(f"{output_dir} holds results of other settings ({changed}); choose another --output-dir "
                             "or discard them with --overwrite")
        shutil.rmtree(output_dir / "decode", ignore_errors=True)
    write_json(path, settings)


def _model_id(pipeline) -> str:
    """A fingerprint of the weights and settings that results depend on."""
    models = [model for model in (pipeline.recogniser, pipeline.signal, pipeline.logits) if model is not None]
    tensors = [tensor for model in models for tensor in model.state_dict().values()]
    return _hash([json.dumps(pipeline.config, sort_keys=True), *map(_bytes, tensors)])


def _bytes(tensor) -> bytes:
    """The numbers of a tensor of any type, also of those that NumPy does not have."""
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _hash(parts: Sequence[str | bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def _threads() -> int:
    import torch

    return torch.get_num_threads()
