"""Whatever is in a manifest, there are rows or one clear error; whatever is written is read again."""

import json
import unicodedata

import pytest
import soundfile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cdasr.speech.audio import read_audio
from cdasr.speech.manifest import read_manifest, read_row, write_manifest

FUZZ = settings(max_examples=120, deadline=None, derandomize=True,
                suppress_health_check=[HealthCheck.function_scoped_fixture])
SEEDS = {"a.csv": 'ID,duration,wav,text,offset,channel\na,0.05,a.wav,"yes, please",,0\nb,,a.wav,"a ""b""",0.02,\n',
         "a.tsv": 'client_id\tpath\tsentence\nc\ta.wav\t"Seven, said he\nc\tb.wav\tone\n',
         "a.jsonl": '{"audio_filepath": "a.wav", "offset": 0.01, "duration": 0.02, "text": "one"}\n{"wav": "b.wav", '
                    '"text": "two", "id": 5}\n'}
TABLES = {"wav.scp": "r a.wav\ns b.wav\n", "text": "u one\nv two\n", "segments": "u r 0 0.03\nv s 0.01 -1\n",
          "utt2spk": "u me\nv you\n", "reco2file_and_channel": "r r A\ns s A\n"}
PIECES = st.one_of(st.binary(max_size=4), st.sampled_from(
    [piece.encode() for piece in ('"', ",", "\t", "\n", "\r", "\r\n", "\0", "\ufeff", " ", "-1", "nan", "1e999", "|",
                                  "A", "a.wav", "../", "{", "}", "[", "null", "\\ud800", "\u2028", "9" * 5000)]))
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), min_size=1, max_size=4)


def mutate(text, edits):
    """Bytes of `text` with some stretches replaced: (place as a share, bytes that are dropped, what is put there)."""
    data = text.encode()
    for place, dropped, piece in edits:
        start = round(place * len(data))
        data = data[:start] + piece + data[start + dropped:]
    return data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, [0.1] * 800, 16_000)
    return folder


def rows_or_value_error(path):
    try:
        rows = read_manifest(path)
    except ValueError as error:
        assert str(path) in str(error) and len(str(error).splitlines()) <= 11
        return
    assert rows and len({row["ID"] for row in rows}) == len(rows)
    for row in rows:
        assert all(isinstance(value, str) for value in row.values()) and row["text"] and float(row["duration"]) > 0
        assert len(read_row(row, 8000))


@pytest.mark.parametrize("name", SEEDS)
@FUZZ
@given(edits=EDITS)
def test_mutated_files(folder, name, edits):
    path = folder / name
    path.write_bytes(mutate(SEEDS[name], edits))
    rows_or_value_error(path)


@FUZZ
@given(table=st.sampled_from(sorted(TABLES)), edits=EDITS)
def test_mutated_kaldi_tables(folder, table, edits):
    for name, text in TABLES.items():
        (folder / name).write_bytes(mutate(text, edits) if name == table else text.encode())
    rows_or_value_error(folder)


@FUZZ
@given(name=st.sampled_from(("x.csv", "x.tsv", "x.jsonl", "x.txt")), data=st.binary(max_size=200))
def test_arbitrary_bytes(folder, name, data):
    (folder / name).write_bytes(data)
    rows_or_value_error(folder / name)


SINGLE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = SINGLE | st.lists(SINGLE, max_size=2) | st.dictionaries(st.text(max_size=3), SINGLE, max_size=2)


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(("id", "wav", "text", "duration", "offset", "channel", "speaker", "x")),
                               VALUES))
def test_any_value_in_json(folder, changes):
    path = folder / "values.jsonl"
    path.write_text(json.dumps({"id": "a", "wav": "a.wav", "text": "one", **changes}))
    rows_or_value_error(path)


@FUZZ
@given(text=st.text(), other=st.text())
@example('he said "no", then\tleft', " ,;'\"")
@example("\u2028\u0085 \x1c", "\ufeff")
def test_what_is_written_is_read_again(folder, text, other):
    path, row = folder / "written.csv", {"ID": "a", "duration": "0.0500", "wav": str(folder / "a.wav"), "text": text,
                                         "noise": other}
    try:
        write_manifest(path, [row, {**row, "ID": "b"}])
    except ValueError:
        assert any(unicodedata.category(char) in ("Cc", "Cs") for char in text + other)
        return
    first, second = read_manifest(path, empty_text=True)
    assert first == {**row, "text": " ".join(text.split()), "spk_id": ""} and second == {**first, "ID": "b"}


@FUZZ
@given(edits=EDITS, suffix=st.sampled_from(("wav", "flac")))
def test_mutated_audio(folder, edits, suffix):
    whole = folder / f"whole.{suffix}"
    if not whole.is_file():
        soundfile.write(whole, [[0.1, 0.2]] * 800, 16_000)
    data = whole.read_bytes()
    for place, dropped, piece in edits:
        start = round(place * place * len(data))  # mostly in the header
        data = data[:start] + piece + data[start + dropped:]
    path = folder / f"mutated.{suffix}"
    path.write_bytes(data)
    try:
        wave, rate = read_audio(path)
    except ValueError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert len(wave) and rate > 0 and wave.ndim == 1
