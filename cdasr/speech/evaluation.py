"""Speech, as the shared evaluation knows it: rows of a manifest, word errors, quality of waveforms, reports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cdasr.coupled.evaluation import Evaluation, OtherRate, Quality, Row
from cdasr.speech.external import check_external, external_files, fuse_external, read_external
from cdasr.speech.metrics import PESQ_RATE, metric_package, pesq_wb, si_sdr, stoi
from cdasr.speech.normalisers import PLAIN, Normaliser, about_normaliser
from cdasr.speech.segments import transcribe_recordings
from cdasr.speech.targets import targets
from cdasr.speech.words import correct_words, error_counts, found_words

AVERAGED_SNRS = ((0.0, 5.0, 10.0), (0.0, 5.0, 10.0, 15.0))
ENVIRONMENTS = ("bus", "caf", "ped", "str")  # of CHiME-3 and CHiME-4
IN_ENTRIES = ("ID", "condition", "duration", "text", "spk_id")  # columns of rows
CONTROLS = {  # systems of a recipe, as its report explains them
    "enhanced_matched": " `enhanced_matched`, `oa_matched`: the signal process of stage 3, trained on alone in place "
                        "of the logits and the coupled training, for the minutes that the table of trainings has.",
    "cascade_pretrained": " `cascade_pretrained`: the processes as stages 3 and 4 left them, before the coupled "
                          "training.",
    "retrained": " `retrained`: the recogniser itself, fine-tuned on the noisy speech; no longer frozen, a reference "
                 "only."}


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a manifest, also those without words."""
    from cdasr.speech.manifest import read_manifest

    return read_manifest(path, empty_text=True)


def row_files(path: Path) -> list[Path]:
    """The files that a manifest is made of."""
    from cdasr.speech.manifest import manifest_files

    return manifest_files(path)


def check_words(rows: Sequence[Row], source: object) -> None:
    """Raise ValueError for a condition without words, before anything is decoded: it has no word error rate."""
    conditions = {row.get("condition") or "all" for row in rows}
    spoken = {row.get("condition") or "all" for row in rows if row["text"].strip()}
    if silent := sorted(conditions - spoken):
        raise ValueError(f"{source}: no words in the text column of condition {', '.join(silent)}; the word error "
                         "rate is not defined there, leave it out")


def audio_key(row: Row, known: dict[str, str]) -> str:
    """A fingerprint of the content of a row's audio files, each read once; `known` keeps those of files.

    The content and not the time of the last change: corpora are copied, and sets made again to the same bytes.
    """
    from cdasr.runtime.atomic import fingerprint

    parts = []
    for path in map(str, filter(None, (row["wav"], row.get("clean_wav")))):
        if path not in known:
            known[path] = fingerprint([Path(path).read_bytes()])
        parts.append(known[path])
    return fingerprint(parts)


def about_row(row: Row, folder: Path) -> dict[str, object]:
    """The columns of a row that entries do not have: numbers as such, what is empty as None, audio below `folder`."""
    made = {name: value or None for name, value in row.items() if name not in IN_ENTRIES}
    made |= {name: _number(made[name]) for name in ("snr", "offset", "seed") if made.get(name)}
    made |= {name: os.path.relpath(made[name], folder) for name in ("wav", "clean_wav") if made.get(name)}
    return {("mixture_seed" if name == "seed" else name): value for name, value in made.items()}


def _number(value: object) -> object:
    """A column as a number; itself where it is none, as in manifests of others."""
    try:
        number = float(value)
    except ValueError:
        return value
    return int(number) if number.is_integer() else number


def read_noisy(row: Row, recogniser: nn.Module) -> Tensor:
    """The waveform (samples,) of a row at the recogniser's rate."""
    from cdasr.speech.manifest import read_row

    return torch.from_numpy(read_row(row, recogniser.sample_rate))


def read_clean(row: Row, recogniser: nn.Module, noisy: Tensor) -> Tensor | None:
    """The clean waveform of a row, as long as the noisy one; None where the row has none."""
    from cdasr.speech.manifest import read_clean

    return torch.from_numpy(read_clean(row, recogniser.sample_rate, len(noisy))) if row.get("clean_wav") else None


def noise(seconds: float, rate: int) -> Tensor:
    """White noise (samples,) at `rate` Hz, the same in every run."""
    return 0.1 * torch.randn(int(seconds * rate), generator=torch.Generator().manual_seed(0))


def recognise(pipeline, waves: Sequence[Tensor], strategy: str, batch_seconds: float, **sampling) -> list:
    """A transcript of each waveform."""
    return transcribe_recordings(pipeline, waves, strategy, batch_seconds=batch_seconds, **sampling)


