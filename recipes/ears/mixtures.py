"""EARS-WHAM and EARS-Reverb (v2), made as their authors make them: the same draws from the same seed, at 48 kHz.

The procedure is that of Richter et al. 2024 (arXiv 2406.06185) as github.com/sp-uhh/ears_benchmark has published it:
NumPy's legacy generator with seed 42, loudness by ITU-R BS.1770, tests cut as `test_files.json` says, other files cut
into pieces of 10 s. The authors take the WHAM! recordings in the order of the file system; here they are sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr
from scipy.signal import convolve
from tqdm import tqdm

from cdasr.speech.loudness import integrated_loudness

RATE = 48_000  # Hz
SEED = 42
SNRS = (-2.5, 17.5)  # dB
SHORTEST, PIECE = 4 * RATE, 10 * RATE  # samples, of training files and of pieces of long ones
LONGEST = 29 * RATE  # samples, of tests
RAMP = np.linspace(0, 1, RATE // 100)  # 10 ms at both ends of tests
LONGEST_RT60 = 2.0  # seconds
SPLITS = {"valid": ("p100", "p101"), "test": ("p102", "p103", "p104", "p105", "p106", "p107")}  # the others: train
HELD_OUT = ("interjection", "melodic", "nonverbal", "vegetative")  # styles without words
STYLES = ("adoration", "amazement", "amusement", "anger", "confusion", "contentment", "cuteness", "desire",
          "disappointment", "disgust", "distress", "embarassment", "extasy", "fast", "fear", "guilt", "highpitch",
          "interest", "loud", "lowpitch", "neutral", "pain", "pride", "realization", "relief", "regular", "sadness",
          "serenity", "slow", "whisper")
PER_STYLE = 12  # bins of the SNRs, taken in turn by the tests of each style
ARNI, ARNI_BROKEN = 1000, "numClosed_26-35/IR_numClosed_28_numComb_2743_mic_4_sweep_5.wav"
ROOM_SETS = {  # name: folders below it, pattern
    "ACE-Challenge": (("Chromebook", "Crucif", "EM32", "Lin8Ch", "Mobile", "Single"), "*RIR.wav"),
    "AIR": (("AIR_1_4/AIR_wav_files",), "*.wav"), "ARNI": (("",), "*.wav"), "BRUDEX": (("rir",), "*.mat"),
    "dEchorate": (("sofa",), "*.sofa"), "DetmoldSRIR": (("SetA_SingleSources/Data",), "*.wav"),
    "Palimpsest": (("",), "*.wav")}
Made = dict[str, str]  # speaker, file, start, end, noisy, clean, source, and snr or rt60


# -- EARS-WHAM ----------------------------------------------------------------------------------------------------


def wham_tests(ears: Path, noises: Sequence[Path], cuts: Mapping, folder: Path) -> Iterator[Made]:
    """The test set, `folder/test/{noisy,clean}/<speaker>/*.wav`; `cuts` are those of test_files.json, in samples."""
    draws, counts = np.random.RandomState(SEED), dict.fromkeys(STYLES, 0)
    bins, number = np.linspace(*SNRS, PER_STYLE + 1), 0
    for speaker, name in tqdm(shuffled(cuts, draws), desc="EARS-WHAM, test"):
        speech = read(ears / speaker / f"{name}.wav")
        source, noise = draw_noise(draws, noises)
        for start, end in cuts[speaker][name]:
            cut = speech[start:end]
            if len(cut) > LONGEST:
                continue
            if len(noise) < len(cut):
                source, noise = draw_noise(draws, noises, len(cut))
            first = draws.randint(len(noise) - len(cut) + 1)
            style = next((one for one in STYLES if one in name.lower()), None)
            place = None if style is None else counts[style] % PER_STYLE
            low, high = SNRS if place is None else bins[place:place + 2]
            if style is not None:
                counts[style] += 1
            mixture, snr = mix(cut, noise[first:first + len(cut)], np.round(draws.uniform(low, high), decimals=1))
            yield write(folder, "test", "noisy", number, speaker, name, (start, end), ramped(mixture), ramped(cut),
                        source.name, snr=f"{snr:.1f}")
            number += 1


def wham_pieces(ears: Path, noises: Sequence[Path], folder: Path) -> Iterator[tuple[str, Made]]:
    """The training and the validation set, each piece with `train` or `valid`."""
    draws = np.random.RandomState(SEED)
    for subset, files in training_files(ears).items():
        number = 0
        for path in tqdm(files, desc=f"EARS-WHAM, {subset}"):
            speech = read(path)
            if len(speech) < SHORTEST:
                continue
            source, noise = draw_noise(draws, noises, len(speech))
            first = draws.randint(len(noise) - len(speech) + 1)
            snr = np.round(draws.uniform(*SNRS), decimals=1)
            mixture, snr = mix(speech, noise[first:first + len(speech)], snr)
            for start, end in pieces(len(mixture)):
                yield subset, write(folder, subset, "noisy", number, path.parent.name, path.stem, (start, end),
                                    mixture[start:end], speech[start:end], source.name, snr=f"{snr:.1f}")
                number += 1


def draw_noise(draws: np.random.RandomState, noises: Sequence[Path], samples: int = 0) -> tuple[Path, np.ndarray]:
    """A recording of at least `samples`, and a channel of it `(n,)`."""
    noise = np.zeros((0, 1))
    while not len(noise) or len(noise) < samples:
        path = noises[draws.randint(len(noises))]
        noise = read(path, mono=False)
    return path, noise[:, draws.randint(noise.shape[1])]


def mix(speech: np.ndarray, noise: np.ndarray, snr: float) -> tuple[np.ndarray, float]:
    """Speech over noise, `snr` dB louder, or so many more that nothing clips; and that number."""
    wanted, there = integrated_loudness(speech, RATE), integrated_loudness(noise, RATE)
    while True:
        mixture = speech + np.power(10.0, (wanted - snr - there) / 20.0) * noise
        if np.max(np.abs(mixture)) < 1.0:
            return mixture, snr
        snr = snr + 1


# -- EARS-Reverb --------------------------------------------------------------------------------------------------


def room_files(data: Path) -> list[Path]:
    """All room responses that the authors draw from: of ARNI 1000, drawn once."""
    found = []
    for name, (folders, pattern) in ROOM_SETS.items():
        files = [path for folder in folders for path in sorted((data / name / folder).rglob(pattern), key=str)]
        if name == "ARNI":
            files = [path for path in files if ARNI_BROKEN not in str(path)]
            files = sorted((files[place] for place in draw_arni(np.random.RandomState(SEED), len(files))), key=str)
        found += files
    return found


def draw_arni(draws: np.random.RandomState, files: int) -> np.ndarray:
    """Which of ARNI's files are taken."""
    return draws.choice(files, min(ARNI, files), replace=False) if files else np.arange(0)


