"""Stages 0 and 1 of recipes/ears: find or download EARS and WHAM!, then make EARS-WHAM and EARS-Reverb, and manifests.

Below `data_dir`, as the authors' download scripts leave it (github.com/sp-uhh/ears_benchmark):

- `EARS/<speaker>/<style>.wav`: p001 to p107 (Richter et al. 2024, CC BY-NC 4.0), 48 kHz.
- `WHAM48kHz/high_res_wham/audio/*.wav`: WHAM! noise (Wichern et al. 2019, CC BY-NC 4.0), 48 kHz.
- `ACE-Challenge/`, `AIR/`, `ARNI/`, `BRUDEX/`, `dEchorate/`, `DetmoldSRIR/`, `Palimpsest/`: room responses.
- `test_files.json`: where the test files are cut, in samples; `transcripts.json`: texts by style.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # also where the tests load this file

import mixtures
from mixtures import ROOM_SETS, SPLITS, Made

from cdasr.coupled.rows import take_evenly
from cdasr.recipe.command import main
from cdasr.recipe.download import check_space, fetch, unpack
from cdasr.runtime.files import read_text
from cdasr.speech.audio import audio_format
from cdasr.speech.corpus import (
    audio_of,
    keep_durations,
    recorded_pair,
    report_missing,
    write_training_noise,
    write_valid_set,
)
from cdasr.speech.manifest import write_manifest
from cdasr.speech.noise import NoiseSource

LISTS = {"test_files.json": "https://raw.githubusercontent.com/sp-uhh/ears_benchmark/main/test_files.json",
         "transcripts.json": "https://raw.githubusercontent.com/facebookresearch/ears_dataset/main/transcripts.json"}
EARS = "https://github.com/facebookresearch/ears_dataset/releases/download/dataset/{}.zip"
WHAM = "https://my-bucket-a8b4b49c25c811ee9a7e8bba05fa24c7.s3.amazonaws.com/high_res_wham.zip"  # of wham.whisper.ai
SPEAKERS = tuple(f"p{number:03d}" for number in range(1, 108))
GIGABYTES = {"EARS": 0.5, "WHAM": 74.0}  # of a speaker's archive (an estimate from its hour at 48 kHz) and of WHAM!'s
STRETCH = 10.0  # seconds, of speech without transcripts
SETS = ("wham", "reverb")


def download(hparams: dict) -> None:
    """Stage 0: find the parts, or download what `download` lists: lists, ears, wham. Rooms are not downloaded."""
    folder, wanted = data_folder(hparams), hparams["download"]
    if unknown := set(wanted) - {"lists", "ears", "wham"}:
        raise ValueError(f"--download: no part is called {sorted(unknown)[0]!r}; known: lists, ears, wham")
    speakers = [name for name in SPEAKERS if "ears" in wanted and not (folder / "EARS" / name).is_dir()]
    wham = "wham" in wanted and "wham" in sets_of(hparams) and not noise_of(folder)
    check_space(folder, 2.2 * (GIGABYTES["EARS"] * len(speakers) + GIGABYTES["WHAM"] * wham))
    for name, address in LISTS.items():
        if "lists" in wanted:
            fetch([address], folder / name)
    for name in speakers:
        archive = fetch([EARS.format(name)], folder / "EARS" / f"{name}.zip")
        unpack(archive, folder / "EARS", name)
        archive.unlink()
    if wham:
        archive = fetch([WHAM], folder / "WHAM48kHz" / "high_res_wham.zip")
        unpack(archive, folder / "WHAM48kHz", "high_res_wham")
        archive.unlink()
    print(f"EARS: {folder}")


def prepare(hparams: dict) -> None:
    """Stage 1: the test sets as the authors mix them, and manifests to train, to validate and to score."""
    sizes, data, folder = hparams["data"], data_folder(hparams), Path(hparams["exp_dir"]) / "data"
    cuts, texts = (read_json(data, name) for name in LISTS)
    check_parts(hparams, data, cuts)
    cuts = {speaker: {name: bounds for name, bounds in files.items() if wav_of(data, speaker, name).is_file()}
            for speaker, files in cuts.items()}
    made = {name: list(make_tests(name, data, cuts, folder)) for name in sets_of(hparams)}
    scored = []
    for place, (name, tests) in enumerate(made.items()):
        rows = take_evenly(transcribed(tests, cuts, texts), sizes["eval_utterances"])
        if not place:
            scored += [recorded_pair({**row, "noisy_wav": row["wav"]}, "clean", "") for row in rows]
        scored += [recorded_pair(row, name, row["source"], row["snr"]) for row in rows]
    if sizes["train"]:
        write_training(hparams, data, folder, texts, {test["source"] for test in made.get("wham", ())})
    write_manifest(folder / "eval.csv", scored)
    print(f"prepared {len(scored)} utterances in {folder / 'eval.csv'}, of "
          f"{', '.join(f'{len(tests)} mixtures of {name}' for name, tests in made.items())}")


def write_training(hparams: dict, data: Path, folder: Path, texts: Mapping, heard: set[str]) -> None:
    """Clean speech to train and to validate on, and noise that is not in the test set, `heard`."""
    sizes, rate = hparams["data"], hparams["sample_rate"]
    files = mixtures.training_files(data / "EARS")
    rows = {name: keep_durations([row for path in paths for row in rows_of(path, texts, sizes["longest"])],
                                 sizes["shortest"], sizes["longest"]) for name, paths in files.items()}
    valid = take_evenly([row for row in rows["valid"] if row["text"]], sizes["valid_utterances"])
    train = take_evenly(rows["train"], sizes["train_utterances"])
    if sizes["official_pairs"]:
        train = [*train, *official_pairs(sets_of(hparams), data, folder)]
    write_manifest(folder / "train.csv", train)
    write_manifest(folder / "valid.csv", valid)
    noise = [path for path in noise_of(data) if path.name not in heard] + audio_of(hparams["noise_dir"])
    write_training_noise(folder, hparams, [path for place, path in enumerate(noise) if place % 10 != 9])
    source = NoiseSource(noise[9::10], sizes["valid_families"], take_evenly(train, 400), rate, warp=False)
    write_valid_set(folder, valid, source, sizes["valid_snrs"], hparams["seed"])


# -- the corpus ---------------------------------------------------------------------------------------------------


def data_folder(hparams: dict) -> Path:
    """Where the parts are, or where stage 0 puts them."""
    return Path(hparams["data_dir"] or Path(hparams["exp_dir"]) / "download")


def sets_of(hparams: dict) -> list[str]:
    """The sets to make. Raises ValueError for an unknown one."""
    names = hparams["data"]["sets"]
    if unknown := [name for name in names if name not in SETS]:
        raise ValueError(f"--data.sets: there is no {unknown[0]!r}; known: {', '.join(SETS)}")
    if not names:
        raise ValueError(f"--data.sets is empty; choose of {', '.join(SETS)}")
    return names


def noise_of(data: Path) -> list[Path]:
    """WHAM!'s recordings at 48 kHz, sorted by name."""
    return sorted((data / "WHAM48kHz" / "high_res_wham" / "audio").glob("*.wav"))


