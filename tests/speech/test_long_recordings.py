"""Long recordings: cut at pauses or with an overlap, words neither lost nor repeated, in pieces as from memory."""

import importlib.util
import json
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from cdasr import Pipeline
from cdasr.classifiers.hypothesis import Hypothesis, Word
from cdasr.cli import main
from cdasr.speech import inputs
from cdasr.speech.audio import read_audio, resample, write_audio
from cdasr.speech.audio_blocks import fit_blocks, read_blocks, resample_blocks, spooled, survey, write_blocks
from cdasr.speech.joining import Part, join, seam
from cdasr.speech.segments import OVERLAP, segments, transcribe_recordings
from cdasr.speech.transcript import Transcript
from cdasr.speech.words import word_errors

ROOT, RATE = Path(__file__).parents[2], 16_000


@pytest.fixture(scope="module")
def digits():
    return Pipeline.from_pretrained("digits", device="cpu")


@pytest.fixture(scope="module")
def talk():
    """talk(words, pauses) -> digits (samples,) that one talker says, and where each begins and ends in s."""
    spec = importlib.util.spec_from_file_location("word_times_tool", ROOT / "tools" / "word_times.py")
    tool = sys.modules["word_times_tool"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def make(words, pauses):
        rng, said = np.random.default_rng(words), {}

        def draw(number, digit, rng, rate):
            if digit not in said:
                said[digit] = tool.synthetic(0, digit, rng, rate)
            return said[digit]
        parts, known, at = [], [], 0.0
        while len(known) < words:
            wave, boundaries = tool.joined(int(rng.integers(1000)), draw, pauses, RATE)
            first, last = (round(boundaries[place][edge] * RATE) for place, edge in ((0, 1), (-1, 2)))
            wave = wave[first:last + round(pauses[0] * RATE)]
            known += [(word, at + start - first / RATE, at + end - first / RATE) for word, start, end in boundaries]
            parts, at = [*parts, wave], at + len(wave) / RATE
        return np.concatenate(parts), known
    return make


def inside(cut, known):
    """The words that a cut (s) is inside of."""
    return [word for word, start, end in known if start + 0.02 < cut < end - 0.02]


def test_cuts_are_never_inside_a_word_where_there_are_pauses(talk):
    wave, known = talk(220, (0.2, 0.5))
    parts = list(segments([torch.from_numpy(wave)], RATE))
    assert len(parts) >= 6 and parts[-1].start + len(parts[-1].wave) == len(wave)
    for one, other in zip(parts, parts[1:]):
        assert one.start + len(one.wave) == other.start and not inside(other.start / RATE, known)
        assert 4.0 < len(one.wave) / RATE <= 20.0


def test_words_that_are_cut_are_whole_in_the_next_segment(talk):
    wave, known = talk(180, (0.0, 0.0))
    parts = list(segments([torch.from_numpy(wave)], RATE))
    cuts = [(one.start + len(one.wave)) / RATE for one in parts[:-1]]
    assert len(parts) >= 5
    for cut, other in zip(cuts, parts[1:]):
        assert not inside(cut, known) or cut - other.start / RATE == pytest.approx(OVERLAP)


def test_segments_do_not_depend_on_the_blocks(talk):
    for pauses in ((0.2, 0.5), (0.0, 0.0)):
        wave = torch.from_numpy(talk(90, pauses)[0])
        whole, blocks = (list(segments(given, RATE)) for given in ([wave], wave.split(7919)))
        assert [part.start for part in whole] == [part.start for part in blocks]
        assert all(torch.equal(one.wave, other.wave) for one, other in zip(whole, blocks))


@pytest.mark.parametrize("seconds", [19.9, 20.0, 20.3, 21.0, 40.02])
def test_no_segment_is_too_short_to_be_heard(seconds):
    wave = torch.randn(int(seconds * 1000), generator=torch.Generator().manual_seed(0))
    wave[-500:] = 0.0
    parts = list(segments([wave], 1000))
    assert min(len(part.wave) for part in parts) >= 1000 and parts[-1].start + len(parts[-1].wave) == len(wave)


@pytest.mark.parametrize("pauses, overlaps", [((0.2, 0.5), False), ((0.2, 0.5), True), ((0.0, 0.0), True)])
def test_words_at_cuts_are_neither_lost_nor_repeated(digits, talk, monkeypatch, pauses, overlaps):
    if overlaps:
        monkeypatch.setattr("cdasr.speech.segments.pause", lambda wave, rate: None)
    wave, known = talk(110, pauses)
    wave = torch.from_numpy(wave)
    found, cut = transcribe_recordings(digits, [wave], "none")[0], list(segments([wave], RATE))
    said, words = [word for word, *_ in known], [word.word for word in found.words]
    wrong, _ = word_errors(" ".join(said), found.text)
    print(f"pauses {pauses}: {len(said)} words in {len(wave) / RATE:.0f} s, {len(cut)} segments, {wrong} errors")
    assert found.text.split() == words and (wrong == 0 or pauses == (0.0, 0.0))
    for one, other in zip(cut, cut[1:]):
        assert (one.start + len(one.wave) > other.start) == overlaps
        near = [[word for word, start, end in words if -1.0 < (start + end) / 2 - other.start / RATE < OVERLAP + 1.0]
                for words in (known, [(word.word, word.start, word.end) for word in found.words])]
        assert abs(len(near[0]) - len(near[1])) <= 1, near


def words_of(text, start=0.0, step=0.5, confidence=0.9):
    return [Word(word, start + step * place, start + step * place + 0.4, confidence)
            for place, word in enumerate(text.split())]


@pytest.mark.parametrize("left, right, expected", [
    ("a b c d e f", "c d e f g h", "a b c d e f g h"),  # all in common
    ("a b c d e x", "y d e f g h", "a b c d e f g h"),  # cut off at both ends
    ("a a a a a a", "a a a a a a", "a a a a a a a a"),  # the same word again and again: the times tell
    ("a b c d E. f", "c, d e f g h", "a b c d e f g h"),  # written in another way
    ("a b c x y z", "u v w f g h", "a b c x w f g h"),  # nothing in common: by the times
    ("a b", "e f g h", "a b e f g h"), ("a b c d", "", "a b c d"), ("", "c d", "c d")])
def test_words_of_two_segments_count_once(left, right, expected):
    left, right = words_of(left), words_of(right, 1.0)
    kept, first = seam(left, right, 1.0, 3.0)
    joined = [*left[:kept], *right[first:]]
    assert " ".join(word.word.strip(".,").lower() for word in joined) == expected
    assert all(one.start < other.start for one, other in zip(joined, joined[1:]))


@pytest.mark.parametrize("left, right, expected", [
    ((1.7, 2.2), (1.9, 2.3), "sure"), ((1.6, 2.1), (1.8, 2.3), "sure"), ((1.9, 2.4), (1.6, 2.1), "sure")])
def test_a_word_in_the_middle_that_is_heard_in_two_ways_counts_once(left, right, expected):
    one, other = [Word("sure", *left, 0.9)], [Word("unsure", *right, 0.4)]
    kept, first = seam(one, other, 1.0, 3.0)
    assert [word.word for word in [*one[:kept], *other[first:]]] == [expected]


def part(start, text, words, wave=None):
    return Part(start, Transcript(text, "none", 4.0, {"classifier": 1}, words=words, wave=wave,
                                  text_enhanced=None if wave is None else text, words_enhanced=words))


def test_segments_are_joined_to_one_transcript():
    first, second = words_of("a b c d e f g h"), words_of("g h i j k l")
    whole = torch.randn(7000)
    for keep in (None, []):
        found = join([part(0, "a b c d e f g h", first, whole[:4000]), part(3000, "g h i j k l", second, whole[3000:])],
                     1000, None if keep is None else keep.append)
        assert found.text == found.text_enhanced == "a b c d e f g h i j k l" and found.duration == 7.0
        assert [word.word for word in found.words] == found.text.split() and found.nfe == {"classifier": 2}
        assert found.words[-1].start == pytest.approx(5.5)
        wave = found.wave if keep is None else torch.cat(keep)
        torch.testing.assert_close(wave, whole)
        assert keep is None or found.wave is None


@pytest.mark.parametrize("seed", range(3))
def test_the_n_best_of_a_recording_are_the_best_sums_of_its_segments(seed):
    rng, parts = np.random.default_rng(seed), []
    for start in (0, 3000, 7000, 10_000):  # of 4 s: two overlaps of 1 s, and a cut between them
        texts = dict.fromkeys(" ".join(rng.choice(["a", "b"], size=8 + rng.integers(2))) for _ in range(4))
        scores = sorted((-3.0 * rng.random(len(texts))).round(2), reverse=True)
        ranked = [Hypothesis(text, score, 2 * score, -1.0, words_of(text, step=0.45)) for text, score in zip(
            texts, scores)]
        parts.append(Part(start, Transcript(ranked[0].text, "none", 4.0, {}, words=ranked[0].words, nbest=ranked)))
    known = {}
    for several in product(*(part.transcript.nbest for part in parts)):
        text = join([Part(part.start, Transcript(one.text, "none", 4.0, {}, words=one.words))
                     for part, one in zip(parts, several)], 1000).text
        known[text] = max(known.get(text, -np.inf), sum(one.score for one in several))
    whole = join(parts, 1000, nbest=20)
    assert [one.score for one in whole.nbest] == pytest.approx(sorted(known.values(), reverse=True)[:20])
    assert all(known[one.text] == pytest.approx(one.score) for one in whole.nbest)
    assert whole.nbest[0].text == whole.text and len({one.text for one in whole.nbest}) == 20
    assert whole.nbest[3].acoustic == pytest.approx(2 * whole.nbest[3].score) and whole.nbest[3].language == -4.0
    assert [one.text for one in join(parts, 1000, nbest=2).nbest] == [one.text for one in whole.nbest[:2]]
    assert not join(parts, 1000).nbest


def test_a_language_without_spaces_gets_none():
    left, right = words_of("\u4f60 \u597d \u4e16 \u754c", 2.0), words_of("\u4e16 \u754c \u597d")
    found = join([part(0, "\u4f60\u597d\u4e16\u754c", left), part(3000, "\u4e16\u754c\u597d", right)], 1000)
    assert found.text == "\u4f60\u597d\u4e16\u754c \u597d"


# -- in pieces ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("cdasr.speech.audio_blocks.SECONDS", 0.7)


@pytest.mark.parametrize("options", [{}, {"channel": 1}, {"start": 0.3, "stop": 2.1}])
def test_blocks_are_what_is_read_at_once(tmp_path, small_blocks, options):
    rng = np.random.default_rng(0)
    waves = {"mono": 0.1 * rng.standard_normal((60_000, 1)), "stereo": 0.1 * rng.standard_normal((60_000, 2))}
    waves["opposite"] = waves["mono"] * np.array([1.0, -0.9])
    for name, wave in waves.items():
        if options.get("channel", 0) >= wave.shape[1]:
            continue
        for form in ("wav", "flac", "ogg"):
            soundfile.write(path := tmp_path / f"{name}.{form}", wave, 22_050)
            seen = survey(path, **options)
            blocks = list(read_blocks(path, RATE, **{**options, "channel": seen.channel}))
            known, _ = read_audio(path, RATE, **options)
            assert len(blocks) > 2
            np.testing.assert_array_equal(np.concatenate(blocks), known)
            plain, _ = read_audio(path, **options)
            assert seen.level == pytest.approx(np.sqrt(np.mean(np.square(plain, dtype=np.float64))), rel=1e-5)


@pytest.mark.parametrize("fault", ["nan", "loud", "truncated", "empty", "channel", "stretch", "text"])
def test_a_survey_finds_the_faults_that_reading_finds(tmp_path, small_blocks, fault):
    path, wave, options = tmp_path / "a.wav", np.zeros(60_000, np.float32), {}
    if fault in ("nan", "loud"):
        wave[50_000] = np.nan if fault == "nan" else 1e12
    soundfile.write(path, wave[:0] if fault == "empty" else wave, RATE, subtype="FLOAT")
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:100_000])
    if fault == "text":
        path.write_text("no audio")
    options = {"channel": {"channel": 3}, "stretch": {"start": 9.0}}.get(fault, {})
    with pytest.raises(ValueError) as known:
        read_audio(path, **options)
    with pytest.raises(ValueError) as found:
        survey(path, **options)
    assert str(found.value) == str(known.value)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize("level", [0.1, 0.9])
