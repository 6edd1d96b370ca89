"""Corpora as other toolkits lay them out: Hugging Face, Common Voice, NeMo, lhotse, ESPnet; and what is refused."""

import gzip
import json
import re

import numpy as np
import pytest
import soundfile

from cdasr.cli import main
from cdasr.speech.manifest import manifest_files, read_manifest, read_row

RATE = 8000


@pytest.fixture
def folder(tmp_path):
    """Two recordings of a second, the second one of two channels."""
    soundfile.write(tmp_path / "a.wav", np.full(RATE, 0.1), RATE)
    soundfile.write(tmp_path / "b.wav", np.stack([np.full(RATE, 0.2), np.full(RATE, 0.3)], axis=1), RATE)
    return tmp_path


def cut(**more):
    """A cut as lhotse 1 writes it."""
    said = {"id": "s", "recording_id": "b", "start": 0.0, "duration": 0.5, "channel": 1, "text": "two words",
            "language": "English", "speaker": "p1"}
    recording = {"id": "b", "sources": [{"type": "file", "channels": [0, 1], "source": "b.wav"}], "sampling_rate": RATE,
                 "num_samples": RATE, "duration": 1.0, "channel_ids": [0, 1]}
    return {"id": "c-0", "start": 0.25, "duration": 0.5, "channel": 1, "supervisions": [said], "recording": recording,
            "type": "MonoCut", **more}


def test_hugging_face_folders_are_read_by_their_metadata(folder):
    (folder / "data" / "train").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / f"{name}.wav").rename(folder / "data" / "train" / f"{name}.wav")
    (folder / "data" / "metadata.csv").write_text(
        'file_name,transcription,speaker_id\ntrain/a.wav,"one, two",1\ntrain/b.wav,three,2\n')
    rows = read_manifest(folder / "data")
    assert [(row["ID"], row["text"], row["spk_id"], row["duration"]) for row in rows] == [
        ("a", "one, two", "1", "1.0000"), ("b", "three", "2", "1.0000")]
    assert manifest_files(folder / "data") == [folder / "data" / "metadata.csv"]
    (folder / "data" / "metadata.csv").unlink()
    (folder / "data" / "metadata.jsonl").write_text('{"file_name": "train/a.wav", "text": "one"}\n')
    assert [row["text"] for row in read_manifest(folder / "data")] == ["one"]


def test_common_voice_has_its_recordings_in_clips(folder):
    (folder / "clips").mkdir()
    (folder / "a.wav").rename(folder / "clips" / "a.wav")
    (folder / "train.tsv").write_text(
        "client_id\tpath\tsentence_id\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment\n"
        'f00\ta.wav\t12\t"Open" the door\t2\t0\t\t\t\ten\t\n')
    row, = read_manifest(folder / "train.tsv")
    assert (row["spk_id"], row["text"], row["up_votes"]) == ("f00", '"Open" the door', "2")
    assert row["wav"] == str(folder / "clips" / "a.wav")


def test_nemo_manifests_have_offsets(folder):
    rows = [{"audio_filepath": "a.wav", "offset": 0.25, "duration": 0.5, "text": "one", "pnc": "yes", "lang": "en"},
            {"audio_filepath": str(folder / "b.wav"), "duration": 1.0, "text": "two"}]
    (folder / "train_manifest.json").write_text("\n".join(map(json.dumps, rows)) + "\n")
    first, second = read_manifest(folder / "train_manifest.json")
    assert (first["ID"], first["offset"], first["duration"]) == ("a-250", "0.25", "0.5000") and second["offset"] == ""
    assert len(read_row(first)) == RATE // 2 and first["lang"] == "en"


@pytest.mark.parametrize("packed", [False, True])
def test_cuts_of_lhotse_are_stretches_of_a_channel(folder, packed):
    text = json.dumps(cut()) + "\n" + json.dumps(cut(id="c-1", start=0, duration=1.0, channel=0)) + "\n"
    path = folder / ("cuts.jsonl.gz" if packed else "cuts.jsonl")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    first, second = read_manifest(path)
    assert (first["ID"], first["text"], first["spk_id"]) == ("c-0", "two words", "p1")
    assert (first["offset"], first["duration"], first["channel"], second["channel"]) == ("0.25", "0.5000", "1", "0")
    assert np.allclose(read_row(first), 0.3, atol=1e-3) and len(read_row(first)) == RATE // 2
    assert np.allclose(read_row(second), 0.2, atol=1e-3) and len(read_row(second)) == RATE


