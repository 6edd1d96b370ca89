"""Shared with images and kept in `cdasr.joint`; known by these names here as well."""

from cdasr.classifiers.logits import frame_mask
from cdasr.joint.logits_model import LogitsModel

__all__ = ["LogitsModel", "frame_mask"]
