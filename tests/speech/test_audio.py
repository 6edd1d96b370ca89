"""Audio files: any rate and channel count in, one clear line for what is not audio."""

import numpy as np
import pytest

from cdasr.speech.audio import file_format, fit_length, read_audio, resample, stored_subtype, write_audio


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_reads_any_rate_at_the_asked_one(write_wav, tone, rate):
    wave, got = read_audio(write_wav("a.wav", tone(0.5, rate=rate), rate), 16_000)
    assert got == 16_000 and wave.dtype == np.float32 and abs(len(wave) - 8000) <= 1
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    assert abs(np.argmax(spectrum) * 16_000 / len(wave) - 440) < 3


def test_channels_are_averaged(write_wav, tone):
    left = tone(0.1)
    wave, _ = read_audio(write_wav("stereo.flac", np.stack([left, -left], axis=1)))
    assert np.abs(wave).max() < 1e-4


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


def test_bad_files_are_named_with_the_reason(tmp_path, write_wav):
    cases = {"missing.wav": "no such file", "text.wav": "not an audio file", "empty.wav": "no samples",
             "zero_bytes.wav": "not an audio file", "nan.wav": "NaN"}
    (tmp_path / "text.wav").write_text("this is not audio")
    (tmp_path / "zero_bytes.wav").touch()
    write_wav("empty.wav", np.zeros(0, np.float32))
    import soundfile
    soundfile.write(tmp_path / "nan.wav", np.array([0.1, np.nan], np.float32), 16_000, subtype="FLOAT")
    for name, reason in cases.items():
        with pytest.raises(ValueError, match=reason) as caught:
            read_audio(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)


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
