"""Fixed noisy sets: bit-identical by the seed, resumable, never clipped."""

import errno
import json
import os

import numpy as np
import pytest
import soundfile

import cdasr.speech.simulate as module
from cdasr.cli import main
from cdasr.speech.manifest import read_manifest, write_manifest
from cdasr.speech.noise import NoiseSource, find_audio
from cdasr.speech.noise_families import rms
from cdasr.speech.rooms import RoomSource
from cdasr.speech.simulate import simulate, simulate_set


@pytest.fixture
def corpus(tmp_path, write_wav, tone):
    """A manifest of three clean utterances, one of them loud, and folders of noise and rooms."""
    rows = []
    for number, gain in enumerate((0.3, 1.0, 4.0)):
        wave = np.clip(gain * tone(0.4 + 0.1 * number, 300 + 100 * number), -1, 1)
        path = write_wav(f"clean/utt{number}.wav", wave)
        rows.append({"ID": f"utt{number}", "duration": f"{len(wave) / 16000:.3f}", "wav": path,
                     "text": "one two", "spk_id": "anna"})
    write_manifest(tmp_path / "clean.csv", rows)
    rng = np.random.default_rng(0)
    write_wav("noise/hiss.wav", 0.1 * rng.standard_normal(9000))
    knock, silence = 0.2 * rng.standard_normal(500), np.zeros(30_000)
    write_wav("noise/knock.wav", np.concatenate([silence, knock, silence]), 44_100)
    tail = 0.1 * rng.standard_normal(800) * np.geomspace(1, 1e-3, 800)
    write_wav("rir/hall.wav", np.concatenate([np.zeros(20), [0.8], tail]))
    return tmp_path


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")
            if path.name != "simulate.json"}  # which holds the time


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.*") if path.suffix in (".flac", ".wav")}


def test_the_number_of_processes_changes_nothing(corpus):
    source = NoiseSource(find_audio(corpus / "noise"), ["babble"], [corpus / "clean/utt0.wav"])
    rooms = RoomSource(find_audio(corpus / "rir"), simulated=2, cache_dir=corpus / "rooms")
    rows = read_manifest(corpus / "clean.csv")
    found = [simulate_set(rows, "noisy", source, rooms, 5, 3, corpus / name, processes)
             for name, processes in (("one", 1), ("three", 3))]
    assert [row["ID"] for row in found[0]] == [row["ID"] for row in found[1]] == [f"{r['ID']}_noisy" for r in rows]
    assert contents(corpus / "one") == contents(corpus / "three")
    with pytest.raises(ValueError, match="no such file|not found|cannot"):
        simulate_set([{**rows[0], "ID": "other", "wav": "gone.wav"}, *rows], "noisy", source, rooms, 5, 3,
                     corpus / "three", 2)
    assert len(simulate_set(rows, "noisy", source, rooms, 5, 3, corpus / "three", 2)) == len(rows)


def test_command_line_writes_the_set(corpus, capsys):
    out = corpus / "out"
    assert main(["simulate", "--manifest", str(corpus / "clean.csv"), "--noise", str(corpus / "noise"),
                 "--snr=-5,10", "--seed", "7", "--rir", str(corpus / "rir"), "--output-dir", str(out)]) == 0
    assert "manifest.csv" in capsys.readouterr().out
    rows = read_manifest(out / "manifest.csv")
    assert [row["ID"] for row in rows[:4]] == ["utt0_snr-5", "utt1_snr-5", "utt2_snr-5", "utt0_snr10"]
    for row in rows:
        noisy, rate = soundfile.read(row["wav"])
        clean, clean_rate = soundfile.read(row["clean_wav"])
        assert rate == clean_rate == 16_000
        assert len(noisy) == len(clean) == round(float(row["duration"]) * rate)
        assert np.abs(noisy).max() <= 0.991
        assert row["noise"] in ("hiss.wav", "knock.wav") and row["rir"] == "hall.wav" and row["seed"] == "7"
        assert row["condition"] == f"snr{row['snr']}"
        assert row["text"] == "one two" and row["spk_id"] == "anna"
    made = json.loads((out / "simulate.json").read_text())
    assert made["settings"]["snrs"] == [-5, 10] and "numpy" in made["versions"]


def test_written_snr_is_the_one_asked_for(corpus):
    for row in read_manifest(simulate(corpus / "clean.csv", corpus / "noise", [-5, 5], 3, corpus / "out")):
        noisy, clean = soundfile.read(row["wav"])[0], soundfile.read(row["clean_wav"])[0]
        assert 20 * np.log10(rms(clean) / rms(noisy - clean)) == pytest.approx(float(row["snr"]), abs=0.01)


