"""Sums, differences, products and means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def _check_operands(step: Step) -> str | None:
    if len(step.inputs) != 2:
        return "Use `keras.layers.Rescaling` for arithmetic with constants."
    return None


def _check_embedding(step: Step) -> str | None:
    if step.operation.mask_zero:
        return "Masks have no integer form: pad without a mask (`mask_zero=False`)."
    return None


_OF_LAYERS = Rule(Output.OWN, _in_pairs, fuses=(RELU,))
_OF_OPERATIONS = Rule(Output.OWN, check=_check_operands, fuses=(RELU,))
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
    "Mean": _MEAN,
    "Matmul": Rule(Output.OWN),
}
