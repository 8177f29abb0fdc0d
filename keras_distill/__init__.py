"""Knowledge distillation for Keras, and proven TFLite students for phones and microcontrollers."""

import importlib

from keras_distill import callbacks, losses, methods, quantization, teachers
from keras_distill._version import __version__
from keras_distill.distiller import Distiller
from keras_distill.match import Match
from keras_distill.mutual import MutualDistiller

# What a saved model may hold is imported here, so that `keras.saving.load_model` knows it.
__all__ = [
    "Distiller",
    "Match",
    "MutualDistiller",
    "__version__",
    "callbacks",
    "losses",
    "methods",
    "quantization",
    "teachers",
]

# Loaded on first use: each brings heavy dependencies that training alone doesn't need.
_LAZY = (
    "data",
    "detection",
    "evaluation",
    "generators",
    "language",
    "legacy",
    "pruning",
    "tflite",
    "tuning",
)


def __getattr__(name):
    if name in _LAZY:
        return importlib.import_module(f"keras_distill.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, *_LAZY])