def test_same_seed_gives_the_same_bytes_in_any_order(corpus):
    simulate(corpus / "clean.csv", corpus / "noise", [0, 5], 3, corpus / "one")
    simulate(corpus / "clean.csv", corpus / "noise", [5, 0], 3, corpus / "two")
    simulate(corpus / "clean.csv", corpus / "noise", [0, 5], 4, corpus / "other")
    one, two, other = (contents(corpus / name) for name in ("one", "two", "other"))
    rows = sorted(one.pop("manifest.csv").splitlines())
    assert rows == sorted(two.pop("manifest.csv").splitlines()) and one == two
    assert one["snr0/utt0.flac"] != other["snr0/utt0.flac"] != one["snr5/utt0.flac"]

    source = NoiseSource(files=find_audio(corpus / "noise"), warp=False)
    simulate_set(read_manifest(corpus / "clean.csv")[::-2], "snr0", source, None, 0, 3, corpus / "part")
    part = contents(corpus / "part")
    assert part["snr0/utt2.flac"] == one["snr0/utt2.flac"] and "snr0/utt1.flac" not in part


def test_second_run_writes_no_audio(corpus):
    arguments = (corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out")
    simulate(*arguments)
    before, files = times(corpus / "out"), contents(corpus / "out")
    simulate(*arguments)
    assert times(corpus / "out") == before and contents(corpus / "out") == files
    (corpus / "out/snr0/utt1.flac").unlink()
    simulate(*arguments)
    assert contents(corpus / "out") == files
    changed = {path.name for path, time in times(corpus / "out").items() if time != before[path]}
    assert "utt1.flac" in changed and "utt0.flac" not in changed


def test_interrupted_run_goes_on(corpus, monkeypatch):
    arguments = (corpus / "clean.csv", corpus / "noise", [0, 5], 3)
    simulate(*arguments, corpus / "whole")
    original, calls = module.degrade, []

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(module, "degrade", interrupted)
    with pytest.raises(KeyboardInterrupt):
        simulate(*arguments, corpus / "out")
    assert not (corpus / "out/manifest.csv").exists() and (corpus / "out/snr0/utt0.flac").exists()
    before = times(corpus / "out")
    simulate(*arguments, corpus / "out")
    assert len(calls) == 2 + 5  # all but the first utterance
    assert before.items() <= times(corpus / "out").items()
    assert contents(corpus / "out") == contents(corpus / "whole")


def test_changed_clean_audio_is_mixed_again(corpus, tone, write_wav):
    arguments = (corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out")
    simulate(*arguments)
    before = contents(corpus / "out")
    write_wav("clean/new.wav", 0.5 * tone(0.4, 1000)).replace(corpus / "clean/utt0.wav")
    simulate(*arguments)
    after = contents(corpus / "out")
    assert before["snr0/utt0.flac"] != after["snr0/utt0.flac"]
    assert before["snr0/utt1.flac"] == after["snr0/utt1.flac"]


@pytest.mark.parametrize("changed, hertz", [("clean/utt0.wav", 1000), ("noise/hiss.wav", 2000), ("rir/hall.wav", 50)])
def test_changed_sources_are_mixed_again_even_when_they_are_older(corpus, tone, write_wav, changed, hertz, capsys):
    arguments = (corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out", corpus / "rir")
    simulate(*arguments)
    before = contents(corpus / "out")
    write_wav("new.wav", 0.1 * tone(0.4, hertz)).replace(corpus / changed)
    os.utime(corpus / changed, ns=(10**18, 10**18))
    capsys.readouterr()
    simulate(*arguments)
    after, one = contents(corpus / "out"), changed.startswith("clean")
    assert f"{1 if one else 3} mixtures are missing or their audio has changed" in capsys.readouterr().err
    assert {name for name in after if name.endswith(".flac") and after[name] != before.get(name)} >= (
        {"snr0/utt0.flac"} if one else {f"snr0/{ID}.flac" for ID in ("utt0", "utt1", "utt2")
                                        if changed.startswith("rir")})
    assert (before["clean/utt0.wav"] != after["clean/utt0.wav"]) == one
    simulate(corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "new", corpus / "rir")
    assert contents(corpus / "new") == after, "as if made now"


def test_outputs_that_would_replace_each_other_are_refused_before_any_work(corpus, monkeypatch):
    from cdasr.runtime import outputs

    rows = read_manifest(corpus / "clean.csv")
    for IDs, ignores_case, refused in ((("a", "a.clean"), False, True), (("a", "A"), False, False),
                                       (("a", "A"), True, True)):
        monkeypatch.setattr(outputs, "ignores_case", lambda folder, ignores=ignores_case: ignores)
        write_manifest(corpus / "ids.csv", [{**row, "ID": ID} for row, ID in zip(rows, IDs)])
        arguments = (corpus / "ids.csv", corpus / "noise", [0], 3, corpus / "-".join((*IDs, str(ignores_case))))
        if refused:
            with pytest.raises(ValueError, match=f"'{IDs[0]}' and the ID '{IDs[1]}' would both be written to"):
                simulate(*arguments)
            assert not arguments[-1].exists()
        else:
            assert len(read_manifest(simulate(*arguments))) == 2


def test_two_runs_do_not_share_a_folder(corpus):
    from cdasr.runtime.lock import locked

    with locked(corpus / "out"), pytest.raises(ValueError, match="out: another run is writing there"):
        simulate(corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out")
    assert [path.name for path in (corpus / "out").iterdir()] == [".lock"]


def test_a_full_disk_leaves_nothing_half_written(corpus, monkeypatch):
    from cdasr.runtime import atomic

    arguments, replace, moved = (corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out"), os.replace, []

    def full(source, target):
        moved.append(target)
        if len(moved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(source))
        replace(source, target)
    monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(OSError, match=f"No space left on device.*{corpus / 'out'}"):
        simulate(*arguments)
    monkeypatch.setattr(atomic.os, "replace", replace)
    assert not [path for path in (corpus / "out").rglob("*") if "partial" in path.name]
    assert not (corpus / "out" / "manifest.csv").exists()
    simulate(*arguments)
    simulate(*arguments[:-1], corpus / "new")
    assert contents(corpus / "out") == contents(corpus / "new")


def test_a_damaged_log_is_named(corpus):
    arguments = (corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out")
    simulate(*arguments)
    (corpus / "out/snr0/condition.json").write_text("{")
    with pytest.raises(ValueError, match="condition.json: does not say how this set was made; delete"):
        simulate(*arguments)


def test_other_settings_do_not_mix_with_an_old_set(corpus):
    simulate(corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out")
    with pytest.raises(ValueError, match="other settings.*seed"):
        simulate(corpus / "clean.csv", corpus / "noise", [0], 4, corpus / "out")
    with pytest.raises(ValueError, match="other settings.*rooms"):
        simulate(corpus / "clean.csv", corpus / "noise", [0], 3, corpus / "out", rir=corpus / "rir")
    simulate(corpus / "clean.csv", corpus / "noise", [0, 10], 3, corpus / "out")  # one more SNR is fine


def test_conditions_without_noise(corpus):
    rows = read_manifest(corpus / "clean.csv")
    clean = simulate_set(rows, "clean", None, None, None, 1, corpus / "out")
    assert all(row["wav"] == row["clean_wav"] and row["noise"] == row["snr"] == "" for row in clean)
    assert (corpus / "out/clean/utt0.wav").read_bytes() == (corpus / "clean/utt0.wav").read_bytes()
    rooms = RoomSource(files=[corpus / "rir/hall.wav"])
    reverb = simulate_set(rows, "reverb", None, rooms, None, 1, corpus / "out")
    assert all(row["rir"] == "hall.wav" and row["condition"] == "reverb" for row in reverb)
    assert clean[0].keys() == reverb[0].keys()


def test_other_rates_are_resampled(corpus, write_wav, tone):
    rows = read_manifest(corpus / "clean.csv")[:1]
    rows[0]["wav"] = str(write_wav("clean/slow.wav", 0.3 * tone(0.4, 300, 8000), 8000))
    source = NoiseSource(files=find_audio(corpus / "noise"), warp=False)
    row, = simulate_set(rows, "snr0", source, None, 0, 1, corpus / "out")
    assert soundfile.info(row["wav"]).samplerate == soundfile.info(row["clean_wav"]).samplerate == 16_000


def test_unusable_input_is_named(corpus, write_wav, capsys):
    with pytest.raises(ValueError, match="SNRs must be"):
        simulate(corpus / "clean.csv", corpus / "noise", [], 3, corpus / "out")
    with pytest.raises(ValueError, match="SNRs must be"):
        simulate(corpus / "clean.csv", corpus / "noise", [float("nan")], 3, corpus / "out")
    with pytest.raises(ValueError, match="negative"):
        simulate(corpus / "clean.csv", corpus / "noise", [0], -1, corpus / "out")
    rows = read_manifest(corpus / "clean.csv")
    write_manifest(corpus / "odd.csv", [{**rows[0], "ID": "../utt0"}])
    with pytest.raises(ValueError, match="cannot be a file name"):
        simulate(corpus / "odd.csv", corpus / "noise", [0], 3, corpus / "out")
    write_wav("clean/utt1.wav", np.zeros(8000, np.float32))
    assert main(["simulate", "--manifest", str(corpus / "clean.csv"), "--noise", str(corpus / "noise"),
                 "--snr", "0", "--output-dir", str(corpus / "out2")]) == 2
    assert "utt1.wav: the speech is silent" in capsys.readouterr().err.splitlines()[-1]
