"""Denoising networks: `torch.nn` only, no training code and no files."""

from __future__ import annotations

from torch import nn


def make_network(config: dict) -> nn.Module:
    """The network that a plain-data config `{"name": ..., option: value}` describes, with random weights.

    Raises ValueError for an unknown name or option.
    """
    from cdasr.networks.image_unet import ImageUNet
    from cdasr.networks.logits_net import LogitsNet
    from cdasr.networks.ncsnpp import NCSNpp
    from cdasr.networks.tf_unet import TFUNet

    registry = {"tf_unet": TFUNet, "ncsnpp": NCSNpp, "logits_net": LogitsNet,
                "image_unet": ImageUNet}
    options = dict(config)
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(sorted(registry))}")
    try:
        return registry[name](**options)
    except (TypeError, ArithmeticError, LookupError, RuntimeError) as error:  # sizes that do not fit each other
        raise ValueError(f"network {name!r}: {' '.join(str(error).split()) or type(error).__name__}") from None
