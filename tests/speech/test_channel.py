"""Effects of channels and codecs: each by what defines it; all keep length and alignment."""

import numpy as np
import pytest
from scipy import fft

from cdasr.speech import channel, codecs
from cdasr.speech.audio import resample
from cdasr.speech.channel import Channel, parse_effect
from cdasr.speech.noise_families import rms

ALL = ["level_-40", "clip_20", "lowpass_2000", "highpass_200", "resample_8k", "loss_10", "dropout_10", "telephone",
       "gsm", "mulaw", "alaw", "g721", "mp3_64k", "mp3_16k", "opus_24k", "opus_6k", "vorbis_0", "vorbis_10"]


@pytest.fixture(scope="module")
def speech():
    from cdasr.speech.synthesis import speak

    wave, rate = speak("nine seven two", "en-us")
    return 0.3 * resample(wave, rate, 16_000)


def sine(hertz, rate=16_000, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def delay(before, after):
    """Samples by which `after` is later, by the peak of the correlation."""
    size = fft.next_fast_len(2 * len(before))
    found = int(np.argmax(fft.irfft(fft.rfft(after, size) * np.conj(fft.rfft(before, size)), size)))
    return found if found < size // 2 else found - size


def gain_db(apply, hertz):
    middle = slice(4000, -4000)
    return 20 * np.log10(max(rms(apply(sine(hertz))[middle]), 1e-9) / rms(sine(hertz)[middle]))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_every_effect_keeps_length_and_alignment(speech, name, rate):
    wave = resample(speech, 16_000, rate)[:rate + 37]
    heard = Channel(name, rate)(wave, np.random.default_rng(0))
    assert heard.shape == wave.shape and heard.dtype == np.float32 and np.isfinite(heard).all()
    assert abs(delay(wave, heard)) <= max(1, 1e-4 * rate), "within 0.1 ms"
    assert np.corrcoef(wave, heard)[0, 1] > 0.55
    assert np.array_equal(heard, Channel(name, rate)(wave, np.random.default_rng(0))), "the same again"


@pytest.mark.parametrize("name", ["gsm", "mp3_16k", "opus_12k", "telephone", "lowpass_1000", "loss_50"])
def test_very_short_and_silent_waves(name):
    for wave in (np.full(3, 0.1, np.float32), np.zeros(1000, np.float32)):
        heard = Channel(name, 16_000)(wave, np.random.default_rng(0))
        assert heard.shape == wave.shape and np.isfinite(heard).all()


def test_level_is_the_rms_that_was_asked_for_unless_it_would_clip(speech):
    for decibels in (-60, -30):
        assert 20 * np.log10(rms(channel.set_level(speech, decibels))) == pytest.approx(decibels, abs=1e-3)
    assert np.abs(channel.set_level(speech, -10)).max() == pytest.approx(0.99, abs=1e-3)


def test_clipping_cuts_at_its_share_of_the_peak_and_nothing_else(speech):
    clipped, limit = channel.clip(speech, 20), 0.2 * np.abs(speech).max()
    assert np.abs(clipped).max() == pytest.approx(limit, rel=1e-6)
    below = np.abs(speech) < 0.999 * limit
    assert np.array_equal(clipped[below], speech[below]) and not below.all()


def test_filters_are_3_db_down_at_their_edge_and_steep_beyond():
    def low(wave):
        return channel.lowpass(wave, 16_000, 2000)

    def high(wave):
        return channel.highpass(wave, 16_000, 500)
    for apply, edge, kept, lost in ((low, 2000, 1000, 4000), (high, 500, 1000, 250)):
        assert gain_db(apply, edge) == pytest.approx(-3.01, abs=0.1)
        assert abs(gain_db(apply, kept)) < 0.1 and gain_db(apply, lost) < -45
    pulse = np.zeros(8001, np.float32)
    pulse[4000] = 1.0
    assert np.allclose(low(pulse), low(pulse)[::-1], atol=1e-4), "without delay, as its response is symmetric"


def test_resampling_takes_what_is_above_half_of_its_rate():
    assert abs(gain_db(lambda wave: channel.through_rate(wave, 16_000, 8000), 3000)) < 0.1
    assert gain_db(lambda wave: channel.through_rate(wave, 16_000, 8000), 5000) < -60
    assert np.array_equal(channel.through_rate(sine(500), 16_000, 48_000), sine(500)), "nothing is above"


@pytest.mark.parametrize("percent, seconds", [(5, 0.02), (20, 0.02), (10, 0.2)])
def test_the_share_of_lost_packets_is_exact(percent, seconds):
    wave = np.ones(16_000 * 4, np.float32)
    heard = channel.lose(wave, 16_000, percent, np.random.default_rng(3), seconds)
    packets = heard.reshape(-1, round(seconds * 16_000))
    assert set(map(float, np.unique(heard))) == {0.0, 1.0}
    assert np.ptp(packets, axis=1).max() == 0, "packets are lost as a whole"
    assert (packets[:, 0] == 0).sum() == round(percent / 100 * len(packets))
    other = channel.lose(wave, 16_000, percent, np.random.default_rng(4), seconds)
    assert not np.array_equal(heard, other)


def test_a_telephone_has_its_band():
    assert abs(gain_db(lambda wave: channel.telephone(0.5 * wave, 16_000), 1000) + 6.02) < 0.3
    for hertz in (100, 5000):
        assert gain_db(lambda wave: channel.telephone(0.5 * wave, 16_000), hertz) < -30


def test_more_bits_are_nearer_to_what_was_said(speech):
    def distance(heard):
        return rms(heard - speech) / rms(speech)
    assert distance(codecs.mp3(speech, 16_000, 96)) < distance(codecs.mp3(speech, 16_000, 16))
    assert distance(codecs.opus(speech, 16_000, 64)) < distance(codecs.opus(speech, 16_000, 8))
    assert distance(codecs.vorbis(speech, 16_000, 9)) < distance(codecs.vorbis(speech, 16_000, 0))
    assert distance(codecs.mulaw(speech, 8000)) < distance(codecs.g721(speech, 8000)) < distance(
        codecs.gsm(speech, 8000))


def test_effects_are_done_in_their_order(speech):
    rng = np.random.default_rng(0)
    chained = Channel("clip_20+level_-30", 16_000)(speech, rng)
    assert np.array_equal(chained, channel.set_level(channel.clip(speech, 20), -30))


@pytest.mark.parametrize("text, message", [
    ("echo", "no effect is called 'echo'; known: level, clip"), ("clip", "expected clip_N, where N is per cent"),
    ("clip_0", "from 1 to 99"), ("mp3_32", "expected mp3_Nk, where N is kbit/s, from 8 to 320"),
    ("gsm_3", "gsm has no value"), ("loss_x", "per cent of packets"), ("level_nan", "RMS")])
def test_an_effect_that_does_not_exist_is_one_line(text, message):
    with pytest.raises(ValueError, match=message):
        parse_effect(text)


def test_a_codec_that_libsndfile_lacks_is_one_line(monkeypatch):
    monkeypatch.setattr(codecs.soundfile, "available_subtypes", lambda file_format: {})
    with pytest.raises(ValueError, match="does not write MPEG_LAYER_III; pip install -U soundfile"):
        codecs.mp3(sine(440), 16_000, 32)
