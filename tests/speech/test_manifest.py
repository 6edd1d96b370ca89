"""Manifests of every format are read alike, survive a round trip and a move; faults are named, all at once."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from cdasr.speech.audio import audio_format, read_audio
from cdasr.speech.manifest import read_clean, read_manifest, read_row, write_manifest, write_stretch


def rows(folder):
    return [{"ID": "a", "duration": "1.0", "wav": folder / "wav" / "a.wav", "text": "one, two", "snr": 5},
            {"ID": "b", "duration": "2.0", "wav": folder / "wav" / "b.wav", "text": 'a "quote"', "snr": -5}]


def test_round_trip_and_move(tmp_path):
    write_manifest(tmp_path / "here" / "set.csv", rows(tmp_path / "here"))
    shutil.move(tmp_path / "here", tmp_path / "there")
    again = read_manifest(tmp_path / "there" / "set.csv", check_audio=False)
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


@pytest.fixture
def recordings(write_wav, tone):
    """A folder with one.wav (1 s), two.wav (2 s) and call.wav (2 s, a talker on each of two channels)."""
    write_wav("one.wav", tone(1.0))
    sides = np.stack([tone(2.0, 200), tone(2.0, 700)], axis=1)
    write_wav("two.wav", tone(2.0, 300))
    return write_wav("call.wav", sides).parent


def write_kaldi(folder, **tables):
    folder.mkdir(exist_ok=True)
    for name, text in tables.items():
        (folder / name.replace("wav_scp", "wav.scp")).write_text(text)
    return folder


def pitch(wave, rate=16_000):
    return round(np.argmax(np.abs(np.fft.rfft(wave))) * rate / len(wave), -2)


def test_what_editors_and_spreadsheets_write_is_read_alike(recordings):
    plain = 'ID,wav,text,snr\na,one.wav,"yes, please",5\nb,two.wav,"he said ""no""",-5\n'
    forms = {"bom.csv": "\ufeff" + plain, "crlf.csv": plain.replace("\n", "\r\n"), "mac.csv": plain.replace("\n", "\r"),
             "blank.csv": plain.replace("\n", "\n\n  \n,,,\n"),
             "semicolons.csv": plain.replace(",", ";").replace("s; p", "s, p"),
             "spaced.csv": plain.replace(",", ", ").replace("s,  p", "s, p"), "excess.csv": plain.replace("\n", ",,\n"),
             "upper.csv": plain.replace("ID,wav,text", "Utt_ID,Path,Sentence"),
             "tabs.tsv": plain.replace(",", "\t").replace('"yes\t please"', "yes, please").replace(
                 '"he said ""no"""', 'he said "no"'),
             "lines.json": '\n{"id": "a", "audio_filepath": "one.wav", "text": "yes,\\n please", "snr": 5}\r\n\r\n'
                           '{"id": "b", "audio_filepath": "two.wav", "text": "he said \\"no\\"", "snr": -5}'}
    for name, text in forms.items():
        (recordings / name).write_text(text, encoding="utf-8", newline="")
        assert read_manifest(recordings / name) == [
            {"ID": "a", "duration": "1.0000", "wav": str(recordings / "one.wav"), "text": "yes, please", "spk_id": "",
             "snr": "5"},
            {"ID": "b", "duration": "2.0000", "wav": str(recordings / "two.wav"), "text": 'he said "no"', "spk_id": "",
             "snr": "-5"}], name


def test_in_tab_separated_files_a_quote_is_a_character(recordings):
    (recordings / "cv.tsv").write_text('client_id\tpath\tsentence\nx\tone.wav\t"Seven, said he\nx\ttwo.wav\tnine" no\n')
    assert [row["text"] for row in read_manifest(recordings / "cv.tsv")] == ['"Seven, said he', 'nine" no']


def test_other_columns_come_through_as_they_are(recordings):
    row = {"ID": "a", "duration": "1.0000", "wav": str(recordings / "one.wav"), "text": "one", "spk_id": "me",
           "clean_wav": str(recordings / "one.wav"), "noise": "hiss, loud.wav", "rir": " room", "snr": "-2.50",
           "condition": 'a "b"', "seed": "007", "path": "other.wav", "Größe": "ß"}
    write_manifest(recordings / "set.csv", [row])
    assert read_manifest(recordings / "set.csv") == [row]


