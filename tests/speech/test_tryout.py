"""What the page computes: noise at the SNR that was asked for, every strategy, and limits for files of strangers."""

import re

import numpy as np
import pytest

from cdasr import Pipeline
from cdasr.speech import tryout
from cdasr.speech.noise_families import FAMILIES, rms
from cdasr.speech.tryout import OWN_NOISE, Settings, read_bounded, try_out, with_noise
from cdasr.speech.tryout_html import cards

RATE = 16_000


@pytest.fixture(scope="module")
def pipeline(package_dir):
    return Pipeline.from_pretrained(package_dir, device="cpu")


def test_every_strategy_hears_the_same_input(pipeline, write_wav, tone):
    told = []
    tried = try_out(pipeline, write_wav("a.wav", tone(0.5)), Settings(),
                    lambda done, count, strategy: told.append((done, count, strategy)))
    assert [heard.strategy for heard in tried.heard] == pipeline.strategies
    assert told == [(number, len(pipeline.strategies), name) for number, name in enumerate(pipeline.strategies)]
    assert tried.noisy is None and tried.input is tried.recording and len(tried.input) == RATE // 2
    alone = pipeline(tried.input, strategy="parallel")
    heard = next(heard for heard in tried.heard if heard.strategy == "parallel")
    assert heard.result.text == alone.text and np.array_equal(heard.result.wave, alone.wave) and heard.seconds > 0
    few = try_out(pipeline, write_wav("a.wav", tone(0.5)), Settings(strategies=["card", "none", "card"], steps=1))
    assert [heard.strategy for heard in few.heard] == ["card", "none"] and few.heard[0].result.nfe["logits"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_noise_has_the_wanted_snr_and_depends_on_the_seed_alone(family, tone):
    clean, noisy = with_noise(tone(0.5), RATE, Settings(family, snr=5.0, seed=3))
    assert 20 * np.log10(rms(clean) / rms(noisy - clean)) == pytest.approx(5.0, abs=0.01)
    assert np.array_equal(noisy, with_noise(tone(0.5), RATE, Settings(family, snr=5.0, seed=3))[1])
    assert not np.array_equal(noisy, with_noise(tone(0.5), RATE, Settings(family, snr=5.0, seed=4))[1])


def test_noise_of_a_file_is_added_and_nothing_clips(pipeline, write_wav, tone):
    noise = write_wav("noise.wav", tone(1.0, 3000, 8000), 8000)
    settings = Settings(OWN_NOISE, noise, snr=-10, strategies=["none"])
    tried = try_out(pipeline, write_wav("a.wav", 3 * tone(0.5)), settings)
    assert np.abs(tried.noisy).max() <= 1.0
    added = tried.noisy - tried.recording
    assert 20 * np.log10(rms(tried.recording) / rms(added)) == pytest.approx(-10.0, abs=0.01)
    assert np.abs(np.fft.rfft(added)).argmax() / len(added) * RATE == pytest.approx(3000, abs=4)


def test_files_beyond_the_limits_are_told_in_one_line_by_their_names(pipeline, write_wav, tone, tmp_path, monkeypatch):
    (tmp_path / "bad.wav").write_bytes(b"no sound at all")
    (tmp_path / "video.webm").write_bytes(bytes(3 * 2**20))
    monkeypatch.setattr("cdasr.speech.inputs.decoder", lambda: "ffmpeg")
    for path, words in ((write_wav("long.wav", tone(30.2)), "long.wav: the recording lasts 30.2 s, at most 30 s"),
                        (tmp_path / "bad.wav", "bad.wav: not an audio file"),
                        (tmp_path / "video.webm", "video.webm: the file has 3.0 MB, at most 2 MB"),
                        (tmp_path / "gone.wav", "gone.wav: no such file"),
                        (None, "there is no recording")):
        with pytest.raises(ValueError) as error:
            try_out(pipeline, path, Settings())
        assert words in str(error.value) and "\n" not in str(error.value) and str(tmp_path) not in str(error.value)
    assert len(read_bounded(write_wav("just.wav", tone(30.0)), RATE)) == 30 * RATE
    monkeypatch.setattr(tryout, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"large\.wav: the file has 0\.0 MB"):
        read_bounded(write_wav("large.wav", tone(0.1)), RATE)


def test_a_noise_file_has_limits_of_its_own(write_wav, tone, tmp_path):
    quiet = write_wav("quiet.wav", np.zeros(RATE))
    with pytest.raises(ValueError, match=r"^quiet\.wav: the noise recording is digital silence"):
        with_noise(tone(0.5), RATE, Settings(OWN_NOISE, quiet))
    with pytest.raises(ValueError, match="at most 300 s"):
        with_noise(tone(0.5), RATE, Settings(OWN_NOISE, write_wav("long.wav", np.zeros(301 * 1000), 1000)))
    with pytest.raises(ValueError, match="the speech is silent"):
        with_noise(np.zeros(RATE, np.float32), RATE, Settings("tonal"))
    assert len(with_noise(tone(0.5), RATE, Settings(OWN_NOISE, write_wav("longer.wav", tone(40.0))))[1]) == RATE // 2


@pytest.mark.parametrize("settings, words", [
    ({"noise": "thunder"}, "no noise called 'thunder'; choose one of none"),
    ({"noise": OWN_NOISE}, "no noise file was given"),
    ({"snr": float("nan")}, "an SNR of nan dB is out of range; expected -20 to 40"),
    ({"snr": -21.0}, "an SNR of -21 dB is out of range"),
    ({"seed": -1}, "the seed -1 is out of range"),
    ({"strategies": []}, "no strategy is chosen"),
    ({"strategies": ["nothing"]}, "unknown strategy 'nothing'"),
    ({"steps": 0}, "the number of steps must be at least 1"),
    ({"said": "word " * 201}, "more than 200 words")])
def test_settings_that_cannot_be_used_are_refused(settings, words, pipeline, write_wav, tone):
    with pytest.raises(ValueError, match=re.escape(words)):
        try_out(pipeline, write_wav("a.wav", tone(0.3)), Settings(**settings))


def test_cards_have_sound_pictures_words_and_errors(pipeline, write_wav, tone):
    from cdasr.classifiers.hypothesis import Word

    settings = Settings("tonal", snr=3.0, strategies=["none", "enhanced"], said="one <b>two</b>")
    tried = try_out(pipeline, write_wav("a.wav", tone(0.4)), settings)
    tried.heard[1].result.words[:] = [Word("<i>one</i>", 0.1, 0.25, 0.83)]
    tried.heard[1].result.text = "one three"
    html = cards(tried, own="enhanced")
    assert html.count("data:audio/flac") == html.count("data:image/png") == 3, "recording, noisy, enhanced"
    assert "tonal noise at 3 dB" in html and "hears the input as it is" in html and "the package&#x27;s own" in html
    assert "<i>one" not in html and "<b>two" not in html
    assert "&lt;i&gt;one&lt;/i&gt; <small>83</small>" in html and "0.10 to 0.25 s" in html
    assert re.search(r"\d errors? in \d words; confidence 0\.83;", html) and '<span class="pair sub">' in html
    assert "unlike what" not in html
    tried.heard[1].result.out_of_domain = True
    assert "To enhanced, this recording is unlike what the package was trained for" in cards(tried)
