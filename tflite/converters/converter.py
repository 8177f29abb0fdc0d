"""What the ways in which a student becomes a file have in common."""

import abc
import dataclasses
from collections.abc import Mapping

import numpy as np
from keras_distill.tflite import flatbuffer, ranges, targets
from keras_distill.tflite.request import Request
from keras_distill.tflite.student_function import StudentFunction
from keras_distill.tflite.trace import Graph

#: Arrays of shape `(samples, ...)` by input name.
Samples = Mapping[str, np.ndarray]
#: `(low, high)` of the scores that a mask leaves in, by the name of the softmax after them.
Scores = Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Converted:
    """A file as a converter made it, names included.

    Attributes:
        tflite: The file.
        asked_float: Names of the tensors whose operators were asked to stay float.
        notes: What its converter could not do as it should.
        scores: Scores whose masks were brought near to them, see `masks`.
    """

    tflite: bytes
    asked_float: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    scores: Scores = dataclasses.field(default_factory=dict)

    def fed_bytes(self) -> "Converted":
        """The file with uint8 inputs that stand for themselves."""
        return dataclasses.replace(self, tflite=flatbuffer.fed_bytes(self.tflite))

    def for_micro(self) -> "Converted":
        """The file with the operators that TFLite Micro has, as its kernels take them."""
        tflite = flatbuffer.with_plain_clip(flatbuffer.with_select_v2(self.tflite))
        tflite = flatbuffer.with_equal_relu6(tflite)
        return dataclasses.replace(self, tflite=tflite)

    def within(self, met: Mapping[str, ranges.Range]) -> "Converted":
        """The file with the ranges that calibration found, where the converter gave it others.

        Args:
            met: `(low, high)` by tensor name.
        """
        tflite = ranges.repaired(self.tflite, met)
        if tflite is self.tflite:
            return self
        notes = [
            f"tensor {targets.layer_of(name)!r} clips {share:.0%} of the range that calibration "
            "found"
            for name, share in ranges.clipped(tflite, met).items()
        ]
        return dataclasses.replace(self, tflite=tflite, notes=(*self.notes, *notes))


class Converter(abc.ABC):
    """A way in which a student becomes a file, for one conversion."""

    def form(self, request: Request) -> StudentFunction:
        """The function to be traced for the student."""
        return request.student

    @abc.abstractmethod
    def convert(self, request: Request, graph: Graph, samples: Samples | None) -> Converted:
        """Makes a file.

        Args:
            request: What was asked for.
            graph: The traced graph.
            samples: Calibration data at the inputs of the graph, or `None`.

        Raises:
            ConverterError: The converter refused the graph, or crashed.
        """
