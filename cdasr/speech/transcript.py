"""What a strategy makes of one recording: its text, words and enhanced waveform."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from cdasr.classifiers.hypothesis import Hypothesis, Word


@dataclass
class Transcript:
    """What a strategy makes of one recording.

    `text` is the strategy's answer and `words` the same with times and confidences; `text_enhanced` what the recogniser
    hears on the enhanced waveform `wave` (samples,), both None where nothing was enhanced, with `words_enhanced`. `nfe`
    counts evaluations of each network for this recording, all samples together, and `duration` is in seconds.
    `out_of_domain`: whether the recording looks unlike what the package was trained for, so that its words mean little;
    None where the package or the strategy cannot tell. `chosen`: the strategy whose answer `auto` took; None for other
    strategies. `nbest`: the best texts with their scores, the answer first; empty where one was asked for.
    """

    text: str
    strategy: str
    duration: float
    nfe: dict[str, int]
    text_enhanced: str | None = None
    wave: Tensor | None = field(default=None, repr=False)
    words: list[Word] = field(default_factory=list, repr=False)
    words_enhanced: list[Word] = field(default_factory=list, repr=False)
    out_of_domain: bool | None = None
    chosen: str | None = None
    nbest: list[Hypothesis] = field(default_factory=list, repr=False)
