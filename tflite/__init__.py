"""Students as TFLite files for phones and microcontrollers, proven in the real runtimes."""

from keras_distill.tflite.artifact import Artifact, load
from keras_distill.tflite.budget import BudgetError
from keras_distill.tflite.calibration import Calibration
from keras_distill.tflite.child import ConverterCrash, ConverterError
from keras_distill.tflite.convert import convert
from keras_distill.tflite.inspect import inspect
from keras_distill.tflite.streaming import Decision, Detection, Stream
from keras_distill.tflite.targets import EthosU

__all__ = [
    "Artifact",
    "BudgetError",
    "Calibration",
    "ConverterCrash",
    "ConverterError",
    "Decision",
    "Detection",
    "EthosU",
    "Stream",
    "convert",
    "inspect",
    "load",
]
