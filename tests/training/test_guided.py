"""The signal process learns to use logits from the cache alone: with a CTC recogniser and with Whisper's decoder."""

import pytest
import torch

from cdasr.classifiers.load import load_recogniser
from cdasr.speech.domain import SPEECH
from cdasr.speech.signal_model import SpectrogramModel
from cdasr.speech.utterances import FixedPairs
from cdasr.training.guided import CachedPairs, GuidedTrainer, fit_guided
from cdasr.training.logits import train_logits
from tests.classifiers.whisper import make_whisper
from tests.conftest import TINY_LOGITS, TINY_SIGNAL
from tests.training.helpers import BANK, COUPLED, LOGITS, add_noise, cache_of, fingerprint, noisy_speech

HPARAMS = {**COUPLED, "excerpt_weight": 0.1, "excerpt_seconds": 0.2, "validate": ["cascade"]}


@pytest.fixture(params=["ctc", "whisper"])
def recogniser(request, recogniser_dir, tmp_path):
    if request.param == "ctc":
        return load_recogniser(recogniser_dir)
    return load_recogniser(make_whisper(tmp_path / "whisper"), fallback=False)


def test_the_signal_process_alone_learns_and_the_recogniser_hears_nothing_twice(corpus, recogniser, tmp_path, killed):
    signal = SpectrogramModel.from_config(TINY_SIGNAL)
    cache = cache_of(tmp_path / "cache", corpus[0], add_noise, recogniser, signal, {**BANK, "noisy_prefix": 0.5})
    network = {**TINY_LOGITS["network"], "kernel": 1, "attention_every": 0}
    for name in ("logits", "guided", "resumed"):
        (tmp_path / name).mkdir()
    logits = train_logits({**TINY_LOGITS, "network": network}, recogniser, cache, cache, tmp_path / "logits",
                          {**LOGITS, "epochs": 1}, "cpu", SPEECH)
    pairs = CachedPairs(noisy_speech(corpus[0], add_noise, 3), cache)
    assert len(pairs) == len(cache) and torch.equal(pairs[1]["heard_logits"], cache[1]["heard"])
    before = fingerprint(logits.network), fingerprint(recogniser)
    heard = []
    recogniser.register_forward_hook(lambda *_: heard.append(torch.is_inference_mode_enabled()))

    def train(name):
        return fit_guided(signal, logits, recogniser, SPEECH, pairs, FixedPairs(corpus[1], 16_000), tmp_path / name,
                          HPARAMS, "cpu")
    guided, same = train("guided")
    assert (fingerprint(same.network), fingerprint(recogniser)) == before
    assert all(layer.weight.detach().abs().max() > 0 for layer in guided.network.trunk.inject)
    per_epoch = len(heard) // HPARAMS["epochs"]
    assert len(heard) == per_epoch * HPARAMS["epochs"]
    assert per_epoch == 2 * 3, "validation alone, three batches: C(y) and C(x_hat)"

    killed(GuidedTrainer, lambda run: run.optimizer_step == 2, lambda: train("resumed"))
    assert fingerprint(train("resumed")[0].network) == fingerprint(guided.network)


def test_an_item_of_the_cache_is_the_signal_that_was_heard(corpus, recogniser, tmp_path):
    signal = SpectrogramModel.from_config(TINY_SIGNAL)
    cache = cache_of(tmp_path / "cache", corpus[0], add_noise, recogniser, signal, {**BANK, "noisy_prefix": 1.0})
    pairs = CachedPairs(noisy_speech(corpus[0], add_noise, 3), cache)
    for item in (pairs[place] for place in (0, len(pairs) - 1)):
        waves, lengths = item["noisy"][None], torch.tensor([len(item["noisy"])])
        known = recogniser(waves, lengths)
        torch.testing.assert_close(item["heard_logits"], known.values[0], atol=2e-2, rtol=1e-2)
        if known.has_hypothesis:
            torch.testing.assert_close(item["boundaries"], known.boundaries[0], atol=1e-2, rtol=1e-2)
