"""Which modules and methods of a frozen classifier do what, so that their time can be told apart."""

from __future__ import annotations

from torch import nn

from cdasr.classifiers.log_mel import LogMel

DECODING = ("decode", "words", "redecode", "lockstep")


def parts_of(classifier: nn.Module) -> dict[str, list[nn.Module]]:
    """Modules by what they do: `features`, `encoder`, `decoder`, `head`; what a classifier does not have is left out.

    Of one that is no sequence-to-sequence model, the encoder is the whole model.
    """
    classifier = inner(classifier)
    model = getattr(classifier, "model", None)
    found: dict[str, list[nn.Module]] = {
        "features": [module for module in classifier.modules() if isinstance(module, LogMel)]}
    if isinstance(model, nn.Module) and getattr(model.config, "is_encoder_decoder", False) and hasattr(
            model, "get_decoder"):
        found |= {"encoder": [model.get_encoder()], "decoder": [model.get_decoder()]}
    elif isinstance(model, nn.Module):
        found["encoder"] = [model]
    if isinstance(head := getattr(classifier, "head", None), nn.Module):
        found["head"] = [head]
    return {name: modules for name, modules in found.items() if modules}


def decoding_methods(classifier: nn.Module) -> list[tuple[object, str]]:
    """Objects and the names of their methods that make text of logits, or search for it."""
    classifier = inner(classifier)
    found = [(classifier, name) for name in DECODING if hasattr(classifier, name)]
    model = getattr(classifier, "model", None)
    return [*found, (model, "generate")] if "decoder" in parts_of(classifier) else found


def inner(classifier: nn.Module) -> nn.Module:
    """The classifier behind a resampler, or itself."""
    return getattr(classifier, "recogniser", classifier)
