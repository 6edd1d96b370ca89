"""`python -m cdasr.recipe`: all stages of a recipe or one of them, for the domain that the recipe's base names.

`STAGE --hparams FILE [--key value ...]` runs one stage; `run --recipe DIR ...` all of them, as a recipe's run.sh does.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cdasr.recipe.hparams import base_of, load_hparams
from cdasr.recipe.markers import Markers, Stage
from cdasr.recipe.runner import CAUSE, recipe_folder, run, tell_cause
from cdasr.runtime.errors import explain
from cdasr.runtime.provenance import program_name

if TYPE_CHECKING:
    from cdasr.coupled.recipe import Recipe

SHARED = ("download", "prepare", "signal", "logits", "coupled", "controls", "matched", "retrained", "decode", "ablate",
          "score")
CONTROL_STAGES = ("matched", "retrained")  # of which `controls` consists, and which can be run alone


def functions(recipe: Recipe) -> dict[str, Callable[[dict, Recipe], None]]:
    """The stages by name; that of the classifier has the domain's name for it."""
    from cdasr.recipe import stages

    shared = {name: getattr(stages, name) for name in SHARED}
    return {**shared, recipe.classifier: stages.classifier}


def order(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages in their order. A setting that none reads by name belongs to stage 0."""
    name = recipe.classifier
    up_to_signal = ("download", "prepare", name, "signal")
    stages = (
        Stage("download", "find the data or download them", own=True, makes=("source",)),
        Stage("prepare", "what is trained on; what is validated and scored, degraded once", own=True, makes=("data",)),
        Stage(name, f"the frozen {name} and its error rate", trains=True, makes=(name,)),
        Stage("signal", "train the signal process, choose its steps, write the model package", trains=True,
              makes=("signal",), files=("signal_init",), package=True,
              reads=("about", "signal", "signal_model", "signal_init", "tuning.steps", "tuning.oa_weights")),
        Stage("logits", "fill the cache of logits and train the logits process", trains=True, makes=("logits",),
              package=True, reads=("logits", "logits_model", "coupled.condition")),
        Stage("coupled", "train both processes together, tune the strategies", trains=True, makes=("coupled",),
              package=True, reads=("coupled", "tuning")),
        Stage("controls", f"the signal process trained on alone, the {name} retrained on degraded data", trains=True,
              makes=("matched", "retrained"), needs=up_to_signal, reads=("controls", "matched", "retrained")),
        Stage("decode", "the test sets with each system", makes=("results",), keyed=True, reads=("decode",),
              compares=("decode.external",), check=partial(_check_quality, recipe)),
        Stage("ablate", "what each part of the coupling is worth", makes=("results/ablation.json",),
              needs=(*up_to_signal, "logits", "coupled"), reads=("ablation",)),
        Stage("score", "tables, plots and RESULTS.md", reads=("results", "other_seeds"),
              files=("other_seeds:results",)))
    return tuple(stage.also(recipe.reads.get(stage.name, ()), recipe.files.get(stage.name, ()),
                            recipe.lists.get(stage.name, {})) for stage in stages)


def _check_quality(recipe: Recipe, hparams: Mapping) -> None:
    """Raise ValueError for a measure of quality that is unknown or not installed: before days of training."""
    from cdasr.evaluation.evaluate import measures

    measures(recipe.domain.evaluation, hparams["decode"].get("quality") or None)


def main(own: Mapping[str, Callable[[dict], None]] | None = None, module: str = "cdasr.recipe",
         base: str = "speech") -> int:
    """Run what the command line says and return its exit code.

    `own`: the stages of a recipe's prepare.py, in place of the shared ones. `module` can run each stage alone. `base`:
    the domain of a recipe that does not name its base.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        return _run(sys.argv[1:], own, module, base)
    except KeyboardInterrupt:
        print(f"{program_name()}: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        told, message = tell_cause(error), explain(error)
        if message is None:
            raise
        if not told:
            print(f"{program_name()}: {message}", file=sys.stderr)
        return 2


def _run(arguments: Sequence[str], own: Mapping[str, Callable[[dict], None]] | None, module: str, base: str) -> int:
    if own is None and arguments[:1] == ["run"]:
        recipe = _recipe(recipe_folder(arguments[1:]) / "hparams" / "default.yaml", base)
        return run(order(recipe), _of(recipe), module, arguments[1:], base)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stage")
    parser.add_argument("--hparams", action="append", required=True, metavar="FILE",
                        help="the recipe's hyper-parameters; a further file changes values of the first")
    options, overrides = parser.parse_known_args(arguments)
    recipe = _recipe(options.hparams[0], base)
    stages = own or _of(recipe)
    if options.stage not in stages:
        parser.error(f"there is no stage {options.stage!r}; known: {', '.join(stages)}")
    hparams = load_hparams(options.hparams, overrides, base)
    _begin_alone(order(recipe), options.stage, hparams)
    stages[options.stage](hparams)
    return 0


def _recipe(path: str | os.PathLike, base: str) -> Recipe:
    """The recipe of the domain that a recipe's default.yaml names as its base, else that of `base`."""
    from cdasr.coupled.recipe import load_recipe

    return load_recipe(base_of(Path(path)) or base)


def _of(recipe: Recipe) -> dict[str, Callable[[dict], None]]:
    return {name: partial(_stage, stage, recipe) for name, stage in functions(recipe).items()}


def _stage(stage: Callable[[dict, Recipe], None], recipe: Recipe, hparams: dict) -> None:
    """Run a stage, in which errors are counted as the recipe says."""
    stage(hparams, recipe.scored_as(hparams))


def _begin_alone(stages: Sequence[Stage], name: str, hparams: dict) -> None:
    """A stage that is run without the runner is not done any more, nor are those after it."""
    if CAUSE in os.environ or os.environ.get("RANK", "0") != "0":
        return  # the runner, or the first process, has seen to it
    names = [stage.name for stage in stages]
    for place in Markers(stages, hparams["exp_dir"]).begin(
            names.index("controls" if name in CONTROL_STAGES else name), hparams):
        print(f"{name}: it cannot go on from other settings; what it had made is now {place}", flush=True)
