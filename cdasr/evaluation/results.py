"""The RESULTS.md of a speech recipe, from the files that its stages wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from cdasr.evaluation.evaluate import read_decoded, score_conditions
from cdasr.evaluation.report import averages, render, table, write_results

STAGES = ("recogniser", "signal", "logits", "coupled")  # that train, in this order
AVERAGED_SNRS = (0.0, 5.0, 10.0, 15.0)


def write_speech_results(exp_dir: Path, scores: Mapping, hparams: Mapping, target: Path) -> None:
    """Write `target` from `exp_dir`: decoded sets, real-time factors, training logs and records."""
    systems = scores["systems"]
    decoded = {system: read_decoded(exp_dir / "results" / "decode" / f"{system}.jsonl") for system in systems}
    averaged = {f"{kind} noise, {', '.join(f'{snr:g}' for snr in snrs)} dB": score_conditions(decoded, names)
                for kind, names, snrs in _kinds(scores["conditions"])}
    recogniser = json.loads((exp_dir / "recogniser" / "record.json").read_text())["settings"]
    signal = json.loads((exp_dir / "signal" / "record.json").read_text())["settings"]
    timing = json.loads((exp_dir / "results" / "rtf.json").read_text())
    split = hparams["data"]["eval_split"]
    sections = [
        ("What was measured", f"Connected digit strings made of the corpus's {split} recordings; each condition holds "
         f"the same strings. Seen noise: recordings and generated families that the signal model was trained on, "
         f"other draws; unseen: recordings that neither training nor validation used. Early stopping, the number of "
         f"steps ({signal['tuning']['best_steps']}) and the observation-adding weight "
         f"({signal['tuning']['best_weight']}) were chosen on other strings of the dev recordings over validation "
         f"noise.{_same_recordings(split)} Intervals: bootstrap over utterances; p-values: paired bootstrap."),
        ("Word error rates", table(scores, markdown=True)),
        ("Averages", averages(averaged, systems, systems[0])),
        ("Targets", _targets(scores, averaged, timing, recogniser)),
        ("Real-time factor", f"One recording at a time, {timing['utterances']} utterances, {timing['audio_seconds']} s "
         f"of audio, {timing['device']}, {timing['threads']} threads.\n\n" + render(
             [["system", "RTF"], *([system, f"{rtf:.3f}"] for system, rtf in timing["rtf"].items())], markdown=True)),
        ("Choices on validation data", _choices(signal["tuning"])),
        ("Training", _training(exp_dir))]
    write_results(target, f"Results of recipes/{Path(hparams['exp_dir']).name}", scores["record"], sections)


def _kinds(conditions: Mapping) -> list[tuple[str, list[str], list[float]]]:
    """`(kind, condition names, SNRs)` of the conditions `<kind>_<snr>dB` that are averaged."""
    found: dict[str, list[tuple[str, float]]] = {}
    for name in conditions:
        match = re.fullmatch(r"(.*)_(-?[\d.]+)dB", name)
        if match and float(match[2]) in AVERAGED_SNRS:
            found.setdefault(match[1], []).append((name, float(match[2])))
    return [(kind, [name for name, _ in pairs], [snr for _, snr in pairs]) for kind, pairs in found.items()]


def _targets(scores: Mapping, averaged: Mapping, timing: Mapping, recogniser: Mapping) -> str:
    lines = [["target", "measured", "met"]]
    clean = recogniser["clean"]
    lines.append(["recogniser: at most 3 % WER on clean strings", f"{clean['wer']:.2f} % ({clean['words']} words)",
                  _yes(clean["wer"] <= 3.0)])
    unseen = next((score for title, score in averaged.items() if title.startswith("unseen")), None)
    if unseen:
        cut = 100.0 * (1.0 - unseen["enhanced"]["wer"] / unseen["none"]["wer"])
        lines.append(["enhanced: at least 50 % fewer errors than none, unseen noise, average of 0 to 15 dB",
                      f"{cut:.1f} % fewer", _yes(cut >= 50.0)])
    if plain := scores["conditions"].get("clean"):
        change = plain["enhanced"]["wer"] - plain["none"]["wer"]
        lines.append(["enhanced: clean WER at most 0.5 points above none", f"{change:+.2f} points",
                      _yes(change <= 0.5)])
    rtf = timing["rtf"]["enhanced"]
    lines.append(["enhanced: RTF below 0.2 on two cores, batch 1", f"{rtf:.3f}", _yes(rtf < 0.2)])
    return render(lines, markdown=True)


def _choices(tuning: Mapping) -> str:
    steps = [["signal steps", *map(str, tuning["steps"])],
             ["WER %", *(f"{wer:.1f}" for wer in tuning["steps"].values())]]
    weights = [["observation-adding weight", *map(str, tuning["weights"])],
               ["WER %", *(f"{wer:.1f}" for wer in tuning["weights"].values())]]
    return f"{render(steps, markdown=True)}\n\n{render(weights, markdown=True)}"


def _training(exp_dir: Path) -> str:
    lines = [["model", "epochs", "minutes", "best epoch", "validation WER %"]]
    for path in filter(Path.is_file, (exp_dir / name / "train_log.jsonl" for name in STAGES)):
        name, log = path.parent.name, [json.loads(line) for line in path.read_text().splitlines()]
        best = min(log, key=lambda entry: entry["wer"])
        lines.append([name, str(len(log)), f"{sum(entry['seconds'] for entry in log) / 60:.0f}", str(best["epoch"]),
                      f"{best['wer']:.1f}"])
    return render(lines, markdown=True) + "\n\nMinutes as they passed on this machine, shared with other work."


def _same_recordings(split: str) -> str:
    if split != "dev":
        return ""
    return (" The scored strings and the validation strings are made of the same dev recordings, in other strings and "
            "other noise.")


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"
