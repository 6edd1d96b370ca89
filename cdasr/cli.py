"""The `cdasr` command. Each verb calls one function of the package; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import cdasr
from cdasr.coupled.options import about_strategies, coupling_options, model_options, sampling_options, strategy_options
from cdasr.coupled.strategies import STRATEGIES, with_both_processes
from cdasr.runtime.arguments import (
    Parser,
    assignment,
    count,
    finite,
    names,
    numbers,
    port,
    seconds,
    seconds_or_auto,
    seed,
    setting,
    signed,
    threads,
)
from cdasr.runtime.atomic import check_empty, to_json
from cdasr.runtime.errors import explain
from cdasr.runtime.memory import keep_few_primitives, keep_freed_memory
from cdasr.runtime.outputs import check_folder, check_target
from cdasr.runtime.terminal import complain, introduced, leave_stdout, quieten_libraries
from cdasr.speech.decoding import LM, Decoding, decoding_options, search_options

DEFAULT = "english"  # package of enhance-transcribe
AGREE = "take what they agree on; confidences are then the share that agrees"
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="cdasr", description="Make a frozen speech recogniser robust to noise and reverberation with diffusion "
        "models.", epilog="Exit codes: 0; 2 where some input could not be used or some output not be written, each "
        "named in a line on stderr, while the others are done; 130 after Ctrl-C; 141 where nobody reads the output.")
    parser.add_argument("--version", action="version", version=f"cdasr {cdasr.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for add in (_add_enhance_transcribe, _add_enhance_classify, _add_simulate, _add_evaluate, _add_tune_lm,
                _add_report, _add_new_recipe, _add_config, _add_plot_trajectory, _add_benchmark, _add_profile,
                _add_import_sgmse, _add_import_enhancer, _add_app, _add_demo):
        add(verbs)
    return parser


# -- the verbs: how each is called, and what it does ----------------------------------------------------------------


def _add_enhance_transcribe(verbs) -> None:
    verb = verbs.add_parser("enhance-transcribe", help="transcribe noisy recordings and write the enhanced audio",
                            **about_strategies())
    verb.add_argument("files", nargs="*", type=Path, metavar="FILE", help="audio in any format that soundfile reads, "
                      "or ffmpeg or PyAV where one is installed; a pattern such as 'talks/*.mp3'; - for standard input")
    verb.add_argument("--recursive", action="store_true", help="FILE may be a folder: all recordings below it")
    verb.add_argument("--list", type=Path, action="append", default=[], metavar="FILE", help="a path in each line")
    verb.add_argument("--manifest", type=Path, help="CSV, TSV or JSON lines file, or Kaldi data directory; outputs are "
                      "named by its IDs")
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
    from cdasr.speech.inputs import gather
    from cdasr.speech.outputs import Outputs
    from cdasr.speech.transcribe import compare, transcribe_files

    given = _strategy(options)
    outputs = Outputs(options.output_dir, options.format, options.json, options.resume, _what_matters(options))
    sources, faults = gather(options.files, options.recursive, options.list, options.manifest)
    if options.compare:
        del given["strategy"]
        return compare(sources, faults, partial(_pipeline, options), options.json, **given)
    batch_seconds = None if options.batch_seconds == "auto" else options.batch_seconds
    return transcribe_files(sources, faults, partial(_pipeline, options), outputs, batch_seconds, options.num_workers,
                            **given)


def _what_matters(options: argparse.Namespace) -> dict:
    """The options that transcripts depend on, as plain data."""
    decoding = Decoding.of(options).settings()
    return {"version": cdasr.__version__, **_strategy(options), **({"decoding": decoding} if decoding else {}), **{
        name: getattr(options, name) for name in ("model", "recogniser", "recogniser_dtype", "fallback", "precision")}}


def _add_enhance_classify(verbs) -> None:
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
                          **_strategy(options))


def _add_simulate(verbs) -> None:
    verb = verbs.add_parser("simulate", help="make a fixed noisy set of a manifest of clean utterances")
    verb.add_argument("file", nargs="?", type=Path, metavar="MANIFEST", help="of clean speech: CSV, TSV or JSON lines "
                      "file, or Kaldi data directory; may also be given as --manifest")
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


def _add_evaluate(verbs) -> None:
    verb = verbs.add_parser("evaluate", help="word error rates of several systems on a manifest, with intervals",
                            **about_strategies())
    verb.add_argument("--manifest", type=Path, required=True, help="CSV, TSV or JSON lines file, or Kaldi data "
                      "directory; its column condition groups the scores")
    verb.add_argument("--systems", type=names, metavar="NAME[,NAME...]",
                      help="strategies; default: all that the package can run")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.add_argument("--conditions", type=names, metavar="NAME[,NAME...]",
                      help="of the manifest's condition column; default: all")
    verb.add_argument("--quality", type=names, metavar="NAME[,NAME...]", help="measures of the enhanced audio, of "
                      "si_sdr, pesq, stoi, estoi, and the composite measures csig, cbak, covl, ssnr, or all; all but "
                      "the first need cdasr[metrics]; default: si_sdr")
    verb.add_argument("--external", type=assignment, action="append", default=[], metavar="NAME=DIR", help="audio that "
                      "another enhancer wrote, as DIR/<ID>.wav or by the names of the manifest's files: scored as the "
                      "systems NAME and NAME_oa, its mix with the degraded audio; once for each enhancer")
    verb.add_argument("--remember", type=finite, default=0.0, metavar="GB", help="memory for Whisper's encoder states, "
                      "which the systems then share; default: none")
    verb.add_argument("--external-weight", type=finite, metavar="W", help="weight of the degraded audio in NAME_oa; "
                      "default: the package's for observation adding")
    verb.add_argument("--normaliser", choices=("plain", "basic", "english"), default="plain", help="of texts before "
                      "errors are counted: cdasr's own, or Whisper's basic or English one; default: %(default)s")
    coupling_options(verb, AGREE)
    verb.add_argument("--batch-seconds", type=seconds, default=20.0,
                      help="audio in a batch, more on a GPU; default: %(default)s")
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
    from cdasr.evaluation.evaluate import evaluate
    from cdasr.evaluation.shards import own_shard, parse_shard
    from cdasr.runtime.torchrun import own_device, wait_for_all
    from cdasr.speech.domain import scored_after
    from cdasr.speech.normalisers import Normaliser, spellings_of

    Decoding.of(options)  # checked before anything is loaded
    if twice := [name for name, _ in options.external if [other for other, _ in options.external].count(name) > 1]:
        raise ValueError(f"--external {twice[0]}= is given twice; each enhancer has a name of its own")
    shard = None if options.shard in (None, "auto") else parse_shard(options.shard)
    share = own_shard(needed=options.shard == "auto") if shard is None else None
    options.device = own_device(options.device)
    load = cache(partial(_pipeline, options))
    domain = scored_after(Normaliser(options.normaliser, lambda: spellings_of(load().recogniser)))
    run = partial(evaluate, options.manifest, load, options.systems, options.output_dir,
                  steps=options.steps, samples=options.samples, guidance=options.guidance,
                  batch_seconds=options.batch_seconds, seed=options.seed, overwrite=options.overwrite,
                  conditions=options.conditions, domain=domain, quality=options.quality,
                  external=dict(options.external), external_weight=options.external_weight,
                  remember=options.remember)
    if share is not None:
        run(shard=share)
        wait_for_all()
        if share[0] > 1:
            return 0
    print(run(shard=shard))
    return 0


def _add_tune_lm(verbs) -> None:
    verb = verbs.add_parser("tune-lm", help="the weight of a language model with which a manifest has the fewest word "
                            "errors", **about_strategies())
    verb.add_argument("--manifest", type=Path, required=True, help="development data with texts: CSV, TSV or JSON "
                      "lines file, or Kaldi data directory")
    verb.add_argument("--lm", type=Path, required=True, metavar="FILE", help=LM)
    verb.add_argument("--output-dir", type=Path, required=True, help="for tune_lm.json and the logits, which are there "
                      "for the next time")
    verb.add_argument("--lm-weights", type=numbers, metavar="W[,W...]", help="to try; default: "
                      "0,0.25,0.5,0.75,1,1.5,2")
    verb.add_argument("--word-bonuses", type=numbers, metavar="B[,B...]", help="to try with each; default: 0,1,2")
    verb.add_argument("--strategy", choices=STRATEGIES, help="whose logits are decoded; default: the package's")
    verb.add_argument("--guidance", type=finite, metavar="W", help="weight of the logits in the signal process; "
                      "default: the package's")
    verb.add_argument("--normaliser", choices=("plain", "basic", "english"), default="plain", help="as of cdasr "
                      "evaluate; default: %(default)s")
    verb.add_argument("--batch-seconds", type=seconds, default=20.0, help="audio in a batch; default: %(default)s")
    search_options(verb)
    model_options(verb)
    verb.set_defaults(run=tune_lm)


def tune_lm(options: argparse.Namespace) -> int:
    """Word error rates by weight of a language model, and which is best."""
    check_folder(options.output_dir)
    decoding = Decoding.of(options)
    from cdasr.speech.normalisers import Normaliser, spellings_of
    from cdasr.speech.tune_lm import BONUSES, WEIGHTS, tune_lm

    load = cache(partial(_package, options))
    print(tune_lm(options.manifest, load, decoding, options.output_dir, options.lm_weights or WEIGHTS,
                  options.word_bonuses or BONUSES, options.strategy, options.batch_seconds,
                  Normaliser(options.normaliser, lambda: spellings_of(load().recogniser)), steps=options.steps,
                  seed=options.seed, guidance=options.guidance))
    return 0


def _add_report(verbs) -> None:
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


def _add_new_recipe(verbs) -> None:
    verb = verbs.add_parser("new-recipe", help="a recipe for your corpus, from its manifests, without code to write")
    verb.add_argument("name", metavar="NAME", help="of the corpus and of the recipe's folder")
    verb.add_argument("--manifest", type=assignment, action="append", required=True, metavar="SET=PATH",
                      help="train=, test= and, if there is one, valid=: a CSV, TSV or JSON lines file, or a Kaldi data "
                      "directory; once for each set")
    verb.add_argument("--asr", default="facebook/wav2vec2-base-960h", metavar="NAME_OR_DIR",
                      help="the frozen recogniser; default: %(default)s")
    verb.add_argument("--output-dir", type=Path, default=Path("recipes"), help="default: %(default)s")
    verb.set_defaults(run=new_recipe)


def new_recipe(options: argparse.Namespace) -> int:
    """Write a recipe for a corpus that there is a manifest of."""
    from cdasr.speech.new_recipe import new_recipe

    sets = [part for part, _ in options.manifest]
    if twice := [part for part in sets if sets.count(part) > 1]:
        raise ValueError(f"--manifest {twice[0]}= is given twice; a set has one manifest")
    folder = new_recipe(options.name, dict(options.manifest), options.output_dir, options.asr)
    print(f"wrote {folder}; next: bash {folder}/run.sh --size tiny, then bash {folder}/run.sh")
    return 0


def _add_config(verbs) -> None:
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


def _add_plot_trajectory(verbs) -> None:
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
    plot_trajectory(options.file, _pipeline(options), options.output, options.strategy, options.steps, options.seed)
    print(f"wrote {options.output}")
    return 0


def _add_benchmark(verbs) -> None:
    verb = verbs.add_parser("benchmark", help="speed and memory on this machine")
    verb.add_argument("--published", action="store_true", help="NCSN++ v2 at its published size (random weights) in 4 "
                      "steps of the bridge and in the public sampler's 60 evaluations, in place of a package")
    verb.add_argument("--seconds", type=seconds, default=4.0, help="of audio, one recording; default: %(default)s")
    verb.add_argument("--repeats", type=count, default=3, help="after one run to warm up; default: %(default)s")
    verb.add_argument("--threads", type=threads, help="of the CPU; default: torch's own")
    verb.add_argument("--json", action="store_true", help="print numbers and how they were measured as JSON")
    model_options(verb)
    verb.set_defaults(run=benchmark)


def benchmark(options: argparse.Namespace) -> int:
    """Speed and memory of a package's strategies, or of the published network under two samplers."""
    quieten_libraries()
    import torch

    from cdasr.evaluation.benchmark import benchmark_models, benchmark_package, markdown
    from cdasr.runtime.device import resolve_device
    from cdasr.runtime.provenance import record

    if options.threads:
        torch.set_num_threads(options.threads)
    measure = {"seconds": options.seconds, "repeats": options.repeats}
    if options.published:
        from cdasr.speech.published import published_models

        device = resolve_device(options.device)
        found = benchmark_models(published_models(device, options.precision, options.compile, options.channels_last,
                                                  options.seconds), device, **measure)
    else:
        found = benchmark_package(_pipeline(options), options.steps, **measure)
    print(to_json({"measured": found, "record": record(**measure)}, indent=2) if options.json else markdown(found))
    return 0


