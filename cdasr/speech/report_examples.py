"""Utterances of a report: their sound in a size that a page can hold, spectrograms, and aligned transcripts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from cdasr.coupled.strategies import STRATEGIES
from cdasr.evaluation.html_examples import Example
from cdasr.evaluation.html_report import write_report as write_any_report
from cdasr.evaluation.html_runs import Run, find_manifest
from cdasr.runtime.terminal import note
from cdasr.speech.normalisers import Normaliser

LONGEST = 12.0  # seconds of an utterance that are shown
COLUMNS = 5  # spectrograms in a line
RATE = 16_000  # Hz, at most: enough for what recognisers hear


def write_report(runs: Sequence[str | os.PathLike], output_dir: str | os.PathLike, manifests: Sequence[Path] = (),
                 model: str | None = None, examples: int = 8, device: str = "cpu") -> Path:
    """A report with the sound of the worst utterances; returns the path of the page.

    `manifests`: where the runs' audio may be found; `model`: a package that enhances it again. Raises ValueError for
    runs, manifests and packages that cannot be used.
    """
    for path in manifests:
        read_rows(path)  # a wrong name is told at once
    pipeline = None
    if model is not None:
        from cdasr.speech.pipeline import Pipeline

        pipeline = Pipeline.from_pretrained(model, device)
    return write_any_report(runs, output_dir, lambda run: _media(run, manifests, pipeline), align, examples)


def _media(run: Run, manifests: Sequence[Path], pipeline) -> Callable[[str], Example | None]:
    """Sound and picture of an ID of a run; None for each where the manifest is not found, which stderr says."""
    path = find_manifest(run, manifests) if run.domain.name == "speech" else None
    if path is None:
        note(f"{run.name}: the manifest that was decoded is not found, or has changed; the report is without sound "
             "(give it with --manifest)")
        return lambda _: None
    rows, enhance = read_rows(path), {}
    if pipeline is not None:
        from cdasr.evaluation.store import model_id

        if run.record["settings"].get("model") != model_id(pipeline):
            note(f"{run.name}: --model is not the package that was evaluated; the report is without enhanced audio")
        else:
            enhance = enhancers(run, pipeline)

    def media(name: str) -> Example | None:
        try:
            return example(rows[name], enhance) if name in rows else None
        except (OSError, ValueError) as error:
            note(f"{name}: no sound in the report ({error})")
            return None
    return media


Enhance = Callable[[np.ndarray, int], np.ndarray]  # a waveform (samples,) at a rate in Hz


def enhancers(run: Run, pipeline) -> dict[str, Enhance]:
    """What systems make of a waveform, at its rate, with the run's options, by the name of the system.

    They are the signal process alone, the best system of the run, and the best of those that couple both processes.
    """
    import torch

    from cdasr.speech.audio import fit_length, resample

    settings, how = run.record["settings"], run.domain.evaluation
    options = {name: settings.get(name, usual) for name, usual in (("steps", None), ("samples", 1), ("guidance", None),
                                                                   ("seed", 0))}

    def enhancer(system: str) -> Enhance:
        def enhance(noisy: np.ndarray, rate: int) -> np.ndarray:
            wave = torch.from_numpy(resample(noisy, rate, pipeline.sample_rate))
            made = how.enhanced(how.recognise(pipeline, [wave], system, float("inf"), **options)[0])
            return noisy if made is None else fit_length(resample(made.numpy(), pipeline.sample_rate, rate), len(noisy))
        return enhance
    coupled = [name for name in run.average if name in STRATEGIES and STRATEGIES[name].coupled]
    coupled = sorted(coupled, key=lambda name: run.average[name][run.domain.rate])[:1]
    wanted = [name for name in dict.fromkeys(["enhanced", run.best, *coupled]) if name in run.decoded]
    return {name: enhancer(name) for name in wanted if name in pipeline.strategies and STRATEGIES[name].needs_signal}


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a manifest by ID; audio files are not looked at."""
    from cdasr.speech.manifest import read_manifest

    return {row["ID"]: row for row in read_manifest(path, check_audio=False, empty_text=True)}


