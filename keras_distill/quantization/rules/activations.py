"""Activation functions: layers that are nothing else, and those of layers with a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from keras_distill.quantization.graph import Step
from keras_distill.quantization.rules.rule import (
    LITERT,
    NO,
    RELU,
    Output,
    Rule,
    Support,
    give_8_bits,
)

if TYPE_CHECKING:
    from keras_distill.quantization.rebuild import Builder


def _silu(builder: Builder, step: Step, tensors: list) -> Any:
    """`x * sigmoid(x)`, a kernel each."""
    (x,) = tensors
    name = builder.unique(step.operation.name)
    gate = layers.Activation("sigmoid", name=f"{name}_gate")(x)
    gate = builder.fix(gate, f"{name}_gate", step).tensor
    return layers.Multiply(name=name)([x, gate])


_BOUNDED = Rule(Output.FIXED)

#: Rules by the name of the function.
ACTIVATIONS: dict[str, Rule] = {
    "linear": Rule(Output.SAME, does_nothing=True),
    "relu": Rule(Output.SAME, fused_as=RELU),
    "relu6": Rule(Output.SAME, fused_as=RELU),
    "leaky_relu": Rule(Output.OWN),
    "silu": Rule(Output.OWN, _silu),
    "sigmoid": _BOUNDED,
    "hard_sigmoid": _BOUNDED,
    "tanh": Rule(Output.FIXED, signed=True),
    "softmax": _BOUNDED,
    "gelu": Rule(Output.OWN, support=Support(LITERT, LITERT)),
    "hard_silu": Rule(Output.OWN, support=Support(int16=NO)),
    "elu": Rule(Output.OWN, support=Support(int16=NO)),
}

_OPERATIONS = {
    "Elu": "elu",
    "Gelu": "gelu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "LeakyRelu": "leaky_relu",
    "Relu": "relu",
    "Relu6": "relu6",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softmax": "softmax",
    "Tanh": "tanh",
}
_LAYERS = {layers.ELU: "elu", layers.LeakyReLU: "leaky_relu", layers.Softmax: "softmax"}


def operation_name(operation: Any) -> str | None:
    """The class name of an operation of `keras.ops`, `None` for layers."""
    if isinstance(operation, keras.layers.Layer):
        return None
    is_of_keras = type(operation).__module__.startswith("keras.")
    return type(operation).__name__ if is_of_keras else None


def activation_of(operation: Any) -> str | None:
    """Name of the activation function that a layer or operation is, or `None`."""
    kind = type(operation)
    if kind is layers.Activation:
        return name_of(operation.activation)
    if kind is layers.ReLU:
        return _relu(operation)
    return _LAYERS.get(kind) or _OPERATIONS.get(operation_name(operation) or "")


def _relu(layer: Any) -> str:
    if layer.threshold or layer.max_value not in (None, 6):
        return f"ReLU(max_value={layer.max_value}, threshold={layer.threshold})"
    if layer.negative_slope:
        return "leaky_relu" if layer.max_value is None else "ReLU with slope and maximum"
    return "relu" if layer.max_value is None else "relu6"


def name_of(function: Any) -> str:
    """Name of an activation function; `"linear"` for none."""
    if function is None:
        return "linear"
    return getattr(function, "__name__", type(function).__name__)


def check_own(step: Step) -> str | None:
    """Why a layer's own activation function can't be simulated, or `None`."""
    name = name_of(step.operation.activation)
    if name not in ACTIVATIONS:
        return no_activation(name)
    if step.bits.activations == 16 and ACTIVATIONS[name].support.int16 == NO:
        eight = give_8_bits(step, "activations")
        return f"Its activation {name!r} has no kernel of 16 bits: {eight}"
    return None


def is_fused(name: str) -> bool:
    """Whether kernels compute an activation function with the layer that it belongs to."""
    return ACTIVATIONS[name].does_nothing or ACTIVATIONS[name].fused_as == RELU


def apply_own(builder: Builder, step: Step, x: Any) -> Any:
    """Calls a layer's own activation function on the rounded output of its kernel."""
    rule = ACTIVATIONS[name_of(step.operation.activation)]
    if rule.build is not None:
        return rule.build(builder, step, [x])
    function, policy = step.operation.activation, step.operation.dtype_policy
    name = builder.unique(step.operation.name)
    y = layers.Activation(function, name=name, dtype=policy)(x)
    return builder.fix(y, name, step, rule.signed) if rule.output is Output.FIXED else y


def no_activation(name: str) -> str:
    """That an activation function has no integer kernel, and which ones have."""
    *names, last = [name for name in ACTIVATIONS if name != "linear"]
    return (
        f"The activation is {name}; the activations with integer kernels are "
        f"{', '.join(names)} and {last}."
    )
