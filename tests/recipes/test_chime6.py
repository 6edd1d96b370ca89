"""recipes/chime6 on a miniature in the official layout: hour-long recordings of arrays, JSON transcriptions."""

import json

import numpy as np
import pytest

from cdasr.recipe.hparams import load_hparams
from cdasr.speech.audio import write_audio
from cdasr.speech.manifest import read_manifest, read_row
from tests.recipes.staged import ROOT, check_nothing_is_redone, load_prepare, run_recipe


def said(start, end, words, ref="U02", location="kitchen"):
    return {"end_time": f"0:00:{end:05.2f}", "start_time": f"0:00:{start:05.2f}", "words": words, "speaker": "P05",
            "ref": ref, "location": location, "session_id": "S02"}


@pytest.fixture
def corpus(tmp_path):
    for array, level in (("U02", 0.1), ("U03", 0.2)):
        for channel in (1, 2):
            write_audio(tmp_path / "audio" / "dev" / f"S02_{array}.CH{channel}.wav",
                        np.full(16_000 * 10, level * channel, np.float32), 16_000)
    (tmp_path / "transcriptions" / "dev").mkdir(parents=True)
    (tmp_path / "transcriptions" / "dev" / "S02.json").write_text(json.dumps([
        said(1.25, 2.5, "Pass the salt - please, [laughs] Ann."), said(3, 4, "[redacted] Bob"), said(4, 5, "[noise]"),
        said(6, 5.5, "too late"), said(7, 8.5, "It's [inaudible 0:00:07.80] good!", "U03", "living")]))
    return tmp_path


def hparams(corpus, *options):
    return load_hparams([ROOT / "recipes" / "chime6" / "hparams" / "default.yaml"],
                        ["--exp-dir", str(corpus / "exp"), "--data-dir", str(corpus), "--data.eval-sets", "[dev]",
                         *options])


def test_segments_are_stretches_of_the_reference_array(corpus):
    prepare = load_prepare("chime6")
    prepare.download(hparams(corpus))
    prepare.prepare(hparams(corpus))
    first, second = read_manifest(corpus / "exp" / "data" / "eval.csv")
    assert (first["ID"], first["condition"]) == ("P05_S02-0000125-0000250_dev_kitchen", "dev_kitchen")
    assert (first["text"], second["text"]) == ("Pass the salt please, Ann.", "It's good!")
    assert (first["offset"], first["duration"], first["clean_wav"]) == ("1.25", "1.2500", "")
    assert np.allclose(read_row(first), 0.1, atol=1e-3) and len(read_row(first)) == 20_000
    assert second["condition"] == "dev_living" and np.allclose(read_row(second), 0.2, atol=1e-3)
    prepare.prepare(hparams(corpus, "--data.array", "U03", "--data.channel", "2"))
    assert np.allclose(read_row(read_manifest(corpus / "exp" / "data" / "eval.csv")[0]), 0.4, atol=1e-3)


def test_a_second_run_redoes_nothing(corpus):
    options = "--data-dir", str(corpus), "--data.eval-sets", "[dev]"
    done = run_recipe("chime6", corpus / "exp", *options, size="default")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "prepared 2 segments" in done.stdout and "stage 2" not in done.stdout
    check_nothing_is_redone("chime6", corpus / "exp", *options, "--stop-stage", "1", size="default", stages=2)


def test_what_is_missing_or_malformed_is_named(corpus, tmp_path):
    prepare = load_prepare("chime6")
    with pytest.raises(ValueError, match="--data-dir is empty: CHiME-6 is not there .*openslr.org/150"):
        prepare.find_corpus({"data_dir": ""})
    (corpus / "audio" / "dev" / "S02_U03.CH1.wav").unlink()
    with pytest.raises(ValueError, match="1 of 2 segments .*\n.*no S02_U03.CH1.wav"):
        prepare.prepare(hparams(corpus))
    prepare.prepare(hparams(corpus, "--data.skip-missing", "true"))
    assert len(read_manifest(corpus / "exp" / "data" / "eval.csv")) == 1
    with pytest.raises(ValueError, match="transcriptions/eval: no <session>.json there"):
        prepare.read_set(corpus, "eval", "ref", 1, False)
    (corpus / "transcriptions" / "dev" / "S02.json").write_text(json.dumps([{**said(1, 2, "a"), "start_time": "1"}]))
    with pytest.raises(ValueError, match="S02.json: entry 1: not as CHiME-6 has it"):
        prepare.prepare(hparams(corpus))
