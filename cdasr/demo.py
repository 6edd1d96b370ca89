"""`cdasr demo`: noisy digits, made here and now, before and after enhancement. Needs no data and no network."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import torch

from cdasr.pipeline import Pipeline
from cdasr.speech.audio import resample, write_audio
from cdasr.speech.degrade import mix_at_snr
from cdasr.speech.metrics import si_sdr
from cdasr.speech.noise import NoiseSource
from cdasr.speech.synthesis import speak

SCENES = (("seven three zero nine", "en-us+f2", "tonal", 5),
          ("one four two eight five", "en-gb-x-rp+m2", "modulated", 5),
          ("six zero one three", "en-us+m3", "impulsive", 5),
          ("nine five seven two", "en-us+Annie", "coloured", 5))


def demo(output_dir: str | os.PathLike, model: str = "digits", device: str = "auto", seed: int = 0) -> None:
    """Print what was said, heard in noise and heard after enhancement; write the audio and a picture."""
    from cdasr.evaluation.plots import plot_spectrograms
    from cdasr.evaluation.report import render

    pipeline, output_dir = Pipeline.from_pretrained(model, device=device), Path(output_dir)
    rate, started, lines, duration = pipeline.sample_rate, time.perf_counter(), [], 0.0
    for number, (text, voice, family, snr) in enumerate(SCENES, start=1):
        rng = np.random.default_rng([seed, number])
        clean = say(text, voice, rng, rate)
        noise, _ = NoiseSource(families=[family], rate=rate, warp=False).draw(rng, len(clean))
        noisy = mix_at_snr(clean, noise, snr)
        heard = pipeline(noisy, strategy="none")
        result = pipeline(noisy, strategy="enhanced", seed=seed)
        enhanced = result.wave.numpy()
        gain = [float(si_sdr(torch.from_numpy(wave), torch.from_numpy(clean))) for wave in (noisy, enhanced)]
        for name, wave in (("clean", clean), ("noisy", noisy), ("enhanced", enhanced)):
            write_audio(output_dir / f"{number}.{name}.wav", wave, rate)
        if number == 1:
            plot_spectrograms({f"noisy ({family}, {snr} dB): “{heard.text}”": noisy,
                               f"enhanced: “{result.text}”": enhanced, f"clean: “{text}”": clean}, rate,
                              output_dir / "spectrograms.png")
        lines.append((f"{family}, {snr} dB", text, heard.text, result.text, f"{gain[0]:.1f} -> {gain[1]:.1f}"))
        duration += result.duration
    header = ("noise", "said", "heard in noise", "heard after enhancement", "SI-SDR (dB)")
    print(render([header, *lines], markdown=False))
    print(f"\nThe talkers are synthetic (eSpeak NG). Audio and spectrograms.png: {output_dir}{os.sep}")
    print(f"{duration:.1f} s of audio in {time.perf_counter() - started:.1f} s, recognised twice and enhanced once",
          file=sys.stderr)


def say(text: str, voice: str, rng: np.random.Generator, rate: int) -> np.ndarray:
    """Words `(samples,)` with gaps over a faint room floor, at -26 dB full scale."""
    pieces = [np.zeros(int(0.2 * rate), np.float32)]
    for word in text.split():
        wave, voice_rate = speak(word, voice)
        pieces += [resample(wave, voice_rate, rate), np.zeros(int(rng.uniform(0.05, 0.2) * rate), np.float32)]
    wave = np.concatenate(pieces)
    wave *= 0.05 / np.sqrt(np.mean(wave**2))
    return (wave + 0.05 * 10 ** (-40 / 20) * rng.standard_normal(len(wave))).astype(np.float32)
