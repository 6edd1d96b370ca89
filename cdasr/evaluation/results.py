"""The RESULTS.md of a speech recipe, from the files that its stages wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from cdasr.evaluation.report import (
    averages,
    comparisons,
    extra_errors,
    mean_text,
    p_text,
    rate_text,
    render,
    table,
    training_seeds,
    write_results,
)
from cdasr.evaluation.scoring import pooled, score_by_clean_answer, score_conditions
from cdasr.evaluation.statistics import wer
from cdasr.evaluation.store import read_decoded

STAGES = ("recogniser", "signal", "logits", "coupled", "matched", "retrained")  # that train, in this order
AVERAGED_SNRS = ((0.0, 5.0, 10.0), (0.0, 5.0, 10.0, 15.0))
COUPLED = ("parallel", "alternating", "nested")
BASELINES = ("enhanced_matched", "oa_matched", "enhanced", "card", "cascade", "cascade_pretrained", "retrained")


def write_speech_results(exp_dir: Path, scores: Mapping, hparams: Mapping, target: Path) -> None:
    """Write `target` from `exp_dir`: decoded sets, real-time factors, training logs and records."""
    systems = scores["systems"]
    folders = [exp_dir, *map(Path, hparams["other_seeds"])]
    runs = [_decoded(folder / "results", systems) for folder in folders]
    decoded = runs[0]
    averaged = {f"{_noise(kind)}, {', '.join(f'{snr:g}' for snr in snrs)} dB": score_conditions(decoded, names)
                for kind, names, snrs in _kinds(scores["conditions"])}
    recogniser = _read(exp_dir / "recogniser" / "record.json")["settings"]
    last = "coupled" if set(COUPLED) & set(systems) else "signal"
    tuning = _read(exp_dir / last / "record.json")["settings"].get("tuning", {})
    timed = exp_dir / "results" / "rtf.json"
    timing = _read(timed) if timed.is_file() else None
    ablated = exp_dir / "results" / "ablation.json"
    ablation = _read(ablated) if ablated.is_file() else None
    report = hparams["report"]
    compared = [name for name in scores["conditions"] if re.fullmatch(report["compared"]["conditions"], name)]
    sections = [
        ("What was measured", f"{_about(report['about'], hparams['data'])} Intervals: bootstrap over "
         "utterances; p-values: paired bootstrap." + _controls(systems, tuning)),
        ("Word error rates", table(scores, markdown=True)),
        *([("Averages", averages(averaged, systems, systems[0]))] if averaged else []),
        *_compared(decoded, compared, report["compared"]["title"]),
        *_by_clean_answer(decoded, compared, report["compared"]["title"]),
        *_seeds(training_seeds(folders, last), runs, compared, report["compared"]["title"]),
        *_consensus(exp_dir, decoded, compared, report["compared"]["title"]),
        *([("Targets", _targets(scores, averaged, timing, recogniser, ablation))] if report["targets"] else []),
        *_timed(timing),
        *([("Ablations", _ablations(ablation))] if ablation else []),
        ("Choices on validation data", _choices(tuning)),
        ("Training", _training(exp_dir))]
    write_results(target, f"Results of recipes/{Path(hparams['exp_dir']).name}", scores["record"], sections)


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _about(text: str, data: Mapping) -> str:
    """The recipe's own words, with values of its `data` in the place of `{names}`."""
    return text.strip().format(**{key: ", ".join(map(str, value)) if isinstance(value, list) else value
                                  for key, value in data.items()})


def _controls(systems: Sequence[str], tuning: Mapping) -> str:
    text = {"enhanced_matched": " `enhanced_matched`, `oa_matched`: the signal process of stage 3, trained on alone "
                                "in place of the logits and the coupled training, for the minutes told below.",
            "cascade_pretrained": " `cascade_pretrained`: the processes as stages 3 and 4 left them, before the "
                                  "coupled training.",
            "retrained": " `retrained`: the recogniser itself, fine-tuned on the noisy speech; no longer frozen, a "
                         "reference only."}
    if tuning.get("best_weight") == 0 and "oa" not in systems:
        text["enhanced"] = (" Observation adding (`oa`) is not listed: the weight of the degraded waveform chosen on "
                            "validation data is 0, so that it equals `enhanced`.")
    return "".join(part for name, part in text.items() if name in systems)