def reverb_tests(ears: Path, data: Path, cuts: Mapping, folder: Path) -> Iterator[Made]:
    """The test set, `folder/test/{reverberant,clean}/<speaker>/*.wav`, in rooms of the sets below `data`."""
    rooms, draws, number = room_files(data), np.random.RandomState(SEED), 0
    for speaker, name in tqdm(shuffled(cuts, draws), desc="EARS-Reverb, test"):
        speech = read(ears / speaker / f"{name}.wav")
        for start, end in cuts[speaker][name]:
            cut = speech[start:end]
            if len(cut) > LONGEST:
                continue
            mixture, rt60, source = reverberate(cut, rooms, draws)
            yield write(folder, "test", "reverberant", number, speaker, name, (start, end), ramped(mixture),
                        ramped(cut), str(source.relative_to(data)), rt60=f"{rt60:.2f}")
            number += 1


def reverb_pieces(ears: Path, data: Path, folder: Path) -> Iterator[tuple[str, Made]]:
    """The training and the validation set, each piece with `train` or `valid`."""
    rooms, draws = room_files(data), np.random.RandomState(SEED)
    draw_arni(draws, len(_arni(data)))  # as the authors have done by now
    for subset, files in training_files(ears).items():
        number = 0
        for path in tqdm(files, desc=f"EARS-Reverb, {subset}"):
            speech = read(path)
            if len(speech) < SHORTEST:
                continue
            mixture, rt60, source = reverberate(speech, rooms, draws)
            for start, end in pieces(len(mixture)):
                yield subset, write(folder, subset, "reverberant", number, path.parent.name, path.stem, (start, end),
                                    mixture[start:end], speech[start:end], str(source.relative_to(data)),
                                    rt60=f"{rt60:.2f}")
                number += 1


def reverberate(speech: np.ndarray, rooms: Sequence[Path],
                draws: np.random.RandomState) -> tuple[np.ndarray, float, Path]:
    """Speech in a room of at most 2 s of reverberation, as loud as before; its RT60 in seconds, and its file."""
    while True:
        path = rooms[draws.randint(len(rooms))]
        responses = read_responses(path)
        rir = responses[draws.randint(len(responses))]
        if "ARNI" in path.parts:
            rir = _fitted(soxr.resample(rir, 44_100, RATE, quality="soxr_hq"), len(rir))
        rir = rir[np.argmax(np.abs(rir)):]
        peak = np.max(np.abs(rir))
        rir = rir * (0.1 / peak if peak < 0.1 else 0.7 / peak if peak > 0.7 else 1.0)
        rt60, mixture = reverberation_time(rir), convolve(speech, rir)[:len(speech)]
        gain = np.power(10.0, (integrated_loudness(speech, RATE) - integrated_loudness(mixture, RATE)) / 20.0)
        if rt60 <= LONGEST_RT60 and not np.isinf(gain):
            mixture = gain * mixture
            return mixture / max(1.0, np.max(np.abs(mixture))), rt60, path


