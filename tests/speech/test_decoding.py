"""Decoding as a user asks for it: strategies of all kinds, n best, language models, hot words, options of Whisper."""

import json
import math

import pytest
import torch

from cdasr import Pipeline, evaluate
from cdasr.classifiers.beam_search import BeamSearch
from cdasr.classifiers.logits import CTCLogits
from cdasr.cli import main
from cdasr.speech import tune_lm as tuning
from cdasr.speech.decoding import Decoding
from cdasr.speech.manifest import write_manifest
from cdasr.speech.pipeline import Batch
from cdasr.speech.segments import segments, transcribe_blocks
from tests.classifiers.whisper import make_whisper
from tests.coupled.test_toy_recogniser import BandRecogniser


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    """A model of digits that says: `seven` is followed by `nine`."""
    words = ("</s>", "<s>", "<unk>", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    path = tmp_path_factory.mktemp("lm") / "digits.arpa"
    lines = [f"-1.0\t{word}\t-0.1" for word in words]
    path.write_text("\n".join([r"\data" "\\", f"ngram 1={len(lines)}", "ngram 2=1", "", "\\1-grams:", *lines, "",
                               "\\2-grams:", "-0.01\tseven nine", "", "\\end\\"]) + "\n")
    return path


@pytest.fixture(scope="module")
def digits():
    return Pipeline.from_pretrained("digits", "cpu")


@pytest.fixture(scope="module")
def whisper_package(tmp_path_factory, package_dir):
    """A package around a tiny Whisper with its own decoder, and without a logits process."""
    from cdasr.classifiers.load import load_recogniser

    folder = tmp_path_factory.mktemp("package")
    pipeline = Pipeline.from_pretrained(package_dir, "cpu")
    Pipeline(load_recogniser(make_whisper(tmp_path_factory.mktemp("whisper"), max_target_positions=60)),
             pipeline.signal, {}, "cpu").save_pretrained(folder)
    return folder


@pytest.fixture
def tones(write_wav, tone):
    return [str(write_wav(f"{number}.wav", tone(0.5 + 0.2 * number, 300 * (number + 1)))) for number in range(3)]


def run(capsys, *options):
    code = main([*map(str, options), "--device", "cpu"])
    return code, capsys.readouterr()


# -- strategies -------------------------------------------------------------------------------------------------------


def test_any_strategy_is_decoded_with_a_beam(package_dir, tone):
    pipeline = Pipeline.from_pretrained(package_dir, "cpu")
    beams, wave = pipeline.with_decoding(Decoding(beam_size=8, nbest=4)), torch.from_numpy(tone(0.6))
    assert beams.strategies == pipeline.strategies and len(pipeline.strategies) > 6
    for strategy in pipeline.strategies:
        result, greedy = beams(wave, strategy), pipeline(wave, strategy)
        logits = beams.run([wave], strategy)[0].logits
        best = BeamSearch(8, nbest=4)(logits)[0]
        assert [one.text for one in result.nbest] == [one.text for one in best] and len(result.nbest) > 1
        assert result.text == best[0].text == " ".join(word.word for word in result.words)
        assert result.nfe == greedy.nfe and (result.wave is None) == (greedy.wave is None)
        if strategy == "enhanced":
            assert result.text_enhanced == result.text
    assert not pipeline(wave).nbest, "the pipeline that it was made of stays greedy"


@pytest.mark.parametrize("strategy", ["none", "enhanced"])
def test_the_n_best_of_a_recording_that_is_cut(package_dir, tone, strategy):
    pipeline = Pipeline.from_pretrained(package_dir, "cpu").with_decoding(Decoding(beam_size=4, nbest=4))
    wave = torch.from_numpy(tone(22))
    cut = list(segments([wave], pipeline.sample_rate))
    found = pipeline(wave, strategy)
    assert len(cut) == 2 and found.nbest[0].text == found.text and len({one.text for one in found.nbest}) == 4
    scores = [one.score for one in found.nbest]
    assert scores == sorted(scores, reverse=True)
    pieces = pipeline.transcribe([part.wave for part in cut], strategy)
    assert scores[0] == pytest.approx(sum(piece.nbest[0].score for piece in pieces), abs=0.01)
    blocks = transcribe_blocks(pipeline, [part.numpy() for part in wave.split(7919)], 0.1, None, 20.0,
                               strategy=strategy)
    assert [one.text for one in blocks.nbest] == [one.text for one in found.nbest]


def test_greedy_decoding_stays_as_it_is(package_dir, tone):
    pipeline, wave = Pipeline.from_pretrained(package_dir, "cpu"), torch.from_numpy(tone(0.6))
    for other in (pipeline.with_decoding(Decoding()), pipeline.with_decoding(Decoding(beam_size=1))):
        for strategy in ("none", "parallel"):
            expected, found = pipeline(wave, strategy), other(wave, strategy)
            assert (found.text, found.words, found.text_enhanced) == (
                expected.text, expected.words, expected.text_enhanced)
            assert not found.nbest


def test_pipelines_made_of_one_with_a_beam_have_it_too(package_dir):
    pipeline = Pipeline.from_pretrained(package_dir, "cpu").with_decoding(Decoding(beam_size=8))
    for other in (pipeline.with_choices(strategy="none"), pipeline.with_models(pipeline.signal, None)):
        assert other.search is pipeline.search and other.decoding == {"beam_size": 8}


def test_a_recogniser_that_does_not_say_what_it_writes_is_refused(package_dir):
    pipeline = Pipeline.from_pretrained(package_dir, "cpu")
    with pytest.raises(ValueError, match="BandRecogniser does not say what its classes write"):
        Pipeline(BandRecogniser(), pipeline.signal, {}, "cpu").with_decoding(Decoding(beam_size=3))


# -- language model and hot words, of a recogniser of whole words -----------------------------------------------------


def doubtful(recogniser, *pairs):
    """Logits in which each word is one of two, the first one a little more likely; `CTCLogits` of one item."""
    tokens = recogniser.alphabet.tokens
    values = torch.full((1, 4 * len(pairs), len(tokens)), -8.0)
    values[0, :, recogniser.blank] = 8.0
    for place, (first, second) in enumerate(pairs):
        values[0, 4 * place + 1] = -8.0
        values[0, 4 * place + 1, [tokens.index(first.upper()), tokens.index(second.upper())]] = torch.tensor([8., 7.5])
    return CTCLogits(values, torch.tensor([values.shape[1]]), None, recogniser)


def read(pipeline, logits):
    from cdasr.coupled.pipeline import Outcome

    samples = logits.values.shape[1] * pipeline.recogniser.stride
    return pipeline.transcripts(Outcome(logits), Batch.of([torch.zeros(samples)], "cpu"), "none")[0]


def test_a_language_model_and_hot_words_decide_what_the_audio_leaves_open(digits, lm):
    logits = doubtful(digits.recogniser, ("seven", "one"), ("five", "nine"))
    assert read(digits, logits).text == "seven five"
    with_lm = digits.with_decoding(Decoding(lm=lm, lm_weight=1.0, nbest=2))
    result = read(with_lm, logits)
    assert result.text == "seven nine" and [word.word for word in result.words] == ["seven", "nine"]
    assert result.nbest[0].language == pytest.approx(math.log(10) * (-0.1 - 1.0 - 0.01 - 0.1 - 1.0))
    assert read(digits.with_decoding(Decoding(hotwords=("one", "nine"))), logits).text == "one nine"
    assert read(digits.with_decoding(Decoding(hotwords=("one",), hotword_weight=0.1)), logits).text == "seven five"


def test_options_that_need_others(tmp_path, digits):
    for options, line in (({"lm_weight": 1.0}, "--lm-weight weights a language model; give one with --lm FILE"),
                          ({"hotword_weight": 1.0}, "--hotword-weight weights hot words"),
                          ({"beam_size": 1, "nbest": 2}, "--beam-size 1 is greedy decoding, which has no --nbest 2"),
                          ({"beam_size": 1, "hotwords": ["one"]}, "which has no --hotwords"),
                          ({"beam_size": 3, "nbest": 4}, "--nbest 4: a beam of 3 has no more than 3")):
        with pytest.raises(ValueError, match=line):
            Decoding(**options)
    assert Decoding(hotwords=["one"]).beam_size == 10 and Decoding(nbest=20).beam_size == 20
    assert Decoding(nbest=1).search() is None and Decoding(beam_size=1).settings() == {}
    with pytest.raises(ValueError, match="hot word 'eleven': the recogniser has no word 'eleven'"):
        digits.with_decoding(Decoding(hotwords=("eleven",)))


# -- the command line -------------------------------------------------------------------------------------------------


def test_json_has_the_n_best(package_dir, tones, capsys):
    code, shown = run(capsys, "enhance-transcribe", *tones, "--model", package_dir, "--json", "--nbest", 3,
                      "--strategy", "cascade")
    assert code == 0
    for line in map(json.loads, shown.out.splitlines()):
        scores = [one["score"] for one in line["nbest"]]
        assert len(scores) == 3 and scores == sorted(scores, reverse=True)
        assert line["nbest"][0]["text"] == line["text"]
        assert set(line["nbest"][0]) == {"text", "score", "acoustic", "language"}


def test_what_cannot_be_decoded_is_one_line(package_dir, tones, tmp_path, capsys):
    (tmp_path / "bad.arpa").write_text("no model")
    for options, line in ((["--lm", tmp_path / "bad.arpa"], "bad.arpa: not a language model in ARPA format"),
                          (["--lm", tmp_path / "none.arpa"], "none.arpa: no such language model"),
                          (["--language", "de"], "option 'language': it is of Whisper"),
                          (["--initial-prompt", "x"], "option 'initial_prompt': it is of Whisper"),
                          (["--hotwords", "zebra"], "hot word 'zebra': the recogniser has no letter 'z'"),
                          (["--lm-weight", "1"], "--lm-weight weights a language model")):
        code, shown = run(capsys, "enhance-transcribe", tones[0], "--model", package_dir, *options)
        errors = [text for text in shown.err.splitlines() if not text.startswith("cdasr: package")]
        assert code == 2 and len(errors) == 1 and line in errors[0] and not shown.out


def test_whisper_has_beams_where_it_reads_one_version(whisper_package, tones, capsys):
    for strategy in ("none", "enhanced"):
        code, shown = run(capsys, "enhance-transcribe", tones[0], "--model", whisper_package, "--strategy", strategy,
                          "--beam-size", 3, "--no-fallback", "--language", "de", "--task", "translate",
                          "--initial-prompt", "one two")
        assert code == 0 and shown.out.endswith("\n")
    code, shown = run(capsys, "enhance-transcribe", tones[0], "--model", whisper_package, "--strategy", "fused",
                      "--beam-size", 3)
    assert code == 2 and shown.err.splitlines()[-1].endswith(
        "the strategy 'fused' reads several versions of the audio token by token, for which Whisper has no beams; "
        "leave --beam-size out, or choose the strategy none or enhanced or oa")


def test_whisper_has_n_best_where_it_has_beams(whisper_package, tones, capsys):
    for strategy in ("none", "enhanced", "oa"):
        code, shown = run(capsys, "enhance-transcribe", *tones[:2], "--model", whisper_package, "--strategy", strategy,
                          "--beam-size", 4, "--nbest", 3, "--no-fallback", "--json")
        assert code == 0
        for line in map(json.loads, shown.out.splitlines()):
            scores = [one["score"] for one in line["nbest"]]
            assert 1 < len(scores) <= 3 and scores == sorted(scores, reverse=True)
            assert line["nbest"][0]["text"] == line["text"]
            assert set(line["nbest"][0]) == {"text", "score", "acoustic", "language"}
            assert all(one["acoustic"] <= one["score"] <= 0 == one["language"] for one in line["nbest"])


def test_strategies_without_n_best_say_so_before_anything_is_heard(whisper_package, package_dir, tones, capsys,
                                                                   monkeypatch):
    monkeypatch.setattr(Pipeline, "transcribe", None)
    for strategy in ("fused", "auto", "rover"):
        code, shown = run(capsys, "enhance-transcribe", *tones, "--model", whisper_package, "--nbest", 3,
                          "--strategy", strategy)
        errors = [line for line in shown.err.splitlines() if not line.startswith("cdasr: package")]
        assert code == 2 and not shown.out and len(errors) == 1
        why = "lets the words of several answers vote" if strategy == "rover" else "reads several versions of the audio"
        assert f"the strategy '{strategy}' {why}" in errors[0]
        assert errors[0].endswith(", or choose the strategy none or enhanced or oa")
    code, shown = run(capsys, "enhance-transcribe", *tones, "--model", package_dir, "--nbest", 3, "--strategy", "rover")
    assert code == 2 and "has no n best; leave --nbest out, or choose the strategy none or" in shown.err


@pytest.mark.parametrize("verb", ["enhance-transcribe", "evaluate"])
def test_what_files_tell_of_decoding_is_said_before_anything_is_loaded(whisper_package, package_dir, tmp_path, capsys,
                                                                      monkeypatch, verb):
    monkeypatch.setattr(Pipeline, "from_pretrained", None)
    given = {"enhance-transcribe": ["gone.wav", "--json"],
             "evaluate": ["--manifest", "gone.csv", "--output-dir", tmp_path / "out"]}[verb]
    strategy = {"enhance-transcribe": "--strategy", "evaluate": "--systems"}[verb]
    whisper, nbest = whisper_package / "recogniser", ["--nbest", 2]
    for options, line in (
            ([*nbest, "--model", package_dir, strategy, "rover"], "the strategy 'rover' lets the words of several"),
            ([*nbest, "--model", "gone", strategy, "rover"], "the strategy 'rover' lets the words of several"),
            ([*nbest, "--model", whisper_package, strategy, "fused"], "the strategy 'fused' reads several versions"),
            ([*nbest, "--model", "english", "--recogniser", whisper, strategy, "auto"], "the strategy 'auto' reads"),
            (["--beam-size", 2, "--model", whisper_package, strategy, "auto"],
             "the strategy 'auto' reads several"),
            (["--hotwords", "one", "--model", whisper_package, strategy, "none"], "--hotwords is for CTC recognisers")):
        code, shown = run(capsys, verb, *given, *options)
        assert code == 2 and shown.err.startswith(f"cdasr: {line}") and shown.err.count("\n") == 1
    if verb == "enhance-transcribe":
        code, shown = run(capsys, verb, *given, *nbest, "--model", "english", "--recogniser", whisper)
        assert code == 2 and shown.err.startswith("cdasr: the package's own strategy 'rover' lets")
    for options in ((strategy, "none"), (strategy, "fused", "--model", package_dir)):  # left to the files and packages
        assert "gone" in run(capsys, verb, *given, *nbest, *options)[1].err


def test_n_best_that_nothing_would_show_are_refused(tones, tmp_path, capsys):
    for options in ([], ["--format", "srt"], ["--format", "txt,wav", "--output-dir", tmp_path / "out"], ["--compare"]):
        code, shown = run(capsys, "enhance-transcribe", tones[0], "--model", "digits", "--nbest", 3, *options)
        assert code == 2 and not shown.out and not (tmp_path / "out").exists()
        assert shown.err == "cdasr: --nbest 3: n best are written in JSON only; add --json or --format json\n"
    for options in (["--format", "json"], ["--format", "srt,jsonl", "--output-dir", tmp_path / "out"]):
        code, shown = run(capsys, "enhance-transcribe", tones[0], "--model", "digits", "--nbest", 3, *options)
        made = shown.out if "json" in options else (tmp_path / "out/transcripts.jsonl").read_text()
        assert code == 0 and len(json.loads(made)["nbest"]) > 1
    assert run(capsys, "enhance-transcribe", tones[0], "--model", "digits", "--nbest", 1)[0] == 0


def test_the_n_best_of_a_recording_that_whisper_hears_in_pieces(whisper_package, tone, monkeypatch):
    for name, seconds in (("LONGEST", 1.8), ("SHORTEST", 0.5), ("OVERLAP", 0.6), ("REACHES", (0.6,))):
        monkeypatch.setattr(f"cdasr.speech.segments.{name}", seconds)
    pipeline = Pipeline.from_pretrained(whisper_package, "cpu", fallback=False).with_decoding(Decoding(5, nbest=3))
    found = pipeline(tone(4.1), "enhanced")
    scores = [one.score for one in found.nbest]
    assert found.nbest[0].text == found.text and len({one.text for one in found.nbest}) == 3
    assert scores == sorted(scores, reverse=True)


def test_language_task_and_prompt_reach_every_strategy_of_whisper(whisper_package, tone):
    wave, plain = torch.from_numpy(tone(0.5)), Pipeline.from_pretrained(whisper_package, "cpu", fallback=False)
    other = Pipeline.from_pretrained(whisper_package, "cpu", fallback=False, language="de", task="translate",
                                     initial_prompt="one two")
    ids = plain.recogniser.processor.tokenizer.get_vocab()
    for strategy in plain.strategies:
        for pipeline, language, task in ((plain, "<|en|>", "<|transcribe|>"), (other, "<|de|>", "<|translate|>")):
            logits = pipeline.run([wave], strategy)[0].logits
            prefix = logits.tokens[0, :logits.tokens.shape[1] - logits.values.shape[1]].tolist()
            assert prefix[-4:] == [ids[token] for token in ("<|startoftranscript|>", language, task,
                                                            "<|notimestamps|>")], strategy
            assert (prefix[0] == ids["<|startofprev|>"]) == (pipeline is other)


@pytest.mark.parametrize("options, instead", [
    (["--hotwords", "one"], "name them in --initial-prompt"),
    (["--word-bonus", 1], "--word-bonus is for CTC recognisers"),
    (["--language", "klingon"], "its languages are de en")])
def test_what_whisper_does_not_have_is_one_line(whisper_package, tones, capsys, options, instead):
    code, shown = run(capsys, "enhance-transcribe", tones[0], "--model", whisper_package, *options)
    assert code == 2 and instead in shown.err.splitlines()[-1]


# -- evaluation and tuning --------------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path, tones):
    rows = [{"ID": f"u{number}", "duration": 0.5 + 0.2 * number, "wav": wav, "text": "one two"}
            for number, wav in enumerate(tones)]
    write_manifest(tmp_path / "dev.csv", rows)
    return tmp_path / "dev.csv"


def test_results_of_another_decoding_are_kept_apart(package_dir, manifest, tmp_path, capsys):
    command = ("evaluate", "--manifest", manifest, "--model", package_dir, "--systems", "none,enhanced",
               "--output-dir", tmp_path / "results")
    assert run(capsys, *command, "--nbest", 2)[0] == 0
    lines = (tmp_path / "results/decode/none.jsonl").read_text().splitlines()
    assert all(len(json.loads(line)["nbest"]) == 2 for line in lines)
    code, shown = run(capsys, *command)
    assert code == 2 and "results of other settings (decoding)" in shown.err
    assert run(capsys, *command, "--overwrite")[0] == 0
    greedy = json.loads((tmp_path / "results/evaluate.json").read_text())
    assert "decoding" not in greedy, "results of earlier versions are found"
    assert not any("nbest" in line for line in (tmp_path / "results/decode/none.jsonl").read_text().splitlines())


def test_tuning_runs_the_recogniser_once(digits, manifest, lm, tmp_path, monkeypatch):
    runs = []
    kept = type(digits).__mro__[1].run
    monkeypatch.setattr(type(digits).__mro__[1], "run", lambda *args, **options: (
        runs.append(1), kept(*args, **options))[1])
    options = {"strategy": "cascade", "seed": 0, "steps": None, "guidance": None}
    shown = tuning.tune_lm(manifest, lambda: digits, Decoding(lm=lm), tmp_path / "tuned", [0.0, 1.0], [0.0, 2.0],
                           **options)
    assert len(runs) == 1 and shown.splitlines()[-1].startswith("best, ")
    found = json.loads((tmp_path / "tuned/tune_lm.json").read_text())
    assert len(found["tried"]) == 4 and found["best"] == min(found["tried"], key=lambda trial: trial["wer"])
    for again, expected in (([0.5], 1), ([0.5], 1)):
        tuning.tune_lm(manifest, lambda: digits, Decoding(lm=lm), tmp_path / "tuned", again, [1.0], **options)
        assert len(runs) == expected, "the logits are read from the file"
    tuning.tune_lm(manifest, lambda: digits, Decoding(lm=lm), tmp_path / "tuned", [1.0], [0.0],
                   **{**options, "strategy": "none"})
    assert len(runs) == 2, "those of another strategy are not"
    (tmp_path / "tuned/logits.safetensors").write_bytes(b"torn")
    tuning.tune_lm(manifest, lambda: digits, Decoding(lm=lm), tmp_path / "tuned", [1.0], [0.0], **options)
    assert len(runs) == 3


def test_what_was_tuned_is_what_evaluate_measures(digits, manifest, lm, tmp_path, capsys):
    code, shown = run(capsys, "tune-lm", "--manifest", manifest, "--lm", lm, "--output-dir", tmp_path / "tuned",
                      "--lm-weights", "0,1.5", "--word-bonuses", "-2,0", "--strategy", "enhanced", "--hotwords", "two")
    assert code == 0 and "--lm-weight" in shown.out
    tried = json.loads((tmp_path / "tuned/tune_lm.json").read_text())
    for trial in tried["tried"]:
        decoding = Decoding(lm=lm, hotwords=["two"], **{name: trial[name] for name in ("lm_weight", "word_bonus")})
        evaluate(manifest, digits.with_decoding(decoding), ["enhanced"], tmp_path / "results", overwrite=True)
        entries = map(json.loads, (tmp_path / "results/decode/enhanced.jsonl").read_text().splitlines())
        assert 100 * sum(entry["errors"] for entry in entries) / 6 == pytest.approx(trial["wer"])
