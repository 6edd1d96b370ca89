"""What the prepare stages of all speech recipes share: lists of noise and rooms, and the fixed noisy sets.

A prepare stage leaves in `exp_dir/data`: `train.csv` and `valid.csv` (clean), `noise.json` (what training may mix in),
`valid_noisy.csv` (for early stopping and tuning) and `eval.csv` (what is scored; see cdasr/speech/simulate.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cdasr.coupled.rows import take_evenly
from cdasr.runtime.atomic import write_json
from cdasr.runtime.errors import Faults
from cdasr.runtime.files import read_text
from cdasr.runtime.parallel import processes_of
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.noise import NoiseSource, find_audio
from cdasr.speech.rooms import RoomSource
from cdasr.speech.simulate import simulate_set

Row = Mapping[str, str]


def find_manifests(hparams: Mapping) -> None:
    """Stage 0 of a recipe that has manifests: whether they are there."""
    for name, path in hparams["manifests"].items():
        if path and not Path(path).exists():
            raise ValueError(f"{path}: no such manifest; change --manifests.{name}")
        print(f"{name}: {path or 'held out from train'}")


def prepare_manifests(hparams: Mapping) -> None:
    """Stage 1 of a recipe that has manifests: clean sets, noise and rooms, fixed noisy sets (docs/new-corpus.md)."""
    sizes, seed, rate = hparams["data"], hparams["seed"], hparams["sample_rate"]
    processes, folder = processes_of(hparams["threads"]), Path(hparams["exp_dir"]) / "data"
    rows = read_manifests({name: path for name, path in hparams["manifests"].items() if path})
    check_apart(rows)
    rows = {name: keep_durations(part, sizes["shortest"], sizes["longest"]) for name, part in rows.items()}
    if "valid" not in rows:
        rows["train"], rows["valid"] = hold_out(rows["train"])
    valid = take_evenly(rows["valid"], sizes["valid_utterances"])
    write_manifest(folder / "train.csv", take_evenly([_plain(row) for row in rows["train"]], sizes["train_utterances"]))
    write_manifest(folder / "valid.csv", [_plain(row) for row in valid])

    files, rooms = audio_of(hparams["noise_dir"]), split_rooms(audio_of(hparams["rir_dir"]))
    split = split_files(files) if files else dict.fromkeys(("train", "valid", "unseen"), [])
    noise = {name: {"files": split[name], "families": sizes[f"{name}_families"]} for name in ("train", "valid")}
    kinds = {family: {"files": [], "families": [family]} for family in sizes["unseen_families"]}
    if files:
        kinds["noise"] = {"files": split["unseen"], "families": []}
    write_noise_lists(folder, {**noise, **kinds}, rooms)
    talkers = take_evenly(rows["valid"], 400)

    def source(part: Mapping) -> NoiseSource:
        return NoiseSource(part["files"], part["families"], talkers, rate, warp=False)
    write_valid_set(folder, valid, source(noise["valid"]), sizes["valid_snrs"], seed, processes)
    test = take_evenly(rows["test"], sizes["eval_utterances"])
    if not sizes["mix_test"]:
        write_manifest(folder / "eval.csv", [_recorded(row) for row in test])
        return
    write_test_set(folder, {"": test}, {kind: source(part) for kind, part in kinds.items()}, sizes["snrs"],
                   room_source(rooms["eval"], sizes["eval_rooms"], seed + 1, rate, folder / "rooms" / "eval"), seed,
                   processes)


def read_manifests(manifests: Mapping[str, str | os.PathLike]) -> dict[str, list[dict[str, str]]]:
    """The rows of several sets. Raises ValueError with the faults of all of them."""
    rows, faults = {}, []
    for name, path in manifests.items():
        try:
            rows[name] = read_manifest(path, file_names=True)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("\n".join(dict.fromkeys(faults)))
    return rows


def prepared_rows(folder: Path, name: str) -> list[dict[str, str]]:
    """The rows of a set that the prepare stage wrote to `folder`; their audio was checked then."""
    return read_manifest(folder / f"{name}.csv", check_audio=False, empty_text=True)


def check_apart(rows: Mapping[str, Sequence[Row]]) -> None:
    """Raise ValueError for a recording, or a stretch of one, that is trained on and also used to choose or to score."""
    trained: dict[str, list[tuple]] = {}
    for row in rows["train"]:
        trained.setdefault(os.path.realpath(row["wav"]), []).append(_extent(row))
    for name in rows.keys() - {"train"}:
        shared = sorted(row["wav"] for row in rows[name]
                        if any(_overlap(part, _extent(row)) for part in trained.get(os.path.realpath(row["wav"]), ())))
        if shared:
            raise ValueError(f"{shared[0]} ({len(shared)} recordings in all) is in both the train and the {name} "
                             "manifest; what is scored must not be trained on")


def _extent(row: Row) -> tuple[float, float, str]:
    """Start and end of a row in its file, in seconds, and its channel, "" for all."""
    start = float(row.get("offset") or 0)
    return start, start + float(row["duration"]), row.get("channel", "")


def _overlap(one: tuple, other: tuple, margin: float = 0.05) -> bool:
    """Whether two stretches of a file share audio: neighbours may, by the rounding of their times."""
    same = not one[2] or not other[2] or one[2] == other[2]
    return same and min(one[1], other[1]) - max(one[0], other[0]) > margin


def _plain(row: Row) -> dict[str, str]:
    return {key: row.get(key, "") for key in ("ID", "duration", "wav", "text", "spk_id")} | _part(row)


def _part(row: Row) -> dict[str, str]:
    return {key: row[key] for key in ("offset", "channel") if row.get(key)}


def _recorded(row: Row) -> dict[str, str]:
    """A row of a test set that is noisy as it was recorded."""
    return {**_plain(row), "clean_wav": row.get("clean_wav", ""), "noise": "recorded", "rir": "", "snr": "",
            "condition": row.get("condition", "test"), "seed": ""}


def recorded_pair(row: Row, condition: str, noise: str = "recorded", snr: str = "") -> dict[str, str]:
    """A row of a fixed noisy set that the corpus itself has: `noisy_wav`, and `wav` as its reference, "" for none."""
    return {**_plain(row), "ID": f"{row['ID']}_{condition}", "wav": row["noisy_wav"], "clean_wav": row["wav"],
            "noise": noise, "rir": "", "snr": snr, "condition": condition, "seed": ""}


def report_missing(missing: Sequence[str], total: int, skip: bool, what: str = "utterances") -> None:
    """Say what a copy of a corpus lacks, `file: why` each, of `total` utterances or other parts (`what`).

    Raises ValueError with the list unless what is not whole is to be left out (`skip`).
    """
    if not missing:
        return
    if not skip:
        raise Faults([f"{len(missing)} of {total} {what} are not whole in this copy; complete it, or leave them "
                      "out with --data.skip-missing true", *missing])
    for line in missing[:10]:
        print(f"left out: {line}")
    print(f"left out {len(missing)} of {total} {what}, which are not whole in this copy", flush=True)


def hold_out(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Training and validation rows: every tenth speaker is held out where there are ten, else every tenth utterance."""
    speakers = sorted({row["spk_id"] for row in rows})
    held = set(speakers[9::10]) if len(speakers) >= 10 else set()
    valid = [row for place, row in enumerate(rows) if (row["spk_id"] in held if held else place % 10 == 9)]
    if not valid:
        raise ValueError(f"{len(rows)} training utterances are too few to hold some out; give a valid manifest")
    kept = {row["ID"] for row in valid}
    return [row for row in rows if row["ID"] not in kept], valid


