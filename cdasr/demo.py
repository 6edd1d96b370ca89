"""`cdasr demo`: noisy digits, made here and now, as each system hears them. Needs no data and no network."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cdasr.speech.audio import resample, write_audio
from cdasr.speech.degrade import mix_at_snr
from cdasr.speech.metrics import si_sdr
from cdasr.speech.noise import NoiseSource
from cdasr.speech.pipeline import Pipeline
from cdasr.speech.synthesis import speak

SCENES = (("seven three zero nine", "en-us+f2", "tonal", -5),
          ("one four two eight five", "en-gb-x-rp+m2", "modulated", -5),
          ("six zero one three", "en-us+m3", "impulsive", -5),
          ("nine five seven two", "en-us+Annie", "coloured", -5))


def demo(output_dir: str | os.PathLike, model: str = "digits", device: str = "auto", seed: int = 0) -> None:
    """Print what was said and what each system hears; write the audio and a picture of the first scene."""
    from cdasr.evaluation.report import render
    from cdasr.speech.plots import plot_spectrograms
    from cdasr.speech.words import word_errors

    pipeline, output_dir = Pipeline.from_pretrained(model, device=device), Path(output_dir)
    rate, started = pipeline.sample_rate, time.perf_counter()
    scenes = [make_scene(rate, seed, number, *scene) for number, scene in enumerate(SCENES, start=1)]
    noisy = [torch.from_numpy(wave) for _, wave in scenes]
    texts = [text for text, *_ in SCENES]
    heard = {system: pipeline.transcribe(noisy, system, seed=seed) for system in pipeline.strategies}
    lines = [("", *(f"{family}, {snr} dB" for *_, family, snr in SCENES), "errors"), ("said", *texts, "")]
    for system, results in heard.items():
        counts = [word_errors(text, result.text) for text, result in zip(texts, results)]
        lines.append((system, *(result.text for result in results), "{} of {}".format(*map(sum, zip(*counts)))))
    best = heard[pipeline.default_strategy]
    gains = [[float(si_sdr(wave, torch.from_numpy(clean))) for wave in (degraded, result.wave)]
             for (clean, _), degraded, result in zip(scenes, noisy, best)]
    lines.append(("SI-SDR (dB)", *("{:.1f} -> {:.1f}".format(*gain) for gain in gains), ""))
    for number, ((clean, degraded), result) in enumerate(zip(scenes, best), start=1):
        for name, wave in (("clean", clean), ("noisy", degraded), ("enhanced", result.wave.numpy())):
            write_audio(output_dir / f"{number}.{name}.wav", wave, rate)
    plot_spectrograms({f"noisy: “{heard['none'][0].text}”": scenes[0][1],
                       f"{pipeline.default_strategy}: “{best[0].text}”": best[0].wave.numpy(),
                       f"clean: “{texts[0]}”": scenes[0][0]}, rate, output_dir / "spectrograms.png")
    print(render(lines, markdown=False))
    print(f"\nThe package's own strategy is {pipeline.default_strategy}. The talkers are synthetic (eSpeak NG). Audio "
          f"and spectrograms.png: {output_dir}{os.sep}")
    seconds = sum(result.duration for result in best)
    print(f"{seconds:.1f} s of audio, {len(heard)} systems, {time.perf_counter() - started:.1f} s", file=sys.stderr)


def make_scene(rate: int, seed: int, number: int, text: str, voice: str, family: str,
               snr: float) -> tuple[np.ndarray, np.ndarray]:
    """Clean and noisy speech (samples,) of a scene."""
    rng = np.random.default_rng([seed, number])
    clean = say(text, voice, rng, rate)
    noise, _ = NoiseSource(families=[family], rate=rate, warp=False).draw(rng, len(clean))
    return clean, mix_at_snr(clean, noise, snr)


def say(text: str, voice: str, rng: np.random.Generator, rate: int) -> np.ndarray:
    """Words `(samples,)` with gaps over a faint room floor, at -26 dB full scale."""
    pieces = [np.zeros(int(0.2 * rate), np.float32)]
    for word in text.split():
        wave, voice_rate = speak(word, voice)
        pieces += [resample(wave, voice_rate, rate), np.zeros(int(rng.uniform(0.05, 0.2) * rate), np.float32)]
    wave = np.concatenate(pieces)
    wave *= 0.05 / np.sqrt(np.mean(wave**2))
    return (wave + 0.05 * 10 ** (-40 / 20) * rng.standard_normal(len(wave))).astype(np.float32)
