"""`cdasr app` and `cdasr demo`: hear and read what a package does, without data of one's own."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from cdasr.commands.shared import check_device, load_pipeline
from cdasr.coupled.options import about_strategies, device_options, model_options
from cdasr.runtime.arguments import port
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.terminal import quieten_libraries


def add_app(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("app", help="a page on this machine to hear and read what each strategy does; needs "
                            "cdasr[app]", **about_strategies())
    verb.add_argument("--port", type=port, default=7860, help="of 127.0.0.1, 0 for any that is free; default: "
                      "%(default)s")
    model_options(verb)
    verb.set_defaults(run=app)


def app(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from cdasr.speech.app import serve

    serve(partial(load_pipeline, options), options.port, options.steps, options.seed)
    return 0


def add_demo(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("demo", help="hear and read what the bundled model does; needs no data")
    verb.add_argument("--output-dir", type=Path, default=Path("results/demo"), help="default: %(default)s")
    device_options(verb)
    verb.set_defaults(run=demo)


def demo(options: argparse.Namespace) -> int:
    """Noisy digits before and after enhancement."""
    check_folder(options.output_dir)
    quieten_libraries()
    from cdasr.demo import demo
    from cdasr.speech.synthesis import check_library

    check_library()
    check_device(options)
    demo(options.output_dir, device=options.device, seed=options.seed)
    return 0