def wav_of(data: Path, speaker: str, name: str) -> Path:
    return data / "EARS" / speaker / f"{name}.wav"


def read_json(data: Path, name: str) -> dict:
    """One of `LISTS`. Raises ValueError where it is not there, with where it is to be had."""
    path = data / name
    if not path.is_file():
        raise ValueError(f"{path}: no such file; run stage 0, or put {LISTS[name]} there (--data-dir is the folder "
                         "with EARS/)")
    return json.loads(read_text(path))


def check_parts(hparams: dict, data: Path, cuts: Mapping) -> None:
    """Raise ValueError for a copy that lacks recordings or sets: their mixtures would not be those of the authors."""
    sizes, files = hparams["data"], [(speaker, name) for speaker in cuts for name in cuts[speaker]]
    missing = [f"{wav_of(data, speaker, name)}: no such file" for speaker, name in files
               if not wav_of(data, speaker, name).is_file()]
    report_missing(missing, len(files), sizes["skip_missing"], "recordings")
    if sizes["train"]:
        training = [name for name in SPEAKERS if name not in SPLITS["test"]]
        report_missing([f"{data / 'EARS' / name}: no such folder" for name in training
                        if not (data / "EARS" / name).is_dir()], len(training), sizes["skip_missing"], "speakers")
    if "wham" in sets_of(hparams) and not noise_of(data):
        raise ValueError(f"{data}: no WHAM48kHz/high_res_wham/audio/*.wav there; run stage 0 with --download "
                         "\"[wham]\", or give --data.sets \"[reverb]\"")
    if "reverb" in sets_of(hparams):
        there = mixtures.room_files(data)
        report_missing([f"{data / name}: no room responses" for name in ROOM_SETS
                        if not any((data / name) in path.parents for path in there)], len(ROOM_SETS),
                       sizes["skip_missing"] and bool(there), "sets of rooms")