def leave_out(rows: Sequence[Row], listed: str) -> list[Row]:
    """The rows whose IDs the file `listed` does not name, one a line; all of them where that is "".

    Raises ValueError for a name that no row has.
    """
    names = set(read_text(listed, "list of utterances").split()) if listed else set()
    if unknown := sorted(names - {row["ID"] for row in rows}):
        raise ValueError(f"{listed}: {unknown[0]} ({len(unknown)} in all) is no training utterance; name those of "
                         "train.csv, or take the line out")
    return [row for row in rows if row["ID"] not in names]


def write_noise_lists(folder: Path, noise: Mapping[str, Mapping], rooms: Mapping[str, Sequence]) -> None:
    """`noise.json`: the files and families that training uses, and those that it must never hear."""
    lists = {name: {"files": [str(Path(path).absolute()) for path in part["files"]],
                    "families": list(part["families"])} for name, part in noise.items()}
    lists["rooms"] = {name: [str(Path(path).absolute()) for path in files] for name, files in rooms.items()}
    write_json(folder / "noise.json", lists)


def write_training_noise(folder: Path, hparams: Mapping, files: Sequence | None = None) -> None:
    """`noise.json` of a corpus that brings its noisy sets along: all of `noise_dir`, or `files`, is for training."""
    files = audio_of(hparams["noise_dir"]) if files is None else files
    write_noise_lists(folder, {"train": {"files": files, "families": hparams["data"]["train_families"]}},
                      {"train": audio_of(hparams["rir_dir"])})


