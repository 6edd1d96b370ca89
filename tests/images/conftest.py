"""A small classifier and a complete image package with random weights."""

from __future__ import annotations

import pytest
import torch

CLASSES = [f"class {number}" for number in range(7)]
CLASSIFIER = {"architecture": {"name": "small_resnet", "widths": [4, 8], "blocks": 1}, "classes": CLASSES,
              "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
SIGNAL = {"process": {"name": "vp"}, "sampling": {"steps": 2, "method": "deterministic", "spacing": "uniform"},
          "network": {"name": "image_unet", "channels": [8, 8], "blocks": 1, "attention": 2, "embedding": 16}}
LOGITS = {"process": {"name": "vp"}, "space": {"scale": 0.5}, "sampling": {"steps": 2},
          "network": {"name": "logits_net", "tokens": 7, "hidden": 8, "dim": 16, "blocks": 1, "attention_every": 0}}


@pytest.fixture
def pipeline(classifier):
    return make_pipeline(classifier)


def make_pipeline(classifier):
    """Every strategy can be run, and each network does something."""
    from cdasr.coupled.models import LogitsModel
    from cdasr.images.pipeline import ImagePipeline
    from cdasr.images.signal_model import ImageModel

    torch.manual_seed(2)
    signal = ImageModel.from_config({**SIGNAL, "network": {**SIGNAL["network"], "tokens": 7, "condition": 8}})
    logits = LogitsModel.from_config(LOGITS)
    with torch.no_grad():  # untrained networks return what they are given: give them something to do
        for name, parameter in signal.network.named_parameters():
            if "last" in name or "inject" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
        logits.network.correct.weight.normal_(std=0.3)
    return ImagePipeline(classifier, signal, {"image_size": [8, 8]}, "cpu", logits)
