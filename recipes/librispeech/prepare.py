"""Stages 0 and 1 of recipes/librispeech: download what is missing, then manifests and fixed noisy sets.

LibriSpeech (Panayotov et al. 2015, openslr.org/12, CC BY 4.0): `<subset>/<speaker>/<chapter>/` holds
`<speaker>-<chapter>-<utterance>.flac` and `<speaker>-<chapter>.trans.txt`, one `ID TEXT` a line.
MUSAN (Snyder et al. 2015, openslr.org/17, CC BY 4.0): `musan/{music,noise,speech}/<source>/*.wav`.
WHAM! noise (Wichern et al. 2019, wham.whisper.ai, CC BY-NC 4.0), in place of MUSAN: `{tr,cv,tt}/*.wav`, its own split.
RIRS_NOISES (Ko et al. 2017, openslr.org/28, Apache 2.0): `real_rirs_isotropic_noises/*.wav`, of which those called
noise are none, and `simulated_rirs/{small,medium,large}room/<room>/*.wav`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cdasr.coupled.rows import take_evenly
from cdasr.recipe.command import main
from cdasr.recipe.download import check_space, fetch, unpack
from cdasr.runtime.files import read_text
from cdasr.runtime.parallel import ordered_map, processes_of
from cdasr.speech.audio import file_format
from cdasr.speech.corpus import (
    audio_of,
    keep_durations,
    room_source,
    split_files,
    split_rooms,
    write_noise_lists,
    write_test_set,
    write_valid_set,
)
from cdasr.speech.manifest import write_manifest
from cdasr.speech.noise import NoiseSource

MIRRORS = tuple(f"https://{host}/resources" for host in ("www.openslr.org", "us.openslr.org", "openslr.elda.org"))
SUBSETS = {  # name: (MD5 as openslr.org publishes it, GB of the archive)
    "dev-clean": ("42e2234ba48799c1f50f24a7926300a1", 0.34), "dev-other": ("c8d0bcc9cca99d4f8b62fcc847357931", 0.32),
    "test-clean": ("32fa31d27d2e1cad72775fee3f4849a9", 0.35), "test-other": ("fb5a50374b501bb3bac4815ee91d3135", 0.33),
    "train-clean-100": ("2a93770f6d5c6c964bc36631d331a522", 6.4),
    "train-clean-360": ("c0e676e450a7ff2f54aeade5171606fa", 23.1),
    "train-other-500": ("d1a0fd59409feb2c614ce4d30c387708", 30.6)}
OTHERS = {"musan": ("17/musan.tar.gz", "0c472d4fc0c5141eca47ad1ffeb2a7df", 11.1, "musan"),
          "rirs": ("28/rirs_noises.zip", "e6f48e257286e05de56413b4779d8ffb", 1.3, "RIRS_NOISES")}
TYPES = ("noise", "music", "speech")  # of MUSAN
WHAM = {"train": "tr", "valid": "cv", "unseen": "tt"}  # folders of WHAM!'s noise


def download(hparams: dict) -> None:
    """Stage 0: fetch and unpack the parts that `download` lists and that are not there yet."""
    folder, wanted = _data_dir(hparams), hparams["download"]
    if unknown := set(wanted) - {"librispeech", *OTHERS}:
        raise ValueError(f"--download: no part is called {sorted(unknown)[0]!r}; known: librispeech, musan, rirs")
    parts = []
    if "librispeech" in wanted:
        parts += [(f"12/{name}.tar.gz", *SUBSETS[name], f"LibriSpeech/{name}") for name in _subsets(hparams)
                  if not _place(hparams, name).is_dir()]
    parts += [OTHERS[name] for name, key in (("musan", "noise_dir"), ("rirs", "rir_dir"))
              if name in wanted and not hparams[key] and not (folder / OTHERS[name][3]).is_dir()]
    check_space(folder, 2.2 * sum(size for _, _, size, _ in parts))
    for path, md5, _, part in parts:
        archive = fetch([f"{mirror}/{path}" for mirror in MIRRORS], folder / Path(path).name, md5)
        unpack(archive, folder, part)
        archive.unlink()
        print(f"unpacked {folder / part}", flush=True)
    if not parts:
        print(f"nothing to download: all parts are there, or were not asked for ({', '.join(wanted) or 'none'})")


def prepare(hparams: dict) -> None:
    """Stage 1: manifests of the subsets, lists of noise and rooms, and the fixed noisy sets."""
    sizes, seed, rate = hparams["data"], hparams["seed"], hparams["sample_rate"]
    folder, names, processes = Path(hparams["exp_dir"]) / "data", _subsets(hparams), processes_of(sizes["jobs"])
    if missing := [name for name in names if not _place(hparams, name).is_dir()]:
        raise ValueError(f"{_data_dir(hparams)}: LibriSpeech's {', '.join(missing)} is not there; give the folder that "
                         "holds LibriSpeech with --data-dir or CDASR_LIBRISPEECH, or run stage 0")
    read = {name: keep_durations(read_subset(_place(hparams, name), sizes["jobs"]), sizes["shortest"], sizes["longest"])
            for name in names}
    train = [row for name in sizes["train_subsets"] for row in read[name]]
    valid = take_evenly([row for name in sizes["valid_subsets"] for row in read[name]], sizes["valid_utterances"])
    write_manifest(folder / "train.csv", take_evenly(train, sizes["train_utterances"]))
    write_manifest(folder / "valid.csv", valid)

    noise, kinds = noise_lists(hparams)
    rooms = split_rooms(measured_rooms(_part(hparams, "rir_dir", "rirs"), sizes["simulated_rirs"]))
    write_noise_lists(folder, {**noise, **kinds}, rooms)
    talkers = take_evenly([row for name in sizes["valid_subsets"] for row in read[name]], 400)

    def source(part: dict) -> NoiseSource:  # babble is made of the validation talkers: never of those who are scored
        return NoiseSource(part["files"], part["families"], talkers, rate, warp=False)
    write_valid_set(folder, valid, source(noise["valid"]), sizes["valid_snrs"], seed, processes)
    reverb = room_source(rooms["eval"], sizes["eval_rooms"], seed + 1, rate, folder / "rooms" / "eval")
    groups = {name: take_evenly(read[name], sizes["eval_utterances"]) for name in sizes["eval_subsets"]}
    write_test_set(folder, groups, {kind: source(part) for kind, part in kinds.items()}, sizes["snrs"], reverb, seed,
                   processes)


# -- LibriSpeech --------------------------------------------------------------------------------------------------


def read_subset(folder: Path, jobs: int = 0) -> list[dict[str, object]]:
    """Manifest rows of a subset's folder, sorted by ID; `jobs` processes read the headers, 0: one a core.

    Raises ValueError, naming the place, for a missing subset, transcript or recording.
    """
    chapters = sorted(path for path in folder.glob("*/*") if path.is_dir())
    if not chapters:
        raise ValueError(f"{folder}: no <speaker>/<chapter> folders there; run stage 0 or give LibriSpeech's folder "
                         "with --data-dir")
    found = ordered_map(read_chapter, chapters, processes_of(jobs), f"read {folder.name}")
    return sorted((row for rows in found for row in rows), key=lambda row: row["ID"])


def read_chapter(folder: Path) -> list[dict[str, object]]:
    """Manifest rows of a chapter's folder."""
    speaker, chapter = folder.parent.name, folder.name
    transcripts = folder / f"{speaker}-{chapter}.trans.txt"
    if not transcripts.is_file():
        raise ValueError(f"{transcripts}: no such file; is the corpus unpacked as a whole?")
    rows = []
    for line in filter(str.strip, read_text(transcripts).split("\n")):
        name, _, text = line.partition(" ")
        wav = folder / f"{name}.flac"
        rate, samples = file_format(wav)
        rows.append({"ID": name, "duration": f"{samples / rate:.4f}", "wav": wav.absolute(), "text": text.strip(),
                     "spk_id": speaker})
    return rows