def _add_profile(verbs) -> None:
    verb = verbs.add_parser("profile", help="where the time and memory of one recording go, part by part",
                            **about_strategies())
    verb.add_argument("file", type=Path, metavar="FILE", help="audio, as of enhance-transcribe")
    strategy_options(verb, AGREE)
    verb.add_argument("--repeats", type=count, default=3, help="after one run to warm up; default: %(default)s")
    verb.add_argument("--threads", type=threads, help="of the CPU; default: torch's own")
    verb.add_argument("--json", action="store_true", help="print the numbers and how they were measured as JSON")
    model_options(verb, default=DEFAULT)
    verb.set_defaults(run=profile)


def profile(options: argparse.Namespace) -> int:
    """Time and memory of each part of a pipeline on one recording."""
    from cdasr.speech.inputs import Source, check_files

    check_files([options.file])
    import torch

    from cdasr.evaluation.profile import profile, profile_table
    from cdasr.runtime.provenance import record

    if options.threads:
        torch.set_num_threads(options.threads)
    started, given, source = time.perf_counter(), _strategy(options), Source(options.file, options.file)
    pipeline = _pipeline(options)
    loaded = time.perf_counter() - started
    found = profile(pipeline, lambda: torch.from_numpy(source.read(pipeline.sample_rate)), repeats=options.repeats,
                    classifier="recogniser", analysis="STFT and inverse", **given)
    found = {"file": str(options.file), **found, "load_seconds": loaded, "record": record(**given)}
    print(to_json(found, indent=2) if options.json else profile_table(found))
    return 0


