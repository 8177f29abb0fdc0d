"""The ways in which a student becomes a file, a module for each."""

from keras_distill.tflite.converters import plain, quantizer, trained
from keras_distill.tflite.converters.converter import Converted, Converter
from keras_distill.tflite.converters.plain import float32_file

#: By `Request.way`.
WAYS: dict[str, type[Converter]] = {
    "plain": plain.Plain,
    "quantizer": quantizer.Quantizer,
    "trained": trained.Trained,
}

__all__ = ["WAYS", "Converted", "Converter", "float32_file"]