def write_valid_set(folder: Path, rows: Sequence[Row], noise: NoiseSource, snrs: Sequence[float], seed: int,
                    processes: int = 1) -> None:
    """`valid_noisy.csv`: each utterance at one of `snrs` (dB)."""
    noisy = []
    for place, snr in enumerate(snrs):
        noisy += simulate_set(rows[place::len(snrs)], f"valid_{snr:g}dB", noise, None, snr, seed, folder / "noisy",
                              processes)
    write_manifest(folder / "valid_noisy.csv", noisy)


def write_test_set(folder: Path, groups: Mapping[str, Sequence[Row]], kinds: Mapping[str, NoiseSource],
                   snrs: Sequence[float], rooms: RoomSource | None, seed: int, processes: int = 1,
                   as_they_are: Mapping[str, Sequence[Row]] | None = None, room_snr: float | None = None) -> None:
    """`eval.csv`: the rows of each group clean, in a room, and over each kind of noise at each of `snrs` (dB).

    Conditions are `<group>_clean`, `<group>_reverb` and `<group>_<kind>_<snr>dB`, without `<group>_` where that is "".
    With `room_snr` also `<group>_reverb_<kind>_<snr>dB`, the first kind of noise in a room at that SNR. `as_they_are`:
    further conditions, whose rows nothing is done to.
    """
    scored, noisy = [], folder / "noisy"
    for group, rows in groups.items():
        prefix = f"{group}_" if group else ""
        scored += simulate_set(rows, f"{prefix}clean", None, None, None, seed, noisy)
        if rooms is not None:
            scored += simulate_set(rows, f"{prefix}reverb", None, rooms, None, seed, noisy, processes)
        for kind, source in kinds.items():
            for snr in snrs:
                scored += simulate_set(rows, f"{prefix}{kind}_{snr:g}dB", source, None, snr, seed, noisy, processes)
        if rooms is not None and room_snr is not None and kinds:
            kind, source = next(iter(kinds.items()))
            scored += simulate_set(rows, f"{prefix}reverb_{kind}_{room_snr:g}dB", source, rooms, room_snr, seed, noisy,
                                   processes)
    for condition, rows in (as_they_are or {}).items():
        scored += simulate_set(rows, condition, None, None, None, seed, noisy)
    write_manifest(folder / "eval.csv", scored)
    print(f"prepared {len(scored)} utterances in {folder / 'eval.csv'}")


def clean_rows(rows: Sequence[Row]) -> list[Row]:
    """The rows of a fixed test set's clean conditions."""
    return [row for row in rows
            if row.get("condition", "clean").endswith("clean") and not row.get("noise") and not row.get("rir")]


def keep_durations(rows: Sequence[Row], shortest: float, longest: float) -> list[Row]:
    """Rows of `shortest` to `longest` seconds; says how many are left out. Raises ValueError where none is left."""
    kept = [row for row in rows if shortest <= float(row["duration"]) <= longest]
    if not kept:
        raise ValueError(f"none of {len(rows)} utterances lasts {shortest:g} to {longest:g} s; change "
                         "--data.shortest or --data.longest")
    if len(kept) < len(rows):
        print(f"left out {len(rows) - len(kept)} of {len(rows)} utterances, shorter than {shortest:g} s or longer than "
              f"{longest:g} s")
    return kept


def split_files(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Noise files to train on, to validate on and to test on as unseen: 8, 1 and 1 of ten, by their order.

    Raises ValueError for fewer than three files.
    """
    if len(files) < 3:
        raise ValueError(f"{len(files)} noise recordings cannot be split into training, validation and test; give at "
                         "least three (of each type), or none for generated noise")
    every = min(10, len(files))
    return {"train": [path for place, path in enumerate(files) if place % every < every - 2],
            "valid": list(files[every - 2::every]), "unseen": list(files[every - 1::every])}


def split_rooms(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Room responses to train on and for the test set: every second file by its order."""
    return {"train": list(files[0::2]), "eval": list(files[1::2])}


def room_source(files: Sequence, simulated: int, seed: int, rate: int, cache_dir: Path) -> RoomSource | None:
    """Measured and simulated rooms; None where there are neither."""
    return RoomSource(files, simulated, seed, rate, cache_dir=cache_dir) if files or simulated else None


def audio_of(folder: str) -> list[Path]:
    """The audio files under `folder`; none where that is ""."""
    return find_audio(folder) if folder else []
