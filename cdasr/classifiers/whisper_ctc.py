"""Whisper as a frozen CTC recogniser: its encoder (Radford et al. 2023) with a small CTC head trained on clean speech.

The encoder is Whisper's own and never trained; stage 2 of a recipe trains the head and freezes it too. The head's units
are characters: any word can be spelled with them, they are few enough to be diffused frame by frame, and a few hours of
speech contain each of them often. For its own 51,865 units a head would have up to 66 M weights, most rows of which
such speech never trains; those are the decoder's business (`whisper_decoder.py`).

Cost: Whisper's encoder was trained on windows of 30 s, filled up with silence. Its frames attend to that silence, so a
shorter window with cut position embeddings is another function, with other states. A head can be trained on those: with
several `windows` each utterance is filled up to the shortest that holds it, whatever stands beside it in a batch. The
head and all that follows see the utterance's own frames only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.hub import loading
from cdasr.classifiers.log_mel import LogMel
from cdasr.classifiers.logits import CTCLogits, Logits
from cdasr.classifiers.memory import Remembers
from cdasr.classifiers.options import checked_options, without
from cdasr.classifiers.pretrained import check_tokens, load_tokenizer, refuse_code
from cdasr.classifiers.schema import WhisperCTC
from cdasr.classifiers.whisper_loading import load_encoder
from cdasr.classifiers.whisper_parts import hidden_states
from cdasr.runtime.plain_data import checked, read_json
from cdasr.runtime.weights import load_weights


class CTCHead(nn.Module):
    """Hidden states of an encoder to CTC logits: a learned mean of the layers (Yang et al. 2021, SUPERB), then residual
    convolutions over time.
    """

    def __init__(self, layers: int, width: int, tokens: int, dim: int = 256, blocks: int = 2, kernel: int = 5,
                 dropout: float = 0.1):
        super().__init__()
        self.config = {"layers": layers, "width": width, "tokens": tokens, "dim": dim, "blocks": blocks,
                       "kernel": kernel, "dropout": dropout}
        self.mix = nn.Parameter(torch.zeros(layers))
        self.project = nn.Linear(width, dim)
        self.blocks = nn.ModuleList(_Block(dim, kernel, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.output = nn.Linear(dim, tokens)

    def forward(self, states: Sequence[Tensor], lengths: Tensor) -> Tensor:
        """Logits (B, M, V) of hidden `states`, each (B, M, H), with `lengths` (B,) frames."""
        mask = (torch.arange(states[0].shape[1], device=lengths.device) < lengths[:, None])[..., None]
        shares = self.mix.softmax(dim=0)
        x = self.project(sum(share * F.layer_norm(state, state.shape[-1:]) for share, state in zip(shares, states)))
        for block in self.blocks:
            x = block(x, mask)
        return self.output(self.norm(x))


class _Block(nn.Module):
    def __init__(self, dim: int, kernel: int, dropout: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.mix_frames = nn.Conv1d(dim, 2 * dim, kernel, padding=kernel // 2)
        self.dropout = nn.Dropout(dropout)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, M, D); what lies beyond `mask` (B, M, 1) is zero for the convolution, as behind an utterance alone."""
        inner = F.glu(self.mix_frames((self.norm(x) * mask).transpose(1, 2)), dim=1).transpose(1, 2)
        return x + self.project(self.dropout(F.silu(inner)))


