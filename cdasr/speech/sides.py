"""Shared with images and kept in `cdasr.joint`; known by these names here as well."""

from cdasr.joint.sides import Sides, strategy_steps

__all__ = ["Sides", "strategy_steps"]
