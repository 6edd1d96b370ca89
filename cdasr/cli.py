"""The `cdasr` command. Each verb calls one function of the package; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import cdasr
from cdasr.coupled.strategies import STRATEGIES, with_both_processes
from cdasr.runtime.arguments import (
    Parser,
    assignment,
    count,
    finite,
    names,
    numbers,
    positive,
    seed,
    signed,
    threads,
)
from cdasr.runtime.atomic import check_empty, to_json
from cdasr.runtime.errors import explain
from cdasr.runtime.memory import keep_freed_memory
from cdasr.runtime.outputs import check_folder, check_target, output_names

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
        code = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _leave_stdout()
        return CLOSED_PIPE
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except Exception as error:
        if (message := explain(error)) is None:
            raise  # a fault of the code, which its traceback helps to find
        _complain(message)
        if isinstance(error, OSError):
            _leave_stdout()
        return 2


def enhance_transcribe(options: argparse.Namespace) -> int:
    """Transcribe each file; a file that cannot be used is named on stderr and the others are still done."""
    from cdasr.speech.inputs import unusable

    faults = unusable(options.files)
    targets = _targets(options, ".enhanced.wav", faults)
    files = _usable(options.files, faults)
    if not files:
        return 2
    pipeline = _pipeline(options)

    def transcribe(path: Path) -> None:
        started = time.perf_counter()
        result = pipeline(path, strategy=options.strategy, steps=options.steps, seed=options.seed,
                          samples=options.samples, guidance=options.guidance)
        seconds = time.perf_counter() - started
        if options.json:
            print(_transcript_json(path, result, seconds), flush=True)
        else:
            print(f"{path}: {result.text}" if len(options.files) > 1 else result.text, flush=True)
        if targets and result.wave is not None:
            _write_enhanced(targets[path], path, result.wave.numpy(), pipeline.sample_rate)
        _warn_of_domain(path, result)
    return _each(files, transcribe) or (2 if faults else 0)


def _transcript_json(path: Path, result, seconds: float) -> str:
    from dataclasses import asdict

    return to_json({
        "file": str(path), "text": result.text, "text_enhanced": result.text_enhanced, "strategy": result.strategy,
        "out_of_domain": result.out_of_domain, "duration": round(result.duration, 3),
        "rtf": round(seconds / result.duration, 4), "nfe": result.nfe,
        "words": [{**asdict(word), "start": round(word.start, 3), "end": round(word.end, 3),
                   "confidence": round(word.confidence, 4)} for word in result.words]})


def _write_enhanced(target: Path, path: Path, wave, model_rate: int) -> None:
    """Write the enhanced audio at the rate, the length and the kind of numbers of the file at `path`."""
    import math

    from cdasr.speech.audio import file_format, fit_length, resample, stored_subtype, write_audio

    rate, samples = file_format(path)
    subtype = stored_subtype(path)
    gain = write_audio(target, fit_length(resample(wave, model_rate, rate), samples), rate, subtype)
    scaled = f", scaled by {20 * math.log10(gain):.1f} dB: it would have been clipped" if gain != 1.0 else ""
    _note(f"wrote {target}{' in 32-bit float, as the input' if subtype == 'FLOAT' else scaled}")


def enhance_classify(options: argparse.Namespace) -> int:
    """Classify each image; a file that cannot be used is named on stderr and the others are still done."""
    from cdasr.images.pipeline import ImagePipeline, unusable_images, write_image

    faults = unusable_images(options.files)
    targets = _targets(options, ".enhanced.png", faults)
    files = _usable(options.files, faults)
    if not files:
        return 2
    _check_device(options)
    pipeline = _introduced(ImagePipeline.from_pretrained(options.model, device=options.device), options.model)

    def classify(path: Path) -> None:
        result = pipeline(path, strategy=options.strategy, steps=options.steps, seed=options.seed,
                          samples=options.samples, guidance=options.guidance)
        top = [{"label": name, "probability": round(value, 4)} for name, value in result.probabilities]
        if options.json:
            print(to_json({
                "file": str(path), "label": result.label, "confidence": round(result.confidence, 4), "top": top,
                "label_enhanced": result.label_enhanced, "strategy": result.strategy,
                "out_of_domain": result.out_of_domain, "nfe": result.nfe}), flush=True)
        else:
            print(f"{path}: " + ", ".join(f"{entry['label']} {entry['probability']:.2f}" for entry in top), flush=True)
        if targets and result.image is not None:
            write_image(targets[path], result.image)
            _note(f"wrote {targets[path]}")
        _warn_of_domain(path, result)
    return _each(files, classify) or (2 if faults else 0)


def _targets(options: argparse.Namespace, suffix: str, faults: dict[Path, str]) -> dict[Path, Path]:
    """Where the output of each file goes, checked; adds to `faults` the files of which the output has no place."""
    if not options.output_dir:
        return {}
    check_folder(options.output_dir)
    targets = output_names(options.files, options.output_dir, suffix)
    for path, target in targets.items():
        try:
            check_target(target)
        except ValueError as error:
            faults.setdefault(path, f"{path}: {error}")
    return targets


def _usable(files: Sequence[Path], faults: dict[Path, str]) -> list[Path]:
    """The files without faults; says what is wrong with the others."""
    for fault in faults.values():
        _complain(fault)
    return [path for path in files if path not in faults]


def _each(files: Sequence[Path], do: Callable[[Path], None]) -> int:
    """Do each file; complain about those that cannot be used. Returns the exit code."""
    failed = 0
    for path in files:
        try:
            do(path)
        except BrokenPipeError:
            raise
        except Exception as error:
            if (message := explain(error)) is None:
                raise
            _complain(message if message.startswith(str(path)) else f"{path}: {message}")
            failed += 1
    return 2 if failed else 0


def simulate(options: argparse.Namespace) -> int:
    """Write a fixed noisy set and its manifest."""
    from cdasr.speech.simulate import simulate

    check_folder(options.output_dir)
    manifest = simulate(options.manifest, options.noise, options.snr, options.seed, options.output_dir,
                        rir=options.rir)
    print(f"wrote {manifest}")
    return 0


def evaluate(options: argparse.Namespace) -> int:
    """Decode a manifest with each system and print the table of word error rates."""
    check_folder(options.output_dir)
    from cdasr.evaluation.evaluate import evaluate
    from cdasr.speech.domain import SPEECH

    print(evaluate(options.manifest, partial(_pipeline, options), options.systems, options.output_dir,
                   steps=options.steps, samples=options.samples, guidance=options.guidance,
                   batch_seconds=options.batch_seconds, seed=options.seed, overwrite=options.overwrite,
                   conditions=options.conditions, domain=SPEECH, quality=options.quality))
    return 0


def new_recipe(options: argparse.Namespace) -> int:
    """Write a recipe for a corpus that there is a manifest of."""
    from cdasr.recipe.new_recipe import new_recipe

    folder = new_recipe(options.name, dict(options.manifest), options.output_dir, options.asr)
    print(f"wrote {folder}; next: bash {folder}/run.sh --size tiny, then bash {folder}/run.sh")
    return 0


def config(options: argparse.Namespace) -> int:
    """Print the settings that a recipe ends up with."""
    from cdasr.recipe.runner import config

    print(config(options.recipe, options.settings), end="")
    return 0


def plot_trajectory(options: argparse.Namespace) -> int:
    """A picture of signal and logits evolving together."""
    from cdasr.speech.inputs import check_files

    check_files([options.file])
    check_target(options.output)
    from cdasr.evaluation.plots import check_format
    from cdasr.evaluation.trajectory import check_duration, plot_trajectory

    check_format(options.output)
    check_duration(options.file)
    plot_trajectory(options.file, _pipeline(options), options.output, options.strategy, options.steps, options.seed)
    print(f"wrote {options.output}")
    return 0


def benchmark(options: argparse.Namespace) -> int:
    """Speed and memory of a package's strategies, or of the published network under two samplers."""
    _quieten_libraries()
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