def test_stretches_of_one_file(recordings):
    lines = [{"audio_filepath": "two.wav", "offset": 0.0, "duration": 0.5, "text": "one"},
             {"audio_filepath": "two.wav", "offset": 0.5, "duration": 1.2, "text": "two"},
             {"audio_filepath": "two.wav", "offset": 1.7, "text": "three"},
             {"audio_filepath": "one.wav", "text": "four", "offset": None}]
    (recordings / "nemo.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = read_manifest(recordings / "nemo.jsonl")
    assert [row["ID"] for row in found] == ["two-0", "two-500", "two-1700", "one"]
    assert [row["duration"] for row in found] == ["0.5000", "1.2000", "0.3000", "1.0000"]
    whole = read_audio(recordings / "two.wav")[0]
    for row, (start, end) in zip(found, ((0, 8000), (8000, 27_200), (27_200, 32_000))):
        assert np.array_equal(read_row(row, 16_000), whole[start:end])
        assert np.array_equal(read_clean({**row, "clean_wav": row["wav"]}, 16_000, 10**5)[:end - start],
                              whole[start:end])
    write_manifest(recordings / "again.csv", found)
    assert read_manifest(recordings / "again.csv") == found


def test_the_sides_of_a_call_are_apart(recordings):
    tables = {"wav_scp": "r0 ../call.wav\n", "text": "r0-A one\nr0-B two\n"}
    forms = {"cut": {"segments": "r0-A r0 0 1\nr0-B r0 0.5 2\n", "reco2file_and_channel": "r0-A r0 A\nr0-B r0 B\n"},
             "whole": {"reco2file_and_channel": "r0-A r0 A\nr0-B r0 B\n"},
             "fifth": {"segments": "r0-A r0 0 1 0\nr0-B r0 0.5 -1 1\n"},
             "standard": {"wav_scp": "c-A ../call.wav\nc-B ../call.wav\n", "segments": "r0-A c-A 0 1\nr0-B c-B 0.5 2\n",
                          "reco2file_and_channel": "c-A call A\nc-B call B\n"}}
    for name, form in forms.items():
        found = read_manifest(write_kaldi(recordings / name, **{**tables, **form}))
        assert [pitch(read_row(row, 16_000)) for row in found] == [200, 700], name
        assert [row["channel"] for row in found] == ["0", "1"]
    mono = write_kaldi(recordings / "mono", wav_scp="r0-B ../two.wav\n", text="r0-B two\n",
                       reco2file_and_channel="r0-B r0 B\n")  # the side is a file of its own already
    assert pitch(read_row(read_manifest(mono)[0], 16_000)) == 300
    (recordings / "a.csv").write_text("wav,text,channel\ncall.wav,one,1\n")
    assert pitch(read_row(read_manifest(recordings / "a.csv")[0], 16_000)) == 700


FAULTS = {  # a row of `ID,duration,wav,text,offset,channel` and what is said of it
    "a,1,none.wav,one,,": r"line 2: .*none\.wav: no such file", "a,1,,one,,": "there is no wav",
    "a,1,text.wav,one,,": "not an audio file", "a,1,.,one,,": "is a folder", "a,1,one.wav, ,,": "there is no text",
    "a,1.2,one.wav,one,,": "duration is 1.2 s.*lasts 1 s", "a,0.5,one.wav,one,,": "duration is 0.5 s.*give an offset",
    "a,nan,one.wav,one,,": "duration is 'nan'", "a,-1,one.wav,one,,": "duration is '-1'",
    "a,0,one.wav,one,,": "duration is '0'", "a,1_0,one.wav,one,,": "duration is '1_0'",
    'a,"1,5",one.wav,one,,': "duration is '1,5'", "a,1e999,one.wav,one,,": "duration is '1e999'",
    "a,0.5,two.wav,one,1.8,": "1.8 to 2.3 s is outside", "a,,two.wav,one,2,": "2 to 2 s is outside",
    "a,0.5,two.wav,one,-1,": "offset is '-1'", "a,0.5,two.wav,one,x,": "offset is 'x'",
    "a,2,call.wav,one,,2": "no channel 2.*has 2", "a,2,call.wav,one,,-1": "channel is '-1'",
    "a,2,call.wav,one,,B": "channel is 'B'", ",1,one.wav,one,,": "the ID is empty", "a/b,1,one.wav,one,,": "separator",
    "..,1,one.wav,one,,": "begins with a dot", f"{'x' * 201},1,one.wav,one,,": "longer than 200",
    "a\tb\x07,1,one.wav,one,,": "control character", "a,1,one.wav,one": "number of fields",
    "a,1,one.wav,one, two,,,": "number of fields", 'a,1,one.wav,"one\ntwo",,': "over the end of the line",
    'a,1,one.wav,"one,,': "opened and not closed", 'a,1,one.wav,"one" two,,': "not CSV"}


@pytest.mark.parametrize("row", FAULTS)
def test_a_fault_is_one_line_with_file_line_and_cure(recordings, row):
    (recordings / "text.wav").write_text("no audio")
    path = recordings / "set.csv"
    path.write_text(f"ID,duration,wav,text,offset,channel\n{row}\ngood,1,one.wav,one,,\n")
    with pytest.raises(ValueError, match=FAULTS[row]) as caught:
        read_manifest(path, file_names=True)
    assert str(caught.value).startswith(f"{path}: line 2: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("text, reason", [
    ("ID;wav\na;b\n", "lacks the column.*text"), ("wav,text,wav\n", "'wav' comes twice"), ("", "no utterances"),
    ("wav,text\n\udcff,one\n", "line 2 is not text in UTF-8"), ('{"wav": "one.wav", "text": ["one"]}', "is no string"),
    ('{"wav": "one.wav", "text": null}', "has no text"), ('{"wav": "one.wav", "wav": "x", "text": "x"}', "twice"),
    ('{"wav": "one.wav", "text": "x", "duration": NaN}', "duration is 'NaN'"), ("{" * 99_999, "not JSON"),
    ('{"a": ' * 99_999, "not JSON"), ('{"a": ' + "9" * 9999 + "}", "not JSON"), ("{}\n", "has no wav and no text"),
    ('{"wav": "one.wav", "text": "\\ud800"}', "half of a character")])
