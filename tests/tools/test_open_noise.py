"""Noise recordings out of git repositories: which are taken, how they are cut, and what is said of them."""

import subprocess

import numpy as np
import pytest
import soundfile

from tools import open_noise
from tools.open_noise import CITY, SOURCES, VOICES, Source, main


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository `owner/sounds` with recordings that are to be taken, and others; SOURCES has it alone."""
    folder = tmp_path / "repositories" / "owner" / "sounds"
    (folder / "city").mkdir(parents=True)
    noise = 0.1 * np.random.default_rng(0).standard_normal(8000 * 30)
    for name, wave in (("siren", noise), ("short", noise[:800]), ("silent", 0 * noise), ("voice", noise)):
        soundfile.write(folder / "city" / f"{name}.wav", wave, 8000)
    (folder / "city" / "readme.md").write_text("CC0")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "sounds"],
                    ["config", "uploadpack.allowAnySHA1InWant", "true"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(open_noise, "SOURCES", {"town": Source(
        "owner/sounds", commit, "CC0 (readme.md)", ("city/*",), without="voice")})
    return f"file://{tmp_path / 'repositories'}/"


def test_recordings_are_cut_and_named_with_their_licence(repository, tmp_path, capsys):
    output = tmp_path / "noise"
    arguments = [str(output), "--sources", "town", "--clone-from", repository]
    assert main(arguments) == 0
    assert sorted(path.name for path in (output / "town").iterdir()) == ["city__siren_00.flac", "city__siren_01.flac"]
    assert [soundfile.info(path).duration for path in (output / "town").iterdir()] == pytest.approx([15.0, 15.0])
    assert soundfile.info(output / "town" / "city__siren_00.flac").samplerate == 16_000
    assert "| town | github.com/owner/sounds, commit" in (output / "ATTRIBUTION.md").read_text()
    capsys.readouterr()
    assert main(arguments) == 0 and "is there" in capsys.readouterr().out


def test_what_cannot_be_had_is_one_line(repository, tmp_path, capsys, monkeypatch):
    assert main([str(tmp_path / "a"), "--sources", "sea"]) == 2
    assert "no source is called sea" in capsys.readouterr().err
    assert main([str(tmp_path / "a"), "--sources", "town", "--clone-from", f"file://{tmp_path}/none/"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "a" / "town").exists()
    monkeypatch.setitem(open_noise.SOURCES, "town", Source("owner/sounds", "HEAD", "CC0", ("sea/*",)))
    assert main([str(tmp_path / "a"), "--sources", "town", "--clone-from", repository]) == 2
    assert "none of its recordings is there" in capsys.readouterr().err and not (tmp_path / "a" / "town").exists()


def test_of_a_large_library_the_kinds_that_are_wanted_are_taken_and_a_share_of_the_rest():
    library = SOURCES["berklee"]
    assert library.takes("berklee/Siren_1.mp3") and not library.takes("berklee/Baby_siren.mp3")
    assert not library.takes("casio/Siren_1.mp3") and not library.takes("berklee/README.md")
    others = [library.takes(f"berklee/Tone{number}.mp3") for number in range(400)]
    assert 60 < sum(others) < 140
    assert CITY and VOICES and all(len(source.commit) == 40 for source in SOURCES.values())
