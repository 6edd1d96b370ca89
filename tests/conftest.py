"""Small real things that many tests need: audio files, a recogniser, a signal model, a model package."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
import soundfile
import torch

RATE = 16_000
TRAINER = {  # settings of every training, as a recipe has them
    "tensorboard": False, "patience": None, "patience_warmup": 0, "lr_factors": {}, "weight_decay": 0.01,
    "max_grad_norm": 1.0, "valid_batch_seconds": None, "epoch_items": None, "precision": "fp32",
    "grad_accumulation": 1, "compile": False, "channels_last": False, "workers": 0, "checkpoint_minutes": 10}
TINY_WAV2VEC2 = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "conv_dim": [16, 16, 16, 16, 16], "conv_kernel": [20, 8, 4, 4, 4], "conv_stride": [10, 4, 2, 2, 2],
    "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True, "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4}
TINY_SIGNAL = {
    "stft": {"sample_rate": RATE, "n_fft": 254, "hop": 127, "exponent": 0.5, "scale": 0.3},
    "process": {"name": "sbve", "k": 2.6, "c": 0.4},
    "network": {"name": "tf_unet", "channels": [4, 8], "strides": [4, 4], "dim": 16, "blocks": 2,
                "attention_every": 2, "heads": 2},
    "sampling": {"steps": 2, "method": "deterministic", "spacing": "uniform"}}
TINY_LOGITS = {
    "process": {"name": "sbve", "k": 2.6, "c": 0.4}, "space": {"scale": 0.2},
    "network": {"name": "logits_net", "hidden": 32, "dim": 16, "blocks": 2, "attention_every": 2, "heads": 2},
    "sampling": {"steps": 2, "method": "deterministic", "spacing": "uniform"}}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems():
    _keep_lazy_modules_lazy()


def pytest_runtest_setup():
    _keep_lazy_modules_lazy()


def _keep_lazy_modules_lazy():
    """hypothesis asks every module for its `__file__`; SpeechBrain's lazy ones would import what is not installed."""
    if lazy := sys.modules.get("speechbrain.utils.importutils"):
        lazy.LazyModule.__file__ = None


@pytest.fixture
def tone():
    """tone(seconds, hertz=440, rate=16000) -> (samples,) float32 with some noise."""
    def make(seconds: float, hertz: float = 440.0, rate: int = RATE) -> np.ndarray:
        time = np.arange(int(seconds * rate)) / rate
        noise = np.random.default_rng(int(hertz)).standard_normal(len(time))
        return (0.2 * np.sin(2 * np.pi * hertz * time) + 0.02 * noise).astype(np.float32)
    return make


@pytest.fixture
def write_wav(tmp_path):
    """write_wav(name, wave, rate=16000) -> path of a file in tmp_path."""
    def write(name: str, wave, rate: int = RATE):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave, rate)
        return path
    return write


@pytest.fixture(scope="session")
def recogniser_dir(tmp_path_factory):
    """A wav2vec2 CTC model with random weights and its processor, as save_pretrained writes them."""
    from cdasr.speech.train_recogniser import make_model, make_processor

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("recogniser")
    processor = make_processor(["one two three four"], folder / "tokenizer", RATE)
    make_model(TINY_WAV2VEC2, processor).save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def package_dir(recogniser_dir, tmp_path_factory):
    """A complete model package with random weights: every strategy can be run."""
    from cdasr.classifiers.ctc import CTCRecogniser
    from cdasr.coupled.models import LogitsModel
    from cdasr.speech.pipeline import Pipeline
    from cdasr.speech.signal_model import SpectrogramModel

    torch.manual_seed(2)
    recogniser = CTCRecogniser.from_pretrained(recogniser_dir)
    tokens = recogniser.model.config.vocab_size
    signal = SpectrogramModel.from_config({**TINY_SIGNAL, "network": {**TINY_SIGNAL["network"], "tokens": tokens,
                                                                 "condition": 8}})
    logits = LogitsModel.from_config({**TINY_LOGITS, "network": {**TINY_LOGITS["network"], "tokens": tokens}})
    with torch.no_grad():  # untrained networks return what they are given: give them something to do
        signal.network.decoder[-1].expand.weight.normal_(std=0.02)
        for layer in signal.network.trunk.inject:
            layer.weight.normal_(std=0.3)
        logits.network.correct.weight.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("package")
    config = {"observation_adding": {"weight": 0.25}}
    Pipeline(recogniser, signal, config, "cpu", logits).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def whisper_dir(tmp_path_factory):
    """A small random Whisper with a window of 2 s, as save_pretrained writes it."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("whisper")
    model = WhisperForConditionalGeneration(WhisperConfig(
        d_model=24, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=20, vocab_size=60, max_source_positions=100,
        pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=2))
    with torch.no_grad():  # sounds that differ as much as positions do, as in a trained encoder
        model.model.encoder.conv1.weight.normal_(std=0.2)
        model.model.encoder.conv2.weight.normal_(std=0.2)
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=2).save_pretrained(folder)
    return folder


@pytest.fixture
def classifier():
    """A small image classifier with random weights."""
    from cdasr.classifiers.image import ImageClassifier, make_model
    from tests.images.conftest import CLASSES, CLASSIFIER

    torch.manual_seed(1)
    return ImageClassifier(make_model(CLASSIFIER["architecture"], len(CLASSES)), CLASSIFIER)


@pytest.fixture
def corpus(tmp_path, write_wav, tone):
    """Six clean utterances with fixed noisy versions: (train rows, valid rows)."""
    from cdasr.speech.manifest import read_manifest, write_manifest

    rows = []
    for number in range(6):
        clean = tone(0.4 + 0.05 * number, 200 + 100 * number)
        noisy = clean + 0.1 * np.random.default_rng(number).standard_normal(len(clean)).astype(np.float32)
        rows.append({"ID": f"u{number}", "duration": len(clean) / 16_000, "wav": write_wav(f"n{number}.wav", noisy),
                     "clean_wav": write_wav(f"c{number}.wav", clean), "text": "one two", "spk_id": "s"})
    write_manifest(tmp_path / "valid.csv", rows)
    valid = read_manifest(tmp_path / "valid.csv")
    return [{**row, "wav": row["clean_wav"]} for row in valid], valid


@pytest.fixture
def killed(monkeypatch):
    """`killed(trainer, when, train)`: train until `when(run)` holds before a batch, and stop there as by Ctrl-C."""
    def run(trainer, when, train):
        step = trainer.fit_batch

        def fit_batch(self, batch):
            if when(self):
                raise KeyboardInterrupt
            return step(self, batch)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(trainer, "fit_batch", fit_batch)
            train()
    return run