def _noise(kind: str) -> str:
    """A kind of condition in words: `unseen` and `test-clean_noise` are unseen noise and test-clean noise."""
    return f"{kind.removesuffix('noise').rstrip('_')} noise".strip().replace("_", " ")


def _kinds(conditions: Mapping) -> list[tuple[str, list[str], list[float]]]:
    """`(kind, condition names, SNRs)` of the conditions `<kind>_<snr>dB` that are averaged."""
    found: dict[str, dict[float, str]] = {}
    for name in conditions:
        if match := re.fullmatch(r"(.*)_(-?[\d.]+)dB", name):
            found.setdefault(match[1], {})[float(match[2])] = name
    kinds = []
    for kind, names in found.items():
        for snrs in AVERAGED_SNRS:
            there = [snr for snr in snrs if snr in names]
            if there and (kind, there) not in [(known, used) for known, _, used in kinds]:
                kinds.append((kind, [names[snr] for snr in there], there))
    return kinds


def _unseen(averaged: Mapping, last: str) -> Mapping | None:
    """The scores over unseen noise, averaged up to the SNR `last`; None where there are none."""
    title = next((title for title in averaged if re.fullmatch(rf"unseen noise, .*\b{last} dB", title)), None)
    return averaged.get(title)


def _compared(decoded: Mapping, conditions: Sequence[str], title: str,
              heading: str = "Coupled strategies against the others") -> list[tuple[str, str]]:
    scores = score_conditions(decoded, conditions) if conditions else {}
    coupled = [name for name in COUPLED if name in scores]
    references = [name for name in BASELINES if name in scores]
    if not coupled or not references:
        return []
    return [(heading, f"{title}.\n\n" + comparisons(scores, coupled, references))]


def _by_clean_answer(decoded: Mapping, conditions: Sequence[str], title: str) -> list[tuple[str, str]]:
    parts = score_by_clean_answer(decoded, conditions) if conditions else {}
    if len(parts) < 2:
        return []
    reference = next(name for name in (*BASELINES, "none") if all(name in scores for scores in parts.values()))
    return [("Where the recogniser is right on clean speech, and where not", f"{title}; by what the recogniser alone "
             "makes of the same utterance when it is clean. A system that aims at C(x0) has little to gain where "
             "that is wrong.\n\n" + averages(parts, list(decoded), reference))]


def _seeds(seeds: Sequence[int], runs: Sequence[Mapping], conditions: Sequence[str],
           title: str) -> list[tuple[str, str]]:
    """WER over `conditions` of each training seed, mean and standard deviation; comparisons over all seeds."""
    if len(runs) < 2 or not conditions:
        return []
    lines = [["system", *(f"seed {seed}" for seed in seeds), "mean", "standard deviation"]]
    entries = pooled(runs)
    for system in entries:
        rates = [_mean_wer(run[system], conditions) for run in runs]
        lines.append([system, *(f"{rate:.1f}" for rate in rates), f"{mean(rates):.1f}", f"{stdev(rates):.2f}"])
    about = f"{title}. Intervals and p-values over the utterances, each with all {len(runs)} seeds"
    return [("Training seeds", f"WER %. {title}.\n\n" + render(lines, markdown=True)),
            *_compared(entries, conditions, about, "Coupled strategies against the others, all seeds")]


def _consensus(exp_dir: Path, decoded: Mapping, conditions: Sequence[str], title: str) -> list[tuple[str, str]]:
    """What the consensus of K samples is worth, for what was decoded with `decode.samples` K."""
    runs = {"1": decoded, **{folder.name.removeprefix("samples-"): _decoded(folder, list(decoded))
                             for folder in sorted(exp_dir.glob("results/samples-*"))}}
    lines = [["system", "samples", "WER %", "change, points", "p", "ECE", "WER % of the surest 80 %"]]
    for system in decoded if conditions else ():
        scores = score_conditions({samples: run[system] for samples, run in runs.items() if system in run}, conditions)
        if "1" not in scores or len(scores) == 1:
            continue
        for samples, entry in scores.items():
            change = ["", ""] if samples == "1" else ["{:+.2f} to {:+.2f}".format(*entry["difference"]["1"]),
                                                      p_text(entry["p_values"]["1"])]
            lines.append([system, samples, rate_text(entry), *change, mean_text([entry], "calibration_error", 3),
                          mean_text([entry], "wer_surest", 1)])
    about = (f"{title}. The transcript that is nearest to those of K stochastic samples, whose agreement is the "
             "confidence; one sample is the package's own, with the confidence of its posterior. Change: 95 % interval")
    return [("Consensus of samples", f"{about}, paired.\n\n{render(lines, markdown=True)}")] if len(lines) > 1 else []


