"""`cdasr import-sgmse` and `cdasr import-enhancer`: enhancers that others have published, as model packages."""

from __future__ import annotations

import argparse
from pathlib import Path

from cdasr.runtime.arguments import count, finite, setting
from cdasr.runtime.atomic import check_empty
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.terminal import quieten_libraries


def add_import_sgmse(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("import-sgmse", help="make a model package of a public SGMSE checkpoint")
    verb.add_argument("checkpoint", type=Path, metavar="CKPT", help="of PyTorch Lightning; no code in it is run")
    _package_options(verb)
    verb.add_argument("--steps", type=count, help="of the sampler; default: the checkpoint's")
    verb.add_argument("--snr", type=finite, help="of the corrector; default: 0.5")
    verb.add_argument("--no-ema", action="store_true", help="the weights of the last training step, not their average")
    verb.add_argument("--setting", type=setting, action="append", default=[], metavar="NAME=VALUE", help="a "
                      "hyper-parameter of the training, in place of the file's; for files with weights alone at least "
                      "backbone and sde; once for each")
    verb.set_defaults(run=import_sgmse)


def import_sgmse(options: argparse.Namespace) -> int:
    """A public SGMSE checkpoint as a model package."""
    _check_output(options)
    if not options.checkpoint.is_file():
        raise ValueError(f"{options.checkpoint}: no such file")
    quieten_libraries()
    from cdasr.speech.sgmse import DEFAULT_ASR, import_sgmse

    print("wrote " + import_sgmse(options.checkpoint, options.output_dir, options.asr or DEFAULT_ASR,
                                  not options.no_ema, options.steps, options.snr, dict(options.setting)))
    return 0


def add_import_enhancer(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("import-enhancer", help="make a model package of an enhancer that SpeechBrain publishes")
    verb.add_argument("enhancer", metavar="NAME_OR_DIR", help="e.g. speechbrain/metricgan-plus-voicebank, or a folder "
                      "with its files; no code in them is run")
    _package_options(verb)
    verb.set_defaults(run=import_enhancer)


def import_enhancer(options: argparse.Namespace) -> int:
    """A published enhancer of SpeechBrain as a model package."""
    _check_output(options)
    quieten_libraries()
    from cdasr.speech.enhancers_import import import_enhancer
    from cdasr.speech.sgmse import DEFAULT_ASR

    print("wrote " + import_enhancer(options.enhancer, options.output_dir, options.asr or DEFAULT_ASR))
    return 0


def _package_options(verb: argparse.ArgumentParser) -> None:
    """Options of the package that is made."""
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.add_argument("--asr", metavar="NAME_OR_DIR", help="frozen recogniser, of the hub or a folder; default: "
                      "facebook/wav2vec2-base-960h")


def _check_output(options: argparse.Namespace) -> None:
    """Raise ValueError where the package cannot be written."""
    check_folder(options.output_dir)
    check_empty(options.output_dir)
