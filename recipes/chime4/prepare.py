"""Stages 0 and 1 of recipes/chime4: find CHiME-4, then manifests of its single-channel track.

CHiME-4 (Vincent et al. 2017, chimechallenge.org/challenges/chime4) below `data/`; <set> is tr05, dt05 or et05, <env>
bus, caf, ped or str, <kind> real or simu, an ID `<speaker>_<WSJ0 utterance>_<ENV>`:

- `audio/16kHz/isolated_1ch_track/<set>_<env>_<kind>/<ID>.wav`: what is recognised; dt05 and et05.
- `audio/16kHz/isolated/tr05_<env>_simu/<ID>.CH<n>.wav` and `tr05_org/<speaker>_<utterance>_ORG.wav`: training pairs.
- `audio/16kHz/isolated/<set>_bth/<speaker>_<utterance>_BTH.CH0.wav`: the booth recordings of which dt05 and et05 of the
  kind simu are made; `isolated_ext/<set>_<env>_simu/<ID>.CH<n>.Clean.wav`, where the simulation has written it: their
  image at microphone n, which `annotations/<set>_simu_1ch_track.list` names.
- `transcriptions/<set>_<kind>.dot_all`: `TEXT (ID)` a line; `annotations/<set>_<kind>.json`: the list of a set;
  `WSJ0/**/*.dot`: texts of tr05_simu, `TEXT (utterance)` a line.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from cdasr.coupled.rows import take_evenly
from cdasr.recipe.command import main
from cdasr.runtime.files import read_text
from cdasr.speech.audio import audio_format
from cdasr.speech.corpus import hold_out, keep_durations, recorded_pair, report_missing, write_training_noise
from cdasr.speech.manifest import write_manifest

ENVIRONMENTS = ("bus", "caf", "ped", "str")
KINDS = ("real", "simu")
WHERE = ("the corpus is licensed: LDC2017S24 (CHiME-3, whose recordings these are), or see "
         "chimechallenge.org/challenges/chime4")


def download(hparams: dict) -> None:
    """Stage 0: find the corpus."""
    print(f"CHiME-4: {find_corpus(hparams)}")


def prepare(hparams: dict) -> None:
    """Stage 1: manifests of the simulated pairs to train on, of the development sets, and of what is scored."""
    sizes, folder, corpus = hparams["data"], Path(hparams["exp_dir"]) / "data", find_corpus(hparams)
    trains = sizes["train"] and sizes["mix_test"]
    names = dict.fromkeys((*(("dt05",) if trains else ()), *sizes["eval_sets"]))
    read = {name: read_set(corpus, name, sizes["skip_missing"]) for name in names}
    if trains:
        train = keep_durations(read_training(corpus, sizes["channel"], sizes["skip_missing"]), sizes["shortest"],
                               sizes["longest"])
        write_training(folder, train, take_evenly(read["dt05"], sizes["valid_utterances"]), sizes["train_utterances"])
        write_training_noise(folder, hparams, backgrounds(corpus) if not hparams["noise_dir"] else None)
    scored = []
    for name in sizes["eval_sets"]:
        for kind in KINDS:
            for place in ENVIRONMENTS:
                rows = [row for row in read[name] if row["environment"] == place and row["kind"] == kind]
                scored += [recorded_pair(row, f"{name}_{kind}_{place}") for row in
                           take_evenly(rows, sizes["eval_utterances"])]
    write_manifest(folder / "eval.csv", scored)
    print(f"prepared {len(scored)} utterances in {folder / 'eval.csv'}; "
          f"{sum(not row['clean_wav'] for row in scored)} of them have no clean reference")


def write_training(folder: Path, train: list[dict], dev: list[dict], utterances: int) -> None:
    """`train.csv`, `valid.csv` (clean) and `valid_noisy.csv`: dt05, and pairs of held-out speakers of tr05 if need be.

    Training is validated on pairs, which dt05 has where the booth recordings are there. All of dt05 counts in tuning.
    """
    pairs, noisy = [row for row in dev if row["wav"]], [recorded_pair(row, f"valid_{row['kind']}") for row in dev]
    if not pairs:
        print("dt05 has no clean references here (isolated/dt05_bth); every tenth speaker of tr05 is held out for them")
        train, pairs = hold_out(train)
        noisy += [recorded_pair(row, "valid_tr05") for row in take_evenly(pairs, len(dev))]
    write_manifest(folder / "train.csv", take_evenly(train, utterances))
    write_manifest(folder / "valid.csv", take_evenly(pairs, len(dev)))
    write_manifest(folder / "valid_noisy.csv", noisy)


# -- the corpus ---------------------------------------------------------------------------------------------------


def find_corpus(hparams: dict) -> Path:
    """The folder `data` of the corpus. Raises ValueError, which says where it is to be had, where there is none."""
    given = hparams["data_dir"]
    if not given:
        raise ValueError(f"give the folder of CHiME-4 with --data-dir; {WHERE}")
    for folder in (Path(given), *(Path(given) / name for name in ("data", "CHiME3/data", "CHiME4/data"))):
        if (folder / "audio" / "16kHz" / "isolated_1ch_track").is_dir() and (folder / "transcriptions").is_dir():
            return folder
    raise ValueError(f"{given}: CHiME-4 is not there (no data/audio/16kHz/isolated_1ch_track and data/transcriptions); "
                     f"{WHERE}")


def read_set(corpus: Path, name: str, skip_missing: bool) -> list[dict[str, str]]:
    """Rows of dt05 or et05, real and simulated: `noisy_wav`, and `wav`, the clean reference, "" where there is none."""
    audio, rows, missing, total = corpus / "audio" / "16kHz", [], [], 0
    for kind in KINDS:
        texts = read_texts(corpus, f"{name}_{kind}")
        there = {path.stem: path for place in ENVIRONMENTS
                 for path in (audio / "isolated_1ch_track" / f"{name}_{place}_{kind}").glob("*.wav")}
        microphones = read_list(corpus, f"{name}_{kind}_1ch_track") if kind == "simu" else {}
        wanted = sorted({*texts, *there, *annotated(corpus, f"{name}_{kind}")})
        if not wanted:
            raise ValueError(f"{corpus}: nothing of {name}_{kind} is there; get the whole corpus, or choose other "
                             "--data.eval-sets")
        total += len(wanted)
        for utterance in wanted:
            if utterance not in there or utterance not in texts:
                missing.append(f"{name}_{kind}: {utterance}: no "
                               f"{'audio in isolated_1ch_track' if utterance not in there else 'transcription'}")
                continue
            clean = reference(audio, name, utterance, microphones.get(utterance)) if kind == "simu" else ""
            rows.append(make_row(utterance, there[utterance], clean, texts[utterance], kind))
    report_missing(missing, total, skip_missing)
    return rows


def read_training(corpus: Path, channel: int, skip_missing: bool) -> list[dict[str, str]]:
    """The simulated training pairs: `wav` of WSJ0, and `noisy_wav`, one microphone of the mixture."""
    audio = corpus / "audio" / "16kHz" / "isolated"
    noisy = {path.name.partition(".")[0]: path for place in ENVIRONMENTS
             for path in (audio / f"tr05_{place}_simu").glob(f"*.CH{channel}.wav")}
    wanted, texts = sorted({*noisy, *annotated(corpus, "tr05_simu")}), read_texts(corpus, "tr05_simu")
    if not wanted:
        raise ValueError(f"{audio}: no tr05_<environment>_simu/*.CH{channel}.wav; get the whole corpus, or give "
                         "--data.mix-test false to prepare the test sets only")
    rows, missing = [], []
    for utterance in wanted:
        speaker, name, _ = utterance.split("_")
        clean = audio / "tr05_org" / f"{speaker}_{name}_ORG.wav"
        text = texts.get(utterance, texts.get(name.lower()))
        lacking = [what for what, lacks in ((f"CH{channel}", utterance not in noisy), (clean.name, not clean.is_file()),
                                            ("text", text is None)) if lacks]
        if lacking:
            missing.append(f"tr05_simu: {utterance}: no {', no '.join(lacking)}")
        else:
            rows.append(make_row(utterance, noisy[utterance], str(clean.absolute()), text, "simu"))
    report_missing(missing, len(wanted), skip_missing)
    return rows


def make_row(utterance: str, noisy: Path, clean: str, text: str, kind: str) -> dict[str, str]:
    return {"ID": utterance, "duration": f"{audio_format(noisy).seconds:.4f}", "wav": clean, "text": text,
            "spk_id": utterance.partition("_")[0], "noisy_wav": str(noisy.absolute()),
            "environment": utterance.rpartition("_")[2].lower(), "kind": kind}


def reference(audio: Path, name: str, utterance: str, microphone: str | None) -> str:
    """The clean reference of a simulated utterance: its image at the microphone, else the booth recording, else ""."""
    speaker, prompt, place = utterance.split("_")
    image = audio / "isolated_ext" / f"{name}_{place.lower()}_simu" / f"{utterance}.{microphone}.Clean.wav"
    booth = audio / "isolated" / f"{name}_bth" / f"{speaker}_{prompt}_BTH.CH0.wav"
    return next((str(path.absolute()) for path in (image, booth) if path.is_file()), "")


def backgrounds(corpus: Path) -> list[Path]:
    """One channel of each recording of background noise: of training, as the challenge wants it."""
    return sorted((corpus / "audio" / "16kHz" / "backgrounds").glob("*.CH5.wav"))


# -- annotations --------------------------------------------------------------------------------------------------


def read_texts(corpus: Path, name: str) -> dict[str, str]:
    """Texts of a set by ID, from its `.dot_all` or its annotations; of tr05_simu from WSJ0, by the utterance there."""
    path = corpus / "transcriptions" / f"{name}.dot_all"
    if path.is_file():
        return read_dots(path)
    texts = {utterance: clean_text(entry["dot"]) for utterance, entry in annotated(corpus, name).items()
             if "dot" in entry}
    if texts or name != "tr05_simu":
        return texts
    return {utterance.lower(): text for path in sorted((corpus / "WSJ0").rglob("*.dot"))
            for utterance, text in read_dots(path).items()}


def read_dots(path: Path) -> dict[str, str]:
    """Texts by ID of a file with a line `TEXT (ID)` each."""
    texts = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        found = re.fullmatch(r"(.*)\((\w+)\)\s*", line)
        if found:
            texts[found[2]] = clean_text(found[1])
        elif line.strip():
            raise ValueError(f"{path}: line {number}: expected TEXT (ID), got {line.strip()[:80]!r}")
    return texts


def clean_text(dots: str) -> str:
    """The words of WSJ0's detailed orthographic transcription (its dot_spec.doc), in upper case, without noises."""
    kept = []
    for word in dots.replace("\\", "").upper().split():
        if word in ("~", ".") or re.search(r"\[[^\s\]]*\]", word):  # cut off, a pause, or a noise such as [door_slam]
            continue
        kept.append({"%PERCENT": "PERCENT", ".POINT": "POINT", "--DASH": "-DASH"}.get(
            word, re.sub(r"^<([\w']+)>$", r"\1", word)))
    return " ".join(kept)


def annotated(corpus: Path, name: str) -> dict[str, dict]:
    """The entries of a set's annotations by ID; none where there is no such file."""
    path = corpus / "annotations" / f"{name}.json"
    if not path.is_file():
        return {}
    try:
        return {f"{entry['speaker']}_{entry['wsj_name']}_{entry['environment']}": entry
                for entry in json.loads(read_text(path))}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: expected a list of entries with speaker, wsj_name and environment "
                         f"({error})") from None


def read_list(corpus: Path, name: str) -> dict[str, str]:
    """The microphone, such as CH5, of each ID, from a list of files `<folder>/<ID>.CH<n>.wav`; none without it."""
    path = corpus / "annotations" / f"{name}.list"
    lines = read_text(path).split() if path.is_file() else []
    return {Path(line).name.split(".")[0]: Path(line).name.split(".")[1] for line in lines}


if __name__ == "__main__":
    sys.exit(main({"download": download, "prepare": prepare}))
