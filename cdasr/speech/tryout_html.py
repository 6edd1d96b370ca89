"""What strategies heard in a recording as HTML: a card for each, with sound, spectrogram, words and confidences.

Sound and pictures are in the HTML itself, so nothing of a recording stays on the disk.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cdasr.evaluation.html_figures import figures
from cdasr.evaluation.html_page import ALIGNED, aligned, data_uri, text
from cdasr.speech.comparison import mean_confidence
from cdasr.speech.report_examples import align, flac, levels
from cdasr.speech.tryout import OWN_NOISE, Heard, Tryout
from cdasr.speech.words import word_errors

if TYPE_CHECKING:
    from cdasr.classifiers.hypothesis import Word

STYLE = f"<style>{ALIGNED}" + """
.tryout{margin-top:.8em;display:grid;grid-template-columns:repeat(auto-fill,minmax(21em,1fr));gap:1em;font-size:15px}
.tryout .card{border:1px solid #bbb;border-radius:6px;padding:.7em;min-width:0}
.tryout .card.own{border:2px solid #2a6fb0}
.tryout h3{margin:0 0 .4em;font-size:1.05em;font-weight:600}.tryout h3 small{font-weight:normal;opacity:.75}
.tryout audio{width:100%;height:2.4em;display:block}.tryout img{width:100%;margin:.4em 0;display:block}
.tryout .word{display:inline-block;border-radius:4px;padding:0 .35em;margin:.12em .15em .12em 0;color:#111}
.tryout .word small{opacity:.7;font-size:.72em}.tryout .numbers{opacity:.8;font-size:.85em;margin:.3em 0 0}
.tryout .aligned{margin:.3em 0;font-size:12px}
.tryout .nothing{opacity:.7;font-style:italic}
.tryout-note{background:#fff3cd;color:#222;border:1px solid #d9b441;padding:.5em .8em;margin:0 0 .8em}
</style>"""
RANGE = 70.0  # dB of a spectrogram


def cards(tried: Tryout, own: str | None = None) -> str:
    """The cards of the input and of each strategy; that of the strategy `own`, the package's, stands out."""
    top = max(float(levels(wave, tried.rate).max()) for wave in (tried.recording, tried.input))
    parts = [_card("recording", "" if tried.noisy is None else "before noise was added", tried.recording, tried, top)]
    if tried.noisy is not None:
        wanted = tried.settings
        kind = "noise of your file" if wanted.noise == OWN_NOISE else f"{wanted.noise} noise"
        parts.append(_card("noisy", f"{kind} at {wanted.snr:g} dB", tried.noisy, tried, top))
    parts += [_heard(heard, tried, top, heard.strategy == own) for heard in tried.heard]
    unlike = [heard.strategy for heard in tried.heard if heard.result.out_of_domain]
    note = "" if not unlike else (f'<p class="tryout-note">To {text(", ".join(unlike))}, this recording is unlike what '
                                  "the package was trained for; the words mean little.</p>")
    return f'{STYLE}{note}<div class="tryout">{"".join(parts)}</div>'


def _heard(heard: Heard, tried: Tryout, top: float, own: bool) -> str:
    result = heard.result
    remark = f"chose {result.chosen}" if result.chosen else "the package's own" if own else ""
    numbers = [f"confidence {mean_confidence(result.words):.2f}" if result.words else "",
               f"{heard.seconds:.2f} s, RTF {heard.seconds / result.duration:.3f}",
               "network evaluations: " + ", ".join(f"{name} {count}" for name, count in result.nfe.items())]
    inner = _words(result.words) if result.words else '<span class="nothing">no words</span>'
    if tried.settings.said.strip():
        errors, count = word_errors(tried.settings.said, result.text)
        numbers.insert(0, f"{errors} error{'' if errors == 1 else 's'} in {count} words")
        inner += aligned(align({"reference": tried.settings.said, "text": result.text}))
    wave = None if result.wave is None else result.wave.cpu().numpy()
    below = f'<div>{inner}</div><p class="numbers">{text("; ".join(filter(None, numbers)))}</p>'
    return _card(heard.strategy, remark, wave, tried, top, below, own)


def _card(title: str, remark: str, wave: np.ndarray | None, tried: Tryout, top: float, below: str = "",
          own: bool = False) -> str:
    sound = '<p class="nothing">hears the input as it is</p>'
    if wave is not None:
        picture = data_uri(spectrogram(wave, tried.rate, top), "image/png")
        sound = (f'<audio controls preload="metadata" src="{data_uri(flac(wave, tried.rate), "audio/flac")}"></audio>'
                 f'<img alt="spectrogram of {text(title)}" src="{picture}">')
    return (f'<div class="card{" own" if own else ""}"><h3>{text(title)} <small>{text(remark)}</small></h3>'
            f"{sound}{below}</div>")


def _words(words: Sequence[Word]) -> str:
    """Words on red for a low to green for a high confidence, with their confidence in per cent and their times."""
    return "".join(
        f'<span class="word" title="{word.start:.2f} to {word.end:.2f} s" style="background:'
        f'hsl({120 * min(max(word.confidence, 0.0), 1.0):.0f},75%,80%)">{text(word.word)} '
        f"<small>{100 * word.confidence:.0f}</small></span>" for word in words)


def spectrogram(wave: np.ndarray, rate: int, top: float) -> bytes:
    """A spectrogram of (samples,) as PNG, with `top` dB as the brightest."""
    with figures() as plt:
        figure, axis = plt.subplots(figsize=(4.4, 1.8), layout="constrained")
        image = axis.imshow(levels(wave, rate) - top, origin="lower", aspect="auto", cmap="magma", vmin=-RANGE, vmax=0,
                            extent=(0, len(wave) / rate, 0, rate / 2000))
        axis.set_xlabel("seconds", fontsize=8)
        axis.set_ylabel("kHz", fontsize=8)
        axis.tick_params(labelsize=8)
        figure.colorbar(image, label="dB", pad=0.01)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
        return buffer.getvalue()
