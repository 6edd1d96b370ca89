"""`cdasr plot-trajectory`, `cdasr benchmark` and `cdasr profile`: what a package does inside, and what it costs."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from cdasr.commands.shared import AGREE, DEFAULT, load_pipeline, sampling, set_threads, timing_options
from cdasr.coupled.options import about_strategies, model_options, strategy_options
from cdasr.coupled.strategies import with_both_processes
from cdasr.runtime.arguments import seconds
from cdasr.runtime.atomic import to_json
from cdasr.runtime.outputs import check_target
from cdasr.runtime.terminal import quieten_libraries


def add_plot_trajectory(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("plot-trajectory", help="a picture of signal and logits evolving together",
                            **about_strategies(with_both_processes()))
    verb.add_argument("file", type=Path, metavar="FILE", help="audio in any format soundfile reads")
    verb.add_argument("--strategy", choices=with_both_processes(), default="parallel",
                      help="default: %(default)s")
    verb.add_argument("--output", type=Path, default=Path("trajectory.png"), help="default: %(default)s")
    model_options(verb)
    verb.set_defaults(run=plot_trajectory)


def plot_trajectory(options: argparse.Namespace) -> int:
    """A picture of signal and logits evolving together."""
    from cdasr.speech.inputs import check_files

    check_files([options.file])
    check_target(options.output)
    from cdasr.speech.plots import check_format
    from cdasr.speech.trajectory import check_duration, plot_trajectory

    check_format(options.output)
    check_duration(options.file)
    plot_trajectory(options.file, load_pipeline(options), options.output, options.strategy, options.steps,
                    options.seed)
    print(f"wrote {options.output}")
    return 0


def add_benchmark(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("benchmark", help="speed and memory on this machine")
    verb.add_argument("--published", action="store_true", help="NCSN++ v2 at its published size (random weights) in 4 "
                      "steps of the bridge and in the public sampler's 60 evaluations, in place of a package")
    verb.add_argument("--seconds", type=seconds, default=4.0, help="of audio, one recording; default: %(default)s")
    timing_options(verb)
    model_options(verb)
    verb.set_defaults(run=benchmark)


def benchmark(options: argparse.Namespace) -> int:
    """Speed and memory of a package's strategies, or of the published network under two samplers."""
    quieten_libraries()
    from cdasr.evaluation.benchmark import benchmark_models, benchmark_package, markdown
    from cdasr.runtime.device import resolve_device
    from cdasr.runtime.provenance import record

    set_threads(options)
    measure = {"seconds": options.seconds, "repeats": options.repeats}
    if options.published:
        from cdasr.speech.published import published_models

        device = resolve_device(options.device)
        found = benchmark_models(published_models(device, options.precision, options.compile, options.channels_last,
                                                  options.seconds), device, **measure)
    else:
        found = benchmark_package(load_pipeline(options), options.steps, **measure)
    print(to_json({"measured": found, "record": record(**measure)}, indent=2) if options.json else markdown(found))
    return 0


def add_profile(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("profile", help="where the time and memory of one recording go, part by part",
                            **about_strategies())
    verb.add_argument("file", type=Path, metavar="FILE", help="audio, as of enhance-transcribe")
    strategy_options(verb, AGREE)
    timing_options(verb)
    model_options(verb, default=DEFAULT)
    verb.set_defaults(run=profile)


def profile(options: argparse.Namespace) -> int:
    """Time and memory of each part of a pipeline on one recording."""
    from cdasr.speech.inputs import Source, check_files

    check_files([options.file])
    import torch

    from cdasr.evaluation.profile import profile, profile_table
    from cdasr.runtime.provenance import record

    set_threads(options)
    started, given, source = time.perf_counter(), sampling(options), Source(options.file, options.file)
    pipeline = load_pipeline(options)
    loaded = time.perf_counter() - started
    found = profile(pipeline, lambda: torch.from_numpy(source.read(pipeline.sample_rate)), repeats=options.repeats,
                    classifier="recogniser", analysis="STFT and inverse", **given)
    found = {"file": str(options.file), **found, "load_seconds": loaded, "record": record(**given)}
    print(to_json(found, indent=2) if options.json else profile_table(found))
    return 0