class WhisperCTCRecogniser(Remembers, CTCRecogniser):
    """Waveforms to CTC logits and text through Whisper's encoder and a CTC head, both frozen.

    `encoder_source`: name and options of the encoder where `save_pretrained` shall not copy it. `windows`: lengths in
    seconds that recordings are filled up to, each to the shortest that holds it; none: Whisper's own 30 s. Recordings
    longer than the longest are encoded in consecutive windows.
    Raises ValueError for windows that are not in order, or longer than Whisper's own.
    """

    def __init__(self, encoder: nn.Module, head: CTCHead, extractor, tokenizer, encoder_source: dict | None = None,
                 windows: Sequence[float] = ()):
        from transformers import Wav2Vec2Processor

        super().__init__(encoder, Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer))
        self.head = head.eval().requires_grad_(False)
        self.features = LogMel(extractor)
        self.encoder_source, self.windows = encoder_source, tuple(windows)
        most = self.features.window_samples
        samples = [round(seconds * self.sample_rate / self.stride) * self.stride for seconds in windows] or [most]
        if samples != sorted(set(samples)) or not self.stride <= samples[0] <= samples[-1] <= most:
            raise ValueError(f"windows {list(windows)}: give lengths in seconds in ascending order, the last of them "
                             f"{most / self.sample_rate:.0f} at most")
        self.register_buffer("window_samples", torch.tensor(samples), persistent=False)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, **options) -> WhisperCTCRecogniser:
        """Load what `save_pretrained` wrote. `options` go to the encoder's `from_pretrained` and replace stored ones.

        Raises ValueError in one line when the folder, or the encoder that it names, cannot be used.
        """
        from transformers import Wav2Vec2CTCTokenizer

        folder, options = Path(folder), checked_options(options)
        without(options, ("language", "task", "target_lang", "fallback", "initial_prompt"),
                "its head has the language that it was trained on")
        with loading(folder, "Whisper CTC recogniser"):
            found = read_json(folder / "config.json")
            refuse_code(found, "config.json")
            config = checked(WhisperCTC, found, "config.json")
            source = config.encoder
            stored = {} if source is None else checked_options(source.options, stored=True)
            head = load_weights(lambda: CTCHead(**found["head"]), folder / "head.safetensors")
            tokenizer = load_tokenizer(Wav2Vec2CTCTokenizer, folder)
            check_tokens(tokenizer, folder, found["head"]["tokens"])
        encoder, extractor, source_now = load_encoder(source.name if source else folder / "encoder",
                                                      **{**stored, **options})
        if (states := (encoder.config.encoder_layers + 1, encoder.config.d_model)) != (
                expected := (found["head"]["layers"], found["head"]["width"])):
            raise ValueError(f"{folder}: its head is for {expected[0]} hidden states of {expected[1]} numbers; the "
                             f"encoder has {states[0]} of {states[1]}")
        return cls(encoder, head, extractor, tokenizer, source_now if source else None, config.windows)

    def with_head(self, head: CTCHead) -> WhisperCTCRecogniser:
        """The same recogniser, sharing the encoder, with another head, which is frozen too."""
        processor = self.processor
        return WhisperCTCRecogniser(self.model, head, processor.feature_extractor, processor.tokenizer,
                                    self.encoder_source, self.windows).to(self.features.window.device)

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write head, tokenizer and, unless it is named by `encoder_source`, the encoder, as safetensors."""
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.cpu().contiguous() for key, value in self.head.state_dict().items()},
                  folder / "head.safetensors")
        self.processor.tokenizer.save_pretrained(folder)
        if self.encoder_source is None:
            self.model.save_pretrained(folder / "encoder")
            self.processor.feature_extractor.save_pretrained(folder / "encoder")
        config = {"model_type": "whisper-ctc", "encoder": self.encoder_source, "head": self.head.config,
                  "windows": self.windows}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @property
    def logits_size(self) -> int:
        return self.head.config["tokens"]

    @property
    def stride(self) -> int:
        """Samples from one logit frame to the next: two frames of the log-mel spectrogram, 20 ms."""
        return 2 * self.features.hop

    @property
    def hidden_step(self) -> float:
        return 1.0

    @property
    def receptive_field(self) -> int:
        """The shortest possible input: one window of the spectrogram, 25 ms."""
        return self.features.n_fft

    @property
    def first_centre(self) -> float:
        """The sample in the middle of the first logit frame: spectrogram and convolutions are centred."""
        return 0.0

    def frame_lengths(self, samples: Tensor) -> Tensor:
        """Number of logit frames for inputs of `samples` (B,) samples: those whose centre lies within."""
        return torch.div(samples + self.stride - 1, self.stride, rounding_mode="floor")

    def forward(self, waves: Tensor, lengths: Tensor, like: Logits | None = None) -> CTCLogits:
        """Logits of zero-padded `waves` (B, T) at 16 kHz with `lengths` (B,) samples; each window length is one pass.

        Gradients pass to the waveforms, never to the weights.
        Raises ValueError when a waveform is shorter than one frame.
        """
        self._check_lengths(lengths)
        found = self.remembered(waves, lengths, lambda: self._heard(waves, lengths))
        values, hidden = found.split([self.logits_size, found.shape[-1] - self.logits_size], dim=-1)
        return CTCLogits(values, self.frame_lengths(lengths), hidden, self)

    def _heard(self, waves: Tensor, lengths: Tensor) -> Tensor:
        """Logits and hidden states, side by side: (B, M, V + layers H)."""
        states = self.encode(waves, lengths)
        values = self.head(states, self.frame_lengths(lengths))
        return torch.cat([values, self._hidden(states, values.shape[1])], dim=-1)

    def excerpt_states(self, waves: Tensor) -> list[Tensor]:
        return hidden_states(self.model, self.features.features(waves.float()))[1:]

    def encode(self, waves: Tensor, lengths: Tensor) -> list[Tensor]:
        """All hidden states of the encoder, each (B, M, H), for the frames of the longest waveform."""
        longest = int(self.window_samples[-1])
        count = -(-int(lengths.max()) // longest)
        parts = F.pad(waves[:, :count * longest], (0, max(count * longest - waves.shape[1], 0))).view(-1, longest)
        left = (lengths[:, None] - longest * torch.arange(count, device=lengths.device)).clamp(0, longest).view(-1)
        frames = int(self.frame_lengths(lengths).max())
        room = frames if count == 1 else longest // self.stride
        states = None
        shortest = torch.bucketize(left, self.window_samples)  # the number of the window that holds a part
        for number in shortest[left > 0].unique().tolist():
            here = ((shortest == number) & (left > 0)).nonzero()[:, 0]
            size = int(self.window_samples[number])
            found = torch.stack(hidden_states(self.model, self.features(parts[here, :size], left[here], size))).float()
            if states is None:
                states = found.new_zeros(len(found), len(parts), room, found.shape[-1])
            states[:, here, :found.shape[2]] = found[:, :, :room]
        return list(states.view(len(states), len(waves), count * room, -1)[:, :, :frames])
