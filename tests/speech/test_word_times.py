"""Words lie where they are spoken: against known boundaries, for peaks of CTC and for boundaries of a decoder."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cdasr import Pipeline
from cdasr.classifiers.hypothesis import Word
from cdasr.classifiers.logits import CTCLogits, TokenLogits
from cdasr.speech.word_times import SHORTEST, sounding, tidy

ROOT, RATE = Path(__file__).parents[2], 16_000


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("word_times_tool", ROOT / "tools" / "word_times.py")
    module = sys.modules["word_times_tool"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits():
    return Pipeline.from_pretrained("digits", device="cpu")


@pytest.mark.parametrize("strategy, pauses", [("none", (0.02, 0.3)), ("none", (0.0, 0.0)), ("parallel", (0.02, 0.3))])
def test_words_are_within_60_ms_of_known_boundaries(tool, digits, strategy, pauses):
    strings = [tool.joined(number, tool.synthetic, pauses, RATE) for number in range(10 if strategy == "none" else 4)]
    found, right = tool.errors(digits, strings, strategy)
    starts, ends = 1000 * np.median(np.abs(found), axis=0)
    print(f"{strategy}, pauses {pauses}: {right} strings, {len(found)} words, start {starts:.0f} ms, end {ends:.0f} ms")
    assert len(found) >= 10 and starts <= 60 and ends <= 60


def bursts(*stretches, seconds=3.0, level=0.1):
    """Noise in each stretch (start, end) in s, and 60 dB less elsewhere."""
    rng, time = np.random.default_rng(0), np.arange(int(seconds * RATE)) / RATE
    loud = np.any([(start <= time) & (time < end) for start, end in stretches], axis=0)
    return torch.from_numpy((level * np.where(loud, 1.0, 1e-3) * rng.standard_normal(len(time))).astype(np.float32))


def times(words):
    return [(pytest.approx(word.start, abs=0.011), pytest.approx(word.end, abs=0.011)) for word in words]


def test_peaks_grow_to_the_pauses_around_them():
    wave = bursts((0.3, 0.8), (1.2, 1.4), (1.5, 1.7), (2.2, 2.6))
    peaks = [Word("word", 0.5, 0.52, 1.0), Word("letters", 1.25, 1.6, 0.5), Word("late", 2.16, 2.18, 0.5)]
    found = sounding(peaks, wave, RATE, peaks=True)
    assert times(found) == [(0.3, 0.8), (1.2, 1.7), (2.2, 2.6)], "a closure is bridged; a peak may lie beside its word"
    assert [(word.word, word.confidence) for word in found] == [(word.word, word.confidence) for word in peaks]
    closure = sounding([Word("six", 1.25, 1.27, 1.0)], wave, RATE, peaks=True)
    assert times(closure) == [(1.2, 1.7)]
    assert times(sounding([Word("seven", 1.22, 1.24, 1.0), Word("ten", 1.6, 1.62, 1.0)], wave, RATE, True)) == [
        (1.2, 1.4), (1.5, 1.7)], "not across the border of the next word"


def test_words_of_letters_begin_before_the_first_and_end_behind_the_last(recogniser_dir):
    from cdasr.classifiers.ctc import CTCRecogniser

    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    ids, wave = recogniser.processor.tokenizer.get_vocab(), bursts((0.4, 0.8), (1.1, 1.6), (1.6, 1.9), seconds=2.5)
    wave[int(1.58 * RATE):int(1.62 * RATE)] *= 0.2
    frames = int(recogniser.frame_lengths(torch.tensor(len(wave))))
    values = torch.full((1, frames, len(ids)), -8.0)
    values[..., recogniser.blank] = 4.0
    for token, seconds in (("O", 0.46), ("N", 0.6), ("E", 0.7), ("|", 0.9), ("T", 1.2), ("W", 1.3), ("O", 1.44),
                           ("|", 1.6), ("O", 1.66), ("N", 1.7)):
        values[0, round(seconds / 0.02), ids[token]] = 9.0
    logits = recogniser.kind(values, torch.tensor([frames]), None, recogniser)
    found = sounding(logits.words()[0], wave, RATE, logits.word_peaks)
    assert [word.word for word in found] == ["one", "two", "on"]
    assert times(found)[:1] == [(0.4, 0.8)] and times(found)[1][0] == 1.1 and times(found)[2][1] == 1.9
    assert 1.57 <= found[1].end <= found[2].start <= 1.63


def test_words_that_run_together_part_where_it_is_quietest():
    wave = bursts((0.3, 1.5))
    wave[int(0.88 * RATE):int(0.92 * RATE)] *= 0.3
    found = sounding([Word("one", 0.5, 0.52, 1.0), Word("nine", 1.0, 1.02, 1.0)], wave, RATE, peaks=True)
    assert times(found)[0][0] == 0.3 and 0.87 <= found[0].end <= found[1].start <= 0.93 and times(found)[1][1] == 1.5


def test_the_words_of_a_decoder_lose_their_pauses_and_keep_their_order():
    wave = bursts((0.3, 0.8), (1.2, 1.7), (2.2, 2.6))
    heard = [Word("a", 0.0, 0.86, 1.0), Word("b", 0.86, 1.76, 1.0), Word("c", 1.76, 2.9, 1.0)]
    assert times(sounding(heard, wave, RATE, peaks=False)) == [(0.3, 0.8), (1.2, 1.7), (2.2, 2.6)]
    heard[1:] = [Word("b", 1.12, 1.76, 1.0), Word("c", 1.66, 2.9, 1.0)]  # both boundaries a little off
    assert times(sounding(heard, wave, RATE, peaks=False)) == [(0.3, 0.8), (1.2, 1.7), (2.2, 2.6)]
    assert CTCLogits.word_peaks and not TokenLogits.word_peaks


@pytest.mark.parametrize("peaks", [True, False])
@pytest.mark.parametrize("wave", [torch.zeros(16_000), torch.zeros(100), 0.1 * torch.ones(8000), bursts((0.0, 3.0))],
                         ids=["silent", "short", "constant", "loud"])
def test_times_are_sane_whatever_the_sound_and_the_words(wave, peaks):
    rng, duration = np.random.default_rng(1), len(wave) / RATE
    for count in (0, 1, 3, 12):
        starts = np.sort(rng.uniform(-0.1, 1.2 * duration, count))
        words = [Word("w", start, start + max(length, 0.0), 0.5)
                 for start, length in zip(starts, rng.normal(0.0, 0.2, count))]
        for found in (sounding(words, wave, RATE, peaks), tidy(words, duration)):
            assert len(found) == count
            shortest = min(SHORTEST, duration / max(count, 1)) - 1e-9
            assert all(word.start >= 0.0 and word.end - word.start >= shortest for word in found)
            assert all(word.end <= duration + 1e-9 for word in found)
            assert all(one.end <= other.start + 1e-9 for one, other in zip(found, found[1:]))


def test_the_best_path_is_the_forced_alignment_of_its_transcript():
    from torchaudio.functional import forced_align

    scores = torch.randn(1, 60, 6, generator=torch.Generator().manual_seed(0)).mul(3).log_softmax(dim=-1)
    best = scores.argmax(dim=-1)
    labels = torch.tensor([[one for one, before in zip(best[0].tolist(), [0, *best[0].tolist()])
                            if one not in (0, before)]])
    aligned, _ = forced_align(scores, labels, blank=0)
    assert torch.equal(aligned.long(), best)


def test_words_of_whisper_last_and_lie_within_the_recording(tmp_path):
    from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
    from tests.classifiers.whisper import make_whisper

    recogniser = WhisperDecoderRecogniser.from_pretrained(make_whisper(tmp_path), fallback=False)
    waves = torch.stack([bursts((0.2, 0.6), (0.9, 1.5), seconds=1.8, level=level) for level in (0.05, 0.1, 0.2)])
    logits = recogniser(waves, torch.full((3,), waves.shape[1]))
    for heard, wave in zip(logits.words(), waves):
        found = sounding(heard, wave, RATE, logits.word_peaks)
        assert [word.word for word in found] == [word.word for word in heard] and heard
        assert all(word.end - word.start >= SHORTEST - 1e-6 for word in found)
        assert all(one.end <= other.start + 1e-6 for one, other in zip(found, found[1:]))
        assert found[0].start >= 0.0 and found[-1].end <= 1.8
