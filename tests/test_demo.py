"""The demo runs on any package and writes what it says."""

import re

import soundfile

from cdasr.cli import main


def test_demo_prints_and_writes(package_dir, tmp_path, capsys):
    from cdasr.demo import SCENES, demo

    demo(tmp_path, model=str(package_dir), device="cpu")
    shown = capsys.readouterr().out
    assert all(text in shown for text, *_ in SCENES)
    for system in ("none", "enhanced", "oa", "fused", "card", "cascade", "parallel", "alternating", "nested"):
        assert re.search(rf"^{system} .* \d+ of 17$", shown, re.MULTILINE)
    for number in range(1, len(SCENES) + 1):
        lengths = {soundfile.info(tmp_path / f"{number}.{name}.wav").frames for name in ("clean", "noisy", "enhanced")}
        assert len(lengths) == 1
    assert (tmp_path / "spectrograms.png").stat().st_size > 10_000


def test_bundled_package_is_the_default_of_the_demo(tmp_path, capsys):
    assert main(["demo", "--output-dir", str(tmp_path)]) == 0
    assert "SI-SDR" in capsys.readouterr().out
