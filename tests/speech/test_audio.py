"""Audio files: any rate and channel count in, one clear line for what is not audio."""

import os

import numpy as np
import pytest

from cdasr.speech.audio import (
    AudioFormat,
    audio_format,
    file_format,
    fit_length,
    read_audio,
    resample,
    stored_subtype,
    write_audio,
)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_reads_any_rate_at_the_asked_one(write_wav, tone, rate):
    wave, got = read_audio(write_wav("a.wav", tone(0.5, rate=rate), rate), 16_000)
    assert got == 16_000 and wave.dtype == np.float32 and abs(len(wave) - 8000) <= 1
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    assert abs(np.argmax(spectrum) * 16_000 / len(wave) - 440) < 3


def test_channels_are_averaged(write_wav, tone):
    left, right = tone(0.1), tone(0.1, 300)
    wave, _ = read_audio(write_wav("stereo.flac", np.stack([left, right], axis=1)))
    assert np.abs(wave - (left + right) / 2).max() < 1e-4
    alone, _ = read_audio(write_wav("four.flac", np.stack([left, *3 * [0 * left]], axis=1)))
    assert np.abs(alone - left / 4).max() < 1e-4, "silent channels do not cancel anything"


def test_the_louder_of_channels_that_cancel_is_taken_and_said_once(write_wav, tone, capsys):
    path = write_wav("antiphase.wav", np.stack([0.9 * tone(0.1), -tone(0.1)], axis=1))
    for _ in range(2):
        assert np.abs(read_audio(path)[0] + tone(0.1)).max() < 1e-3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "antiphase.wav: the channels cancel" in said[0]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_a_stretch_of_a_channel_is_read_by_seeking(write_wav, tone, suffix):
    waves = np.stack([tone(2.0), tone(2.0, 200)], axis=1)
    path = write_wav(f"long.{suffix}", waves)
    assert audio_format(path) == AudioFormat(16_000, 32_000, 2)
    whole, _ = read_audio(path, channel=1)
    part, _ = read_audio(path, channel=1, start=0.5, stop=1.25)
    assert np.abs(part - whole[8000:20_000]).max() < 1e-3 and np.abs(whole - waves[:, 1]).max() < 0.1
    assert len(read_audio(path, 8000, start=1.5)[0]) == 4000
    assert len(read_audio(path, start=1.9, stop=2.05)[0]) == 1600, "durations are rounded: the end is the file's"
    for given, reason in (({"channel": 2}, "no channel 2.*has 2"), ({"start": 2.0}, "begins at 2 s is outside"),
                          ({"start": 3.0, "stop": 4.0}, "3 to 4 s is outside.*lasts 2 s"),
                          ({"channel": -1}, "no channel -1"), ({"start": 0.5, "stop": 0.5}, "outside")):
        with pytest.raises(ValueError, match=reason):
            read_audio(path, **given)


def test_round_trip_keeps_16_bits(tmp_path, tone):
    wave = tone(0.2)
    write_audio(tmp_path / "deep" / "a.flac", wave, 16_000)
    again, _ = read_audio(tmp_path / "deep" / "a.flac")
    assert np.abs(again - wave).max() <= 1 / 32767
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.flac"], "nothing half-written is left"
    assert file_format(tmp_path / "deep" / "a.flac") == (16_000, len(wave))


def test_resampling_keeps_length_and_level(tone):
    wave = tone(1.0)
    there = resample(wave, 16_000, 11_025)
    assert len(there) == 11_025
    assert np.sqrt(np.mean(there**2)) == pytest.approx(np.sqrt(np.mean(wave**2)), rel=0.02)


def test_fit_length():
    assert fit_length(np.arange(3.0), 5).tolist() == [0, 1, 2, 0, 0]
    assert fit_length(np.arange(3.0), 2).tolist() == [0, 1]


def test_bad_files_are_named_with_the_reason(tmp_path, write_wav, tone):
    cases = {"missing.wav": "no such file", "text.wav": "not an audio file", "empty.wav": "no samples",
             "zero_bytes.wav": "the file is empty \\(0 bytes\\)", "nan.wav": "NaN", "inf.wav": "infinite",
             "loud.wav": "of 1.0e\\+19",
             "cut.wav": "truncated, 0.[45] of 1.0 s", "cut.flac": "damaged or truncated", "folder.wav": "is a folder",
             "pipe.wav": "is a pipe", "nowhere.wav": "a link to gone.wav", "x" * 300: "cannot be a file",
             "a\0.wav": "cannot be a file"}
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "zero_bytes.wav").touch()
    write_wav("empty.wav", np.zeros(0, np.float32))
    import soundfile
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan], np.float32), 16_000, subtype="FLOAT")
    for name, value in (("inf", np.inf), ("loud", 1e19)):
        soundfile.write(tmp_path / f"{name}.wav", np.array([0.1, value], np.float32), 16_000, subtype="FLOAT")
    for suffix in ("wav", "flac"):
        data = write_wav(f"whole.{suffix}", tone(1.0)).read_bytes()
        (tmp_path / f"cut.{suffix}").write_bytes(data[:len(data) // 2])
    (tmp_path / "folder.wav").mkdir()
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "nowhere.wav").symlink_to("gone.wav")
    for name, reason in cases.items():
        with pytest.raises(ValueError, match=reason) as caught:
            read_audio(tmp_path / name)
        assert repr(name)[1:-1] in str(caught.value) and "\n" not in str(caught.value)
    for path, reason in (("/dev/null", "is a device"), ("", "the path is empty"), (".", "is a folder")):
        with pytest.raises(ValueError, match=reason):
            read_audio(path)
    streamed = bytearray(write_wav("streamed.wav", tone(1.0)).read_bytes())  # as a writer to a pipe leaves the header
    streamed[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "streamed.wav").write_bytes(streamed)
    assert len(read_audio(tmp_path / "streamed.wav")[0]) == 16_000


@pytest.mark.parametrize("name, subtype", [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.flac", "PCM_24")])
def test_what_would_be_clipped_is_scaled_as_a_whole(tmp_path, tone, name, subtype):
    wave = 10 * tone(0.2)
    gain = write_audio(tmp_path / name, wave, 16_000, subtype)
    again, _ = read_audio(tmp_path / name)
    assert gain == pytest.approx(0.99 / np.abs(wave).max()) and np.abs(again - gain * wave).max() <= 1 / 32767
    assert write_audio(tmp_path / name, wave / np.abs(wave).max(), 16_000, subtype) == 1.0


def test_float_files_keep_any_level(tmp_path, tone):
    wave = 10 * tone(0.2)
    assert write_audio(tmp_path / "a.wav", wave, 16_000, "FLOAT") == 1.0
    assert np.array_equal(read_audio(tmp_path / "a.wav")[0], wave)
    assert stored_subtype(tmp_path / "a.wav") == "FLOAT"


@pytest.mark.parametrize("subtype, kept", [("DOUBLE", "FLOAT"), ("PCM_24", "PCM_24"), ("PCM_32", "PCM_24"),
                                           ("PCM_U8", "PCM_16"), ("ULAW", "PCM_16")])
def test_a_copy_has_a_subtype_that_keeps_the_levels(tmp_path, tone, subtype, kept):
    import soundfile
    soundfile.write(tmp_path / "a.wav", tone(0.1), 16_000, subtype=subtype)
    assert stored_subtype(tmp_path / "a.wav") == kept