def _subsets(hparams: dict) -> list[str]:
    """All subsets that the recipe uses. Raises ValueError for one that LibriSpeech does not have."""
    sizes = hparams["data"]
    names = list(dict.fromkeys((*sizes["train_subsets"], *sizes["valid_subsets"], *sizes["eval_subsets"])))
    if unknown := [name for name in names if name not in SUBSETS]:
        raise ValueError(f"LibriSpeech has no subset {unknown[0]!r}; its subsets: {', '.join(SUBSETS)}")
    if double := set(sizes["train_subsets"]) & {*sizes["valid_subsets"], *sizes["eval_subsets"]}:
        raise ValueError(f"{sorted(double)[0]} is a training and a test subset; choose others")
    return names


def _data_dir(hparams: dict) -> Path:
    return Path(hparams["data_dir"] or os.environ.get("CDASR_LIBRISPEECH") or Path(hparams["exp_dir"]) / "download")


def _place(hparams: dict, name: str) -> Path:
    """Where a subset is or, if it is not there, should be: below `data_dir/LibriSpeech`, or below `data_dir` itself."""
    folder = _data_dir(hparams)
    return folder / name if (folder / name).is_dir() else folder / "LibriSpeech" / name


# -- noise and rooms ----------------------------------------------------------------------------------------------


