"""What several verbs share: words and options that stand once, and the model package that the options name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from cdasr.runtime.arguments import count, seconds, threads
from cdasr.runtime.terminal import introduced, quieten_libraries
from cdasr.speech.decoding import Decoding

DEFAULT = "english"  # package of enhance-transcribe
AGREE = "take what they agree on; confidences are then the share that agrees"
MANIFEST = "CSV, TSV or JSON lines file, or Kaldi data directory"


def timing_options(verb: argparse.ArgumentParser) -> None:
    """Options of what is timed, for `set_threads` among others."""
    verb.add_argument("--repeats", type=count, default=3, help="after one run to warm up; default: %(default)s")
    verb.add_argument("--threads", type=threads, help="of the CPU; default: torch's own")
    verb.add_argument("--json", action="store_true", help="print the numbers and how they were measured as JSON")


def set_threads(options: argparse.Namespace) -> None:
    """Have torch use as many threads as the options say."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)


def scoring_options(verb: argparse.ArgumentParser) -> None:
    """Options of what is scored against texts."""
    verb.add_argument("--normaliser", choices=("plain", "basic", "english"), default="plain", help="of texts before "
                      "errors are counted: cdasr's own, or Whisper's basic or English one; default: %(default)s")
    verb.add_argument("--batch-seconds", type=seconds, default=20.0, metavar="S",
                      help="audio in a batch, more on a GPU; default: %(default)s")


def check_once(option: str, given: Sequence[tuple[str, str]], why: str) -> None:
    """Raise ValueError where an option of the form NAME=PATH is given twice for one name."""
    names = [name for name, _ in given]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{option} {twice[0]}= is given twice; {why}")


def sampling(options: argparse.Namespace) -> dict:
    """The options that a pipeline is called with."""
    return {name: getattr(options, name) for name in ("strategy", "steps", "seed", "samples", "guidance")}


def load_pipeline(options: argparse.Namespace):
    """The model package that the options name, which decodes as they say."""
    decoding = Decoding.of(options)
    pipeline = load_package(options, **decoding.recogniser_options)
    return pipeline if decoding == Decoding() else pipeline.with_decoding(decoding)


def load_package(options: argparse.Namespace, **recogniser_options):
    """The model package that the options name, with the recogniser and the precision that they ask for."""
    quieten_libraries()
    check_device(options)
    from cdasr.speech.pipeline import Pipeline

    try:
        return introduced(Pipeline.from_pretrained(
            options.model, options.device, options.recogniser, options.precision, options.compile,
            options.channels_last, dtype=options.recogniser_dtype, attn_implementation=options.attn_implementation,
            fallback=options.fallback, **recogniser_options), options.model)
    except ValueError as error:
        if options.model != DEFAULT or options.recogniser or recogniser_options:
            raise
        raise ValueError(f"{error}; the package {DEFAULT} is for this recogniser, which is downloaded once or given "
                         "with --recogniser DIR; --model digits, ten words for a first try, brings its own") from None


def check_device(options: argparse.Namespace) -> None:
    """Raise ValueError for a device that is not there, before a model is loaded."""
    from cdasr.runtime.device import resolve_device

    resolve_device(options.device)
