"""The pipeline: batches equal single recordings, packages survive a round trip, wrong use is named."""

import json

import numpy as np
import pytest
import torch

from cdasr import Pipeline
from cdasr.coupled.strategies import STRATEGIES


@pytest.fixture(scope="module")
def pipeline(package_dir):
    return Pipeline.from_pretrained(package_dir, device="cpu")


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if not STRATEGIES[name].needs_rule])
def test_batch_equals_single(pipeline, tone, strategy):
    waves = [torch.from_numpy(tone(seconds, hertz)) for seconds, hertz in ((0.7, 300), (1.1, 500), (0.4, 900))]
    together = pipeline.transcribe(waves, strategy)
    for wave, result in zip(waves, together):
        alone = pipeline.transcribe([wave], strategy)[0]
        assert alone.text == result.text and alone.nfe == result.nfe
        if strategy not in ("none", "card"):
            torch.testing.assert_close(alone.wave, result.wave, atol=1e-4, rtol=0)
            assert result.wave.shape == wave.shape


def test_strategies_count_their_evaluations(pipeline, tone):
    wave = [torch.from_numpy(tone(0.5))]
    assert pipeline.transcribe(wave, "none")[0].nfe == {"signal": 0, "logits": 0, "classifier": 1}
    assert pipeline.transcribe(wave, "enhanced", steps=5)[0].nfe == {"signal": 5, "logits": 0, "classifier": 1}
    assert pipeline.transcribe(wave, "oa")[0].nfe["signal"] == 2


COUPLED = {"card": (0, 2, 1), "cascade": (2, 2, 2), "parallel": (2, 2, 3), "alternating": (4, 4, 3),
           "nested": (6, 2, 4)}


@pytest.mark.parametrize("strategy", COUPLED)
def test_coupled_strategies_run_and_count(pipeline, tone, strategy):
    wave = torch.from_numpy(tone(0.5))
    result = pipeline.transcribe([wave], strategy)[0]
    assert tuple(result.nfe.values()) == COUPLED[strategy] and list(result.nfe) == ["signal", "logits", "classifier"]
    assert (result.wave is None) == (result.text_enhanced is None) == (strategy == "card")
    if strategy != "card":
        assert result.text_enhanced == pipeline.transcribe([result.wave], "none")[0].text
    assert pipeline.transcribe([wave], strategy, steps=3)[0].nfe["logits"] % 3 == 0


def test_guidance_weighs_the_logits_in_the_signal_process(pipeline, tone, monkeypatch):
    wave = [torch.from_numpy(tone(0.5))]
    plain = pipeline.transcribe(wave, "enhanced", steps=2)[0]
    off, told, strong = (pipeline.transcribe(wave, "parallel", steps=2, guidance=weight)[0]
                         for weight in (0.0, 1.0, 2.0))
    torch.testing.assert_close(off.wave, plain.wave, atol=1e-6, rtol=0)
    torch.testing.assert_close(told.wave, pipeline.transcribe(wave, "parallel", steps=2)[0].wave, atol=0, rtol=0)
    assert not torch.allclose(told.wave, off.wave, atol=1e-4) and not torch.allclose(strong.wave, told.wave, atol=1e-4)
    assert [result.nfe["signal"] for result in (off, told, strong)] == [2, 2, 4]
    monkeypatch.setitem(pipeline.config, "strategies", {"parallel": {"steps": 2, "guidance": 2.0}})
    torch.testing.assert_close(pipeline.transcribe(wave, "parallel")[0].wave, strong.wave, atol=0, rtol=0)


def test_the_package_says_which_strategy_is_the_default(pipeline, tone, monkeypatch):
    wave = tone(0.5)
    assert pipeline(wave).strategy == "enhanced"
    monkeypatch.setitem(pipeline.config, "strategy", "nested")
    assert pipeline(wave).strategy == "nested" and pipeline(wave, strategy="none").strategy == "none"


def test_parallel_takes_as_many_steps_of_each_process(pipeline, tone, monkeypatch):
    monkeypatch.setitem(pipeline.signal.config["sampling"], "steps", 1)
    wave = torch.from_numpy(tone(0.5))
    assert pipeline.transcribe([wave], "parallel")[0].nfe["signal"] == 2
    assert pipeline.transcribe([wave], "cascade")[0].nfe["signal"] == 1
    monkeypatch.setitem(pipeline.config, "strategies", {"parallel": {"logits_steps": 4, "switch": 1.0}})
    assert pipeline.transcribe([wave], "parallel")[0].nfe == {"signal": 4, "logits": 4, "classifier": 5}


def test_several_samples_are_one_batch_and_agree_with_single_ones(pipeline, tone):
    waves = [torch.from_numpy(tone(seconds, 400)) for seconds in (0.5, 0.8)]
    together = pipeline.transcribe(waves, "cascade", samples=4, seed=3)
    for wave, result in zip(waves, together):
        alone = pipeline.transcribe([wave], "cascade", samples=4, seed=3)[0]
        assert alone.text == result.text and result.nfe == {"signal": 8, "logits": 8, "classifier": 8}
        assert [word.word for word in result.words] == result.text.split()
        assert all(word.confidence in (0.25, 0.5, 0.75, 1.0) for word in result.words)
    assert pipeline.transcribe(waves[:1], "none", samples=4)[0].nfe["classifier"] == 1, "nothing is random there"
    with pytest.raises(ValueError, match="number of samples must be at least 1, got 0"):
        pipeline.transcribe(waves, samples=0)