def _add_import_sgmse(verbs) -> None:
    verb = verbs.add_parser("import-sgmse", help="make a model package of a public SGMSE checkpoint")
    verb.add_argument("checkpoint", type=Path, metavar="CKPT", help="of PyTorch Lightning; no code in it is run")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.add_argument("--asr", metavar="NAME_OR_DIR", help="frozen recogniser, of the hub or a folder; default: "
                      "facebook/wav2vec2-base-960h")
    verb.add_argument("--steps", type=count, help="of the sampler; default: the checkpoint's")
    verb.add_argument("--snr", type=finite, help="of the corrector; default: 0.5")
    verb.add_argument("--no-ema", action="store_true", help="the weights of the last training step, not their average")
    verb.add_argument("--setting", type=setting, action="append", default=[], metavar="NAME=VALUE", help="a "
                      "hyper-parameter of the training, in place of the file's; for files with weights alone at least "
                      "backbone and sde; once for each")
    verb.set_defaults(run=import_sgmse)


def import_sgmse(options: argparse.Namespace) -> int:
    """A public SGMSE checkpoint as a model package."""
    check_folder(options.output_dir)
    check_empty(options.output_dir)
    if not options.checkpoint.is_file():
        raise ValueError(f"{options.checkpoint}: no such file")
    quieten_libraries()
    from cdasr.speech.sgmse import DEFAULT_ASR, import_sgmse

    print("wrote " + import_sgmse(options.checkpoint, options.output_dir, options.asr or DEFAULT_ASR,
                                  not options.no_ema, options.steps, options.snr, dict(options.setting)))
    return 0