def test_what_is_written_in_blocks_is_what_is_written_at_once(tmp_path, subtype, level):
    wave = level * np.random.default_rng(0).standard_normal(50_000).astype(np.float32)
    with spooled(tmp_path / "new") as spool:
        for start in range(0, len(wave), 7777):
            spool.add(wave[start:start + 7777])
        assert not list((tmp_path / "new").iterdir()) and spool.samples == len(wave)
        gain = write_blocks(tmp_path / "a.wav", lambda: fit_blocks(resample_blocks(spool, RATE, 22_050), 69_000),
                            22_050, subtype)
    known = np.pad(resample(wave, RATE, 22_050), (0, 69_000))[:69_000]
    assert gain == write_audio(tmp_path / "b.wav", known, 22_050, subtype) and (gain < 1.0) == (
        subtype != "FLOAT" and level > 0.5)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.wav")[0], soundfile.read(tmp_path / "b.wav")[0])
    assert soundfile.info(tmp_path / "a.wav").subtype == subtype


def test_a_full_disk_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr("cdasr.speech.audio_blocks.os.path.getsize", lambda path: 10)
    with pytest.raises(OSError, match="a.wav"):
        write_blocks(tmp_path / "a.wav", lambda: [np.zeros(1000, np.float32)], RATE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["none", "enhanced"])
