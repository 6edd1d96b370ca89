"""Stages 0 and 1 of recipes/speechocean762: download the corpus, then manifests and fixed noisy sets.

speechocean762 (Zhang et al. 2021, openslr.org/101, free for commercial and non-commercial use): 5,000 English sentences
read by 250 people whose first language is Mandarin, half of them children. `train/` and `test/` are Kaldi data
directories (`wav.scp`, `text`, `utt2spk`, `spk2age`, ...) whose paths are relative to the corpus folder. The audio is
in `WAVE/SPEAKER<id>/`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cdasr.recipe.command import main
from cdasr.recipe.download import check_space, fetch, unpack
from cdasr.runtime.files import read_text
from cdasr.runtime.parallel import processes_of
from cdasr.speech.audio import audio_format
from cdasr.speech.corpus import (
    audio_of,
    hold_out,
    keep_durations,
    leave_out,
    room_source,
    split_files,
    split_rooms,
    take_evenly,
    write_noise_lists,
    write_test_set,
    write_valid_set,
)
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.noise import NoiseSource

ARCHIVE = "101/speechocean762.tar.gz"
MIRRORS = tuple(f"https://{host}/resources" for host in ("www.openslr.org", "us.openslr.org", "openslr.elda.org"))
GIGABYTES = 0.6  # of the archive
ADULT = 16  # years
COLUMNS = ("ID", "duration", "wav", "text", "spk_id")


def download(hparams: dict) -> None:
    """Stage 0: find the corpus or download it, and say where it is."""
    given = _given(hparams)
    if given is None and not _is_corpus(folder := Path(hparams["exp_dir"]) / "download" / "speechocean762"):
        check_space(folder.parent, 2.2 * GIGABYTES)
        archive = fetch([f"{mirror}/{ARCHIVE}" for mirror in MIRRORS], folder.parent / Path(ARCHIVE).name)
        unpack(archive, folder.parent, folder.name)  # gzip checks what arrived: OpenSLR publishes no checksum
        archive.unlink()
    print(f"speechocean762: {find_corpus(hparams)}")


def prepare(hparams: dict) -> None:
    """Stage 1: manifests of clean speech, lists of noise and rooms, and the fixed noisy sets."""
    sizes, seed, rate = hparams["data"], hparams["seed"], hparams["sample_rate"]
    corpus, folder = find_corpus(hparams), Path(hparams["exp_dir"]) / "data"
    processes = processes_of(hparams["threads"])
    spoken = read_split(corpus, "train", sizes)
    dev = development_speakers(read_ages(corpus / "train"))
    train, valid = hold_out([row for row in spoken if row["spk_id"] not in dev])
    if sizes["eval_split"] == "dev":
        groups = {"": [row for row in spoken if row["spk_id"] in dev]}
    else:
        groups = by_age(read_split(corpus, "test", sizes), read_ages(corpus / "test"))
    if sizes["other_manifest"]:
        groups["other"] = read_other(sizes["other_manifest"], sizes)
    valid = take_evenly(valid, sizes["valid_utterances"])
    further = read_untranscribed(hparams["speech_dir"], sizes) if hparams["speech_dir"] else []
    write_manifest(folder / "train.csv", leave_out([*take_evenly(train, sizes["train_utterances"]), *further],
                                                   sizes["exclude_list"]))
    write_manifest(folder / "valid.csv", valid)

    noise, kinds = noise_lists(hparams)
    rooms = split_rooms(audio_of(hparams["rir_dir"]))
    write_noise_lists(folder, {**noise, **kinds}, rooms)
    talkers = take_evenly(train, 400)  # babble of the test sets: people who are not scored

    def source(part: dict) -> NoiseSource:
        return NoiseSource(part["files"], part["families"], talkers, rate, warp=False)
    write_valid_set(folder, valid, source(noise["valid"]), sizes["valid_snrs"], seed, processes)
    reverb = room_source(rooms["eval"], sizes["eval_rooms"], seed + 1, rate, folder / "rooms" / "eval")
    scored = {name: take_evenly(rows, sizes["eval_utterances"]) for name, rows in groups.items() if rows}
    write_test_set(folder, scored, {kind: source(part) for kind, part in kinds.items()}, sizes["snrs"], reverb, seed,
                   processes, room_snr=sizes["room_snr"])


# -- the corpus ---------------------------------------------------------------------------------------------------


def find_corpus(hparams: dict) -> Path:
    """The folder with `train/` and `WAVE/`. Raises ValueError, with the ways out, where there is none."""
    given = _given(hparams)
    folder = given or Path(hparams["exp_dir"]) / "download" / "speechocean762"
    if not _is_corpus(folder):
        raise ValueError(f"{folder}: speechocean762 is not there (no train/wav.scp and WAVE/); give its folder with "
                         "--data-dir or CDASR_SPEECHOCEAN762, or run stage 0")
    return folder


def read_split(corpus: Path, split: str, sizes: dict) -> list[dict[str, str]]:
    """The utterances of `train` or `test`. Raises ValueError for a split that this copy does not have."""
    if not (corpus / split / "wav.scp").is_file():
        raise ValueError(f"{corpus}: this copy has no {split} split; choose --data.eval-split dev or use the whole "
                         "release")
    rows = read_manifest(corpus / split, file_names=True)
    return keep_durations([{key: row[key] for key in COLUMNS} for row in rows], sizes["shortest"], sizes["longest"])


def read_other(manifest: str, sizes: dict) -> list[dict[str, str]]:
    """Further clean sentences to score, from any manifest with texts."""
    rows = [{**{key: row.get(key, "") for key in COLUMNS}, "spk_id": row.get("spk_id") or "other"}
            for row in read_manifest(manifest)]
    return keep_durations(rows, sizes["shortest"], sizes["longest"])


def read_ages(folder: Path) -> dict[str, int]:
    """Years by speaker, from `spk2age`."""
    ages = {}
    for number, line in enumerate(read_text(folder / "spk2age").split("\n"), start=1):
        if not line.strip():
            continue
        speaker, _, age = line.strip().partition("\t" if "\t" in line else " ")
        if not age.strip().isdecimal():
            raise ValueError(f"{folder / 'spk2age'}: line {number}: expected <speaker> <years>, got {line.strip()!r}")
        ages[speaker] = int(age)
    return ages


def development_speakers(ages: dict[str, int]) -> set[str]:
    """Every fifth adult, by ID."""
    return set(sorted(speaker for speaker, age in ages.items() if age >= ADULT)[4::5])


def by_age(rows: Sequence[dict[str, str]], ages: dict[str, int]) -> dict[str, list[dict[str, str]]]:
    """The utterances of adults and of children."""
    if unknown := sorted({row["spk_id"] for row in rows} - ages.keys()):
        raise ValueError(f"spk2age: there is no age of the speaker {unknown[0]} ({len(unknown)} in all)")
    return {name: [row for row in rows if (ages[row["spk_id"]] >= ADULT) == adult]
            for name, adult in (("adults", True), ("children", False))}


def read_untranscribed(folder: str, sizes: dict) -> list[dict[str, str]]:
    """Clean speech without texts: signal and logits process learn from it, a CTC head does not."""
    rows = [{"ID": "-".join(path.relative_to(folder).with_suffix("").parts), "wav": str(path.absolute()), "text": "",
             "duration": f"{audio_format(path).seconds:.4f}", "spk_id": ""} for path in audio_of(folder)]
    return keep_durations(rows, sizes["shortest"], sizes["longest"])


def _given(hparams: dict) -> Path | None:
    given = hparams["data_dir"] or os.environ.get("CDASR_SPEECHOCEAN762")
    return Path(given) if given else None


def _is_corpus(folder: Path) -> bool:
    return (folder / "train" / "wav.scp").is_file() and (folder / "WAVE").is_dir()


# -- noise --------------------------------------------------------------------------------------------------------


def noise_lists(hparams: dict) -> tuple[dict[str, dict], dict[str, dict]]:
    """Noise by use, `{train, valid}`, and by kind of the test sets, each `{files, families}`.

    The recordings of `unseen_noise_dir` are for testing only. Without it a tenth of `noise_dir` is kept for that.
    """
    sizes, files = hparams["data"], audio_of(hparams["noise_dir"])
    split = split_files(files) if files else dict.fromkeys(("train", "valid", "unseen"), [])
    noise = {name: {"files": split[name], "families": sizes[f"{name}_families"]} for name in ("train", "valid")}
    unseen = audio_of(hparams["unseen_noise_dir"])
    if set(map(os.path.realpath, unseen)) & set(map(os.path.realpath, files)):
        raise ValueError("unseen_noise_dir holds files of noise_dir; what is tested must not be trained on")
    unseen = unseen or split["unseen"]
    kinds = {"city": {"files": unseen, "families": []}} if unseen else {}
    return noise, kinds | {family: {"files": [], "families": [family]} for family in sizes["unseen_families"]}


if __name__ == "__main__":
    sys.exit(main({"download": download, "prepare": prepare}))