def _decoded(results: Path, systems: Sequence[str]) -> dict[str, list[dict]]:
    """What each of `systems` made of the utterances; those that were not decoded are left out."""
    paths = {system: results / "decode" / f"{system}.jsonl" for system in systems}
    return {system: read_decoded(path) for system, path in paths.items() if path.is_file()}


def _timed(timing: Mapping | None) -> list[tuple[str, str]]:
    if timing is None:
        return []
    lines = [["system", "RTF"], *([system, f"{rtf:.3f}"] for system, rtf in timing["rtf"].items())]
    return [("Real-time factor", f"One recording at a time, {timing['utterances']} utterances, "
             f"{timing['audio_seconds']} s of audio, {timing['device']}, {timing['threads']} threads.\n\n"
             + render(lines, markdown=True))]


def _mean_wer(entries: Sequence[Mapping], conditions: Sequence[str]) -> float:
    """WER in per cent averaged over `conditions`, as `score_conditions` has it, without its bootstrap."""
    return mean(wer(*zip(*((entry["errors"], entry["words"]) for entry in entries if entry["condition"] == condition)))
                for condition in conditions)


def _targets(scores: Mapping, averaged: Mapping, timing: Mapping | None, recogniser: Mapping,
             ablation: Mapping | None) -> str:
    rtf = timing["rtf"] if timing else {}
    lines = [["target", "measured", "met"]]
    clean = recogniser["clean"]
    lines.append(["recogniser: at most 3 % WER on clean strings", f"{clean['wer']:.2f} % ({clean['words']} words)",
                  _yes(clean["wer"] <= 3.0)])
    if "enhanced" in (unseen := _unseen(averaged, "15") or {}):
        cut = 100.0 * (1.0 - unseen["enhanced"]["wer"] / unseen["none"]["wer"])
        lines.append(["enhanced: at least 50 % fewer errors than none, unseen noise, average of 0 to 15 dB",
                      f"{cut:.1f} % fewer", _yes(cut >= 50.0)])
    plain = scores["conditions"].get("clean")
    if plain and "enhanced" in plain:
        change = plain["enhanced"]["wer"] - plain["none"]["wer"]
        lines.append(["enhanced: clean WER at most 0.5 points above none", f"{change:+.2f} points",
                      _yes(change <= 0.5)])
    if "enhanced" in rtf:
        lines.append(["enhanced: RTF below 0.2 on two cores, batch 1", f"{rtf['enhanced']:.3f}",
                      _yes(rtf["enhanced"] < 0.2)])
    lines += _coupled_targets(_unseen(averaged, "10"), plain, rtf)
    extra = extra_errors(ablation, 4, 50, "wer") if ablation else None
    if extra is not None:
        lines.append([f"{ablation['strategy']}: 4 + 4 steps within 1 point of 50 + 50",
                      f"{extra:+.2f} points ({ablation['words']} words)", _yes(extra <= 1.0)])
    return render(lines, markdown=True)


