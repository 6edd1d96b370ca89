"""Manifests survive a round trip and a move; broken ones are named."""

import shutil

import pytest

from cdasr.speech.manifest import read_manifest, write_manifest


def rows(folder):
    return [{"ID": "a", "duration": "1.0", "wav": folder / "wav" / "a.wav", "text": "one, two", "snr": 5},
            {"ID": "b", "duration": "2.0", "wav": folder / "wav" / "b.wav", "text": 'a "quote"', "snr": -5}]


def test_round_trip_and_move(tmp_path):
    write_manifest(tmp_path / "here" / "set.csv", rows(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    again = read_manifest(tmp_path / "there" / "set.csv")
    assert [row["text"] for row in again] == ["one, two", 'a "quote"']
    assert again[0]["wav"] == str(tmp_path / "there" / "wav" / "a.wav") and again[1]["snr"] == "-5"


def test_broken_manifests(tmp_path):
    path = tmp_path / "set.csv"
    for text, reason in {"ID,duration,wav\na,1,a.wav\n": "lacks the column.*text",
                         "ID,duration,wav,text\n": "no utterances",
                         "ID,duration,wav,text\na,1,a.wav,x\na,1,b.wav,y\n": "repeats the ID",
                         "ID,duration,wav,text\na,1,a.wav\n": "number of fields"}.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=reason):
            read_manifest(path)
    with pytest.raises(ValueError, match="no such manifest"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="without utterances"):
        write_manifest(path, [])
