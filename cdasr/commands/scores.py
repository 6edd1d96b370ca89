"""`cdasr evaluate`, `cdasr tune-lm` and `cdasr report`: error rates on a manifest, and what is made of them."""

from __future__ import annotations

import argparse
from functools import cache, partial
from pathlib import Path

from cdasr.commands.shared import AGREE, MANIFEST, check_once, load_package, load_pipeline, scoring_options
from cdasr.coupled.options import about_strategies, coupling_options, guidance_option, model_options
from cdasr.coupled.strategies import STRATEGIES
from cdasr.runtime.arguments import assignment, count, finite, names, not_negative, numbers
from cdasr.runtime.outputs import check_folder
from cdasr.runtime.terminal import quieten_libraries
from cdasr.speech.decodable import check_decodable
from cdasr.speech.decoding import LM, Decoding, decoding_options, search_options


def add_evaluate(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("evaluate", help="word error rates of several systems on a manifest, with intervals",
                            **about_strategies())
    verb.add_argument("--manifest", type=Path, required=True,
                      help=f"{MANIFEST}; its column condition groups the scores")
    verb.add_argument("--systems", type=names, metavar="NAME[,NAME...]",
                      help="strategies; default: all that the package can run")
    verb.add_argument("--output-dir", type=Path, required=True, help="for the results; the same command goes on where "
                      "it was interrupted")
    verb.add_argument("--conditions", type=names, metavar="NAME[,NAME...]",
                      help="of the manifest's condition column; default: all")
    verb.add_argument("--quality", type=names, metavar="NAME[,NAME...]", help="measures of the enhanced audio, of "
                      "si_sdr, pesq, stoi, estoi, and the composite measures csig, cbak, covl, ssnr, or all; all but "
                      "the first need cdasr[metrics]; default: si_sdr")
    verb.add_argument("--external", type=assignment, action="append", default=[], metavar="NAME=DIR", help="audio that "
                      "another enhancer wrote, as DIR/<ID>.wav or by the names of the manifest's files: scored as the "
                      "systems NAME and NAME_oa, its mix with the degraded audio; once for each enhancer")
    verb.add_argument("--remember", type=not_negative, default=0.0, metavar="GB", help="memory for Whisper's encoder "
                      "states, which the systems then share; default: none")
    verb.add_argument("--external-weight", type=finite, metavar="W", help="weight of the degraded audio in NAME_oa; "
                      "default: the package's for observation adding")
    coupling_options(verb, AGREE)
    scoring_options(verb)
    verb.add_argument("--shard", metavar="I/N", help="decode only the I-th of N parts, e.g. 2/8; once all are there, "
                      "the same command without it scores them. Processes of torchrun share the work without it")
    verb.add_argument("--overwrite", action="store_true", help="discard results of other settings in --output-dir")
    decoding_options(verb)
    model_options(verb)
    verb.set_defaults(run=evaluate)


def evaluate(options: argparse.Namespace) -> int:
    """Decode a manifest with each system and print the table of word error rates.

    Where torchrun has started several processes, each decodes its part, and the first one scores them all.
    """
    check_folder(options.output_dir)
    check_decodable(Decoding.of(options), options.systems or (), options.model, options.recogniser)
    from cdasr.evaluation.evaluate import evaluate
    from cdasr.evaluation.shards import own_shard, parse_shard
    from cdasr.runtime.torchrun import own_device, wait_for_all
    from cdasr.speech.domain import scored_after

    check_once("--external", options.external, "each enhancer has a name of its own")
    shard = None if options.shard in (None, "auto") else parse_shard(options.shard)
    share = own_shard(needed=options.shard == "auto") if shard is None else None
    options.device = own_device(options.device)
    load = cache(partial(load_pipeline, options))
    run = partial(evaluate, options.manifest, load, options.systems, options.output_dir,
                  steps=options.steps, samples=options.samples, guidance=options.guidance,
                  batch_seconds=options.batch_seconds, seed=options.seed, overwrite=options.overwrite,
                  conditions=options.conditions, domain=scored_after(_normaliser(options, load)),
                  quality=options.quality, external=dict(options.external), external_weight=options.external_weight,
                  remember=options.remember)
    if share is not None:
        run(shard=share)
        wait_for_all()
        if share[0] > 1:
            return 0
    print(run(shard=shard))
    return 0


def add_tune_lm(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("tune-lm", help="the weight of a language model with which a manifest has the fewest word "
                            "errors", **about_strategies())
    verb.add_argument("--manifest", type=Path, required=True, help=f"development data with texts: {MANIFEST}")
    verb.add_argument("--lm", type=Path, required=True, metavar="FILE", help=LM)
    verb.add_argument("--output-dir", type=Path, required=True, help="for tune_lm.json and the logits, which are there "
                      "for the next time")
    verb.add_argument("--lm-weights", type=numbers, metavar="W[,W...]", help="to try; default: "
                      "0,0.25,0.5,0.75,1,1.5,2")
    verb.add_argument("--word-bonuses", type=numbers, metavar="B[,B...]", help="to try with each; default: 0,1,2")
    verb.add_argument("--strategy", choices=STRATEGIES, help="whose logits are decoded; default: the package's")
    guidance_option(verb)
    scoring_options(verb)
    search_options(verb)
    model_options(verb)
    verb.set_defaults(run=tune_lm)


def tune_lm(options: argparse.Namespace) -> int:
    """Word error rates by weight of a language model, and which is best."""
    check_folder(options.output_dir)
    decoding = Decoding.of(options)
    from cdasr.speech.tune_lm import BONUSES, WEIGHTS, tune_lm

    load = cache(partial(load_package, options))
    print(tune_lm(options.manifest, load, decoding, options.output_dir, options.lm_weights or WEIGHTS,
                  options.word_bonuses or BONUSES, options.strategy, options.batch_seconds,
                  _normaliser(options, load), steps=options.steps, seed=options.seed, guidance=options.guidance))
    return 0


def _normaliser(options: argparse.Namespace, load):
    """Of the texts that are scored; `load` gives the pipeline, whose recogniser may know spellings."""
    from cdasr.speech.normalisers import Normaliser, spellings_of

    return Normaliser(options.normaliser, lambda: spellings_of(load().recogniser))


def add_report(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("report", help="a page of what evaluations measured: tables, figures, tests, worst cases")
    verb.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output folder of cdasr evaluate, or results "
                      "folder of a recipe")
    verb.add_argument("--output-dir", type=Path, required=True, help="for report.html, which needs no other file, and "
                      "report.md")
    verb.add_argument("--manifest", type=Path, action="append", default=[], help="that a run decoded, for its audio; "
                      "default: the one of its command or recipe, where it is still there unchanged")
    verb.add_argument("--model", metavar="DIR", help="package of the runs, to hear and see what it makes of the worst "
                      "utterances; default: the enhanced audio is left out")
    verb.add_argument("--examples", type=count, default=8, help="worst utterances of a run; default: %(default)s")
    verb.add_argument("--device", default="cpu", help="of --model; default: %(default)s")
    verb.set_defaults(run=report)


def report(options: argparse.Namespace) -> int:
    """Write the page and the Markdown file."""
    check_folder(options.output_dir)
    quieten_libraries()
    from cdasr.speech.report_examples import write_report

    page = write_report(options.runs, options.output_dir, options.manifest, options.model, options.examples,
                        options.device)
    print(f"wrote {page}")
    return 0