def import_sgmse(options: argparse.Namespace) -> int:
    """A public SGMSE checkpoint as a model package."""
    check_folder(options.output_dir)
    check_empty(options.output_dir)
    if not options.checkpoint.is_file():
        raise ValueError(f"{options.checkpoint}: no such file")
    _quieten_libraries()
    from cdasr.speech.sgmse import DEFAULT_ASR, import_sgmse

    print("wrote " + import_sgmse(options.checkpoint, options.output_dir, options.asr or DEFAULT_ASR,
                                  not options.no_ema, options.steps, options.snr))
    return 0


def demo(options: argparse.Namespace) -> int:
    """Noisy digits before and after enhancement."""
    check_folder(options.output_dir)
    _quieten_libraries()
    from cdasr.demo import demo
    from cdasr.speech.synthesis import check_library

    check_library()
    _check_device(options)
    demo(options.output_dir, device=options.device, seed=options.seed)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="cdasr", description="Make a frozen speech recogniser robust to noise and reverberation with diffusion "
        "models.", epilog="Exit codes: 0; 2 where some input could not be used or some output not be written, each "
        "named in a line on stderr, while the others are done; 130 after Ctrl-C; 141 where nobody reads the output.")
    parser.add_argument("--version", action="version", version=f"cdasr {cdasr.__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = verbs.add_parser("enhance-transcribe", help="transcribe noisy recordings and write the enhanced audio",
                            **_about_strategies(STRATEGIES))
    verb.add_argument("files", nargs="+", type=Path, metavar="FILE", help="audio in any format soundfile reads")
    _strategy_options(verb, AGREE)
    verb.add_argument("--output-dir", type=Path, help="write FILE.enhanced.wav there, at the input's rate and length")
    verb.add_argument("--json", action="store_true", help="print one JSON object a file")
    _model_options(verb)
    verb.set_defaults(run=enhance_transcribe)

    verb = verbs.add_parser("enhance-classify", help="classify degraded images and write the enhanced pictures",
                            **_about_strategies(STRATEGIES))
    verb.add_argument("files", nargs="+", type=Path, metavar="IMAGE", help="images in any format that Pillow reads")
    verb.add_argument("--model", required=True, metavar="DIR", help="model package, as recipes/images writes it")
    _strategy_options(verb, samples="average the probabilities")
    verb.add_argument("--output-dir", type=Path, help="write IMAGE.enhanced.png there, at the model's size")
    verb.add_argument("--json", action="store_true", help="print one JSON object an image, with the five best classes")
    _sampling_options(verb)
    verb.set_defaults(run=enhance_classify)

    verb = verbs.add_parser("simulate", help="mix a fixed noisy set from a manifest of clean utterances")
    verb.add_argument("--manifest", type=Path, required=True, help="of clean speech: CSV, TSV or JSON lines "
                      "file, or Kaldi data directory")
    verb.add_argument("--noise", type=Path, required=True, metavar="DIR", help="folder of noise recordings")
    verb.add_argument("--snr", type=numbers, required=True, metavar="DB[,DB...]", help="e.g. 0,5,10 or -5,0")
    verb.add_argument("--rir", type=Path, metavar="DIR", help="folder of room impulse responses")
    verb.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.set_defaults(run=simulate)

    verb = verbs.add_parser("evaluate", help="word error rates of several systems on a manifest, with intervals",
                            **_about_strategies(STRATEGIES))
    verb.add_argument("--manifest", type=Path, required=True, help="CSV, TSV or JSON lines file, or Kaldi data "
                      "directory; its column condition groups the scores")
    verb.add_argument("--systems", type=names, metavar="NAME[,NAME...]",
                      help="strategies; default: all that the package can run")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.add_argument("--conditions", type=names, metavar="NAME[,NAME...]",
                      help="of the manifest's condition column; default: all")
    verb.add_argument("--quality", type=names, metavar="NAME[,NAME...]", help="measures of the enhanced audio, of "
                      "si_sdr, pesq, stoi and estoi; all but the first need cdasr[metrics]; default: si_sdr")
    _coupling_options(verb, AGREE)
    verb.add_argument("--batch-seconds", type=positive, default=20.0,
                      help="audio in a batch, more on a GPU; default: %(default)s")
    verb.add_argument("--overwrite", action="store_true", help="discard results of other settings in --output-dir")
    _model_options(verb)
    verb.set_defaults(run=evaluate)

    verb = verbs.add_parser("new-recipe", help="a recipe for your corpus, from its manifests, without code to write")
    verb.add_argument("name", metavar="NAME", help="of the corpus and of the recipe's folder")
    verb.add_argument("--manifest", type=assignment, action="append", required=True, metavar="SET=PATH",
                      help="train=, test= and, if there is one, valid=: a CSV, TSV or JSON lines file, or a Kaldi data "
                      "directory; once for each set")
    verb.add_argument("--asr", default="facebook/wav2vec2-base-960h", metavar="NAME_OR_DIR",
                      help="the frozen recogniser; default: %(default)s")
    verb.add_argument("--output-dir", type=Path, default=Path("recipes"), help="default: %(default)s")
    verb.set_defaults(run=new_recipe)

    verb = verbs.add_parser("config", help="print the settings of a recipe, all defaults included, as YAML")
    verb.add_argument("recipe", type=Path, metavar="RECIPE_DIR", help="e.g. recipes/digits")
    verb.add_argument("settings", nargs=argparse.REMAINDER, metavar="...",
                      help="--size NAME and --key value, as run.sh takes them")
    verb.set_defaults(run=config)

    verb = verbs.add_parser("plot-trajectory", help="a picture of signal and logits evolving together",
                            **_about_strategies(with_both_processes()))
    verb.add_argument("file", type=Path, metavar="FILE", help="audio in any format soundfile reads")
    verb.add_argument("--strategy", choices=with_both_processes(), default="parallel",
                      help="default: %(default)s")
    verb.add_argument("--output", type=Path, default=Path("trajectory.png"), help="default: %(default)s")
    _model_options(verb)
    verb.set_defaults(run=plot_trajectory)

    verb = verbs.add_parser("benchmark", help="speed and memory on this machine")
    verb.add_argument("--published", action="store_true", help="NCSN++ v2 at its published size (random weights) in 4 "
                      "steps of the bridge and in the public sampler's 60 evaluations, in place of a package")
    verb.add_argument("--seconds", type=positive, default=4.0, help="of audio, one recording; default: %(default)s")
    verb.add_argument("--repeats", type=count, default=3, help="after one run to warm up; default: %(default)s")
    verb.add_argument("--threads", type=threads, help="of the CPU; default: torch's own")
    verb.add_argument("--json", action="store_true", help="print numbers and how they were measured as JSON")
    _model_options(verb)
    verb.set_defaults(run=benchmark)

    verb = verbs.add_parser("import-sgmse", help="make a model package of a public SGMSE checkpoint")
    verb.add_argument("checkpoint", type=Path, metavar="CKPT", help="of PyTorch Lightning; no code in it is run")
    verb.add_argument("--output-dir", type=Path, required=True)
    verb.add_argument("--asr", metavar="NAME_OR_DIR", help="frozen recogniser, of the hub or a folder; default: "
                      "facebook/wav2vec2-base-960h")
    verb.add_argument("--steps", type=count, help="of the sampler; default: the checkpoint's")
    verb.add_argument("--snr", type=finite, help="of the corrector; default: 0.5")
    verb.add_argument("--no-ema", action="store_true", help="the weights of the last training step, not their average")
    verb.set_defaults(run=import_sgmse)

    verb = verbs.add_parser("demo", help="hear and read what the bundled model does; needs no data")
    verb.add_argument("--output-dir", type=Path, default=Path("results/demo"), help="default: %(default)s")
    verb.add_argument("--device", default="auto", help="default: %(default)s")
    verb.add_argument("--seed", type=seed, default=0, help="default: %(default)s")
    verb.set_defaults(run=demo)
    return parser