def test_words_of_long_recordings_have_the_times_of_the_whole(pipeline, tone):
    result = pipeline(np.tile(tone(4.0), 6), strategy="none")
    starts = [word.start for word in result.words]
    assert starts == sorted(starts) and [word.word for word in result.words] == result.text.split()
    assert all(word.end <= result.duration + 0.03 for word in result.words) and starts[-1] > 12.0


def test_logits_guide_the_signal_and_the_signal_the_logits(pipeline, tone):
    wave = [torch.from_numpy(tone(0.5))]
    waves = {name: pipeline.transcribe(wave, name)[0].wave for name in ("enhanced", "cascade", "alternating")}
    torch.testing.assert_close(waves["cascade"], waves["enhanced"], atol=1e-6, rtol=0)
    assert (waves["alternating"] - waves["enhanced"]).abs().max() > 1e-4


def test_a_package_without_a_logits_process_says_so(pipeline, tone):
    plain = Pipeline(pipeline.recogniser, pipeline.signal, device="cpu")
    assert plain.strategies == ["none", "enhanced", "oa", "fused"]
    with pytest.raises(ValueError, match="'nested' needs a logits process.*choose one of none, enhanced, oa"):
        plain(tone(0.5), strategy="nested")


def test_observation_adding_mixes_the_waveforms(pipeline, tone):
    wave = torch.from_numpy(tone(0.5))
    cleaned = pipeline.transcribe([wave], "enhanced")[0].wave
    mixed = pipeline.transcribe([wave], "oa")[0].wave
    torch.testing.assert_close(mixed, 0.75 * cleaned + 0.25 * wave, atol=1e-5, rtol=0)


def test_none_hears_what_transformers_hears(pipeline, tone):
    wave = tone(0.8)
    recogniser = pipeline.recogniser
    inputs = recogniser.processor(wave, sampling_rate=16_000, return_tensors="pt").input_values
    expected = recogniser.processor.batch_decode(recogniser.model(inputs).logits.argmax(-1))[0]
    assert pipeline(wave, strategy="none").text == expected.strip().lower()


def test_files_and_arrays_of_any_rate(pipeline, write_wav, tone):
    from_file = pipeline(write_wav("a.wav", tone(1.0, rate=8000), 8000))
    from_array = pipeline(tone(1.0, rate=8000), rate=8000)
    assert abs(from_file.duration - 1.0) < 1e-3 and from_file.text == from_array.text


def test_long_recordings_keep_their_length(pipeline, tone):
    wave = np.concatenate([tone(14.0), np.zeros(8000, np.float32), tone(14.0, 700)])
    result = pipeline(wave)
    assert result.wave.shape == wave.shape and result.duration == pytest.approx(28.5)
    assert result.nfe["signal"] == 2 * 2, "two segments of two steps"


def test_silence_and_short_input(pipeline):
    assert pipeline(np.zeros(16_000, np.float32)).wave.abs().max() < 1e-6
    for bad, reason in ((np.zeros(50), "shorter than one frame"), (np.zeros((2, 100)), "mono"),
                        (np.full(16_000, np.nan), "finite")):
        with pytest.raises(ValueError, match=reason):
            pipeline(bad.astype(np.float32))


def test_unknown_strategy_and_steps(pipeline, tone):
    with pytest.raises(ValueError, match="unknown strategy 'magic'.*enhanced"):
        pipeline(tone(0.5), strategy="magic")
    with pytest.raises(ValueError, match="at least 1"):
        pipeline(tone(0.5), steps=0)


def test_package_round_trip(pipeline, tmp_path, tone):
    pipeline.save_pretrained(tmp_path / "again")
    again = Pipeline.from_pretrained(tmp_path / "again", device="cpu")
    wave = tone(0.6)
    for strategy in ("enhanced", "parallel"):
        torch.testing.assert_close(again(wave, strategy).wave, pipeline(wave, strategy).wave, atol=1e-6, rtol=0)
    assert again.oa_weight == pipeline.oa_weight == 0.25
    pipeline.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "signal.safetensors").stat().st_size for name in ("again", "half")]
    assert sizes[1] < 0.7 * sizes[0]
    half = Pipeline.from_pretrained(tmp_path / "half", device="cpu")
    torch.testing.assert_close(half(wave).wave, pipeline(wave).wave, atol=2e-3, rtol=0)


def test_unusable_packages_are_named(package_dir, tmp_path):
    with pytest.raises(ValueError, match="no such model package.*bundled"):
        Pipeline.from_pretrained(tmp_path / "nothing")
    config = json.loads((package_dir / "config.json").read_text())
    unknown = {"signal": {**config["signal"], "process": {"name": "q"}}}
    for name, change in (("future", {"format": 99}), ("process", unknown)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ValueError, match="not a usable cdasr model package"):
            Pipeline.from_pretrained(folder)
    folder = tmp_path / "torn"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "signal.safetensors").write_bytes((package_dir / "signal.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a usable cdasr model package"):
        Pipeline.from_pretrained(folder)
