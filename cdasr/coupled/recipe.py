"""What the stages of a recipe need to know of a domain: its data, its frozen classifier, its packages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from cdasr.coupled.domain import Domain

Rows = Sequence[Mapping[str, object]]  # ID, duration, the truth, and what a domain reads
Hparams = Mapping[str, Any]


def as_in(settings: Mapping, changes: Mapping) -> dict:
    """`settings` with the `changes` that are not null."""
    return {**settings, **{key: value for key, value in changes.items() if value is not None}}


def any_start(model, hparams: Hparams) -> None:
    """Every signal process can be trained on."""


@dataclass(frozen=True)
class Recipe:
    """The recipes of one `domain`, as functions of their hyper-parameters `hparams`.

    - `classifier`: what the frozen classifier is called: stage 2, its folder in `exp_dir` and its section of `hparams`.
    - `reads` and `files`, by stage: the settings that this domain's stage reads, and those of them that name files, as
      `recipe.markers.Stage` has them, beside those of every domain. `lists`, by stage and setting: the files that such
      a file names in its turn.

    Data:
    - `download(hparams)` and `prepare(hparams)`: stages 0 and 1 of a recipe without a prepare.py.
    - `rows(hparams, name)`: the rows of a prepared set: `train`, `valid_noisy`, `eval`, or `clean`, the clean ones that
      the frozen classifier is rated on.
    - `degraded(hparams, rows, seed)`: a data set of items `{noisy, clean, <truth>}`, degraded anew in each epoch, of
      clean rows; `fixed(hparams, rows)`: the same items of rows that were degraded once.
    - `bank_rows(hparams, rows)`: the rows of which stage 4's cache is made, of those to train on.
    - `scored(hparams)`: the manifest or the rows that are scored; those of `eval`.
    - `ablation_rows(hparams)`: the scored rows on which parts of the coupling are taken away.

    Classifier:
    - `make_classifier(hparams, folder, device)`: loads it or trains it on clean data, and saves it as `folder/model`.
    - `load_classifier(hparams, folder)`: reads `folder/model`.
    - `about_classifier(classifier)`: its size and geometry, for its record.
    - `retrain(hparams, folder, device)`: a copy, trained on degraded data: no longer frozen.

    Processes and packages:
    - `pipeline()`: the class of its pipelines; `load_package(folder, device, classifier=None)` reads one, around a
      classifier that is loaded already where one is given.
    - `signal_config(hparams)`: the configuration of the signal process.
    - `import_signal(path)`: a signal process from a file of another program; None where `path` is none.
    - `check_start(model, hparams)`: raises ValueError for a signal process that cannot be trained on.
    - `package_config(hparams)`: what a new package says beside its models.
    - `add_rover(hparams, pipeline, rows, batch_items)`: the pipeline with a vote for `rover` fitted on `rows`; as it is
      where there is none.
    """

    domain: Domain
    classifier: str
    rows: Callable[[Hparams, str], Rows]
    degraded: Callable[[Hparams, Rows, int], Dataset]
    fixed: Callable[[Hparams, Rows], Dataset]
    ablation_rows: Callable[[Hparams], Rows]
    make_classifier: Callable[[Hparams, Path, str], nn.Module]
    load_classifier: Callable[[Hparams, Path], nn.Module]
    retrain: Callable[[Hparams, Path, str], nn.Module]
    pipeline: Callable[[], type]
    load_package: Callable[..., Any]
    scored: Callable[[Hparams], object]
    download: Callable[[Hparams], None]
    prepare: Callable[[Hparams], None]
    about_classifier: Callable[[nn.Module], dict] = lambda model: {
        "class": type(model).__name__, "parameters": sum(part.numel() for part in model.parameters())}
    bank_rows: Callable[[Hparams, Rows], Rows] = lambda hparams, rows: rows
    signal_config: Callable[[Hparams], dict] = lambda hparams: hparams["signal_model"]
    import_signal: Callable[[str], object | None] = lambda path: None
    check_start: Callable[[object, Hparams], None] = any_start
    package_config: Callable[[Hparams], dict] = lambda hparams: {"about": hparams["about"]}
    add_rover: Callable[..., Any] = lambda hparams, pipeline, rows, batch_items: pipeline
    reads: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lists: Mapping[str, Mapping[str, Callable[[str], Iterable[str]]]] = field(default_factory=dict)

    def scored_as(self, hparams: Hparams) -> Recipe:
        """The same recipe, in whose domain errors are counted as its hyper-parameters say."""
        counted = self.domain.scored_as
        return replace(self, domain=counted(hparams)) if counted else self


RECIPES = {"speech": "cdasr.speech.recipe", "images": "cdasr.images.recipe"}  # domain: module with its RECIPE


def load_recipe(name: str) -> Recipe:
    """The recipe of the domain of that name, one of `RECIPES`."""
    return import_module(RECIPES[name]).RECIPE