def test_files_that_are_no_manifests(recordings, text, reason):
    path = recordings / "set.txt"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=reason) as caught:
        read_manifest(path)
    assert "set.txt" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("tables, reason", [
    ({"segments": "u1 rec 0 x\n"}, "segments: line 1: u1 rec 0 x: expected"),
    ({"segments": "u1 rec 1 0.5\n"}, "segments: line 1: u1 is from 1 to 0.5 s"),
    ({"segments": "u1 rec 0 nan\n"}, "expected <utterance>"),
    ({"segments": "u1 gone 0 1\n"}, "wav.scp: there is no gone"),
    ({"segments": "u1 rec 5 6\n"}, "segments: line 1: 5 to 6 s is outside"),
    ({"segments": "u1 rec 0 1\nu2 rec 1 2\n"}, "segments: line 2: u2 has no text"),
    ({"segments": "u1 rec 0 1\nu1 rec 1 2\n"}, "segments: line 2: repeats the ID 'u1'"),
    ({"segments": "u2 rec 0 1\n", "text": "u2 one\nu1 two\n"}, "segments: there is no u1, which .*text: line 2 has"),
    ({"segments": "u1 rec 0 1\n", "wav.scp": "rec gone.wav\n"}, "segments: line 1: .*gone.wav: no such file"),
    ({"segments": "u1 rec 0 1\n", "wav.scp": "rec sox a.wav |\n"}, "wav.scp: line 1: rec is the output of a command"),
    ({"segments": "u1 rec 0 1 7\n"}, "channel of u1 is 7"), ({"segments": "u1 rec 0 1 1\n"}, "no channel 1"),
    ({"segments": "u1 rec 0 1\n", "reco2file_and_channel": "rec x C\n"}, "line 1: the side of u1 is 'C'"),
    ({"segments": "u1 rec 0 1\n", "utt2spk": "u2 me\n"}, "utt2spk: there is no u1"),
    ({"segments": "u1 rec 0 1\n", "text": "u1\n"}, "text: line 1: there is no text"), ({}, "wav.scp: there is no u1")])
def test_faults_of_kaldi_directories(recordings, tables, reason):
    folder = write_kaldi(recordings / "kaldi", **{"wav_scp": "rec ../two.wav\n", "text": "u1 one\n", **tables})
    with pytest.raises(ValueError, match=reason):
        read_manifest(folder)


def test_all_faults_are_listed_and_the_first_ten_shown(recordings):
    lines = [f"u{place},1,{'one' if place else 'none'}.wav,one" for place in range(3)]
    lines += [f"u{place},x,one.wav," for place in range(1, 9)]
    (recordings / "set.csv").write_text("ID,duration,wav,text\n" + "\n".join(lines) + "\n")
    with pytest.raises(ValueError) as caught:
        read_manifest(recordings / "set.csv")
    said = str(caught.value).splitlines()
    assert len(said) == 11 and said[-1].endswith("set.csv: 9 more faults, 19 in all")
    assert "none.wav: no such file" in said[0] and "line 5: there is no text" in said[1]
    assert "line 5: the duration is 'x'" in said[2] and "line 5 repeats the ID 'u1' of line 3" in said[3]


def test_headers_are_read_only_where_asked(recordings, monkeypatch):
    (recordings / "set.csv").write_text("ID,duration,wav,text\na,1,one.wav,one\nb,,two.wav,two\n")
    read = []
    monkeypatch.setattr("cdasr.speech.manifest.audio_format", lambda path: read.append(path) or audio_format(path))
    assert [row["duration"] for row in read_manifest(recordings / "set.csv", check_audio=False)] == ["1.0000", "2.0000"]
    assert read == [str(recordings / "two.wav")]


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\ud800"])
def test_what_a_line_cannot_hold_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="the text of 'a' has"):
        write_manifest(tmp_path / "set.csv", [{"ID": "a", "duration": "1", "wav": "a.wav", "text": value}])
    assert not list(tmp_path.iterdir())


def test_cuts_are_named_by_what_they_are_cut_from(recordings, tone):
    row = {"ID": "u", "wav": str(recordings / "two.wav"), "offset": "0.5", "duration": "1.0"}
    first = write_stretch(row, recordings / "cuts")
    assert write_stretch(row, recordings / "cuts") == first and audio_format(first).samples == 16_000
    assert np.abs(read_audio(first)[0] - read_row(row)).max() < 1e-4
    others = [write_stretch({**row, **change}, recordings / "cuts")
              for change in ({"offset": "0.6"}, {"duration": "0.9"}, {"channel": "0"})]
    soundfile.write(recordings / "two.wav", tone(2.0, 500), 16_000)
    assert len({first, *others, write_stretch(row, recordings / "cuts")}) == 5
