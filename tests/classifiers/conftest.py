"""What tests of Whisper's decoder share."""

import pytest

from cdasr.classifiers import whisper_decoder
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser


@pytest.fixture
def no_limit(monkeypatch):
    """Untrained decoders do not stop; these tests let them go on as transformers does."""
    monkeypatch.setattr(whisper_decoder, "SPARE_TOKENS", 1000)


@pytest.fixture
def recogniser(whisper_dir):
    """A frozen Whisper with its own decoder, of the module's `whisper_dir`; modules about others have their own."""
    return WhisperDecoderRecogniser.from_pretrained(whisper_dir, fallback=False)