def _add_import_enhancer(verbs) -> None:
    verb = verbs.add_parser("import-enhancer", help="make a model package of an enhancer that SpeechBrain publishes")
    verb.add_argument("enhancer", metavar="NAME_OR_DIR", help="e.g. speechbrain/metricgan-plus-voicebank, or a folder "
                      "with its files; no code in them is run")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.add_argument("--asr", metavar="NAME_OR_DIR", help="frozen recogniser, of the hub or a folder; default: "
                      "facebook/wav2vec2-base-960h")
    verb.set_defaults(run=import_enhancer)


def import_enhancer(options: argparse.Namespace) -> int:
    """A published enhancer of SpeechBrain as a model package."""
    check_folder(options.output_dir)
    check_empty(options.output_dir)
    quieten_libraries()
    from cdasr.speech.enhancers_import import import_enhancer
    from cdasr.speech.sgmse import DEFAULT_ASR

    print("wrote " + import_enhancer(options.enhancer, options.output_dir, options.asr or DEFAULT_ASR))
    return 0


def _add_app(verbs) -> None:
    verb = verbs.add_parser("app", help="a page on this machine to hear and read what each strategy does; needs "
                            "cdasr[app]", **about_strategies())
    verb.add_argument("--port", type=port, default=7860, help="of 127.0.0.1, 0 for any that is free; default: "
                      "%(default)s")
    model_options(verb)
    verb.set_defaults(run=app)


