"""Audio that another enhancer wrote for the recordings of a manifest: found by name, checked, fitted to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from cdasr.coupled.evaluation import Row
from cdasr.coupled.pipeline import Outcome, observe_both
from cdasr.runtime.batching import batches_within
from cdasr.runtime.terminal import note
from cdasr.speech.audio import audio_format, fit_length, read_audio
from cdasr.speech.joining import Part, join
from cdasr.speech.segments import segments

SUFFIXES = (".wav", ".flac", ".ogg")
TOLERANCE = 0.05  # seconds that an enhanced recording may be longer or shorter


def external_files(folder: Path, rows: Sequence[Row]) -> dict[str, Path]:
    """The enhanced recordings in `folder` by ID: `<ID>.wav`, or the name of the degraded one.

    That is `<its folder>/<its name>` or its name alone, where no other row has the same; .wav, .flac and .ogg are
    looked for, and the degraded recording's own suffix.
    """
    names = {row["ID"]: _names(row) for row in rows}
    counts = Counter(name for found in names.values() for name in found)
    found = {}
    for row in rows:
        stems = [row["ID"], *(name for name in names[row["ID"]] if counts[name] == 1)]
        suffixes = dict.fromkeys((*SUFFIXES, Path(row["wav"]).suffix))
        paths = (folder / f"{stem}{suffix}" for stem in stems if ".." not in Path(stem).parts
                 and not Path(stem).is_absolute() for suffix in suffixes)
        if (path := next((path for path in paths if path.is_file()), None)) is not None:
            found[row["ID"]] = path
    return found


def _names(row: Row) -> tuple[str, str]:
    path = Path(row["wav"])
    return f"{path.parent.name}/{path.stem}", path.stem


def check_external(name: str, files: Mapping[str, Path], rows: Sequence[Row]) -> None:
    """Raise ValueError for recordings that cannot be read or differ in length from those of `rows` by too much.

    Lengths that differ by less, and other sampling rates, are told on stderr, each in a line.
    """
    longest, others, rates = 0.0, 0, {}
    for row in rows:
        path, degraded = files[row["ID"]], audio_format(row["wav"])
        made = audio_format(path)
        expected = float(row["duration"]) if row.get("offset") else degraded.seconds
        difference = abs(made.seconds - expected)
        if difference > TOLERANCE:
            raise ValueError(f"{path}: lasts {made.seconds:.2f} s and the degraded recording {row['ID']} "
                             f"{expected:.2f} s; expected at most {1000 * TOLERANCE:.0f} ms more or less")
        if difference >= 0.0005:
            longest, others = max(longest, difference), others + 1
        if made.rate != degraded.rate:
            rates[made.rate] = degraded.rate
    if others:
        note(f"external {name}: {others} of {len(rows)} recordings are up to {1000 * longest:.0f} ms longer or shorter "
             "than the degraded ones; cut, or filled up with zeros")
    if rates:
        found, expected = (", ".join(f"{rate} Hz" for rate in sorted(set(group))) for group in (rates, rates.values()))
        note(f"external {name}: recordings at {found}, the degraded ones at {expected}; resampled")


def read_external(path: Path, recogniser: nn.Module, degraded: Tensor) -> Tensor:
    """The waveform of an enhanced recording at the recogniser's rate, as long as the `degraded` one (samples,)."""
    return torch.from_numpy(fit_length(read_audio(path, recogniser.sample_rate)[0], len(degraded)).copy())


def fuse_external(pipeline, degraded: Sequence[Tensor], external: Sequence[Tensor], batch_seconds: float) -> list:
    """A transcript of each pair of recordings (samples,), read as by the strategy `fused`; long ones are cut alike."""
    pipeline.check(["fused"])
    parts = [list(segments([wave], pipeline.sample_rate)) for wave in degraded]
    places = [(number, place) for number, pieces in enumerate(parts) for place in range(len(pieces))]
    others = [wave[piece.start:piece.start + len(piece.wave)] for pieces, wave in zip(parts, external)
              for piece in pieces]
    found = {}
    for group in batches_within(list(range(len(places))), [len(other) for other in others],
                                batch_seconds * pipeline.sample_rate):
        batch = pipeline.batch([parts[places[at][0]][places[at][1]].wave for at in group])
        cleaned = pipeline.batch([others[at] for at in group])
        with torch.inference_mode():
            noisy, other = observe_both(pipeline.classifier, batch, cleaned.signals)
            logits = other.fused(noisy, pipeline.fused_weight)
        outcome = Outcome(logits, nfe={"classifier": 2})
        found |= {places[at]: made for at, made in zip(group, pipeline.transcripts(outcome, batch, "none"))}
    return [join([Part(piece.start, found[number, place]) for place, piece in enumerate(pieces)], pipeline.sample_rate)
            for number, pieces in enumerate(parts)]
