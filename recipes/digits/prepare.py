"""Prepare connected-digit strings from the Free Spoken Digit Dataset (FSDD), in the manner of Aurora-2.

Each utterance is 1 to 7 recordings of one speaker, joined over a continuous room floor (never digital silence) with
natural gaps, at 16 kHz. Which recordings make which utterance follows from the seed alone. The corpus's official
split is kept: recording index 0-4 is test, 5-9 dev, 10-49 train.

Corpus: Z. Jackson et al., Free Spoken Digit Dataset, CC BY-SA 4.0; files `{digit}_{speaker}_{index}.wav`, 8 kHz.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections import defaultdict
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cdasr.recipe.command import main
from cdasr.recipe.download import fetch, unpack
from cdasr.runtime.parallel import ordered_map, processes_of
from cdasr.speech.audio import audio_format, read_audio, resample, write_audio
from cdasr.speech.corpus import audio_of, split_rooms, take_evenly, write_noise_lists, write_test_set, write_valid_set
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.noise import NoiseSource
from cdasr.speech.rooms import RoomSource

log = logging.getLogger(__name__)

RATE = 16_000
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = {"test": range(0, 5), "dev": range(5, 10), "train": range(10, 50)}
ARCHIVE = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/heads/master.zip"
VOICES = tuple(f"{accent}+{variant}" for accent, variants in (
    ("en-us", ("m1", "m3", "m7", "f1", "f2", "f5", "klatt2", "Andy", "Annie", "steph", "linda", "Alex")),
    ("en-gb-x-rp", ("m2", "m4", "f3", "f4", "Lee")), ("en-029", ("m5", "f2"))) for variant in variants)
VARIANTS = 4  # recordings of each digit by each synthetic talker
NAME = re.compile(r"^(\d)_([a-z]+)_(\d+)\.wav$")


def find_corpus(data_dir: str | None, download_dir: str | os.PathLike) -> Path:
    """The folder with FSDD's recordings: `data_dir`, else CDASR_FSDD, else a download into `download_dir`.

    Raises ValueError, in one line with the ways out, when there is none.
    """
    given = data_dir or os.environ.get("CDASR_FSDD")
    if given:
        for folder in (Path(given) / "recordings", Path(given)):
            if folder.is_dir() and any(NAME.match(path.name) for path in folder.iterdir()):
                return folder
        raise ValueError(f"{given}: no FSDD recordings ({{digit}}_{{speaker}}_{{index}}.wav) there; give the "
                         "corpus's folder with --data-dir or CDASR_FSDD")
    folder = Path(download_dir)
    try:
        return unpack(fetch([ARCHIVE], folder / "fsdd.zip"), folder, "free-spoken-digit-dataset-master") / "recordings"
    except ValueError as error:
        raise ValueError(f"FSDD is not here ({error}); point --data-dir or CDASR_FSDD at a copy") from None


def list_recordings(folder: Path) -> dict[str, dict[str, dict[int, list[Path]]]]:
    """`{split: {speaker: {digit: [paths]}}}` by the official split; warns about a split that is not in this copy."""
    found: dict = {split: defaultdict(lambda: defaultdict(list)) for split in SPLITS}
    for path in sorted(folder.iterdir()):
        if match := NAME.match(path.name):
            digit, speaker, index = int(match[1]), match[2], int(match[3])
            for split, indices in SPLITS.items():
                if index in indices:
                    found[split][speaker][digit].append(path)
    for split, indices in SPLITS.items():
        if not found[split]:
            log.warning("this copy of FSDD has no recordings with index %d to %d: the %s split is left out",
                        indices[0], indices[-1], split)
    return {split: {speaker: dict(digits) for speaker, digits in speakers.items()}
            for split, speakers in found.items() if speakers}


def draw_string(rng: np.random.Generator, recordings: dict[int, list[Path]], load,
                max_digits: int = 7) -> tuple[np.ndarray, str]:
    """One utterance `(samples,)` at 16 kHz and its words, from one speaker's recordings `{digit: [paths]}`."""
    digits = rng.choice(sorted(recordings), size=rng.integers(1, max_digits + 1))
    pieces = [np.zeros(int(rng.uniform(0.10, 0.40) * RATE), np.float32)]
    for digit in digits:
        recording = load(recordings[digit][rng.integers(len(recordings[digit]))])
        gap = rng.uniform(0.02, 0.12) if rng.random() < 0.6 else rng.uniform(0.12, 0.35)
        pieces += [recording * 10 ** (rng.uniform(-3, 3) / 20), np.zeros(int(gap * RATE), np.float32)]
    pieces.append(np.zeros(int(rng.uniform(0.08, 0.30) * RATE), np.float32))
    wave = np.concatenate(pieces)
    wave += 0.1 * room_floor(rng, len(wave), rng.uniform(-50, -32))  # recordings have an RMS of 0.1
    level = 10 ** (rng.uniform(-30, -20) / 20)
    wave *= min(level / np.sqrt(np.mean(wave**2)), 0.95 / np.abs(wave).max())
    return wave.astype(np.float32), " ".join(WORDS[digit] for digit in digits)


