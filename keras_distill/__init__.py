"""Knowledge distillation for Keras, and proven TFLite students for phones and microcontrollers."""

import importlib

from keras_distill import losses
from keras_distill._version import __version__

__all__ = ["__version__", "losses"]

# Loaded on first use: each brings heavy dependencies that training alone doesn't need.
_LAZY = ("tflite",)


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f"keras_distill.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *_LAZY])
