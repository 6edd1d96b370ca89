"""What the stages of a recipe left in its folder, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cdasr.coupled.domain import Domain
from cdasr.coupled.strategies import STRATEGIES
from cdasr.evaluation.report import difference
from cdasr.evaluation.scoring import pooled, read_scores, score_conditions
from cdasr.evaluation.store import read_decoded
from cdasr.runtime.plain_data import read_json

CLASSIFIER_STAGES = ("recogniser", "classifier")  # the latter in image recipes of earlier versions
STAGES = (*CLASSIFIER_STAGES, "signal", "logits", "coupled", "matched", "retrained")  # that train, in this order


@dataclass(frozen=True)
class Experiment:
    """A recipe's `exp_dir` and settings; what it holds is read when it is asked for.

    `scores` and `systems` are those of the decode stage; `decoded` has the entries of each system, and `runs` the same
    for this and each of `other_seeds`.
    """

    domain: Domain
    exp_dir: Path
    hparams: Mapping

    difference = staticmethod(difference)  # of two systems: its interval in points and p-value

    @cached_property
    def scores(self) -> dict:
        return read_scores(self.exp_dir / "results" / self.domain.evaluation.scores_file, self.domain)

    @property
    def systems(self) -> list[str]:
        return self.scores["systems"]

    @property
    def folders(self) -> list[Path]:
        """This run's and those of other training seeds."""
        return [self.exp_dir, *map(Path, self.hparams["other_seeds"])]

    @cached_property
    def runs(self) -> list[dict[str, list[dict]]]:
        return [read_systems(folder / "results", self.systems) for folder in self.folders]

    @property
    def decoded(self) -> dict[str, list[dict]]:
        return self.runs[0]

    @cached_property
    def compared(self) -> tuple[str, list[str]]:
        """Title and conditions over which strategies are compared."""
        return self.domain.evaluation.compared(self.hparams, list(self.scores["conditions"]))

    @cached_property
    def pooled(self) -> dict:
        """The scores over the compared conditions, all training seeds together; empty where there are none."""
        entries = pooled(self.runs, self.domain) if len(self.runs) > 1 else self.decoded
        return score_conditions(entries, self.domain, self.compared[1]) if self.compared[1] else {}

    @cached_property
    def averaged(self) -> dict[str, dict]:
        """The scores over each of the domain's averages, by title."""
        averages = self.domain.evaluation.averages(list(self.scores["conditions"]))
        return {title: score_conditions(self.decoded, self.domain, names) for title, names in averages.items()}

    @property
    def coupled(self) -> list[str]:
        """The coupled strategies among the systems."""
        return [name for name in STRATEGIES if STRATEGIES[name].coupled and name in self.systems]

    @property
    def references(self) -> list[str]:
        """The systems that coupled strategies are compared with: controls first, then the others."""
        controls = [name for name in self.systems if name not in STRATEGIES]
        return [*controls, *(name for name in STRATEGIES if STRATEGIES[name].baseline and name in self.systems)]

    @property
    def last_stage(self) -> str:
        """The stage of which the package was decoded."""
        return "coupled" if self.coupled else "signal"

    @cached_property
    def classifier(self) -> dict:
        """What was measured of the frozen classifier."""
        return next(self.record(stage)["settings"] for stage in CLASSIFIER_STAGES
                    if (self.exp_dir / stage / "record.json").is_file())

    @cached_property
    def tuning(self) -> dict:
        """The choices on validation data."""
        return self.record(self.last_stage)["settings"].get("tuning", {})

    @property
    def seeds(self) -> list[int]:
        """The training seed of each run."""
        return [self.record(self.last_stage, folder)["settings"]["hparams"]["training_seed"]
                for folder in self.folders]

    @cached_property
    def timing(self) -> dict | None:
        """Real-time factors, where they were measured."""
        return self._result("rtf.json")

    @property
    def rtf(self) -> Mapping[str, float]:
        return self.timing["rtf"] if self.timing else {}

    @cached_property
    def ablation(self) -> dict | None:
        return self._result("ablation.json")

    def record(self, stage: str, folder: Path | None = None) -> dict:
        path = (folder or self.exp_dir) / stage / "record.json"
        return read_json(path, called=path, keys=("settings", "machine"))

    def extra_errors(self, few: int, many: int) -> float | None:
        """As `extra_errors`, of this experiment's ablation; None where there is none."""
        return extra_errors(self.ablation, few, many, self.domain.rate) if self.ablation else None

    def _result(self, name: str) -> dict | None:
        path = self.exp_dir / "results" / name
        return read_json(path, called=path) if path.is_file() else None


def read_systems(results: Path, systems: Sequence[str]) -> dict[str, list[dict]]:
    """What each of `systems` made of the items; those that were not decoded are left out."""
    paths = {system: results / "decode" / f"{system}.jsonl" for system in systems}
    return {system: read_decoded(path) for system, path in paths.items() if path.is_file()}


def extra_errors(found: Mapping, few: int, many: int, rate: str) -> float | None:
    """Points of error rate that `few` steps of both processes have above `many`; None where `found` lacks either."""
    rates = {entry["variant"]: entry[rate] for entry in found["variants"]}
    first, last = (rates.get(f"{found['strategy']}, {count} + {count} steps") for count in (few, many))
    return None if first is None or last is None else first - last
