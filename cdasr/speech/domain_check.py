"""The rule by which a speech package tells that a recording is unlike what it was trained for.

    python -m cdasr.speech.domain_check PACKAGE --known noisy/manifest.csv --unknown DIR [--unknown DIR ...]

The rule (`cdasr.coupled.out_of_domain`) is fitted on a random half of each set and measured on the other half. It goes
into the package's `config.json`, with the rates that were measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from cdasr.coupled.bundled import find_package
from cdasr.coupled.out_of_domain import MEASURES, DomainCheck, fit, measure
from cdasr.runtime.atomic import write_json
from cdasr.runtime.provenance import record
from cdasr.speech.audio import read_audio
from cdasr.speech.manifest import read_manifest, read_row
from cdasr.speech.noise import find_audio
from cdasr.speech.pipeline import Pipeline

LONGEST = 6.0  # seconds of each recording
ITEMS = 12  # in a batch


def fit_domain_check(pipeline: Pipeline, known: Sequence[Tensor], unknown: Mapping[str, Sequence[Tensor]],
                     seed: int = 0) -> dict:
    """Rules for coupled and plain strategies from waveforms (samples,), as a package's `out_of_domain`.

    `measured` holds, for each rule, the share of false alarms among the `known` recordings and of misses among each
    kind of the `unknown` ones, in the halves that the rule was not fitted on. Raises ValueError for too few recordings.
    """
    generator = torch.Generator().manual_seed(seed)
    found: dict = {"measured": {}}
    strategies = {"coupled": pipeline.default_strategy, "enhanced": "enhanced"}
    for kind, strategy in strategies.items():
        if kind == "coupled" and pipeline.logits is None:
            continue
        sets = {name: _halves(_measured(pipeline, waves, strategy, name), generator)
                for name, waves in {"known": known, **unknown}.items()}
        rule = fit(sets["known"][0], torch.cat([sets[name][0] for name in unknown]))
        found[kind] = rule.config()
        found["measured"][kind] = {
            "strategy": strategy, "measures": list(MEASURES),
            "false_alarms": _share(rule, sets["known"][1], above=True),
            "misses": {name: _share(rule, sets[name][1], above=False) for name in unknown}}
    return found


def _measured(pipeline: Pipeline, waves: Sequence[Tensor], strategy: str, name: str) -> Tensor:
    """`MEASURES` of each waveform."""
    order = sorted(range(len(waves)), key=lambda place: len(waves[place]))
    rows: list[Tensor] = []
    for start in tqdm(range(0, len(order), ITEMS), desc=f"{strategy}: {name}"):
        outcome, batch, _ = pipeline.run([waves[place] for place in order[start:start + ITEMS]], strategy)
        rows.append(measure(outcome.logits, outcome.enhanced_logits, batch.rows(), outcome.enhanced.rows()))
    return torch.cat(rows)


def _halves(measured: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(measured), generator=generator)
    return measured[order[::2]], measured[order[1::2]]


def _share(rule: DomainCheck, measured: Tensor, above: bool) -> dict:
    """The share of items above the threshold, or not above it, and of how many."""
    out = rule.score(measured) > 0
    return {"share": round(float((out == above).double().mean()), 4), "items": len(measured)}


def _read(source: str, rate: int) -> list[Tensor]:
    """The recordings of a manifest or a folder, the first `LONGEST` seconds of each."""
    if Path(source).is_dir() and not (Path(source) / "wav.scp").is_file():
        waves = [read_audio(path, rate)[0] for path in tqdm(find_audio(source), desc=f"read {Path(source).name}")]
    else:
        waves = [read_row(row, rate) for row in read_manifest(source, empty_text=True)]
    return [torch.from_numpy(wave[:int(LONGEST * rate)]) for wave in waves]


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit the rule of a package as the command line says. Returns 0, or 2 with one line for unusable input."""
    parser = argparse.ArgumentParser(prog="python -m cdasr.speech.domain_check",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("package", help="folder of the package, which is changed")
    parser.add_argument("--known", required=True, metavar="MANIFEST", help="recordings of the kind it was trained for")
    parser.add_argument("--unknown", action="append", required=True, metavar="[NAME=]DIR",
                        help="other recordings: a folder or a manifest; once for each kind")
    parser.add_argument("--seed", type=int, default=0, help="of the halves; default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        path = find_package(options.package) / "config.json"
        pipeline = Pipeline.from_pretrained(options.package)
        named = [text.rpartition("=")[::2] for text in options.unknown]
        unknown = {name or Path(source).name: _read(source, pipeline.sample_rate) for name, source in named}
        found = fit_domain_check(pipeline, _read(options.known, pipeline.sample_rate), unknown, options.seed)
        found["measured"]["record"] = record(seed=options.seed)
        write_json(path, {**json.loads(path.read_text(encoding="utf-8")), "out_of_domain": found})
    except ValueError as error:
        print(f"cdasr: {error}", file=sys.stderr)
        return 2
    for kind in ("coupled", "enhanced"):
        if kind in found["measured"]:
            print(f"{kind}: {json.dumps(found['measured'][kind])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
