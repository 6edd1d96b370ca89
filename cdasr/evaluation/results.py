"""The RESULTS.md of a recipe of any domain, from the files that its stages wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from cdasr.coupled.domain import Domain
from cdasr.coupled.evaluation import p_text
from cdasr.evaluation.agreement import gains_and_losses, right_parts
from cdasr.evaluation.experiment import STAGES, Experiment, read_systems
from cdasr.evaluation.plots import plot_rates_by_snr
from cdasr.evaluation.report import (
    averages,
    comparisons,
    coverage_text,
    interval_text,
    mean_text,
    rate_text,
    render,
    shown,
    table,
    write_results,
)
from cdasr.evaluation.scoring import pooled, score_by_clean_answer, score_conditions
from cdasr.evaluation.statistics import error_rate


def write_recipe_results(domain: Domain, exp_dir: Path, hparams: Mapping, target: Path) -> None:
    """Write `target` from decoded sets, training logs and records in `exp_dir`, and a plot to `results/<rate>.png`."""
    found, how = Experiment(domain, Path(exp_dir), hparams), domain.evaluation
    plot_rates_by_snr(found.scores, domain, found.exp_dir / "results" / f"{domain.rate}.png")
    sections = [
        ("What was measured", how.about(found)),
        ("Accuracy" if how.accuracy else "Error rates", table(found.scores, domain, markdown=True)),
        *_averages(found),
        *_compared(found, found.decoded, found.compared[0]),
        *_by_clean_answer(found),
        *_agreement(found),
        *_seeds(found),
        *_consensus(found),
        *_targets(found),
        *_timed(found),
        *_ablations(found),
        ("Choices on validation data", _choices(found)),
        ("Training", _training(found))]
    write_results(target, f"Results of recipes/{how.name(hparams)}", found.scores["record"], sections)


Sections = list[tuple[str, str]]  # heading, Markdown


def _averages(found: Experiment) -> Sections:
    if not found.averaged:
        return []
    return [("Averages", averages(found.averaged, found.domain, found.systems, found.systems[0]))]


def _compared(found: Experiment, entries: Mapping, about: str,
              heading: str = "Coupled strategies against the others") -> Sections:
    scores = score_conditions(entries, found.domain, found.compared[1]) if found.compared[1] else {}
    coupled = [name for name in found.coupled if name in scores]
    references = [name for name in ("none", *found.references) if name in scores]
    if not coupled or not references:
        return []
    return [(heading, f"{about}.\n\n" + comparisons(scores, found.domain, coupled, references))]


def _by_clean_answer(found: Experiment) -> Sections:
    title, conditions = found.compared
    parts = score_by_clean_answer(found.decoded, found.domain, conditions) if conditions else {}
    if len(parts) < 2:
        return []
    reference = next(name for name in (*found.references, "none")
                     if all(name in scores for scores in parts.values()))
    return [("Where the classifier is right on clean signals, and where not", f"{title}; by what the frozen classifier "
             "alone makes of the same item when it is clean. A system that aims at C(x0) has little to gain where that "
             "is wrong.\n\n" + averages(parts, found.domain, found.systems, reference))]


def _agreement(found: Experiment) -> Sections:
    """What each system wins and loses against the frozen classifier, over the compared conditions."""
    title, conditions = found.compared
    table = gains_and_losses(found.decoded, found.domain, conditions) if conditions else ""
    if not table:
        return []
    last = next((name for name in ("auto", *reversed(found.coupled)) if name in found.systems), None)
    systems = [name for name in ("none", "enhanced", last) if name in found.systems]
    parts = right_parts(found.decoded, found.domain, conditions, systems)
    return [("What the systems change", f"{title}. At best: the better answer of each item, which only who knows the "
             f"truth can choose.\n\n{table}"
             + (f"\n\nBy who is right, {found.domain.evaluation.counted}:\n\n{parts}" if parts else ""))]


def _seeds(found: Experiment) -> Sections:
    """Rates over the compared conditions of each training seed, mean and standard deviation; comparisons over all."""
    (title, conditions), how = found.compared, found.domain.evaluation
    if len(found.runs) < 2 or not conditions:
        return []
    digits, entries = 2 if how.accuracy else 1, pooled(found.runs, found.domain)
    lines = [["system", *(f"seed {seed}" for seed in found.seeds), "mean", "standard deviation"]]
    for system in entries:
        rates = [shown(_mean_rate(run[system], conditions, how.counted), found.domain) for run in found.runs]
        lines.append([system, *(f"{rate:.{digits}f}" for rate in rates), f"{mean(rates):.{digits}f}",
                      f"{stdev(rates):.2f}"])
    about = f"{title}. Intervals and p-values over the items, each with all {len(found.runs)} seeds"
    return [("Training seeds", f"{how.title} %. {title}.\n\n" + render(lines, markdown=True)),
            *_compared(found, entries, about, "Coupled strategies against the others, all seeds")]


def _mean_rate(entries: Sequence[Mapping], conditions: Sequence[str], counted: str) -> float:
    """The rate in per cent averaged over `conditions`, as `score_conditions` has it, without its bootstrap."""
    return mean(error_rate(*zip(*((entry["errors"], entry[counted]) for entry in entries
                                  if entry["condition"] == condition))) for condition in conditions)


def _consensus(found: Experiment) -> Sections:
    """What the consensus of K samples is worth, for what was decoded with `decode.samples` K."""
    (title, conditions), domain = found.compared, found.domain
    runs = {"1": found.decoded, **{folder.name.removeprefix("samples-"): read_systems(folder, found.systems)
                                   for folder in sorted(found.exp_dir.glob("results/samples-*"))}}
    rate = f"{domain.evaluation.title} %"
    lines = [["system", "samples", rate, "change, points", "p", "ECE", f"{rate} of the most confident 80 %"]]
    for system in found.decoded if conditions else ():
        scores = score_conditions({samples: run[system] for samples, run in runs.items() if system in run}, domain,
                                  conditions)
        if "1" not in scores or len(scores) == 1:
            continue
        for samples, entry in scores.items():
            change = ["", ""] if samples == "1" else [_points(entry["difference"]["1"], domain, ".2f"),
                                                      p_text(entry["p_values"]["1"])]
            lines.append([system, samples, rate_text(entry, domain), *change,
                          mean_text([entry], "calibration_error", ".3f"), coverage_text([entry], domain)])
    about = (f"{title}. The answer of K stochastic samples together (docs/method.md), whose agreement is the "
             "confidence; one sample is the package's own, with the confidence of its posterior. Change: 95 % interval")
    return [("Consensus of samples", f"{about}, paired.\n\n{render(lines, markdown=True)}")] if len(lines) > 1 else []


def _points(bounds: Sequence[float], domain: Domain, form: str) -> str:
    """An interval of a difference of error rates in points: of the same, or of the gain in accuracy."""
    low, high = (0.0 - bounds[1], 0.0 - bounds[0]) if domain.evaluation.accuracy else bounds
    return f"{low:+{form}} to {high:+{form}}"


def _targets(found: Experiment) -> Sections:
    met = {True: "yes", False: "**no**", None: "?"}
    lines = [[target.text, target.measured, met[target.met]] for target in found.domain.evaluation.targets(found)]
    return [("Targets", render([["target", "measured", "met"], *lines], markdown=True))] if lines else []


def _timed(found: Experiment) -> Sections:
    timing, how = found.timing, found.domain.evaluation
    if timing is None:
        return []
    lines = [["system", how.speed[0]], *([system, how.speed[1](factor)] for system, factor in timing["rtf"].items())]
    total = f", {timing['audio_seconds']} {how.durations}" if how.durations else ""
    return [("Speed", f"One at a time, {timing['utterances']} {how.unit}{total}, {timing['device']}, "
             f"{timing['threads']} threads.\n\n" + render(lines, markdown=True))]


def _ablations(found: Experiment) -> Sections:
    ablation, domain = found.ablation, found.domain
    if not ablation:
        return []
    how, rate, enhanced = domain.evaluation, domain.rate, f"{domain.rate}_enhanced"
    lines = [["variant", f"{how.title} %", "change, points", f"{how.title} % of C(x_hat)", "NFE signal", "NFE logits"]]
    lines += [[entry["variant"], f"{shown(entry[rate], domain):.1f} {interval_text(entry['interval'], domain)}",
               _points(entry["difference"], domain, ".1f"),
               mean_text([entry], enhanced, ".1f", lambda value: shown(value, domain)),
               f"{entry['nfe']['signal']:g}", f"{entry['nfe']['logits']:g}"] for entry in ablation["variants"]]
    count = ablation.get(how.counted, ablation["utterances"])  # earlier versions counted images as utterances only
    return [("Ablations", f"{ablation['about']} {count} {how.counted}, {', '.join(ablation['conditions'])}; the change "
             f"is against the first line, 95 % interval, paired.\n\n{render(lines, markdown=True)}")]


def _choices(found: Experiment) -> str:
    tuning, domain = found.tuning, found.domain
    if not tuning:
        return "None."
    rate = f"{domain.evaluation.title} %"
    tables = [[[title, *map(str, tuning[key])], [rate, *(f"{shown(value, domain):.1f}" for value in
                                                        tuning[key].values())]]
              for title, key in (("signal steps", "steps"), ("observation-adding weight", "weights"))
              if key in tuning]
    if "strategies" in tuning:
        lines = [["strategy", "options", rate]]
        for name, tried in tuning["strategies"].items():
            best = min(tried, key=lambda entry: entry[domain.rate])
            lines += [[name, ", ".join(f"{key} {value}" for key, value in entry["options"].items())
                       + (" (chosen)" if entry is best else ""), f"{shown(entry[domain.rate], domain):.1f}"]
                      for entry in tried]
        tables.append(lines)
    return "\n\n".join(render(lines, markdown=True) for lines in tables)


def _training(found: Experiment) -> str:
    rate, title = found.domain.rate, found.domain.evaluation.title
    lines = [["model", "epochs", "minutes", "machine", "best epoch", f"validation {title} %"]]
    for path in filter(Path.is_file, (found.exp_dir / name / "train_log.jsonl" for name in STAGES)):
        name, log = path.parent.name, [json.loads(line) for line in path.read_text().splitlines()]
        best, machine = min(log, key=lambda entry: entry[rate]), found.record(name)["machine"]
        lines.append([name, str(len(log)), f"{sum(entry['seconds'] for entry in log) / 60:.0f}",
                      ", ".join(filter(None, (f"{machine['cores']} cores", machine.get("gpu")))), str(best["epoch"]),
                      f"{shown(best.get(f'{rate}_cascade', best[rate]), found.domain):.1f}"])
    return (render(lines, markdown=True) + "\n\nMinutes as they passed, shared with other work. The frozen classifier "
            f"is validated on clean signals, all others on degraded ones. Logits and coupled training: {title} of "
            "`cascade`; the best epoch is that of the lowest mean over all that was validated.")
