"""`cdasr simulate`, `cdasr new-recipe` and `cdasr config`: noisy sets, and recipes for a corpus."""

from __future__ import annotations

import argparse
from pathlib import Path

from cdasr.commands.shared import MANIFEST, check_once
from cdasr.runtime.arguments import assignment, numbers, seed, threads
from cdasr.runtime.outputs import check_folder


def add_simulate(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("simulate", help="make a fixed noisy set of a manifest of clean utterances")
    verb.add_argument("file", nargs="?", type=Path, metavar="MANIFEST", help=f"of clean speech: {MANIFEST}; may also "
                      "be given as --manifest")
    verb.add_argument("--manifest", type=Path, help=argparse.SUPPRESS)
    verb.add_argument("--grid", metavar="YAML", help="noise, rooms, levels, channels and codecs, all of their "
                      "combinations that this file asks for; or the name of a bundled grid: robustness")
    verb.add_argument("--noise", type=Path, metavar="DIR", help="in place of --grid: folder of noise recordings")
    verb.add_argument("--snr", type=numbers, metavar="DB[,DB...]", help="with --noise, e.g. 0,5,10 or -5,0")
    verb.add_argument("--rir", type=Path, metavar="DIR", help="with --noise: folder of room impulse responses")
    verb.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    verb.add_argument("--num-workers", type=threads, default=1, metavar="N", help="processes that share the work of a "
                      "grid; default: %(default)s")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.set_defaults(run=simulate)


def simulate(options: argparse.Namespace) -> int:
    """Write a fixed noisy set and its manifest."""
    if (options.file is None) == (options.manifest is None):
        raise ValueError("simulate takes one manifest: cdasr simulate MANIFEST --grid YAML --output-dir DIR")
    manifest, mixed = options.file or options.manifest, (options.noise, options.snr, options.rir)
    check_folder(options.output_dir)
    if options.grid is not None:
        if any(value is not None for value in mixed):
            raise ValueError("--grid says what is mixed; leave out --noise, --snr and --rir")
        from cdasr.speech.grid import find_grid, simulate_grid

        written, count = simulate_grid(manifest, options.grid, options.seed, options.output_dir, options.num_workers)
        print(f"wrote {written}: the {count} conditions of {find_grid(options.grid)}")
        return 0
    if options.noise is None or options.snr is None:
        raise ValueError("simulate needs a --grid, or --noise and --snr")
    from cdasr.speech.simulate import simulate

    written = simulate(manifest, options.noise, options.snr, options.seed, options.output_dir, rir=options.rir)
    print(f"wrote {written}")
    return 0


def add_new_recipe(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("new-recipe", help="a recipe for your corpus, from its manifests, without code to write")
    verb.add_argument("name", metavar="NAME", help="of the corpus and of the recipe's folder")
    verb.add_argument("--manifest", type=assignment, action="append", required=True, metavar="SET=PATH",
                      help=f"train=, test= and, if there is one, valid=: a {MANIFEST}; once for each set")
    verb.add_argument("--asr", default="facebook/wav2vec2-base-960h", metavar="NAME_OR_DIR",
                      help="the frozen recogniser; default: %(default)s")
    verb.add_argument("--output-dir", type=Path, default=Path("recipes"), help="default: %(default)s")
    verb.set_defaults(run=new_recipe)


def new_recipe(options: argparse.Namespace) -> int:
    """Write a recipe for a corpus that there is a manifest of."""
    from cdasr.speech.new_recipe import new_recipe

    check_once("--manifest", options.manifest, "a set has one manifest")
    folder = new_recipe(options.name, dict(options.manifest), options.output_dir, options.asr)
    print(f"wrote {folder}; next: bash {folder}/run.sh --size tiny, then bash {folder}/run.sh")
    return 0


def add_config(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("config", help="print the settings of a recipe, all defaults included, as YAML")
    verb.add_argument("recipe", type=Path, metavar="RECIPE_DIR", help="e.g. recipes/digits")
    verb.add_argument("settings", nargs=argparse.REMAINDER, metavar="...",
                      help="--size NAME and --key value, as run.sh takes them")
    verb.set_defaults(run=config)


def config(options: argparse.Namespace) -> int:
    """Print the settings that a recipe ends up with."""
    from cdasr.recipe.runner import config

    print(config(options.recipe, options.settings), end="")
    return 0
