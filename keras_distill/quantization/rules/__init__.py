"""How each kind of layer is simulated: one rule for each, in the file of its family.

A layer is added by a rule in `LAYERS` of its family, an operation of `keras.ops` by one in
`OPERATIONS`, an activation function by one in `activations.ACTIVATIONS`. The planner, the builder,
the export and the page of supported layers read these tables and know no layer themselves.
"""

from typing import Any

import keras
from keras import layers

from keras_distill import _keras
from keras_distill.quantization.rules import (
    arithmetic,
    attention,
    kernels,
    normalization,
    recurrent,
    shapes,
)
from keras_distill.quantization.rules.activations import (
    ACTIVATIONS,
    activation_of,
    no_activation,
    operation_name,
)
from keras_distill.quantization.rules.rule import NESTED, Rule

LAYERS: dict[type, Rule] = {
    **kernels.LAYERS,
    **normalization.LAYERS,
    **arithmetic.LAYERS,
    **attention.LAYERS,
    **recurrent.LAYERS,
    **shapes.LAYERS,
}
OPERATIONS: dict[str, Rule] = {**arithmetic.OPERATIONS, **shapes.OPERATIONS}


def rule_of(operation: Any) -> Rule | None:
    """The rule for a layer or operation, `None` where there is none."""
    if isinstance(operation, keras.Model) and _keras.graph_of(operation) is not None:
        return NESTED
    activation = activation_of(operation)
    if activation is not None:
        return ACTIVATIONS.get(activation)
    return LAYERS.get(type(operation)) or OPERATIONS.get(operation_name(operation) or "")


def why_not(operation: Any) -> str:
    """Why there is no rule for a layer, and what to use instead."""
    kind = type(operation)
    if kind is layers.Masking:
        return "Masks have no integer form: leave the layer out, and pad without a mask."
    if kind is layers.RNN:
        return (
            "Of recurrent layers, `LSTM`, `GRU` and `SimpleRNN` are simulated: use one of them, or "
            "quantize the float model after training."
        )
    if kind is layers.Average:
        return "Use Add, followed by Rescaling."
    activation = activation_of(operation)
    if activation is not None:
        return no_activation(activation)
    if isinstance(operation, keras.Model):
        return (
            "It is a subclassed model, whose graph can't be seen: build it with the functional API."
        )
    return "Replace it with layers that TFLite has integer kernels for."


__all__ = [
    "ACTIVATIONS",
    "LAYERS",
    "OPERATIONS",
    "Rule",
    "activation_of",
    "operation_name",
    "rule_of",
    "why_not",
]