def room_floor(rng: np.random.Generator, samples: int, level: float) -> np.ndarray:
    """A quiet room's noise `(samples,)`: a falling spectrum over a white one, with an RMS of `level` dB."""
    shape = 1.0 / np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 50.0) ** rng.uniform(0.3, 1.0)
    noise = np.fft.irfft(shape * np.fft.rfft(rng.standard_normal(samples)), samples)
    noise /= np.sqrt(np.mean(noise**2))
    return 10 ** (level / 20) * (0.8 * noise + 0.2 * rng.standard_normal(samples))


@cache
def load_recording(path: Path) -> np.ndarray:
    """A recording at 16 kHz, -20 dB full scale RMS, with 5 ms fades so that joins do not click."""
    wave, _ = read_audio(path, RATE)
    wave = 0.1 * wave / max(np.sqrt(np.mean(wave**2)), 1e-4)
    fade = np.minimum(np.arange(len(wave)) / 80, 1.0).astype(np.float32)
    return wave * fade * fade[::-1]


def synthetic_talkers(folder: Path, seed: int) -> dict[str, dict[int, list[Path]]]:
    """`{talker: {digit: [paths]}}` of eSpeak NG voices, so that the recogniser has heard more than six people."""
    from cdasr.speech.synthesis import speak

    talkers = {voice: "espeak" + "".join(filter(str.isalnum, voice.lower())) for voice in VOICES}
    paths = {talker: {digit: [folder / f"{digit}_{talker}_{index}.flac" for index in range(VARIANTS)]
                      for digit in range(len(WORDS))} for talker in talkers.values()}
    if all(path.is_file() for digits in paths.values() for files in digits.values() for path in files):
        return paths
    for voice, talker in tqdm(talkers.items(), desc="prepare synthetic talkers"):  # all: voices depend on earlier calls
        rng = np.random.default_rng([seed, *talker.encode()])
        for digit, files in paths[talker].items():
            for path in files:
                wave, rate = speak(WORDS[digit], voice, int(rng.integers(120, 210)), int(rng.integers(20, 80)))
                write_audio(path, resample(wave, rate, RATE), RATE)
    return paths


def prepare_split(speakers: dict, split: str, utterances: int, seed: int, folder: Path, talkers: dict | None = None,
                  talker_prob: float = 0.0, processes: int = 1) -> list[dict]:
    """Write `utterances` strings of a split as FLAC with `folder/{split}.csv`; nothing is redone on a second call.

    A share of them is spoken by the synthetic `talkers` instead of the corpus's `speakers`.
    """
    manifest = folder / f"{split}.csv"
    if manifest.is_file() and len(rows := read_manifest(manifest)) == utterances:
        return rows
    write = partial(write_string, split=split, seed=seed, folder=folder / "clean" / split, speakers=speakers,
                    talkers=talkers or {}, talker_prob=talker_prob)
    write_manifest(manifest, list(ordered_map(write, range(utterances), processes, f"prepare {split}")))
    return read_manifest(manifest)


def write_string(number: int, *, split: str, seed: int, folder: Path, speakers: dict, talkers: dict,
                 talker_prob: float) -> dict:
    """Write one string of a split; returns its row of the manifest."""
    rng = np.random.default_rng([seed, *split.encode(), number])
    group = talkers if talkers and rng.random() < talker_prob else speakers
    speaker = sorted(group)[number % len(group)]
    wave, text = draw_string(rng, group[speaker], load_recording)
    name = f"{split}-{speaker}-{number:05d}"
    path = folder / f"{name}.flac"
    write_audio(path, wave, RATE)
    return {"ID": name, "duration": f"{len(wave) / RATE:.4f}", "wav": path, "text": text, "spk_id": speaker}


