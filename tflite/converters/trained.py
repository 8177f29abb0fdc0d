"""The integers that a quantize-aware student was trained with."""

import collections
import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from keras_distill.tflite.converters import plain
from keras_distill.tflite.converters.converter import Converted, Converter, Samples
from keras_distill.tflite.converters.export_form import ExportForm
from keras_distill.tflite.converters.integers import GREATEST_BIAS, IntegerFile
from keras_distill.tflite.converters.markers import BY_BITS, Kernel, Marker
from keras_distill.tflite.flatbuffer import File
from keras_distill.tflite.request import Request
from keras_distill.tflite.student_function import StudentFunction
from keras_distill.tflite.trace import Graph


class Trained(Converter):
    """TensorFlow's converter to float32, and the trained ranges and integers in place of floats."""

    def form(self, request: Request) -> StudentFunction:
        student = request.student
        self._form = ExportForm(student.model, request.target.runtime == "micro")
        return dataclasses.replace(student, model=self._form.model, named_by=student.model)

    def convert(self, request: Request, graph: Graph, samples: Samples | None) -> Converted:
        float32 = plain.run(request, graph, "float32")
        return Converted(complete(self._form, float32, request.io))


def complete(form: ExportForm, tflite: bytes, io: tuple[str, str] = ("int8", "int8")) -> bytes:
    """Makes the integer file of a student from the float file of its export form.

    Args:
        form: The export form of the student.
        tflite: The float file that TensorFlow's converter made of `form.model`.
        io: Types of the file's inputs and outputs: `"float32"`, `"uint8"`, or that of their
            tensors (`"int8"` or `"int16"`, whichever it is).

    Returns:
        The integer file. Its tensors are named after the paths of the layers.

    Raises:
        ValueError: If a tensor has neither a range nor a layer that stays float, or the file
            isn't what was trained (see `check`); names the tensor.
    """
    file = IntegerFile(form, tflite)
    if len(file.model.subgraphs) != 1:
        raise ValueError(f"The file has {len(file.model.subgraphs)} graphs instead of one.")
    file.settle()
    file.convert_ports(*io)
    file.drop_unused()
    completed = file.to_bytes()
    check(form, completed)
    return completed


def check(form: ExportForm, tflite: bytes) -> None:
    """Checks that a file holds the ranges and integers that a student was trained with.

    Args:
        form: The export form of the student.
        tflite: Its file, names included.

    Raises:
        ValueError: If a scale differs by more than 1e-6 (relative), a zero point or an integer
            weight differs, a tensor stayed float that should not, or there are more `QUANTIZE`
            and `DEQUANTIZE` operators than the student asks for. Names the tensor.
    """
    file = File(tflite)
    by_name = collections.defaultdict(list)
    for tensor in file.graph.tensors:
        by_name[tensor.name.decode()].append(tensor)
    for marker in form.markers:
        for tensor in by_name[marker.name] or [None] if marker.bits else ():
            _check_range(marker, tensor)
    for kernel in form.kernels:
        (bias, *_) = by_name[f"{kernel.name}/bias"] or [None]
        bias = None if bias is None or bias.type != schema.TensorType.INT32 else bias
        for tensor in by_name[kernel.name] or [None]:
            _check_kernel(kernel, tensor, bias, file)
    _check_floats(form, file)


def _check_range(marker: Marker, tensor: Any) -> None:
    if tensor is None:
        raise ValueError(f"The file has no tensor {marker.name!r}.")
    found = tensor.quantization
    if tensor.type != BY_BITS[marker.bits] or found is None or found.scale is None:
        kind = flatbuffer_utils.type_to_name(tensor.type)
        raise ValueError(f"The tensor {marker.name!r} is {kind}, not {marker.bits}-bit integers.")
    scale, zero_point = float(found.scale[0]), int(found.zeroPoint[0])
    if abs(scale - marker.scale) > 1e-6 * marker.scale or zero_point != marker.zero_point:
        raise ValueError(
            f"The tensor {marker.name!r} has scale {scale} and zero point {zero_point} in the "
            f"file, but was trained with {marker.scale} and {marker.zero_point}."
        )


def _check_kernel(kernel: Kernel, tensor: Any, bias: Any, file: File) -> None:
    if tensor is None:
        raise ValueError(f"The file has no weights {kernel.name!r}.")
    integers = file.integers(tensor)
    scales = np.asarray(tensor.quantization.scale, "float32")
    wanted, steps = kernel.integers, kernel.scales
    if scales.shape == steps.shape:
        steps = np.where(steps == 0, scales, steps)  # Of channels that are 0 throughout.
    if bias is not None and scales.shape == steps.shape:
        # Scales are raised where the bias would overflow; the integers shrink with them.
        full = np.abs(file.data(bias, "int32")) >= GREATEST_BIAS * 0.999  # type: ignore[arg-type]
        steps = np.where(full, np.maximum(scales, steps), steps)
        wanted = kernel.rescaled(steps)
    if scales.shape != steps.shape or not np.allclose(scales, steps, rtol=1e-6, atol=0):
        raise ValueError(
            f"The weights {kernel.name!r} have other scales in the file than they were trained "
            f"with: {scales[:4]}... instead of {steps[:4]}..."
        )
    if not np.array_equal(integers, wanted.ravel()):
        count = np.sum(integers != wanted.ravel()) if integers.size == wanted.size else "all"
        raise ValueError(
            f"The weights {kernel.name!r} differ from the trained ones in {count} of "
            f"{wanted.size} integers."
        )


def _check_floats(form: ExportForm, file: File) -> None:
    ports = {*file.graph.inputs, *file.graph.outputs}
    has_floats = any(not marker.bits for marker in form.markers)
    found = 0
    for operator in file.graph.operators:
        indices = (*operator.inputs, *operator.outputs)
        if file.operator_name(operator) in ("QUANTIZE", "DEQUANTIZE"):
            found += ports.isdisjoint(indices)
        elif not has_floats:
            for index in indices:
                if index >= 0 and file.graph.tensors[index].type == schema.TensorType.FLOAT32:
                    raise ValueError(f"The tensor {file.tensor_name(index)!r} stayed float.")
    asked = sum(marker.turns_type for marker in form.markers)
    if found > asked:
        raise ValueError(
            f"The file has {found} inner QUANTIZE and DEQUANTIZE operators, the model asks for "
            f"{asked}."
        )