def reverberation_time(rir: np.ndarray) -> float:
    """RT60 in seconds: twice the decay from -5 to -35 dB, a line fitted to Schroeder's integral."""
    energy = np.cumsum(np.square(rir / np.max(np.abs(rir)))[::-1])[::-1]
    decay = 10.0 * np.log10(energy / np.max(energy) + 1e-20)
    first, last = (int(np.abs(decay - level).argmin()) for level in (-5.0, -35.0))
    slope = np.polyfit(np.arange(first, last + 1) / RATE, decay[first:last + 1], 1)[0]
    return -60.0 / slope


def read_responses(path: Path) -> np.ndarray:
    """The responses of a file `(channels, samples)`. Raises ValueError for one at another rate."""
    if path.suffix == ".wav":
        waves, rate = soundfile.read(path, always_2d=True)
        waves = waves.T
    else:
        import h5py

        with h5py.File(path) as file:  # both formats are HDF5; MATLAB's has the dimensions in reverse
            if path.suffix == ".sofa":
                waves, rate = np.asarray(file["Data.IR"])[0], np.asarray(file["Data.SamplingRate"]).item()
            else:
                waves, rate = np.asarray(file["data"]), np.asarray(file["fs"]).item()
    wanted = 44_100 if "ARNI" in path.parts else RATE
    if rate != wanted:
        raise ValueError(f"{path}: the response is at {rate:g} Hz; expected {wanted} Hz, as in the published set")
    return waves


# -- what both share ----------------------------------------------------------------------------------------------


def shuffled(cuts: Mapping, draws: np.random.RandomState) -> list[tuple[str, str]]:
    """Speaker and name of each test file, in the order in which they are mixed."""
    names = [(speaker, name) for speaker in cuts for name in cuts[speaker]]
    order = np.arange(len(names))
    draws.shuffle(order)
    return [names[place] for place in order]


def training_files(ears: Path) -> dict[str, list[Path]]:
    """The files with words of the training and the validation speakers, in their order."""
    known = {speaker for speakers in SPLITS.values() for speaker in speakers}
    train = [folder.name for folder in sorted(ears.iterdir()) if folder.is_dir() and folder.name not in known]
    return {subset: [path for speaker in speakers for path in sorted((ears / speaker).glob("*.wav"))
                     if path.name.split("_")[0] not in HELD_OUT]
            for subset, speakers in (("train", train), ("valid", SPLITS["valid"]))}


def pieces(samples: int) -> list[tuple[int, int | None]]:
    """Where a training file is cut: into 10 s each, the last one longer; the authors leave out its last sample."""
    if samples < PIECE + SHORTEST:
        return [(0, None)]
    count = (samples - SHORTEST) // PIECE + 1
    return [(place * PIECE, (place + 1) * PIECE if place < count - 1 else -1) for place in range(count)]


def ramped(wave: np.ndarray) -> np.ndarray:
    wave = wave.copy()
    wave[:len(RAMP)] *= RAMP
    wave[-len(RAMP):] *= RAMP[::-1]
    return wave


def write(folder: Path, subset: str, kind: str, number: int, speaker: str, file: str, bounds: tuple,
          mixture: np.ndarray, speech: np.ndarray, source: str, **strength: str) -> Made:
    """Write a mixture and its reference by the authors' names, as floats."""
    value, unit = next(iter(strength.values())), "dB" if "snr" in strength else ""
    noisy = folder / subset / kind / speaker / f"{number:05}_{value}{unit}.wav"
    clean = folder / subset / "clean" / speaker / f"{number:05}.wav"
    for path, wave in ((noisy, mixture), (clean, speech)):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, RATE, subtype="FLOAT")
    return {"speaker": speaker, "file": file, "start": str(bounds[0]), "end": str(bounds[1]), "noisy": str(noisy),
            "clean": str(clean), "source": source, "seconds": f"{len(speech) / RATE:.4f}", **strength}


def read(path: Path, mono: bool = True) -> np.ndarray:
    """A recording `(samples,)`, or `(samples, channels)`. Raises ValueError for one at another rate than 48 kHz."""
    wave, rate = soundfile.read(path, always_2d=not mono)
    if rate != RATE:
        raise ValueError(f"{path}: the recording is at {rate} Hz; expected {RATE} Hz, as published")
    return wave


def _arni(data: Path) -> list[Path]:
    return [path for path in (data / "ARNI").rglob("*.wav") if ARNI_BROKEN not in str(path)]


def _fitted(wave: np.ndarray, samples: int) -> np.ndarray:
    """A response resampled from 44.1 kHz with the length that librosa gives it."""
    length = int(np.ceil(samples * RATE / 44_100))
    return wave[:length] if len(wave) >= length else np.pad(wave, (0, length - len(wave)))