def _part(hparams: dict, key: str, name: str) -> str:
    """The folder of noise or rooms: as given, else where stage 0 puts it, else ""."""
    downloaded = _data_dir(hparams) / OTHERS[name][3]
    return hparams[key] or (str(downloaded) if downloaded.is_dir() else "")


def noise_lists(hparams: dict) -> tuple[dict[str, dict], dict[str, dict]]:
    """Noise by use, `{train, valid}`, and by kind of the test sets, each `{files, families}`: disjoint files.

    In MUSAN's layout the recordings of each of `data.noise_types` are split and tested by themselves; that of WHAM! is
    split already, and one kind, `wham`; any other folder is one kind, `noise`. The kinds of `data.unseen_families` are
    generated.
    """
    sizes, folder = hparams["data"], _part(hparams, "noise_dir", "musan")
    split = {"wham": wham_split(folder)} if _is_wham(folder) else {
        kind: split_files(files) for kind, files in by_type(folder, sizes["noise_types"]).items()}
    noise = {name: {"files": [path for part in split.values() for path in part[name]],
                    "families": sizes[f"{name}_families"]} for name in ("train", "valid")}
    kinds = {kind: {"files": part["unseen"], "families": []} for kind, part in split.items()}
    kinds |= {family: {"files": [], "families": [family]} for family in sizes["unseen_families"]}
    return noise, kinds


def wham_split(folder: str) -> dict[str, list[Path]]:
    """WHAM!'s noise to train on, to validate on and to test on, as its authors split it."""
    return {name: audio_of(os.path.join(folder, part)) for name, part in WHAM.items()}


def _is_wham(folder: str) -> bool:
    return bool(folder) and all((Path(folder) / part).is_dir() for part in WHAM.values())


def by_type(folder: str, types: Sequence[str]) -> dict[str, list[Path]]:
    """Noise files by MUSAN's `types`, those in use; `{noise: all}` of a folder of another layout."""
    files = audio_of(folder)
    if not files or not any((Path(folder) / name).is_dir() for name in TYPES):
        return {"noise": files} if files else {}
    found = {name: [path for path in files if path.relative_to(folder).parts[0] == name] for name in types}
    if empty := [name for name in types if not found[name]]:
        raise ValueError(f"{folder}: no recordings of the type {empty[0]!r}; change --data.noise-types")
    return found


def measured_rooms(folder: str, simulated: int) -> list[Path]:
    """Room responses of a folder; in RIRS_NOISES the real ones, and so many of its 60,000 simulated ones."""
    files = audio_of(folder)
    real = [path for path in files if "real_rirs_isotropic_noises" in path.parts and "noise" not in path.name]
    if not real:
        return files
    rooms = [path for path in files if "simulated_rirs" in path.parts]
    return real + (take_evenly(rooms, simulated) if simulated else [])


if __name__ == "__main__":
    sys.exit(main({"download": download, "prepare": prepare}))
