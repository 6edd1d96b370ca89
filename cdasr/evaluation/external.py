"""Signals that another enhancer made, scored as systems beside the package's own.

Each external enhancer NAME gives one system for each entry of `VARIANTS`: NAME itself, the frozen classifier on its
signals, and NAME_oa, on their mix with the degraded ones. The enhancer has run before, elsewhere: these systems count
the classifier's evaluations and time alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from cdasr.coupled.evaluation import Evaluation, Row
from cdasr.coupled.pipeline import CoupledPipeline
from cdasr.coupled.strategies import STRATEGIES
from cdasr.runtime.atomic import fingerprint
from cdasr.runtime.terminal import note

Made = tuple[Sequence, Sequence[Tensor]]  # results of a batch, and the signals that they are of


@dataclass(frozen=True)
class External:
    """What an enhancer made, in a folder called `label`: `files` by ID, and the `rows` that it is scored on."""

    label: str
    files: Mapping[str, Path]
    rows: Sequence[Row]

    @cached_property
    def digests(self) -> dict[str, str]:
        """A fingerprint of each file's content, by ID."""
        return {row["ID"]: fingerprint([self.files[row["ID"]].read_bytes()]) for row in self.rows}

    def keys(self, own: Mapping[str, str], *choices: object) -> dict[str, str]:
        """A fingerprint by ID of degraded and external signal, and of `choices`."""
        return {name: fingerprint([own[name], digest, *map(str, choices)]) for name, digest in self.digests.items()}

    @property
    def about(self) -> dict:
        """What the record of scores says of it."""
        return {"folder": self.label, "signals": len(self.rows), "fingerprint": fingerprint(self.digests.values())}


# -- the systems of an enhancer: functions of the frozen classifier, degraded and external signals, and their weight ---


@dataclass(frozen=True)
class Frozen:
    """The frozen classifier of a `pipeline`; called with signals, it gives a result for each."""

    pipeline: CoupledPipeline
    how: Evaluation
    batch_seconds: float

    def __call__(self, signals: Sequence[Tensor]) -> Sequence:
        return self.how.recognise(self.pipeline, signals, "none", self.batch_seconds)


def alone(frozen: Frozen, degraded: Sequence[Tensor], external: Sequence[Tensor], weight: float) -> Made:
    """The frozen classifier on the external signals."""
    return frozen(external), external


def observation_added(frozen: Frozen, degraded: Sequence[Tensor], external: Sequence[Tensor], weight: float) -> Made:
    """The frozen classifier on (1 - weight) external + weight degraded, as the strategy `oa` mixes."""
    mixed = [torch.lerp(made, given, weight) for given, made in zip(degraded, external)]
    return frozen(mixed), mixed


@dataclass(frozen=True)
class Variant:
    """A way to use external signals; `weighted`: it takes the weight, and equals `alone` where that is 0."""

    run: Callable[[Frozen, Sequence[Tensor], Sequence[Tensor], float], Made]
    weighted: bool = False


VARIANTS = {"": Variant(alone), "_oa": Variant(observation_added, weighted=True)}  # by what is added to the name


# -- which there are, and of what -------------------------------------------------------------------------------------


def system_names(external: Mapping[str, object]) -> dict[str, tuple[str, Variant]]:
    """The systems of external enhancers: the enhancer and the variant of each. Raises ValueError for a bad name."""
    for name in external:
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]{0,99}", str(name)):
            raise ValueError(f"external {name!r}: a name is of letters, digits and . _ + -, and begins with one of the "
                             "first two")
    found = {f"{name}{suffix}": (name, variant) for name in external for suffix, variant in VARIANTS.items()}
    if len(found) < len(external) * len(VARIANTS):
        raise ValueError(f"external {', '.join(external)}: two systems would have one name; choose other names")
    if taken := [name for name in found if name in STRATEGIES]:
        raise ValueError(f"external {taken[0]}: a strategy has this name; choose another")
    return found


def with_external(systems: Sequence[str], names: Mapping[str, tuple[str, Variant]], weight: float) -> list[str]:
    """`systems` and, behind `none`, those of each external enhancer of which they name none.

    A weighted variant is left out where the weight is 0, which stderr says.
    """
    named = {names[system][0] for system in systems if system in names}
    added = []
    for name, (enhancer, variant) in names.items():
        if enhancer in named:
            continue
        if variant.weighted and weight == 0:
            note(f"{name}: the weight of the degraded signal is 0, so it equals {enhancer}; not decoded again")
            continue
        added.append(name)
    place = 1 if systems[:1] == ["none"] else len(systems)
    return [*systems[:place], *added, *systems[place:]]


def find_external(how: Evaluation, folders: Mapping[str, str | os.PathLike], manifest: Sequence[Row],
                  rows: Sequence[Row], condition: Callable[[Row], str]) -> dict[str, External]:
    """What each of `folders`, by the enhancer's name, has of `rows`, those of the `manifest` that are scored.

    Raises ValueError for a domain without such files, a folder that is none or has nothing of the manifest, and files
    that cannot be used.
    """
    if folders and how.external_files is None:
        raise ValueError("external signals cannot be scored in this domain; leave --external out")
    found = {}
    for name, folder in folders.items():
        if not isinstance(folder, (str, os.PathLike)) or not Path(folder).is_dir():
            raise ValueError(f"external {name}: {folder} is no folder; give the one with the enhanced signals")
        files = how.external_files(Path(folder), manifest)
        if not files:
            raise ValueError(f"external {name}: {folder} has none of the {len(manifest)} {how.unit} of the manifest; "
                             f"expected names such as {manifest[0]['ID']}.wav")
        found[name] = External(Path(folder).resolve().name, files, _covered(name, files, rows, condition))
        how.check_external(name, files, found[name].rows)
    return found


def _covered(name: str, files: Mapping[str, Path], rows: Sequence[Row], condition: Callable[[Row], str]) -> list[Row]:
    """The rows of the conditions that `files` cover; stderr says which they lack.

    Raises ValueError for a condition of which only a part is there.
    """
    there = {condition(row) for row in rows if row["ID"] in files}
    wanted = [row for row in rows if condition(row) in there]
    if missing := [row["ID"] for row in wanted if row["ID"] not in files]:
        raise ValueError(f"external {name}: {len(missing)} of {len(wanted)} enhanced signals are missing, the first is "
                         f"{missing[0]}; make them, or leave their conditions out with --conditions")
    if lacking := list(dict.fromkeys(condition(row) for row in rows if condition(row) not in there)):
        note(f"external {name}: nothing of {', '.join(lacking)} is there; not scored on it")
    return wanted