# -- the stages ---------------------------------------------------------------------------------------------------


def download(hparams: dict) -> None:
    """Stage 0: find the corpus or download it, and say where it is."""
    folder = find_corpus(hparams["data_dir"], Path(hparams["exp_dir"]) / "download")
    print(f"FSDD: {sum(len(p) for s in list_recordings(folder).values() for d in s.values() for p in d.values())} "
          f"recordings in {folder}")


def prepare(hparams: dict) -> None:
    """Stage 1: clean strings, lists of noise and rooms, and the fixed noisy sets, under `exp_dir/data`."""
    sizes, seed, processes = hparams["data"], hparams["seed"], processes_of(hparams["threads"])
    exp_dir = Path(hparams["exp_dir"])
    folder = exp_dir / "data"
    splits = list_recordings(find_corpus(hparams["data_dir"], exp_dir / "download"))
    talkers = synthetic_talkers(folder / "synthetic", seed) if sizes["synthetic_prob"] else {}
    strings = {split: prepare_split(splits[split], split, sizes[f"{split}_strings"], seed, folder, processes=processes)
               for split in splits if split != "train"}
    strings["train"] = prepare_split(splits["train"], "train", sizes["train_strings"], seed, folder, talkers,
                                     sizes["synthetic_prob"], processes)
    strings["valid"] = prepare_split(splits["dev"], "valid", sizes["valid_strings"], seed, folder, processes=processes)
    if sizes["eval_split"] not in strings:
        raise ValueError(f"there are no {sizes['eval_split']} strings to score; choose --data.eval-split dev or use "
                         "a copy of FSDD with recordings 0 to 4")
    noise = split_noise(hparams["noise_dir"], sizes)
    rooms = split_rooms(audio_of(hparams["rir_dir"]))
    write_noise_lists(folder, noise, rooms)
    speech = strings["train"][:400]
    sources = {name: NoiseSource(files=part["files"], families=part["families"], speech=speech,
                                 rate=hparams["sample_rate"], warp=False) for name, part in noise.items()}
    write_valid_set(folder, strings["valid"], sources["valid"], sizes["valid_snrs"], seed, processes)
    reverb = RoomSource(files=rooms["eval"], simulated=sizes["eval_rooms"], seed=seed + 1, rate=hparams["sample_rate"],
                        cache_dir=folder / "rooms" / "eval")
    write_test_set(folder, {"": strings[sizes["eval_split"]]}, {"seen": sources["train"], "unseen": sources["unseen"]},
                   sizes["snrs"], reverb, seed, processes,
                   {"single": take_evenly(single_recordings(splits[sizes["eval_split"]]), sizes["single_recordings"])})


def single_recordings(speakers: dict) -> list[dict]:
    """Rows of all recordings of a split: one word each, as they were cut."""
    return [{"ID": path.stem, "duration": f"{audio_format(path).seconds:.4f}", "wav": path, "text": WORDS[digit],
             "spk_id": speaker} for speaker, digits in sorted(speakers.items())
            for digit, paths in sorted(digits.items()) for path in paths]


def split_noise(noise_dir: str, sizes: dict) -> dict[str, dict[str, list[str]]]:
    """Noise to train on, to validate on and to test on as unseen: disjoint files and families of generated noise."""
    files = audio_of(noise_dir)
    unseen = [path for path in files if fnmatch(path.name, sizes["unseen_noise"])]
    valid = [path for path in files if fnmatch(path.name, sizes["valid_noise"]) and path not in unseen]
    train = [path for path in files if path not in unseen and path not in valid]
    if files and not (train and unseen):  # nothing matches the patterns: every third file by name is unseen
        unseen, train, valid = files[2::3], files[0::3], files[1::3]
    return {"train": {"files": train, "families": sizes["train_families"]},
            "valid": {"files": valid, "families": sizes["valid_families"]},
            "unseen": {"files": unseen, "families": [] if unseen else sizes["unseen_families"]}}


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    sys.exit(main({"download": download, "prepare": prepare}))
