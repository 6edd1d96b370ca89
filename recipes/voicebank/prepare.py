"""Stages 0 and 1 of recipes/voicebank: download VoiceBank-DEMAND, then manifests of its own pairs.

VoiceBank-DEMAND (Valentini-Botinhao 2017, doi.org/10.7488/ds/2117, CC BY 4.0), 48 kHz: `clean_<set>_wav/<ID>.wav`,
`noisy_<set>_wav/<ID>.wav` and `<set>_txt/<ID>.txt`, where <set> is `testset`, `trainset_28spk` or `trainset_56spk` and
an ID is `<speaker>_<number>`. `log_<set>.txt` lists a set, one `ID NOISE SNR` a line. Folders whose names end in
`_16k`, as SpeechBrain's copy has them, are taken as well.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zipfile import ZipFile

from cdasr.coupled.rows import take_evenly
from cdasr.recipe.command import main
from cdasr.recipe.download import check_space, fetch, unpack
from cdasr.runtime.files import read_text
from cdasr.speech.audio import audio_format
from cdasr.speech.corpus import hold_out, keep_durations, recorded_pair, report_missing, write_training_noise
from cdasr.speech.manifest import write_manifest
from cdasr.speech.simulate import simulate_set

SOURCES = ("https://datashare.ed.ac.uk/bitstream/handle/10283/2791",
           "https://datashare.is.ed.ac.uk/bitstream/handle/10283/2791")
SETS = {"testset": 824, "trainset_28spk": 11_572, "trainset_56spk": 23_075}  # utterances of the release
GIGABYTES = {"testset": 0.31, "trainset_28spk": 4.96, "trainset_56spk": 9.70}  # of the archives


def download(hparams: dict) -> None:
    """Stage 0: find the sets that the recipe uses, or download them."""
    folder = data_folder(hparams)
    waiting = [name for name in used_sets(hparams) if not parts_of(folder, name)]
    if waiting and hparams["data_dir"] and not hparams["download"]:
        raise ValueError(f"{folder}: VoiceBank-DEMAND's {', '.join(waiting)} is not there (noisy_{waiting[0]}_wav, "
                         f"clean_{waiting[0]}_wav, {waiting[0]}_txt); give its folder with --data-dir, or --download "
                         "true")
    check_space(folder, 2.2 * sum(GIGABYTES[name] for name in waiting))
    for name in waiting:
        for part in (f"clean_{name}_wav", f"noisy_{name}_wav", f"{name}_txt"):
            archive = fetch([f"{source}/{part}.zip" for source in SOURCES], folder / f"{part}.zip")
            unpack(archive, folder, part)  # zip checks what arrived: no checksum is published
            archive.unlink()
    if waiting:
        archive = fetch([f"{source}/logfiles.zip" for source in SOURCES], folder / "logfiles.zip")
        with ZipFile(archive) as files:
            for member in (name for name in files.namelist() if Path(name).name.startswith("log_")):
                (folder / Path(member).name).write_bytes(files.read(member))
        archive.unlink()
    print(f"VoiceBank-DEMAND: {folder}, {', '.join(used_sets(hparams))}")


def prepare(hparams: dict) -> None:
    """Stage 1: manifests of the pairs: to train on, to validate on, and the official test set."""
    sizes, folder = hparams["data"], Path(hparams["exp_dir"]) / "data"
    read = {name: read_set(data_folder(hparams), name, sizes["skip_missing"]) for name in used_sets(hparams)}
    test = take_evenly(read["testset"], sizes["eval_utterances"])
    if sizes["train_sets"]:
        rows = keep_durations([row for name in sizes["train_sets"] for row in read[f"trainset_{name}"]],
                              sizes["shortest"], sizes["longest"])
        train, valid = split_speakers(rows, sizes["valid_speakers"])
        valid = take_evenly(valid, sizes["valid_utterances"])
        write_manifest(folder / "train.csv", take_evenly(train, sizes["train_utterances"]))
        write_manifest(folder / "valid.csv", valid)
        write_manifest(folder / "valid_noisy.csv", [_pair(row, "valid") for row in valid])
        write_training_noise(folder, hparams)
    clean = simulate_set(test, "clean", None, None, None, hparams["seed"], folder / "noisy")
    write_manifest(folder / "eval.csv", [*clean, *(_pair(row, "noisy") for row in test)])
    print(f"prepared {len(test)} test utterances, clean and noisy, in {folder / 'eval.csv'}")


def data_folder(hparams: dict) -> Path:
    """Where the corpus is, or where stage 0 puts it."""
    return Path(hparams["data_dir"] or Path(hparams["exp_dir"]) / "download")


def used_sets(hparams: dict) -> list[str]:
    """The sets in use by their names on disk. Raises ValueError for one that the corpus does not have."""
    names = ["testset", *(f"trainset_{name}" for name in hparams["data"]["train_sets"])]
    if unknown := [name for name in names if name not in SETS]:
        raise ValueError(f"--data.train-sets: there is no {unknown[0].removeprefix('trainset_')!r}; known: 28spk, "
                         "56spk")
    return names


def parts_of(folder: Path, name: str) -> tuple[Path, Path, Path] | None:
    """The folders of noisy speech, clean speech and texts of a set; None where one is not there."""
    for ending in ("", "_16k"):
        parts = (folder / f"noisy_{name}_wav{ending}", folder / f"clean_{name}_wav{ending}", folder / f"{name}_txt")
        if all(part.is_dir() for part in parts):
            return parts
    return None


def read_set(folder: Path, name: str, skip_missing: bool) -> list[dict[str, str]]:
    """Rows of a set, `wav` clean and `noisy_wav`, with `noise` and `snr` where the log is there.

    Raises ValueError for a set that is not there, and for utterances that are not whole, unless those are left out.
    """
    parts, log = parts_of(folder, name), read_log(folder, name)
    if parts is None:
        raise ValueError(f"{folder}: no noisy_{name}_wav, clean_{name}_wav and {name}_txt there; run stage 0, or give "
                         "the folder of VoiceBank-DEMAND with --data-dir")
    there = [{path.stem: path for path in part.iterdir() if path.suffix in (".wav", ".txt")} for part in parts]
    rows, missing = [], []
    wanted = sorted(set(log) | set().union(*there))
    for utterance in wanted:
        if lacking := [str(part / utterance) for part, files in zip(parts, there) if utterance not in files]:
            missing.append(f"{utterance}: no {', no '.join(lacking)}")
            continue
        noisy, clean, text = (files[utterance] for files in there)
        noise, snr = log.get(utterance, ("", ""))
        rows.append({"ID": utterance, "duration": f"{audio_format(clean).seconds:.4f}", "wav": str(clean.absolute()),
                     "text": " ".join(read_text(text).split()), "spk_id": utterance.partition("_")[0],
                     "noisy_wav": str(noisy.absolute()), "noise": noise, "snr": snr})
    report_missing(missing, len(wanted), skip_missing)
    print(f"{name}: {len(rows)} utterances; the release has {SETS[name]}")
    return rows


def read_log(folder: Path, name: str) -> dict[str, tuple[str, str]]:
    """Noise and SNR (dB) of each utterance of a set; empty where there is no log."""
    path = next((path for path in (folder / f"log_{name}.txt", folder / "logfiles" / f"log_{name}.txt")
                 if path.is_file()), None)
    found = {}
    for number, line in enumerate(read_text(path).splitlines() if path else (), start=1):
        if len(words := line.split()) == 3:
            found[words[0]] = words[1], words[2]
        elif words:
            raise ValueError(f"{path}: line {number}: expected <ID> <noise> <SNR>, got {line.strip()!r}")
    return found


def split_speakers(rows: list[dict], speakers: list[str]) -> tuple[list[dict], list[dict]]:
    """Training and validation rows: by `speakers`, or every tenth speaker where none is given."""
    if not speakers:
        return hold_out(rows)
    valid = [row for row in rows if row["spk_id"] in speakers]
    if not valid:
        raise ValueError(f"no training utterance is of a speaker of --data.valid-speakers ({', '.join(speakers)}); "
                         "name others, or [] for every tenth")
    return [row for row in rows if row["spk_id"] not in speakers], valid


def _pair(row: dict, condition: str) -> dict[str, str]:
    return recorded_pair(row, condition, row["noise"] or "recorded", row["snr"])


if __name__ == "__main__":
    sys.exit(main({"download": download, "prepare": prepare}))
