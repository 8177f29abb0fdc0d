"""How close a file comes to its student, and the limits by which it passes or fails."""

from typing import Any

import numpy as np
from keras_distill.tflite.inspect import Inspection

#: Root mean square error that an output may have, relative to the spread of the student's output.
#: The rounding of the output itself comes on top.
LIMITS = {
    "float32": 0.01, "float16": 0.02, "dynamic": 0.1, "int8": 0.1, "int16x8": 0.05, "int4": 0.6,
}  # fmt: skip


def quantization_of(found: Inspection) -> str:
    """The quantization of a file, by the types of its tensors: a key of `LIMITS`."""
    weights = {t.dtype for op in found.operators for t in op.inputs if t and t.constant}
    computed = {t.dtype for op in found.operators for t in op.outputs if t.scales}
    if "INT4" in weights:
        return "int4"
    if computed & {"INT16", "INT8", "UINT8"}:
        return "int16x8" if "INT16" in computed else "int8"
    if "FLOAT16" in weights:
        return "float16"
    scaled = any(t and t.constant and t.scales for op in found.operators for t in op.inputs)
    return "dynamic" if scaled else "float32"


def relative_error(expected: Any, got: Any, step: float = 0.0) -> float:
    """Root mean square error relative to the spread of the expected values.

    NaN and infinity in the same place on both sides are agreement, on one side infinite error.

    Args:
        expected: The student's output, of shape `(samples, ...)`.
        got: The file's.
        step: Step of the output's quantization, whose rounding isn't counted.
    """
    expected, got = (np.asarray(x, "float64") for x in (expected, got))
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], got[~finite], equal_nan=True):
        return float("inf")
    expected, got = expected[finite], got[finite]
    if not np.isfinite(got).all():
        return float("inf")
    if not expected.size:
        return 0.0
    spread = max(float(expected.std()), 1e-3 * float(np.abs(expected).max()), 1e-9)
    # Rounding is uniform in a step, but where all values fall into one: up to half of it, always.
    rounding = step**2 / (12 if spread > step else 4)
    square = max(float(np.mean((got - expected) ** 2)) - rounding, 0.0)
    return float(np.sqrt(square)) / spread


def input_ranges(found: Inspection) -> list[tuple[float, float] | None]:
    """`(low, high)` that each input of a file can hold, `None` for those that aren't quantized."""
    result: list = []
    for tensor in found.inputs:
        # After a float input, a QUANTIZE has the range.
        inner = [op.outputs[0] for op in found.operators
                 if op.name == "QUANTIZE" and op.inputs[0] is tensor]  # fmt: skip
        inner = inner[0] if inner else tensor
        if len(inner.scales) == 1 and inner.dtype in _LIMITS:
            scale, zero = inner.scales[0], inner.zero_points[0]
            result.append(tuple(scale * (limit - zero) for limit in _LIMITS[inner.dtype]))
        else:
            result.append(None)
    return result


def output_steps(found: Inspection) -> list[float]:
    """The step in which each output of a file is rounded, 0.0 for those that aren't quantized."""
    result: list = []
    for tensor in found.outputs:
        # Before a float output, a DEQUANTIZE knows the step.
        inner = [op.inputs[0] for op in found.operators
                 if op.name == "DEQUANTIZE" and op.outputs[0] is tensor]  # fmt: skip
        scales = (inner[0] if inner else tensor).scales
        result.append(scales[0] if len(scales) == 1 else 0.0)
    return result


_LIMITS = {"INT8": (-128, 127), "UINT8": (0, 255), "INT16": (-32768, 32767)}
