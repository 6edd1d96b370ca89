"""Stages 0 and 1 of recipes/chime6: find CHiME-6, then manifests of its far-field segments, for evaluation only.

CHiME-6 (Watanabe et al. 2020, chimechallenge.github.io/chime6, openslr.org/150, CC BY-SA 4.0): `audio/<set>/` holds
`<session>_<array>.CH<n>.wav` of each session, hours long, and `transcriptions/<set>/<session>.json` a list of what was
said: `start_time` and `end_time` (h:mm:ss.ss), `words`, `speaker`, `session_id`, and in dev and eval `ref`, the array
next to the speaker, and `location`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from cdasr.coupled.rows import take_evenly
from cdasr.recipe.command import main
from cdasr.runtime.files import read_text
from cdasr.speech.corpus import keep_durations, recorded_pair, report_missing
from cdasr.speech.manifest import write_manifest

WHERE = "see openslr.org/150 or chimechallenge.github.io/chime6"


def download(hparams: dict) -> None:
    """Stage 0: find the corpus."""
    print(f"CHiME-6: {find_corpus(hparams)}")


def prepare(hparams: dict) -> None:
    """Stage 1: `eval.csv`, the segments of each set by location, as stretches of the recordings of one microphone."""
    sizes, corpus, scored = hparams["data"], find_corpus(hparams), []
    for name in sizes["eval_sets"]:
        rows = read_set(corpus, name, sizes["array"], sizes["channel"], sizes["skip_missing"])
        rows = keep_durations(rows, sizes["shortest"], sizes["longest"])
        for place in sorted({row["location"] for row in rows}):
            there = [row for row in rows if row["location"] == place]
            scored += [recorded_pair(row, f"{name}_{place}") for row in take_evenly(there, sizes["eval_utterances"])]
    target = Path(hparams["exp_dir"]) / "data" / "eval.csv"
    write_manifest(target, scored)
    print(f"prepared {len(scored)} segments; score them with cdasr evaluate --manifest {target} --model PACKAGE")


def find_corpus(hparams: dict) -> Path:
    """The folder with `audio/` and `transcriptions/`. Raises ValueError where there is none."""
    folder = Path(hparams["data_dir"] or ".")
    found = next((place for place in (folder, folder / "CHiME6") if (place / "transcriptions").is_dir()
                  and (place / "audio").is_dir()), None)
    if found is None or not hparams["data_dir"]:
        raise ValueError(f"{hparams['data_dir'] or '--data-dir is empty'}: CHiME-6 is not there (no audio/ and "
                         f"transcriptions/); give its folder with --data-dir; {WHERE}")
    return found


def read_set(corpus: Path, name: str, array: str, channel: int, skip_missing: bool) -> list[dict[str, str]]:
    """Rows of a set's segments with words: `noisy_wav` with `offset`, and no clean reference.

    Segments that the release has redacted, that have no words, or that end before they begin are left out.
    """
    rows, missing, files = [], [], sorted((corpus / "transcriptions" / name).glob("*.json"))
    if not files:
        raise ValueError(f"{corpus / 'transcriptions' / name}: no <session>.json there; choose other --data.eval-sets")
    for path in files:
        for place, said in enumerate(json.loads(read_text(path))):
            try:
                start, end = seconds(said["start_time"]), seconds(said["end_time"])
                text, speaker, session = clean_text(said["words"]), said["speaker"], said["session_id"]
                used = said.get("ref", "") if array == "ref" else array
            except (KeyError, TypeError, AttributeError, ValueError) as error:
                raise ValueError(f"{path}: entry {place + 1}: not as CHiME-6 has it ({error})") from None
            if not text or "[redacted]" in said["words"] or end <= start:
                continue
            wav = corpus / "audio" / name / f"{session}_{used}.CH{channel}.wav"
            utterance = f"{speaker}_{session}-{100 * start:07.0f}-{100 * end:07.0f}"
            if not wav.is_file():
                missing.append(f"{name}: {utterance}: no {wav.name}")
                continue
            rows.append({"ID": utterance, "duration": f"{end - start:.2f}", "wav": "", "text": text, "spk_id": speaker,
                         "noisy_wav": str(wav.absolute()), "offset": f"{start:.2f}",
                         "location": said.get("location", "nolocation")})
    report_missing(missing, len(rows) + len(missing), skip_missing, "segments")
    return rows


def seconds(time: str) -> float:
    """Seconds of h:mm:ss.ss."""
    hours, minutes, rest = time.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def clean_text(words: str) -> str:
    """The words of a transcription without marks of noises, such as [laughs] or [inaudible 0:01:02.00]."""
    return " ".join(word for word in re.sub(r"\[[^\]]*\]", " ", words).split() if word != "-")


if __name__ == "__main__":
    sys.exit(main({"download": download, "prepare": prepare}))
