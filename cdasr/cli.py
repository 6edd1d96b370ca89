"""The `cdasr` command: its parser, exit codes and what is said of errors. The verbs are in `cdasr.commands`."""

from __future__ import annotations

import argparse
import atexit
import sys
from collections.abc import Sequence

import cdasr
from cdasr.commands.corpora import add_config, add_new_recipe, add_simulate
from cdasr.commands.enhance import add_enhance_classify, add_enhance_transcribe
from cdasr.commands.imports import add_import_enhancer, add_import_sgmse
from cdasr.commands.measures import add_benchmark, add_plot_trajectory, add_profile
from cdasr.commands.scores import add_evaluate, add_report, add_tune_lm
from cdasr.commands.tryout import add_app, add_demo
from cdasr.runtime.arguments import Parser, signed
from cdasr.runtime.errors import explain
from cdasr.runtime.memory import keep_few_primitives, keep_freed_memory
from cdasr.runtime.terminal import complain, ignore_interrupts, leave_stdout

VERBS = (add_enhance_transcribe, add_enhance_classify, add_simulate, add_evaluate, add_tune_lm, add_report,
         add_new_recipe, add_config, add_plot_trajectory, add_benchmark, add_profile, add_import_sgmse,
         add_import_enhancer, add_app, add_demo)
CLOSED_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0; 2 where some input could not be used or some output not be written; 130 after Ctrl-C; 141, in silence, where
    nobody reads the output any more, as after `| head -1` (what the shell shows for other tools then).
    """
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")  # a name or word that the terminal cannot show
        options = _parser().parse_args(signed(sys.argv[1:] if arguments is None else arguments))
        keep_freed_memory()
        keep_few_primitives()
        code = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        leave_stdout()
        return CLOSED_PIPE
    except KeyboardInterrupt:
        complain("interrupted")
        return 130
    except Exception as error:
        if (message := explain(error)) is None:
            raise  # a fault of the code, which its traceback helps to find
        complain(message)
        if isinstance(error, OSError):
            leave_stdout()
        return 2
    finally:
        atexit.register(ignore_interrupts)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="cdasr", description="Make a frozen speech recogniser robust to noise and reverberation with diffusion "
        "models.", epilog="Exit codes: 0; 2 where some input could not be used or some output not be written, each "
        "named in a line on stderr, while the others are done; 130 after Ctrl-C; 141 where nobody reads the output.")
    parser.add_argument("--version", action="version", version=f"cdasr {cdasr.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in VERBS:
        add(verbs)
    return parser


if __name__ == "__main__":
    sys.exit(main())