def _coupled_targets(unseen: Mapping | None, plain: Mapping | None,
                     rtf: Mapping[str, float]) -> list[list[str]]:
    """Targets of the best coupled strategy over unseen noise, 0, 5 and 10 dB."""
    present = [name for name in COUPLED if unseen and name in unseen]
    if not present:
        return []
    best = min(present, key=lambda name: unseen[name]["wer"])
    score, lines = unseen[best], []
    for other in [name for name in ("enhanced_matched", "oa_matched") if name in unseen]:
        cut = 100.0 * (1.0 - score["wer"] / unseen[other]["wer"])
        lines.append([f"{best}: at least 30 % fewer errors than {other}, unseen noise, average of 0, 5, 10 dB",
                      f"{cut:.1f} % fewer", _yes(cut >= 30.0)])
    for other in [name for name in ("card", "cascade", "cascade_pretrained") if name in unseen]:
        change, p_value = score["wer"] - unseen[other]["wer"], score["p_values"][other]
        lines.append([f"{best}: significantly better than {other} (p < 0.05)", f"{change:+.2f} points, p {p_value:.4f}",
                      _yes(change < 0 and p_value < 0.05)])
    if "retrained" in unseen:
        change, p_value = score["wer"] - unseen["retrained"]["wer"], score["p_values"]["retrained"]
        lines.append([f"{best}: not worse than retrained", f"{change:+.2f} points, p {p_value:.4f}", _yes(change <= 0)])
    target = f"{best}: clean WER at most 0.2 points above none"
    if plain and best in plain:
        change = plain[best]["wer"] - plain["none"]["wer"]
        lines.append([target, f"{change:+.2f} points", _yes(change <= 0.2)])
    else:
        lines.append([target, "not decoded", "?"])
    if "parallel" in rtf:
        lines.append(["parallel: RTF at most 0.3 on two cores, batch 1", f"{rtf['parallel']:.3f}",
                      _yes(rtf["parallel"] <= 0.3)])
    return lines


def _ablations(found: Mapping) -> str:
    lines = [["variant", "WER %", "change, points", "WER % of C(x_hat)", "NFE signal", "NFE logits"]]
    lines += [[entry["variant"], f"{entry['wer']:.1f} [{entry['interval'][0]:.1f}, {entry['interval'][1]:.1f}]",
               "{:+.1f} to {:+.1f}".format(*entry["difference"]),
               "-" if entry["wer_enhanced"] is None else f"{entry['wer_enhanced']:.1f}",
               f"{entry['nfe']['signal']:g}", f"{entry['nfe']['logits']:g}"] for entry in found["variants"]]
    return (f"{found['about']} {found['words']} words, {', '.join(found['conditions'])}; the change is against the "
            f"first line, 95 % interval, paired.\n\n{render(lines, markdown=True)}")


def _choices(tuning: Mapping) -> str:
    if not tuning:
        return "None."
    steps = [["signal steps", *map(str, tuning["steps"])],
             ["WER %", *(f"{wer:.1f}" for wer in tuning["steps"].values())]]
    weights = [["observation-adding weight", *map(str, tuning["weights"])],
               ["WER %", *(f"{wer:.1f}" for wer in tuning["weights"].values())]]
    tables = [render(lines, markdown=True) for lines in (steps, weights)]
    if "strategies" in tuning:
        lines = [["strategy", "options", "WER %"]]
        for name, tried in tuning["strategies"].items():
            best = min(tried, key=lambda entry: entry["wer"])
            lines += [[name, ", ".join(f"{key} {value}" for key, value in entry["options"].items())
                       + (" (chosen)" if entry is best else ""), f"{entry['wer']:.1f}"] for entry in tried]
        tables.append(render(lines, markdown=True))
    return "\n\n".join(tables)


def _training(exp_dir: Path) -> str:
    lines = [["model", "epochs", "minutes", "machine", "best epoch", "validation WER %"]]
    for path in filter(Path.is_file, (exp_dir / name / "train_log.jsonl" for name in STAGES)):
        name, log = path.parent.name, [json.loads(line) for line in path.read_text().splitlines()]
        best, machine = min(log, key=lambda entry: entry["wer"]), _read(path.with_name("record.json"))["machine"]
        lines.append([name, str(len(log)), f"{sum(entry['seconds'] for entry in log) / 60:.0f}",
                      ", ".join(filter(None, (f"{machine['cores']} cores", machine.get("gpu")))),
                      str(best["epoch"]), f"{best.get('wer_cascade', best['wer']):.1f}"])
    return (render(lines, markdown=True) + "\n\nMinutes as they passed, shared with other work. Logits and coupled "
            "training: validation WER of `cascade`; the best epoch is that of the lowest mean over all that was "
            "validated.")


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"