@pytest.mark.parametrize("level", [1.0, 1e-4])
def test_a_long_recording_in_pieces_is_that_of_memory(package_dir, tone, tmp_path, monkeypatch, capsys, strategy,
                                                       level):
    wave = level * tone(47.0, rate=8000)
    wave[int(17.3 * 8000):int(17.8 * 8000)] *= 1e-3
    soundfile.write(path := tmp_path / "a.wav", np.stack([wave, 0.5 * wave], 1), 8000, subtype="FLOAT")
    heard, audio = [], []
    for name, longest in (("memory", 1000.0), ("pieces", 30.0)):
        monkeypatch.setattr(inputs, "LONG", longest)
        out = tmp_path / name
        assert main(["enhance-transcribe", str(path), "--model", str(package_dir), "--device", "cpu", "--strategy",
                     strategy, "--format", "json,wav,srt", "--output-dir", str(out)]) == 0
        heard.append({**json.loads((out / "a.json").read_text()), "rtf": 0, "srt": (out / "a.srt").read_text()})
        audio.append(soundfile.read(target)[0] if (target := out / "a.enhanced.wav").is_file() else None)
        assert {file.suffix for file in out.iterdir()} <= {".json", ".wav", ".srt"}
    capsys.readouterr()
    assert {**heard[0], "words": 0} == {**heard[1], "words": 0} and len(heard[0]["words"]) >= 3
    for one, other in zip(heard[0]["words"], heard[1]["words"]):
        assert one["word"] == other["word"] and one["start"] == pytest.approx(other["start"], abs=0.011)
    assert (audio[0] is None) == (audio[1] is None) == (strategy == "none")
    if audio[0] is not None:
        assert audio[0].shape == wave.shape
        np.testing.assert_allclose(audio[1], audio[0], atol=1e-4 * level)