# -- manifests ----------------------------------------------------------------------------------------------------


def make_tests(name: str, data: Path, cuts: Mapping, folder: Path) -> Iterable[Made]:
    """The test set of EARS-WHAM or EARS-Reverb, mixed as the authors do."""
    if name == "wham":
        return mixtures.wham_tests(data / "EARS", noise_of(data), cuts, folder / "EARS-WHAM")
    return mixtures.reverb_tests(data / "EARS", data, cuts, folder / "EARS-Reverb")


def transcribed(tests: Iterable[Made], cuts: Mapping, texts: Mapping) -> list[dict[str, str]]:
    """Rows of the tests whose words are known: whole files of read sentences."""
    return [{"ID": f"{test['speaker']}_{test['file']}", "duration": test["seconds"], "wav": test["clean"],
             "text": texts[test["file"]], "spk_id": test["speaker"], "noisy_wav": test["noisy"],
             "source": test["source"], "snr": test.get("snr", "")} for test in tests
            if test["file"] in texts and len(cuts[test["speaker"]][test["file"]]) == 1]


def rows_of(path: Path, texts: Mapping, longest: float) -> list[dict[str, str]]:
    """Rows of a training file: one with its text, or, of long speech without transcript, stretches of 10 s."""
    seconds, speaker = audio_format(path).seconds, path.parent.name
    row = {"ID": f"{speaker}_{path.stem}", "duration": f"{seconds:.4f}", "wav": str(path.absolute()),
           "text": texts.get(path.stem, ""), "spk_id": speaker}
    if row["text"] or seconds <= longest:
        return [row]
    return [{**row, "ID": f"{row['ID']}-{place:03d}", "duration": f"{STRETCH:g}", "offset": f"{place * STRETCH:g}"}
            for place in range(int(seconds / STRETCH))]


def official_pairs(sets: Iterable[str], data: Path, folder: Path) -> list[dict[str, str]]:
    """The authors' training pieces as rows without texts; the validation pieces are made along the way."""
    made = []
    for name in sets:
        found = (mixtures.wham_pieces(data / "EARS", noise_of(data), folder / "EARS-WHAM") if name == "wham" else
                 mixtures.reverb_pieces(data / "EARS", data, folder / "EARS-Reverb"))
        made += [{"ID": f"{name}_{Path(piece['clean']).stem}", "duration": piece["seconds"], "wav": piece["clean"],
                  "text": "", "spk_id": piece["speaker"], "noisy_wav": piece["noisy"]}
                 for subset, piece in found if subset == "train"]
    return made


if __name__ == "__main__":
    sys.exit(main({"download": download, "prepare": prepare}))
