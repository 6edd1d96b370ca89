"""`cdasr enhance-transcribe` and `cdasr enhance-classify`: files of the user through a model package."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import cdasr
from cdasr.commands.shared import AGREE, DEFAULT, MANIFEST, check_device, load_pipeline, sampling
from cdasr.coupled.options import about_strategies, model_options, sampling_options, strategy_options
from cdasr.runtime.arguments import names, seconds_or_auto, threads
from cdasr.runtime.terminal import introduced
from cdasr.speech.decodable import check_decodable, check_shown
from cdasr.speech.decoding import Decoding, decoding_options


def add_enhance_transcribe(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("enhance-transcribe", help="transcribe noisy recordings and write the enhanced audio",
                            **about_strategies())
    verb.add_argument("files", nargs="*", type=Path, metavar="FILE", help="audio in any format that soundfile reads, "
                      "or ffmpeg or PyAV where one is installed; a pattern such as 'talks/*.mp3'; - for standard input")
    verb.add_argument("--recursive", action="store_true", help="FILE may be a folder: all recordings below it")
    verb.add_argument("--list", type=Path, action="append", default=[], metavar="FILE", help="a path in each line")
    verb.add_argument("--manifest", type=Path, help=f"{MANIFEST}; outputs are named by its IDs")
    strategy_options(verb, AGREE)
    verb.add_argument("--output-dir", type=Path, help="write what --format says there; by default wav: "
                      "FILE.enhanced.wav, at the input's rate and length")
    verb.add_argument("--format", type=names, default=[], metavar="NAME[,NAME...]", help="txt, json, srt, vtt, ctm or "
                      "tsv, a file each recording; jsonl, one file with a line each; wav, the enhanced audio. One "
                      "of them is printed where there is no --output-dir")
    verb.add_argument("--json", action="store_true", help="print one JSON object a file")
    verb.add_argument("--compare", action="store_true", help="print what every strategy of the package hears in one "
                      "recording, side by side")
    verb.add_argument("--resume", action="store_true", help="leave out recordings whose outputs are in --output-dir")
    verb.add_argument("--batch-seconds", type=seconds_or_auto, default="auto", metavar="S", help="audio in a batch, "
                      "padding included; auto: what suits the device; default: %(default)s")
    verb.add_argument("--num-workers", type=threads, default=2, metavar="N", help="threads that read files ahead; "
                      "default: %(default)s")
    decoding_options(verb)
    model_options(verb, default=DEFAULT)
    verb.set_defaults(run=enhance_transcribe)


def enhance_transcribe(options: argparse.Namespace) -> int:
    """Transcribe each file; a file that cannot be used is named on stderr and the others are still done."""
    if options.compare:
        _check_compare(options)
    check_decodable(Decoding.of(options), [] if options.compare else [options.strategy], options.model,
                    options.recogniser)
    check_shown(options.nbest, options.format, options.json)
    from cdasr.speech.comparison import compare
    from cdasr.speech.inputs import gather
    from cdasr.speech.outputs import Outputs
    from cdasr.speech.transcribe import transcribe_files

    given = sampling(options)
    outputs = Outputs(options.output_dir, options.format, options.json, options.resume, _what_matters(options))
    sources, faults = gather(options.files, options.recursive, options.list, options.manifest)
    if options.compare:
        del given["strategy"]
        return compare(sources, faults, partial(load_pipeline, options), options.json, **given)
    batch_seconds = None if options.batch_seconds == "auto" else options.batch_seconds
    return transcribe_files(sources, faults, partial(load_pipeline, options), outputs, batch_seconds,
                            options.num_workers, **given)


def _check_compare(options: argparse.Namespace) -> None:
    """Raise ValueError for options that would change nothing: every strategy is run and nothing is written."""
    ignored = {"--strategy": options.strategy, "--output-dir": options.output_dir, "--format": options.format,
               "--resume": options.resume}
    if given := [name for name, value in ignored.items() if value]:
        raise ValueError(f"--compare prints what every strategy hears and writes no files; leave {given[0]} out")


def _what_matters(options: argparse.Namespace) -> dict:
    """The options that transcripts depend on, as plain data."""
    decoding = Decoding.of(options).settings()
    return {"version": cdasr.__version__, **sampling(options), **({"decoding": decoding} if decoding else {}), **{
        name: getattr(options, name) for name in ("model", "recogniser", "recogniser_dtype", "fallback", "precision")}}


def add_enhance_classify(verbs) -> None:
    """How it is called."""
    verb = verbs.add_parser("enhance-classify", help="classify degraded images and write the enhanced pictures",
                            **about_strategies())
    verb.add_argument("files", nargs="+", type=Path, metavar="IMAGE", help="images in any format that Pillow reads")
    verb.add_argument("--model", required=True, metavar="DIR", help="model package, as recipes/images writes it")
    strategy_options(verb, samples="average the probabilities")
    verb.add_argument("--output-dir", type=Path, help="write IMAGE.enhanced.png there, at the model's size")
    verb.add_argument("--json", action="store_true", help="print one JSON object an image, with the five best classes")
    sampling_options(verb)
    verb.set_defaults(run=enhance_classify)


def enhance_classify(options: argparse.Namespace) -> int:
    """Classify each image; a file that cannot be used is named on stderr and the others are still done."""
    from cdasr.images.classify import classify_files

    return classify_files(options.files, partial(_image_pipeline, options), options.output_dir, options.json,
                          **sampling(options))


def _image_pipeline(options: argparse.Namespace):
    """The image package that the options name."""
    check_device(options)
    from cdasr.images.pipeline import ImagePipeline

    return introduced(ImagePipeline.from_pretrained(options.model, device=options.device), options.model)
