"""Sums, differences, products and means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from keras_distill.quantization.graph import Step
from keras_distill.quantization.rules.rule import LITERT, RELU, Output, Rule, Support

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder


def _in_pairs(builder: Builder, step: Step, tensors: list) -> Any:
    """Two tensors at a time, each partial result rounded."""
    operation = step.operation
    if len(tensors) <= 2:
        return builder.apply(step, tensors)
    total = tensors[0]
    for i, x in enumerate(tensors[1:-1]):
        name = builder.unique(f"{operation.name}_{i}")
        total = builder.round(type(operation)(name=name)([total, x]), name, step)
    return type(operation)(name=builder.unique(operation.name))([total, tensors[-1]])


def _of_operation(builder: Builder, step: Step, tensors: list) -> Any:
    """Two tensors, or a tensor and constants: a factor and an offset, as `Rescaling` has them."""
    factors = _factors(step)
    if factors is None or not step.inputs[0].holds_floats:
        return builder.apply(step, tensors)
    name = builder.unique(step.operation.name)
    return layers.Rescaling(*factors, name=name)(*tensors)


def _factors(step: Step) -> tuple[Any, Any] | None:
    """Factor and offset of arithmetic with one tensor, `None` for that with two."""
    if len(step.inputs) != 1:
        return None
    kind = type(step.operation).__name__
    if kind == "Negative":
        return -1.0, 0.0
    left, right = (*step.call.positional, *step.call.keywords.values())
    tensor_first = isinstance(left, keras.KerasTensor)
    constant = np.asarray(right if tensor_first else left, "float64")
    if kind in ("Multiply", "Divide", "TrueDivide"):
        return _numbers(constant if kind == "Multiply" else 1 / constant), 0.0
    if kind == "Subtract":
        return (1.0, _numbers(-constant)) if tensor_first else (-1.0, _numbers(constant))
    return 1.0, _numbers(constant)


def _numbers(constant: np.ndarray) -> float | list[float]:
    return float(constant.item()) if constant.size == 1 else constant.ravel().tolist()


def _check_operands(step: Step) -> str | None:
    """Constants may be one number, or one for each channel."""
    operands = [
        x
        for x in (*step.call.positional, *step.call.keywords.values())
        if not isinstance(x, keras.KerasTensor)
    ]
    for x in operands:
        shape, channels = np.shape(x), step.call.inputs[0].shape[-1]
        if np.size(x) != 1 and (shape[-1] != channels or np.size(x) != channels):
            return f"Its constant of shape {shape} must be one number, or one for each channel."
        if not np.all(np.isfinite(np.asarray(x, "float64"))):
            return "Its constant holds NaN or infinity."
    return None


def _check_divisor(step: Step) -> str | None:
    """A tensor may be divided by constants other than 0, not by a tensor."""
    if len(step.inputs) != 1 or not isinstance(step.call.positional[0], keras.KerasTensor):
        return "Only division by a constant has an integer kernel."
    constant = (*step.call.positional, *step.call.keywords.values())[1]
    if not np.all(constant):
        return "It divides by 0."
    return _check_operands(step)


def _check_embedding(step: Step) -> str | None:
    if step.operation.mask_zero:
        return "Masks have no integer form: pad without a mask (`mask_zero=False`)."
    return None


_OF_LAYERS = Rule(Output.OWN, _in_pairs, fuses=(RELU,))
_OF_OPERATIONS = Rule(Output.OWN, _of_operation, _check_operands, fuses=(RELU,))
_DIVISION = Rule(Output.OWN, _of_operation, _check_divisor, fuses=(RELU,))
_MEAN = Rule(Output.OWN)

LAYERS: dict[type, Rule] = {
    layers.Add: _OF_LAYERS,
    layers.Subtract: _OF_LAYERS,
    layers.Multiply: _OF_LAYERS,
    layers.GlobalAveragePooling1D: _MEAN,
    layers.GlobalAveragePooling2D: _MEAN,
    layers.Embedding: Rule(
        Output.OWN, check=_check_embedding, support=Support(int16=LITERT, int4="8-bit table")
    ),
}
OPERATIONS: dict[str, Rule] = {
    "Add": _OF_OPERATIONS,
    "Subtract": _OF_OPERATIONS,
    "Multiply": _OF_OPERATIONS,
    "Negative": _OF_OPERATIONS,
    "Divide": _DIVISION,
    "TrueDivide": _DIVISION,
    "Mean": _MEAN,
    "Matmul": Rule(Output.OWN),
}