@pytest.mark.parametrize("more, reason", [
    ({"type": "MixedCut"}, "the cut is a MixedCut; save it as audio first"),
    ({"supervisions": []}, "the cut has 0 supervisions; one is expected"),
    ({"supervisions": [{"text": None}]}, "the supervision has no text"),
    ({"recording": {"sources": [{"type": "command", "channels": [0, 1], "source": "touch ran"}]}},
     "the source is a command (touch ran); commands are not run"),
    ({"recording": {"sources": [{"type": "file", "channels": [0], "source": "a.wav"}]}}, "no single source holds"),
    ({"recording": {**cut()["recording"], "transforms": [{"name": "Speed"}]}}, "the recording is transformed"),
    ({"recording": None, "features": {}}, "cuts of features only"),
    ({"supervisions": ["text"]}, "not a cut as lhotse writes it")])
def test_cuts_that_are_no_audio_on_the_disk_are_refused_in_one_line(folder, monkeypatch, capsys, more, reason):
    monkeypatch.chdir(folder)
    row = cut(**more)
    if row["type"] == "MixedCut":
        row = {"id": "c-0", "tracks": [{"cut": cut(), "type": "MonoCut"}], "type": "MixedCut"}
    (folder / "cuts.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["new-recipe", "mine", "--manifest", "train=cuts.jsonl", "--manifest", "test=cuts.jsonl"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "cuts.jsonl: line 1: " in said[0] and reason in said[0]
    assert not (folder / "recipes").exists() and not (folder / "ran").exists()


def test_data_directories_of_espnet_have_paths_from_their_recipe(folder, monkeypatch):
    data = folder / "asr1" / "dump" / "raw" / "train"
    (folder / "asr1" / "dump" / "raw" / "org" / "train" / "data" / "format.1").mkdir(parents=True)
    data.mkdir()
    (folder / "a.wav").rename(folder / "asr1" / "dump" / "raw" / "org" / "train" / "data" / "format.1" / "u1.wav")
    for name, text in {"wav.scp": "u1 dump/raw/org/train/data/format.1/u1.wav\n", "text": "u1 one two\n",
                       "utt2spk": "u1 s1\n", "spk2utt": "s1 u1\n", "feats_type": "raw\n", "audio_format": "wav\n",
                       "utt2num_samples": "u1 8000\n"}.items():
        (data / name).write_text(text)
    row, = read_manifest(data)
    assert (row["ID"], row["text"], row["spk_id"]) == ("u1", "one two", "s1") and row["wav"].endswith("format.1/u1.wav")
    (data / "wav.scp").write_text("u1 dump/raw/data_wav.ark:42\n")
    with pytest.raises(ValueError) as caught:
        read_manifest(data)
    assert re.search(r"u1 is in an archive .*format_wav_scp.sh", str(caught.value)) and "\n" not in str(caught.value)


def test_new_recipe_takes_any_of_them(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "hf").mkdir()
    (folder / "a.wav").rename(folder / "hf" / "a.wav")
    (folder / "hf" / "metadata.csv").write_text("file_name,text\na.wav,one\n")
    (folder / "cuts.jsonl").write_text(json.dumps(cut()) + "\n")
    assert main(["new-recipe", "mine", "--manifest", "train=hf", "--manifest", "test=cuts.jsonl"]) == 0
    assert "wrote recipes/mine" in capsys.readouterr().out
    (folder / "empty").mkdir()
    assert main(["new-recipe", "other", "--manifest", "train=empty", "--manifest", "test=cuts.jsonl"]) == 2
    assert "nor one of Hugging Face's datasets" in capsys.readouterr().err
    (folder / "cuts.jsonl.gz").write_bytes(b"plain")
    assert main(["new-recipe", "other", "--manifest", "train=hf", "--manifest", "test=cuts.jsonl.gz"]) == 2
    assert "cuts.jsonl.gz: not a text in UTF-8 that gzip has packed" in capsys.readouterr().err