def _model_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", default="digits", metavar="NAME_OR_DIR", help="model package; default: %(default)s")
    verb.add_argument("--recogniser", metavar="NAME_OR_DIR", help="where the package's frozen recogniser is, if not "
                      "where the package says: a folder or a name on the Hugging Face hub")
    verb.add_argument("--recogniser-dtype", metavar="DTYPE", help="of its weights, e.g. bfloat16; default: as stored")
    verb.add_argument("--attn-implementation", metavar="NAME", help="its attention: eager, sdpa, ...")
    _sampling_options(verb)
    verb.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="fp32", help="of the processes' "
                      "networks, not of the recogniser; default: %(default)s")
    verb.add_argument("--compile", action="store_true", help="torch.compile the processes' networks")
    verb.add_argument("--channels-last", action="store_true", help="memory layout that convolutions on GPUs prefer")


def _about_strategies(names: Iterable[str]) -> dict:
    """Options of a verb's parser: its help ends with what each strategy does."""
    lines = [f"  {name:<{max(map(len, STRATEGIES)) + 2}}{STRATEGIES[name].about}" for name in names]
    return {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": "\n".join(["strategies:", *lines])}


def _strategy_options(verb: argparse.ArgumentParser, samples: str) -> None:
    verb.add_argument("--strategy", choices=STRATEGIES, help="default: the package's")
    _coupling_options(verb, samples)


def _coupling_options(verb: argparse.ArgumentParser, samples: str) -> None:
    verb.add_argument("--guidance", type=finite, metavar="W", help="weight of the logits in the signal process, "
                      "0 for none; default: the package's")
    verb.add_argument("--samples", type=count, default=1, metavar="K", help=f"sample K times and {samples}; "
                      "default: %(default)s")


def _sampling_options(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--steps", type=count, help="steps of each process; default: the package's")
    verb.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...; default: %(default)s")
    verb.add_argument("--seed", type=seed, default=0, help="default: %(default)s")


def _pipeline(options: argparse.Namespace):
    """The model package that the options name, with the recogniser and the precision that they ask for."""
    _quieten_libraries()
    _check_device(options)
    from cdasr.speech.pipeline import Pipeline

    return _introduced(Pipeline.from_pretrained(
        options.model, options.device, options.recogniser, options.precision, options.compile, options.channels_last,
        dtype=options.recogniser_dtype, attn_implementation=options.attn_implementation), options.model)


def _introduced(pipeline, name: str):
    """The pipeline; stderr says what its package is for."""
    if pipeline.about:
        _note(f"cdasr: package {name}: {pipeline.about}")
    return pipeline


def _warn_of_domain(path: Path, result) -> None:
    if result.out_of_domain:
        _note(f"cdasr: {path}: unlike what the package was trained for; its answer means little")


def _quieten_libraries() -> None:
    """Keep loading bars and advice of the libraries out of the user's terminal."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    transformers.utils.logging.disable_progress_bar()


def _check_device(options: argparse.Namespace) -> None:
    """Raise ValueError for a device that is not there, before a model is loaded."""
    from cdasr.runtime.device import resolve_device

    resolve_device(options.device)


def _complain(fault) -> None:
    for line in str(fault).splitlines():
        _note(f"cdasr: {line}")


def _note(line: str) -> None:
    print(line, file=sys.stderr)


def _leave_stdout() -> None:
    """Have what is left in the buffer of stdout go nowhere, where the interpreter would complain of it at its end."""
    import os

    with suppress(OSError, ValueError):  # where stdout is not a file of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
