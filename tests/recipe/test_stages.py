"""Stages that all recipes share: what the signal process can start from."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cdasr.recipe.hparams import load_hparams
from cdasr.recipe.stages import classifier, control_systems, controls, decode, initial_signal, signal
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.recipe import RECIPE
from tests.classifiers.whisper import make_whisper

HPARAMS = Path(__file__).parents[2] / "recipes" / "librispeech" / "hparams"


def test_a_coupled_package_gives_its_signal_process_without_the_logits(package_dir, tone):
    trained = Pipeline.from_pretrained(package_dir, device="cpu").signal
    start = initial_signal(package_dir, RECIPE)
    assert "tokens" not in start.config["network"] and not any("inject" in name for name in start.state_dict())
    wave = torch.from_numpy(tone(0.5))[None]
    lengths = torch.tensor([wave.shape[1]])
    assert torch.equal(start.enhance(wave, lengths)[0], trained.enhance(wave, lengths)[0])


def test_the_recogniser_of_a_package_to_start_from_is_not_needed():
    """That of the bundled `english` is a name on the hub."""
    assert initial_signal("english", RECIPE).config["network"]["name"] == "tf_unet"


def test_what_cannot_be_started_from_is_named(tmp_path):
    with pytest.raises(ValueError, match="no such model package"):
        initial_signal(str(tmp_path / "none"), RECIPE)
    with pytest.raises(ValueError, match="no such file"):
        initial_signal(str(tmp_path / "none.ckpt"), RECIPE)


@pytest.fixture
def prepared(tmp_path, recogniser_dir, write_wav, tone):
    """An `exp_dir` after stages 1 and 2, and hyper-parameters for stage 3."""
    from cdasr.speech.manifest import write_manifest

    wav = write_wav("u.wav", tone(0.6))
    row = {"ID": "u", "duration": 0.6, "wav": wav, "text": "one", "spk_id": "s", "clean_wav": wav}
    for name in ("train", "valid", "valid_noisy", "eval"):
        write_manifest(tmp_path / "exp" / "data" / f"{name}.csv", [row])
    lists = {"train": {"files": [], "families": ["coloured"]}, "rooms": {"train": []}}
    (tmp_path / "exp" / "data" / "noise.json").write_text(json.dumps(lists))
    (tmp_path / "exp" / "recogniser").mkdir()
    (tmp_path / "exp" / "recogniser" / "model").symlink_to(recogniser_dir)
    return load_hparams([HPARAMS / f"{name}.yaml" for name in ("default", "whisper", "tiny")],
                        ["--exp-dir", str(tmp_path / "exp"), "--signal.epochs", "0", "--device", "cpu"])


def test_without_epochs_the_initial_signal_process_is_taken_as_it_is(prepared, package_dir, tmp_path):
    with pytest.raises(ValueError, match="untrained"):
        signal(prepared, RECIPE)
    with pytest.raises(ValueError, match="works at 16000 Hz and the recipe at 8000"):
        signal({**prepared, "signal_init": str(package_dir), "sample_rate": 8000}, RECIPE)
    signal({**prepared, "signal_init": str(package_dir)}, RECIPE)
    tried = json.loads((tmp_path / "exp" / "signal" / "record.json").read_text())["settings"]["tuning"]["steps"]
    assert list(tried) == ["1", "2"], "the recipe's numbers of steps, and the package's own"
    made = Pipeline.from_pretrained(tmp_path / "exp" / "package", device="cpu").signal.network.state_dict()
    given = initial_signal(str(package_dir), RECIPE).network.state_dict()
    assert made.keys() == given.keys()
    assert all(torch.allclose(made[name], given[name], atol=1e-3) for name in given), "up to half precision"


def test_stage_2_takes_whisper_with_a_head_or_as_it_is(prepared, whisper_dir, tmp_path):
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.manifest import read_manifest, write_manifest

    model = tmp_path / "exp" / "recogniser" / "model"
    model.unlink()
    settings = {**prepared["recogniser"], "epochs": 1, "batch_seconds": 3, "head": {"dim": 8, "blocks": 1}}
    asked = {**prepared, "asr": str(whisper_dir), "asr_options": {}, "recogniser": settings}
    assert asked["asr_head"] == "whisper"
    train = tmp_path / "exp" / "data" / "train.csv"
    spoken = read_manifest(train)
    write_manifest(train, [{**row, "text": ""} for row in spoken])
    with pytest.raises(ValueError, match="no utterance of the training set has a transcript"):
        classifier(asked, RECIPE)
    write_manifest(train, [*spoken, {**spoken[0], "ID": "silent", "text": "", "wav": "not/read.wav"}])
    classifier(asked, RECIPE)
    assert type(load_recogniser(model)).__name__ == "WhisperCTCRecogniser"
    found = json.loads((model.parent / "record.json").read_text())["settings"]
    assert found["clean"]["words"] == 1 and found["recogniser"]["sample_rate"] == 16_000

    with pytest.raises(ValueError, match="CTC recognisers of waveforms and for Whisper's decoder; give --controls"):
        RECIPE.retrain(asked, model.parent.parent / "retrained", "cpu")

    make_whisper(tmp_path / "decoder")  # as a whole, through its decoder
    classifier({**asked, "asr": str(tmp_path / "decoder"), "asr_head": ""}, RECIPE)
    assert type(load_recogniser(model)).__name__ == "WhisperDecoderRecogniser"
    with pytest.raises(ValueError, match="--asr-head is whisper"):
        classifier({**asked, "asr_head": "ctc"}, RECIPE)


def test_decoding_takes_audio_of_other_enhancers_and_the_normaliser(prepared, package_dir, tmp_path, capsys):
    from types import SimpleNamespace

    from cdasr.recipe.command import _stage
    from cdasr.speech.evaluation import about

    shutil.copytree(package_dir, tmp_path / "exp" / "package")
    shutil.copytree(tmp_path / "exp" / "recogniser" / "model", tmp_path / "exp" / "package" / "recogniser",
                    dirs_exist_ok=True)
    (tmp_path / "peer").mkdir()
    shutil.copy(tmp_path / "u.wav", tmp_path / "peer")
    hparams = {**prepared, "normaliser": "english", "asr": "", "data": {},
               "decode": {**prepared["decode"], "systems": ["none", "enhanced"], "external": {
                   "peer": str(tmp_path / "peer")}, "timed_utterances": 1}}
    _stage(decode, RECIPE, hparams)
    scores = json.loads((tmp_path / "exp" / "results" / "wer.json").read_text())
    assert scores["systems"] == ["none", "peer", "peer_oa", "peer_fused", "enhanced"]
    assert scores["record"]["settings"]["normaliser"] == "english, 0 spellings"
    assert list(json.loads((tmp_path / "exp" / "results" / "rtf.json").read_text())["rtf"]) == ["none", "enhanced"]
    told = about(SimpleNamespace(hparams={"data": {}, "report": {"about": "Read."}}, scores=scores, tuning={},
                                 systems=scores["systems"]))
    assert "after Whisper's English normaliser of transformers, without its table" in told
    assert "`peer`: the frozen recogniser on the audio of other enhancers" in told and "the weight is 0.25." in told


def test_stage_6_trains_whisper_further_and_its_package_is_a_system(prepared, tmp_path):
    from cdasr.classifiers.load import load_recogniser
    from cdasr.speech.signal_model import SpectrogramModel
    from tests.conftest import TINY_SIGNAL

    exp, model = tmp_path / "exp", tmp_path / "exp" / "recogniser" / "model"
    model.unlink()
    frozen = load_recogniser(make_whisper(model))
    Pipeline(frozen, SpectrogramModel.from_config(TINY_SIGNAL), {}, "cpu").save_pretrained(exp / "signal" / "package")
    asked = {**prepared, "asr": str(model), "asr_head": "", "asr_options": {}, "controls": ["retrained"]}
    assert asked["retrained"]["labels"] == "clean" and asked["retrained"]["parts"] == "encoder"
    controls(asked, RECIPE)
    first = Pipeline.from_pretrained(exp / "signal" / "package", device="cpu")
    tuned, strategy = control_systems(exp, first, RECIPE)["retrained"]
    assert strategy == "none" and type(tuned.recogniser) is type(frozen)
    before, after = frozen.model.state_dict(), tuned.recogniser.model.state_dict()
    assert {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])} == {"encoder"}
    assert (exp / "retrained" / "package" / "recogniser" / "model.safetensors").is_file()
