"""A pipeline of each domain with random weights, in which every strategy can be run, and signals for it."""

from __future__ import annotations

import pytest
import torch

from cdasr import ImagePipeline, Pipeline
from tests.images.conftest import make_pipeline


@pytest.fixture(params=["speech", "images"])
def pipeline(request, package_dir, classifier):
    return Pipeline.from_pretrained(package_dir, "cpu") if request.param == "speech" else make_pipeline(classifier)


@pytest.fixture
def signals(pipeline, tone):
    """Two signals of the pipeline's domain."""
    if isinstance(pipeline, ImagePipeline):
        return list(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
    return [torch.from_numpy(tone(0.4)), torch.from_numpy(tone(0.5, 300))]


@pytest.fixture
def rebuilt(pipeline):
    """rebuilt(config, logits=True): the pipeline with another configuration, with or without its logits process."""
    def build(config: dict, logits: bool = True):
        return type(pipeline)(pipeline.classifier, pipeline.signal, {**pipeline.config, **config}, "cpu",
                              pipeline.logits if logits else None)
    return build
