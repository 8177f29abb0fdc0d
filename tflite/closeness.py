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
        step: Step of the output's quantization, whose rounding isn't counted, but where it is wide
            against the spread (`narrow`).
    """
    expected, got = (np.asarray(x, "float64") for x in (expected, got))
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], got[~finite], equal_nan=True):
        return float("inf")
    if not np.isfinite(got[finite]).all():
        return float("inf")
    if not finite.any():
        return 0.0
    square = np.zeros(expected.shape)
    square[finite] = (got[finite] - expected[finite]) ** 2
    parts = narrow(expected, step)
    errors = [_mean(square[part], finite[part]) ** 0.5 / spread for part, spread in parts.items()]
    if (...,) not in parts:
        values = expected[finite]
        spread = max(float(values.std()), 1e-3 * float(np.abs(values).max()), 1e-9)
        # Rounding is uniform in a step, but where all values fall into one: up to half of it.
        rounding = step**2 / (12 if spread > step else 4)
        errors.append(max(_mean(square, finite) - rounding, 0.0) ** 0.5 / spread)
    return max(errors)


def share_differing(expected: Any, got: Any) -> float:
    """The share of integers or booleans, such as classes, that differ.

    Where it is less, their root mean square error relative to their spread counts: numbers that
    were rounded to integers may all be off by one, of thousands.

    Args:
        expected: The student's output, of shape `(samples, ...)`.
        got: The file's.
    """
    expected, got = (np.asarray(x).astype("float64") for x in (expected, got))
    return min(float(np.mean(expected != got)), relative_error(expected, got))


def _mean(square, finite):
    return float(square[finite].mean())


#: The step of an output is wide where rounding alone is off by this share of its spread.
_WIDE = 0.1
#: The same for a unit of what may be logits: all of its values are in a few steps.
_LOST = 12**-0.5
#: Outputs of so many units may be several quantities, each with a spread of its own.
_QUANTITIES = 16
#: Logits of classes vary alike: a unit that varies so many times less is another quantity.
_APART = 12


def narrow(expected: Any, step: float) -> dict[tuple, float]:
    """Which parts of an output vary too little for the step that they are rounded to.

    Constant values and classifiers that are sure of their decisions are not among them. Units whose
    largest one varies, and stays the same when it is rounded, may be logits of classes: one
    quantity, of which units that vary alike count only where they vary by less than a step.
    Probabilities over classes count where rounding changes decisions.

    Args:
        expected: The student's output, of shape `(samples, ...)`.
        step: Step of the output's quantization.

    Returns:
        The spread of each, by its index in the array: the whole, or a unit of few.
    """
    expected = np.asarray(expected, "float64")
    if not step or _is_decided(expected, step):
        return {}
    parts: list[tuple] = [(...,)]
    if expected.ndim > 1 and 1 < expected.shape[-1] <= _QUANTITIES:
        parts += [(..., unit) for unit in range(expected.shape[-1])]
    varied = {part: _spread(expected[part]) for part in parts}
    alike = max(varied.values()) / _APART if _is_decision(expected, step) else np.inf
    found = {}
    for part, spread in varied.items():
        share = _LOST if len(part) > 1 and spread >= alike else _WIDE
        if spread and step / 12**0.5 > share * spread:
            found[part] = spread
    return found


def _spread(values):
    """The standard deviation of the finite ones of some values, 0.0 where they are constant."""
    values = values[np.isfinite(values)]
    spread = float(values.std()) if values.size else 0.0
    return spread if spread > 1e-6 * float(np.abs(values).max(initial=0)) else 0.0


def wide_step(expected: Any, step: float) -> str:
    """In words, how an output varies too little for its step; "" where it doesn't.

    Args:
        expected: The student's output, of shape `(samples, ...)`.
        step: Step of the output's quantization.
    """
    expected = np.asarray(expected)
    found = narrow(expected, step) if expected.dtype.kind == "f" else {}
    if not found:
        return ""
    part, spread = min(found.items(), key=lambda item: item[1])
    where = "" if (...,) in found else f" of unit {part[-1]}"
    return (
        f"its values are rounded to steps of {step:.3g}, wide against a spread{where} of "
        f"{spread:.3g}"
    )


def are_probabilities(expected: Any) -> bool:
    """Whether all values of an output are from 0 to 1."""
    expected = np.asarray(expected)
    return bool(np.all((expected >= 0) & (expected <= 1 + 1e-6)))


def _is_decided(expected, step):
    """Whether values are probabilities whose decisions outlive rounding, or near 0 and 1."""
    if not are_probabilities(expected):
        return False
    if expected.ndim > 1 and expected.shape[-1] > 1 and np.allclose(expected.sum(-1), 1, atol=1e-3):
        return _outlives_rounding(expected, step)
    return bool(np.mean(np.minimum(expected, 1 - expected) < step / 4) > 0.5)


def _is_decision(expected, step):
    """Whether the largest unit varies between samples and outlives rounding, as classes' does.

    Of several quantities, as 293 K beside 1000 hPa, it is mostly the same one.
    """
    several = expected.ndim > 1 and expected.shape[-1] > 1
    return (
        several and len(np.unique(expected.argmax(-1))) > 1 and _outlives_rounding(expected, step)
    )


def _outlives_rounding(expected, step):
    """Whether rounding leaves 95 % of the decisions as they are."""
    same = np.round(expected / step).argmax(-1) == expected.argmax(-1)
    return bool(same.mean() >= 0.95)


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
