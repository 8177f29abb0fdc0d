"""Quantization-aware training: students that learn while they are being quantized.

`quantize_aware` turns a Keras 3 model into one that simulates the integer arithmetic of its
TFLite file; `keras_distill.tflite.convert` writes the file that computes exactly that.
"""

from keras_distill.quantization.aware import freeze, precision, quantize_aware
from keras_distill.quantization.bit_search import Found, search
from keras_distill.quantization.calibration import calibrate
from keras_distill.quantization.ranges import is_quantize_aware

__all__ = [
    "Found",
    "calibrate",
    "freeze",
    "is_quantize_aware",
    "precision",
    "quantize_aware",
    "search",
]
