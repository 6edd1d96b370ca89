"""Utterances of a report: their sound in a size that a page can hold, spectrograms, and aligned transcripts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cdasr.evaluation.html_examples import Example
from cdasr.evaluation.html_report import write_report as write_any_report
from cdasr.evaluation.html_runs import Run, find_manifest
from cdasr.runtime.terminal import note
from cdasr.speech.normalisers import Normaliser

LONGEST = 12.0  # seconds of an utterance that are shown
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
    rows, enhance = read_rows(path), None
    if pipeline is not None:
        from cdasr.evaluation.store import model_id

        if run.record["settings"].get("model") != model_id(pipeline):
            note(f"{run.name}: --model is not the package that was evaluated; the report is without enhanced audio")
        else:
            enhance = _enhancer(run, pipeline)

    def media(name: str) -> Example | None:
        try:
            return example(rows[name], enhance) if name in rows else None
        except (OSError, ValueError) as error:
            note(f"{name}: no sound in the report ({error})")
            return None
    return media


def _enhancer(run: Run, pipeline) -> Callable[[np.ndarray, int], np.ndarray] | None:
    """What the best system of a run makes of a waveform, at its rate, with the run's options; None: nothing."""
    import torch

    from cdasr.speech.audio import fit_length, resample

    settings, how = run.record["settings"], run.domain.evaluation
    options = {name: settings.get(name, usual) for name, usual in (("steps", None), ("samples", 1), ("guidance", None),
                                                                   ("seed", 0))}

    def enhance(noisy: np.ndarray, rate: int) -> np.ndarray:
        wave = torch.from_numpy(resample(noisy, rate, pipeline.sample_rate))
        made = how.enhanced(how.recognise(pipeline, [wave], run.best, float("inf"), **options)[0])
        return noisy if made is None else fit_length(resample(made.numpy(), pipeline.sample_rate, rate), len(noisy))
    return enhance if run.best in pipeline.strategies and run.best != "none" else None


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


def example(row: Mapping[str, str], enhance: Callable[[np.ndarray, int], np.ndarray] | None = None) -> Example:
    """The sound of a row, noisy, clean where it has that, and enhanced with `enhance(noisy, rate)`; with a picture.

    Raises ValueError or OSError for audio that cannot be read.
    """
    from cdasr.speech.audio import file_format
    from cdasr.speech.manifest import read_clean, read_row

    rate = min(file_format(row["wav"])[0], RATE)
    noisy = read_row(row, rate)
    waves = {"noisy": noisy}
    if enhance is not None:
        waves["enhanced"] = enhance(noisy, rate)
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
        figure, axes = plt.subplots(1, len(waves), figsize=(0.6 + 3 * len(waves), 1.9), sharey=True, squeeze=False,
                                    layout="constrained")
        top = None
        for axis, (title, wave) in zip(axes[0], waves.items()):
            level, *_ = _levels(wave, rate)
            top = level.max() if top is None else top
            axis.imshow(level, origin="lower", aspect="auto", cmap="magma", vmin=top - 70, vmax=top,
                        extent=(0, len(wave) / rate, 0, rate / 2000))
            axis.set_title(title, fontsize=8)
            axis.set_xlabel("seconds", fontsize=8)
        axes[0, 0].set_ylabel("kHz", fontsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        plt.close(figure)
        return buffer.getvalue()


def _levels(wave: np.ndarray, rate: int) -> tuple[np.ndarray, int]:
    """Levels (F, N) in dB of frames of 32 ms every 8 ms, and the hop in samples."""
    size, hop = int(0.032 * rate), int(0.008 * rate)
    padded = np.pad(wave, (size // 2, size))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    return 20 * np.log10(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)).T + 1e-6), hop