def entry(row: Row, result, normalise: Normaliser = PLAIN) -> dict:
    """What is kept of a transcript, with its errors after `normalise`, which is named where it is not `plain`."""
    return {"reference": row["text"], "text": result.text, "text_enhanced": result.text_enhanced,
            **error_counts(row["text"], result.text, normalise), "nfe": result.nfe,
            "duration": round(result.duration, 4), **({"chosen": result.chosen} if result.chosen else {}),
            **({} if result.out_of_domain is None else {"out_of_domain": result.out_of_domain}),
            **({"nbest": [hypothesis.about() for hypothesis in result.nbest]} if result.nbest else {}),
            "confidence": [round(word.confidence, 4) for word in result.words],
            "times": [[round(word.start, 3), round(word.end, 3)] for word in result.words],
            "correct": correct_words(row["text"], " ".join(word.word for word in result.words), normalise),
            **({"speaker": row["spk_id"]} if row.get("spk_id") else {}),
            **({} if normalise.name == "plain" else {"normaliser": normalise.setting})}


def recount(entry: Mapping, normalise: Normaliser = PLAIN) -> Mapping | None:
    """An entry with its errors after `normalise`, itself where they are already; None where its words are not known."""
    if entry.get("normaliser", "plain") == normalise.setting:
        return entry
    reference, text = entry["reference"], entry["text"]
    if len(text.split()) != len(entry["confidence"]):
        return None
    others = {key: value for key, value in entry.items() if key != "normaliser"}
    return {**others, **error_counts(reference, text, normalise), "correct": correct_words(reference, text, normalise),
            **({} if normalise.name == "plain" else {"normaliser": normalise.setting})}


def right_parts(entry: Mapping, normalise: Normaliser = PLAIN) -> list[bool]:
    """Whether each word of the reference was recognised."""
    return found_words(entry["reference"], entry["text"], normalise)


def item(entry: Mapping) -> str:
    """The utterance: IDs are `<utterance>_<condition>`, as `cdasr simulate` makes them."""
    return entry["ID"].removesuffix(f"_{entry['condition']}")


# -- quality --------------------------------------------------------------------------------------------------------


def _si_sdr(wave: Tensor, clean: Tensor, recogniser: nn.Module) -> float:
    return float(si_sdr(wave, clean))


def _pesq(wave: Tensor, clean: Tensor, recogniser: nn.Module) -> float | None:
    return _pesq_of(_bytes(wave), _bytes(clean), recogniser.sample_rate)


def _composite(name: str):
    """One of the composite measures; None where PESQ, of which they are made, is not defined."""
    return lambda wave, clean, recogniser: _composite_of(_bytes(wave), _bytes(clean), recogniser.sample_rate).get(name)


def _bytes(wave: Tensor) -> bytes:
    return wave.float().numpy().tobytes()


@lru_cache(maxsize=4)  # PESQ and the composite measures of one item are asked for in turn
def _pesq_of(wave: bytes, clean: bytes, rate: int) -> float | None:
    return pesq_wb(*_at_pesq_rate(wave, clean, rate))


@lru_cache(maxsize=4)
def _composite_of(wave: bytes, clean: bytes, rate: int) -> Mapping[str, float]:
    from cdasr.speech.composite import composite

    pesq = _pesq_of(wave, clean, rate)
    return {} if pesq is None else composite(*_at_pesq_rate(wave, clean, rate), pesq)


def _at_pesq_rate(wave: bytes, clean: bytes, rate: int) -> list[np.ndarray]:
    from cdasr.speech.audio import resample

    return [resample(np.frombuffer(part, np.float32), rate, PESQ_RATE) for part in (wave, clean)]


def _stoi(extended: bool):
    return lambda wave, clean, recogniser: stoi(wave.numpy(), clean.numpy(), recogniser.sample_rate, extended)


QUALITIES = {
    "si_sdr": Quality("SI-SDR dB", _si_sdr),
    "pesq": Quality("PESQ", _pesq, digits=2, check=lambda: metric_package("pesq")),
    "stoi": Quality("STOI", _stoi(False), digits=3, stored=4, check=lambda: metric_package("pystoi")),
    "estoi": Quality("ESTOI", _stoi(True), digits=3, stored=4, check=lambda: metric_package("pystoi")),
    **{name: Quality(name.upper(), _composite(name), digits=2, check=lambda: metric_package("pesq"))
       for name in ("csig", "cbak", "covl")},
    "ssnr": Quality("SSNR dB", _composite("ssnr"), check=lambda: metric_package("pesq"))}


# -- report ---------------------------------------------------------------------------------------------------------


