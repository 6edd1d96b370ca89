"""cdasr: make a frozen speech recogniser robust to noise with coupled diffusion models of signals and logits.

Importing the package is cheap; the names below load torch only when they are first used.
"""

from importlib import import_module

__version__ = "0.1.0"

_LAZY = {
    "Pipeline": "cdasr.speech.pipeline",
    "Transcript": "cdasr.speech.transcript",
    "CTCRecogniser": "cdasr.classifiers.ctc",
    "load_recogniser": "cdasr.classifiers.load",
    "ImagePipeline": "cdasr.images.pipeline",
    "Classification": "cdasr.images.pipeline",
    "ImageClassifier": "cdasr.classifiers.image",
    "evaluate": "cdasr.evaluation.evaluate",
    "simulate": "cdasr.speech.simulate",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'cdasr' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__():
    return sorted(__all__)
