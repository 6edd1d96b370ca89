"""`cdasr tune-lm`: the weight of a language model and the bonus of a word, chosen on a manifest with texts.

A strategy runs once on each recording. Its logits are kept in a file, and every setting decodes those; another model or
other settings to try need no further run.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from cdasr.classifiers.beam_search import BeamSearch
from cdasr.coupled.evaluation import Row
from cdasr.coupled.pipeline import Outcome
from cdasr.evaluation.report import render
from cdasr.evaluation.store import model_id
from cdasr.runtime.atomic import fingerprint, write_bytes, write_json
from cdasr.runtime.batching import batches_within
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.provenance import record
from cdasr.speech.decoding import Decoding, check_search
from cdasr.speech.evaluation import check_words, read_noisy, read_rows, row_files
from cdasr.speech.normalisers import PLAIN, Normaliser
from cdasr.speech.pipeline import Batch, Pipeline
from cdasr.speech.segments import transcribe_recordings
from cdasr.speech.words import word_errors

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
BONUSES = (0.0, 1.0, 2.0)
LOGITS, FOUND = "logits.safetensors", "tune_lm.json"


def tune_lm(manifest: str | os.PathLike, load: Callable[[], Pipeline], decoding: Decoding,
            output_dir: str | os.PathLike, weights: Sequence[float] = WEIGHTS, bonuses: Sequence[float] = BONUSES,
            strategy: str | None = None, batch_seconds: float = 20.0, normalise: Normaliser = PLAIN,
            **sampling) -> str:
    """Word error rates by `weights` of the language model of `decoding` and `bonuses` of a word; returns them as text.

    Writes `tune_lm.json`, and the logits. `strategy` and `sampling` (steps, seed, guidance) are those of
    `Pipeline.transcribe`. Among equals the least weight wins, then the least bonus.
    Raises ValueError for a manifest without words, and for a recogniser or a file that a search cannot use.
    """
    check_folder(output_dir)
    rows, search = read_rows(Path(manifest)), decoding.search()
    check_words(rows, manifest)
    pipeline = load()
    check_search(pipeline.recogniser, decoding, search)
    strategy = strategy or pipeline.default_strategy
    pipeline.check([strategy], sampling.get("steps"))
    settings = {"manifest_sha256": fingerprint(path.read_bytes() for path in row_files(Path(manifest))),
                "model": model_id(pipeline), "strategy": strategy, "batch_seconds": batch_seconds, **sampling}
    replayed = Replayed(pipeline, Path(output_dir) / LOGITS, settings)
    trials = {"greedy": None, "no language model": replace(search, lm=None, word_bonus=0.0)} | {
        (weight, bonus): replace(search, lm_weight=weight, word_bonus=bonus) for weight in weights for bonus in bonuses}
    rates = _rates(replayed, rows, trials, batch_seconds, normalise, strategy, sampling)
    tried = [{"lm_weight": weight, "word_bonus": bonus, "wer": rates[weight, bonus]}
             for weight in weights for bonus in bonuses]
    best = min(tried, key=lambda trial: (trial["wer"], trial["lm_weight"], abs(trial["word_bonus"])))
    alone = {name.replace(" ", "_"): rates[name] for name in ("greedy", "no language model")}
    write_json(Path(output_dir) / FOUND, {"best": best, **alone, "tried": tried, "record": record(
        **settings, manifest=Path(manifest).name, decoding=decoding.settings(), normaliser=normalise.setting)})
    return _text(rates, weights, bonuses, best)


def _text(rates: Mapping, weights: Sequence[float], bonuses: Sequence[float], best: Mapping) -> str:
    """A table with a line for each weight, and what to decode with."""
    grid = render([["WER %, weight", *(f"bonus {bonus:g}" for bonus in bonuses)],
                   *([f"{weight:g}", *(f"{rates[weight, bonus]:.2f}" for bonus in bonuses)] for weight in weights)],
                  markdown=False)
    return (f"{grid}\ngreedy: {rates['greedy']:.2f}; the same beam without a language model: "
            f"{rates['no language model']:.2f}\nbest, {best['wer']:.2f}: --lm-weight {best['lm_weight']:g} "
            f"--word-bonus {best['word_bonus']:g}")


def _rates(replayed: Replayed, rows: Sequence[Row], trials: Mapping[object, BeamSearch | None], batch_seconds: float,
           normalise: Normaliser, strategy: str, sampling: Mapping) -> dict[object, float]:
    """The word error rate in per cent of each trial; the recordings of a batch are read once for all."""
    rows = sorted(rows, key=lambda row: float(row["duration"]))
    errors, words = dict.fromkeys(trials, 0), 0
    with tqdm(total=len(rows), unit="recordings", desc="tune the language model") as bar, replayed:
        for batch in batches_within(rows, [float(row["duration"]) for row in rows], batch_seconds):
            waves = [read_noisy(row, replayed.recogniser) for row in batch]
            words += sum(len(normalise(row["text"]).split()) for row in batch)
            for name, search in trials.items():
                found = transcribe_recordings(replayed.with_search(search), waves, strategy,
                                              batch_seconds=batch_seconds, **sampling)
                errors[name] += sum(word_errors(row["text"], result.text, normalise)[0]
                                    for row, result in zip(batch, found))
            bar.update(len(batch))
    return {name: 100.0 * count / words for name, count in errors.items()}


class Replayed(Pipeline):
    """A pipeline that runs a strategy once on each batch and then gives the same logits again.

    They are kept in `path`, which is read where it was written with the same `settings`. New ones are written at the
    end of a `with` block, also where that is interrupted.
    """

    def __init__(self, pipeline: Pipeline, path: Path, settings: Mapping):
        super().__init__(pipeline.recogniser, pipeline.signal, pipeline.config, pipeline.device, pipeline.logits)
        self.path, self.settings = path, json.dumps(settings, sort_keys=True)
        self.kept = self._read()
        self.written = len(self.kept)

    def _read(self) -> dict[str, Tensor]:
        from safetensors import SafetensorError, safe_open

        if not self.path.is_file():
            return {}
        try:
            with safe_open(self.path, "pt") as file:
                if (file.metadata() or {}).get("settings") == self.settings:
                    names = list(file.keys())
                    return {name: file.get_tensor(name) for name in names}
        except SafetensorError:
            pass  # torn, or of something else: written anew
        return {}

    def __enter__(self) -> Replayed:
        return self

    def __exit__(self, *error) -> None:
        from safetensors.torch import save

        if len(self.kept) > self.written:
            write_bytes(self.path, save(self.kept, {"settings": self.settings}))
            self.written = len(self.kept)

    def with_search(self, search: BeamSearch | None) -> Replayed:
        """The same, sharing its logits, with another search."""
        other = copy.copy(self)
        other.search = search
        return other

    def run(self, signals: Sequence[Tensor], strategy: str | None = None, *args, **sampling
            ) -> tuple[Outcome, Batch, str]:
        """As `CoupledPipeline.run`, but for the enhanced signals."""
        key = fingerprint(signal.numpy().tobytes() for signal in signals)
        if f"{key}.values" not in self.kept:
            logits = super().run(signals, strategy, *args, **sampling)[0].logits
            for name in ("values", "lengths"):
                self.kept[f"{key}.{name}"] = getattr(logits, name).cpu().contiguous()
        batch = self.batch([self.surround(signal) if strategy != "none" else signal for signal in signals])
        values, lengths = (self.kept[f"{key}.{name}"].to(self.device) for name in ("values", "lengths"))
        return Outcome(self.recogniser.kind(values, lengths, None, self.recogniser)), batch, strategy
