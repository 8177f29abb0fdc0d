"""The integers that a quantize-aware student was trained with."""

import dataclasses

from keras_distill.tflite.converters import plain
from keras_distill.tflite.converters.converter import Converted, Converter, Samples
from keras_distill.tflite.request import Request
from keras_distill.tflite.student_function import StudentFunction
from keras_distill.tflite.trace import Graph

from keras_distill.quantization import export, flatbuffer


class Trained(Converter):
    """TensorFlow's converter to float32, and the trained ranges and integers in place of floats."""

    def form(self, student: StudentFunction) -> StudentFunction:
        model = export.export_form(student.model)
        return dataclasses.replace(student, model=model, named_by=student.model)

    def convert(self, request: Request, graph: Graph, samples: Samples | None) -> Converted:
        float32 = plain.run(request, graph, "float32")
        model = request.student.model
        tflite = flatbuffer.write_integers(model, float32, request.io)
        flatbuffer.check_export(model, tflite)
        return Converted(tflite)