def app(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl-C."""
    from cdasr.speech.app import serve

    serve(partial(_pipeline, options), options.port, options.steps, options.seed)
    return 0


def _add_demo(verbs) -> None:
    verb = verbs.add_parser("demo", help="hear and read what the bundled model does; needs no data")
    verb.add_argument("--output-dir", type=Path, default=Path("results/demo"), help="default: %(default)s")
    verb.add_argument("--device", default="auto", help="default: %(default)s")
    verb.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    verb.set_defaults(run=demo)


def demo(options: argparse.Namespace) -> int:
    """Noisy digits before and after enhancement."""
    check_folder(options.output_dir)
    quieten_libraries()
    from cdasr.demo import demo
    from cdasr.speech.synthesis import check_library

    check_library()
    _check_device(options)
    demo(options.output_dir, device=options.device, seed=options.seed)
    return 0


def _strategy(options: argparse.Namespace) -> dict:
    """The options that a pipeline is called with."""
    return {name: getattr(options, name) for name in ("strategy", "steps", "seed", "samples", "guidance")}


def _pipeline(options: argparse.Namespace):
    """The model package that the options name, which decodes as they say."""
    decoding = Decoding.of(options)
    pipeline = _package(options, **decoding.recogniser_options)
    return pipeline if decoding == Decoding() else pipeline.with_decoding(decoding)


def _package(options: argparse.Namespace, **recogniser_options):
    """The model package that the options name, with the recogniser and the precision that they ask for."""
    quieten_libraries()
    _check_device(options)
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


def _image_pipeline(options: argparse.Namespace):
    """The image package that the options name."""
    _check_device(options)
    from cdasr.images.pipeline import ImagePipeline

    return introduced(ImagePipeline.from_pretrained(options.model, device=options.device), options.model)


def _check_device(options: argparse.Namespace) -> None:
    """Raise ValueError for a device that is not there, before a model is loaded."""
    from cdasr.runtime.device import resolve_device

    resolve_device(options.device)


if __name__ == "__main__":
    sys.exit(main())
