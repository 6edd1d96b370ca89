"""Each output has a file of its own; one run in a folder at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cdasr.runtime import outputs
from cdasr.runtime.lock import locked
from cdasr.runtime.outputs import check_folder, check_outputs, output_names


def names(*files):
    found = output_names([Path(file) for file in files], Path("out"), ".e.wav")
    return [str(found[Path(file)]) for file in files]


def test_outputs_have_the_names_of_their_files():
    assert names("a.wav", "deep/b.flac") == ["out/a.e.wav", "out/b.e.wav"]
    assert names("a.wav", "a.wav") == ["out/a.e.wav"] * 2
    assert names("a.wav", "./a.wav") == ["out/a.e.wav"] * 2


def test_files_of_one_name_keep_what_tells_them_apart():
    assert names("p/utt.wav", "q/utt.wav", "p/other.wav") == ["out/p/utt.e.wav", "out/q/utt.e.wav", "out/other.e.wav"]
    assert names("s.wav", "s.flac") == ["out/s.wav.e.wav", "out/s.flac.e.wav"]
    assert names("x/p/s.wav", "x/p/s.flac", "x/q/s.wav") == ["out/p/s.wav.e.wav", "out/p/s.flac.e.wav",
                                                             "out/q/s.wav.e.wav"]
    assert names("p/utt.wav", "p/deep/utt.wav") == ["out/utt.e.wav", "out/deep/utt.e.wav"]
    assert len(set(map(str.casefold, names("s.wav", "S.flac")))) == 2
    assert names("p/s.wav", "q/S.wav") == ["out/p/s.e.wav", "out/q/S.e.wav"]
    with pytest.raises(ValueError, match=r"both be written to out/s.wav.e.wav; rename"):
        names("s.wav", "s.flac", "s.wav.ogg")


def test_no_output_replaces_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(".", "here")
    with pytest.raises(ValueError, match="a.wav: what is made of it would replace the input a.e.wav"):
        output_names([Path("a.wav"), Path("a.e.wav")], Path("here"), ".e.wav")


@pytest.mark.parametrize("pair", [("a", "A"), ("é", "e\u0301")])
def test_names_that_the_file_system_takes_for_one(tmp_path, monkeypatch, pair):
    made = [(tmp_path / name, name) for name in pair]
    check_outputs(made)
    monkeypatch.setattr(outputs, "ignores_case", lambda folder: True)
    with pytest.raises(ValueError, match=f"{pair[0]} and {pair[1]} would both be written"):
        check_outputs(made)


def test_a_folder_that_cannot_be_written_to(tmp_path, monkeypatch):
    check_folder(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ValueError, match="cannot be written to; choose another"):
        check_folder(tmp_path / "a" / "b")


def test_the_second_run_in_a_folder_is_refused(tmp_path):
    with locked(tmp_path / "out"):
        with pytest.raises(ValueError, match=f"{tmp_path / 'out'}: another run is writing there"), \
                locked(tmp_path / "out"):
            pass
        with locked(tmp_path / "other"):
            pass
        code = ("import sys\nfrom cdasr.runtime.lock import locked\n"
                "try:\n    locked(sys.argv[1]).__enter__()\nexcept ValueError as error:\n    print(error)")
        shown = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True)
        assert "another run is writing there" in shown.stdout
    with locked(tmp_path / "out"):
        pass


def test_a_lock_ends_with_its_process(tmp_path):
    code = ("import os, signal, sys\nfrom cdasr.runtime.lock import locked\n"
            "with locked(sys.argv[1]):\n    os.kill(os.getpid(), signal.SIGKILL)")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == -9
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path):
        pass