def align(entry: Mapping) -> list[tuple[str, str, str]]:
    """The words said and understood side by side, `(equal | sub | del | ins, said, understood)` (jiwer).

    Both texts are normalised as they were when errors were counted.
    """
    import jiwer

    normalise = Normaliser(entry.get("normaliser", "plain").partition(",")[0])
    said, understood = normalise(entry["reference"]).split(), normalise(entry["text"]).split()
    if not said:
        return [("ins", "", word) for word in understood]
    pairs = []
    for chunk in jiwer.process_words(" ".join(said), " ".join(understood)).alignments[0]:
        one = said[chunk.ref_start_idx:chunk.ref_end_idx]
        other = understood[chunk.hyp_start_idx:chunk.hyp_end_idx]
        kind = {"substitute": "sub", "delete": "del", "insert": "ins"}.get(chunk.type, "equal")
        size = max(len(one), len(other))
        pairs += zip([kind] * size, one + [""] * (size - len(one)), other + [""] * (size - len(other)))
    return pairs


def example(row: Mapping[str, str], enhance: Mapping[str, Enhance] = MappingProxyType({})) -> Example:
    """The sound of a row, noisy, as each system of `enhance` makes it, and clean where it has that; with a picture.

    Raises ValueError or OSError for audio that cannot be read.
    """
    from cdasr.speech.audio import file_format
    from cdasr.speech.manifest import read_clean, read_row

    rate = min(file_format(row["wav"])[0], RATE)
    noisy = read_row(row, rate)
    waves = {"noisy": noisy, **{system: made(noisy, rate) for system, made in enhance.items()}}
    if row.get("clean_wav"):
        waves["clean"] = read_clean(row, rate, len(noisy))
    cut = len(noisy) > LONGEST * rate
    waves = {title: wave[:int(LONGEST * rate)] for title, wave in waves.items()}
    return Example({title: flac(wave, rate) for title, wave in waves.items()}, spectrograms(waves, rate),
                   f"first {LONGEST:g} s of {len(noisy) / rate:.0f} s" if cut else "")


def flac(wave: np.ndarray, rate: int) -> bytes:
    """A waveform (samples,) as a FLAC file of 16 bits; one beyond full scale is scaled down."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, wave / max(1.0, float(np.abs(wave).max(initial=0.0))), rate, format="FLAC",
                    subtype="PCM_16")
    return buffer.getvalue()


def spectrograms(waves: Mapping[str, np.ndarray], rate: int) -> bytes:
    """The spectrograms of waveforms (samples,) beside each other on one scale of levels, as PNG."""
    from cdasr.evaluation.html_figures import figures

    with figures() as plt:
        columns = min(len(waves), COLUMNS)
        rows = -(-len(waves) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(1.3 + 2.3 * columns, 0.4 + 1.75 * rows), sharey=True,
                                    sharex=True, squeeze=False, layout="constrained")
        found = {title: levels(wave, rate) for title, wave in waves.items()}
        top = max(level.max() for level in found.values())
        for axis, (title, level) in zip(axes.flat, found.items()):
            image = axis.imshow(level - top, origin="lower", aspect="auto", cmap="magma", vmin=-70, vmax=0,
                                extent=(0, len(waves[title]) / rate, 0, rate / 2000))
            axis.set_title(title, fontsize=9)
        for axis in axes.flat[len(waves):]:
            axis.set_axis_off()
        for axis in axes.flat[max(len(waves) - columns, 0):len(waves)]:  # the lowest of their columns
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("seconds", fontsize=9)
        for line in axes:
            line[0].set_ylabel("kHz", fontsize=9)
        figure.colorbar(image, ax=list(axes.flat), label="dB below the loudest", pad=0.01, aspect=15)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=90)
        plt.close(figure)
        return buffer.getvalue()


def levels(wave: np.ndarray, rate: int) -> np.ndarray:
    """Levels (F, N) in dB of frames of 32 ms every 8 ms."""
    size, hop = int(0.032 * rate), int(0.008 * rate)
    padded = np.pad(wave, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    return 20 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)).T + 1e-6)
