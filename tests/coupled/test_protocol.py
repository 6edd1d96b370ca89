"""Each recogniser has all of the protocol, and nobody outside `classifiers/` asks which sort it is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import cdasr
from cdasr.classifiers.ctc import CTCRecogniser
from cdasr.classifiers.image import ImageClassifier
from cdasr.classifiers.protocol import Classifier, Recogniser
from cdasr.classifiers.whisper_ctc import WhisperCTCRecogniser
from cdasr.classifiers.whisper_decoder import WhisperDecoderRecogniser
from tests.coupled.test_toy_recogniser import BandRecogniser

SENTINELS = (r"\.blank\b.* is (not )?None|\b(tokens|edges|boundaries) is (not )?None|"
             r"(has|get)attr\(\w*(classifier|recogniser|frozen)\b, .(blank|logits|tokens|vocab_size|hidden)")


def members(protocol) -> set[str]:
    """Names that a protocol asks for, with those of the protocols that it extends."""
    return {name for base in protocol.__mro__ if base.__module__ == protocol.__module__
            for name in (*vars(base).get("__annotations__", {}), *vars(base)) if not name.startswith("_")}


@pytest.mark.parametrize("protocol, classifier", [
    (Recogniser, CTCRecogniser), (Recogniser, WhisperCTCRecogniser), (Recogniser, WhisperDecoderRecogniser),
    (Recogniser, BandRecogniser), (Classifier, ImageClassifier)])
def test_each_classifier_has_all_members(protocol, classifier):
    source = "".join(inspect.getsource(base) for base in classifier.__mro__ if not base.__module__.startswith("torch")
                     and base is not object)
    own_times = {"frame_times"} if classifier is WhisperDecoderRecogniser else set()
    lacking = {name for name in members(protocol) - own_times
               if not hasattr(classifier, name) and f"self.{name}" not in source}
    assert not lacking
    assert 10 <= len(members(Recogniser)) <= 12


def test_no_sentinel_is_tested_outside_the_classifiers():
    root = Path(cdasr.__file__).parent
    found = [f"{path.relative_to(root)}: {line.strip()}" for path in root.rglob("*.py")
             if "classifiers" not in path.parts for line in path.read_text().splitlines() if re.search(SENTINELS, line)]
    assert not found


@pytest.mark.parametrize("attribute", ["hidden_layers", "precision", r"config(\[[^\]]+\])+"])
def test_nobody_sets_the_attributes_of_anothers_object(attribute):
    root, found = Path(cdasr.__file__).parent, []
    for path in root.rglob("*.py"):
        found += [f"{path.relative_to(root)}: {line.strip()}" for line in path.read_text().splitlines()
                  if re.search(rf"\b(?!self\b)\w+\.{attribute} = ", line)]
    assert not found