def test_faults_of_long_recordings_are_told_and_leave_nothing(package_dir, tone, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inputs, "LONG", 1.0)
    waves = {name: tone(3.0) for name in "abc"}
    waves["b"][30_000] = np.nan
    for name, wave in waves.items():
        soundfile.write(tmp_path / f"{name}.wav", wave, RATE, subtype="FLOAT")
    out = tmp_path / "out"
    assert main(["enhance-transcribe", *(str(tmp_path / f"{name}.wav") for name in "abc"), "--model", str(package_dir),
                 "--device", "cpu", "--strategy", "enhanced", "--output-dir", str(out)]) == 2
    assert sorted(file.name for file in out.iterdir()) == ["a.enhanced.wav", "c.enhanced.wav"]
    assert "b.wav: the file holds NaN" in capsys.readouterr().err


def test_a_bar_shows_how_far_a_long_recording_is(package_dir, tone, tmp_path, monkeypatch, capsys):
    soundfile.write(path := tmp_path / "a.wav", tone(45.0), RATE)
    monkeypatch.setattr(inputs, "LONG", 1.0)
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", partial(bool, terminal))
        assert main(["enhance-transcribe", str(path), "--model", str(package_dir), "--device", "cpu", "--strategy",
                     "none"]) == 0
        shown = capsys.readouterr()
        assert shown.out.count("\n") == 1 and ("/45 s" in shown.err) == terminal