def averages(conditions: Sequence[str]) -> dict[str, list[str]]:
    """The conditions that are averaged: `<kind>_<snr>dB` of each kind, and `<set>_<environment>` of each set of CHiME.

    Titles are of kind and SNRs, or of the set and its environments.
    """
    found: dict[str, dict[float, str]] = {}
    titles: dict[str, list[str]] = {}
    for name in conditions:
        if match := re.fullmatch(r"(.*)_(-?[\d.]+)dB", name):
            found.setdefault(match[1], {})[float(match[2])] = name
        elif match := re.fullmatch(rf"(.*)_({'|'.join(ENVIRONMENTS)})", name):
            titles.setdefault(match[1].replace("_", " "), []).append(name)
    titles = {f"{title}, {', '.join(name.rpartition('_')[2] for name in names)}": names
              for title, names in titles.items()}
    for kind, names in found.items():
        for snrs in AVERAGED_SNRS:
            if there := [snr for snr in snrs if snr in names]:
                titles[f"{_noise(kind)}, {', '.join(f'{snr:g}' for snr in there)} dB"] = [names[snr] for snr in there]
    return titles


def _noise(kind: str) -> str:
    """A kind of condition in words: `unseen` and `test-clean_noise` are unseen noise and test-clean noise."""
    return f"{kind.removesuffix('noise').rstrip('_')} noise".strip().replace("_", " ")


def about(found) -> str:
    """The recipe's own words, with values of its `data` in the place of `{names}`; then what its controls are."""
    values = {key: ", ".join(map(str, value)) if isinstance(value, list) else value
              for key, value in found.hparams["data"].items()}
    controls = dict(CONTROLS)
    if found.tuning.get("best_weight") == 0 and "oa" not in found.systems:
        controls["enhanced"] = (" Observation adding (`oa`) is not listed: the weight of the degraded waveform chosen "
                                "on validation data is 0, so that it equals `enhanced`.")
    return (found.hparams["report"]["about"].strip().format(**values)
            + _normalised(found) + " Intervals: bootstrap over utterances, Wilson's where nothing was wrong; p-values: "
            "paired bootstrap, and corrected by Holm for the comparisons of a table."
            + "".join(text for name, text in controls.items() if name in found.systems) + _external(found))


def _external(found) -> str:
    """What the systems of other enhancers are."""
    settings = found.scores["record"]["settings"]
    names = ", ".join(f"`{name}`" for name in settings.get("external", ()))
    return names and (f" {names}: the frozen recogniser on the audio of other enhancers, whose evaluations and time "
                      "are not counted; `_oa`: on its mix with the degraded waveform, of which the weight is "
                      f"{settings['external_weight']:g}.")


def _normalised(found) -> str:
    """How texts were compared, where it is not in cdasr's own way."""
    setting = found.scores["record"]["settings"].get("normaliser", PLAIN.setting)
    return "" if setting == PLAIN.setting else f" Texts are compared after {about_normaliser(setting)}."


def compared(hparams: Mapping, conditions: Sequence[str]) -> tuple[str, list[str]]:
    """Title and conditions over which a recipe compares strategies."""
    chosen = hparams["report"]["compared"]
    return chosen["title"], [name for name in conditions if re.fullmatch(chosen["conditions"], name)]


EVALUATION = Evaluation(
    counted="words", read_noisy=read_noisy, read_clean=read_clean, recognise=recognise, entry=entry,
    enhanced=lambda result: result.wave, read_rows=read_rows, row_files=row_files, check_rows=check_words,
    row_key=audio_key, about_row=about_row, example=lambda pipeline, seconds: noise(seconds, pipeline.sample_rate),
    scores_file="wer.json", qualities=QUALITIES, measured=("si_sdr",),
    other_rates={"substitutions": OtherRate("sub %", "substitutions", "words", interval=False),
                 "deletions": OtherRate("del %", "deletions", "words", interval=False),
                 "insertions": OtherRate("ins %", "insertions", "words", interval=False),
                 "cer": OtherRate("CER %", "character_errors", "characters")},
    external_files=external_files, check_external=check_external, read_external=read_external,
    fuse_external=fuse_external, recount=recount, right_parts=right_parts,
    scoring=lambda: {"normaliser": PLAIN.setting}, averages=averages, cluster="speaker", item=item, title="WER",
    unit="recordings", durations="s of audio", about=about, compared=compared, targets=targets)


def evaluation_after(normalise: Normaliser) -> Evaluation:
    """The evaluation of speech with transcripts compared after `normalise`."""
    return replace(EVALUATION, entry=partial(entry, normalise=normalise), recount=partial(recount, normalise=normalise),
                   right_parts=partial(right_parts, normalise=normalise),
                   scoring=lambda: {"normaliser": normalise.setting})
