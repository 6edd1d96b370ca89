"""Every verb reads the same manifests, and finds their faults before a model is loaded."""

import json
import math

import numpy as np
import pytest
import soundfile

from cdasr.cli import main
from cdasr.speech.manifest import read_manifest, read_row
from cdasr.speech.noise import NoiseSource
from cdasr.speech.utterances import Utterances


@pytest.fixture
def calls(write_wav, tone):
    """A folder with a call of two channels, as JSON lines, CSV and Kaldi data directory; noise; and single files."""
    folder = write_wav("call.wav", np.stack([tone(2.0, 200), tone(2.0, 700)], axis=1)).parent
    rows = [{"id": "a", "audio_filepath": "call.wav", "offset": 0.25, "duration": 1, "channel": 0, "text": "one two"},
            {"id": "b", "audio_filepath": "call.wav", "offset": 1, "duration": 0.75, "channel": 1, "text": "three"}]
    (folder / "set.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "set.csv").write_text("\ufeffID,wav,offset,duration,channel,text\r\na,call.wav,0.25,1,0,one two\r\n"
                                    "b,call.wav,1,0.75,1,three\r\n")
    for name, text in {"wav.scp": "r ../call.wav\n", "text": "a one two\nb three\n",
                       "segments": "a r 0.25 1.25\nb r 1 1.75\n", "reco2file_and_channel": "a r A\nb r B\n"}.items():
        (folder / "kaldi").mkdir(exist_ok=True)
        (folder / "kaldi" / name).write_text(text)
    (folder / "files.csv").write_text("ID,wav,text\na,a.wav,one two\nb,b.wav,three\n")
    for row in rows:
        whole = soundfile.read(folder / "call.wav")[0][:, row["channel"]]
        start = int(16_000 * row["offset"])
        write_wav(f"{row['id']}.wav", whole[start:start + int(16_000 * row["duration"])])
    write_wav("noise/hiss.wav", 0.1 * np.random.default_rng(0).standard_normal(9000))
    return folder


def test_evaluate_on_every_format_hears_the_same(calls, package_dir):
    found = {}
    for name in ("files.csv", "set.csv", "set.jsonl", "kaldi"):
        out = calls / "out" / name
        assert main(["evaluate", "--manifest", str(calls / name), "--model", str(package_dir), "--systems",
                     "none,enhanced", "--output-dir", str(out)]) == 0
        lines = (out / "decode" / "enhanced.jsonl").read_text().splitlines()
        found[name] = {(row["ID"], row["reference"], row["text"], row["duration"]) for row in map(json.loads, lines)}
    assert len(found["files.csv"]) == 2 and all(rows == found["files.csv"] for rows in found.values())


def test_simulate_mixes_stretches_and_goes_on_with_changed_ones(calls):
    def run(out, manifest="set.jsonl"):
        assert main(["simulate", "--manifest", str(calls / manifest), "--noise", str(calls / "noise"), "--snr", "5",
                     "--output-dir", str(calls / out)]) == 0
        return read_manifest(calls / out / "manifest.csv")
    stretches, files = run("out"), run("files", "files.csv")
    for row, other in zip(stretches, files):
        assert np.abs(read_row(row) - read_row(other)).max() < 1e-3
        assert len(read_row({"wav": row["clean_wav"]})) == len(read_row(row)) == round(16_000 * float(row["duration"]))
    lines = (calls / "set.jsonl").read_text().replace('"offset": 0.25', '"offset": 0.5')
    (calls / "set.jsonl").write_text(lines)
    again, fresh = run("out"), run("fresh")
    assert [(calls / "out/snr5" / f"{name}.flac").read_bytes() for name in "ab"] == [
        (calls / "fresh/snr5" / f"{name}.flac").read_bytes() for name in "ab"]
    assert len(again) == len(fresh) == 2


def test_training_and_babble_read_stretches(calls):
    rows = read_manifest(calls / "set.csv")
    items = Utterances(rows, 8000, seed=0, train=True, transform=lambda wave, rng: {"wave": wave})
    assert [len(items[place]["wave"]) for place in range(2)] == [8000, 6000]
    stretches, files = (NoiseSource([], ["babble"], speech, 16_000, warp=False).draw(np.random.default_rng(1), 4000)[0]
                        for speech in (rows, [calls / "a.wav", calls / "b.wav"]))
    assert math.isclose(np.abs(stretches - files).max(), 0, abs_tol=0.01)


@pytest.mark.parametrize("verb", ["evaluate", "simulate", "new-recipe"])
def test_all_faults_come_before_any_work(calls, verb, monkeypatch, capsys):
    def no_model(*given, **more):
        raise AssertionError("a model was loaded before the manifest was checked")
    monkeypatch.setattr("cdasr.speech.pipeline.Pipeline.from_pretrained", no_model)
    monkeypatch.chdir(calls)
    (calls / "bad.csv").write_text("ID,wav,text,duration\na,a.wav,one two,\nb,none.wav,three,\na,b.wav,three,7\n")
    before = sorted(calls.rglob("*"))
    words = {"evaluate": ["--manifest", "bad.csv", "--output-dir", "out"],
             "simulate": ["--manifest", "bad.csv", "--noise", "noise", "--snr", "5", "--output-dir", "out"],
             "new-recipe": ["mine", "--manifest", "train=bad.csv", "--manifest", "test=bad.csv"]}[verb]
    assert main([verb, *words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 3 and "bad.csv: line 3: " in said[0] and "none.wav: no such file" in said[0]
    assert "line 4: the duration is 7 s" in said[1] and "line 4 repeats the ID 'a' of line 2" in said[2]
    assert sorted(calls.rglob("*")) == before
