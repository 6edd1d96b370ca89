"""Command-line options of every verb that runs a model package."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from cdasr.coupled.strategies import STRATEGIES
from cdasr.runtime.arguments import count, finite, seed


def about_strategies(names: Iterable[str] = STRATEGIES) -> dict:
    """Arguments of a verb's parser: its help ends with what each strategy does."""
    lines = [f"  {name:<{max(map(len, STRATEGIES)) + 2}}{STRATEGIES[name].about}" for name in names]
    return {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": "\n".join(["strategies:", *lines])}


def strategy_options(verb: argparse.ArgumentParser, samples: str) -> None:
    """The strategy, and its options; `samples` says what is made of several."""
    verb.add_argument("--strategy", choices=STRATEGIES, help="default: the package's")
    coupling_options(verb, samples)


def guidance_option(verb: argparse.ArgumentParser) -> None:
    """How strongly the logits guide the signal."""
    verb.add_argument("--guidance", type=finite, metavar="W", help="weight of the logits in the signal process, "
                      "0 for none; default: the package's")


def coupling_options(verb: argparse.ArgumentParser, samples: str) -> None:
    """Options that hold for any strategy; `samples` says what is made of several."""
    guidance_option(verb)
    verb.add_argument("--samples", type=count, default=1, metavar="K", help=f"sample K times and {samples}; "
                      "default: %(default)s")


def sampling_options(verb: argparse.ArgumentParser) -> None:
    """Steps, device and seed."""
    verb.add_argument("--steps", type=count, help="steps of each process; default: the package's")
    device_options(verb)


def device_options(verb: argparse.ArgumentParser) -> None:
    """Device and seed."""
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...; default: %(default)s")
    verb.add_argument("--seed", type=seed, default=0, help="default: %(default)s")


def model_options(verb: argparse.ArgumentParser, default: str = "digits") -> None:
    """A package of speech, its recogniser, and how its networks are computed."""
    verb.add_argument("--model", default=default, metavar="NAME_OR_DIR", help="model package; default: %(default)s")
    verb.add_argument("--recogniser", metavar="NAME_OR_DIR", help="where the package's frozen recogniser is, if not "
                      "where the package says: a folder or a name on the Hugging Face hub")
    verb.add_argument("--recogniser-dtype", metavar="DTYPE", help="of its weights, e.g. bfloat16; default: float32")
    verb.add_argument("--no-fallback", action="store_const", const=False, dest="fallback", help="of Whisper: keep its "
                      "greedy answers; by default those that repeat themselves or are unlikely are decoded again at "
                      "higher temperatures")
    verb.add_argument("--attn-implementation", metavar="NAME", help="its attention: eager, sdpa, ...")
    sampling_options(verb)
    verb.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="fp32", help="of the processes' "
                      "networks, not of the recogniser; default: %(default)s")
    verb.add_argument("--compile", action="store_true", help="torch.compile the processes' networks")
    verb.add_argument("--channels-last", action="store_true", help="memory layout that convolutions on GPUs prefer")
