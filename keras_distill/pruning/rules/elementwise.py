"""Layers that compute each value from those at its place: activations, arithmetic, scales."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_distill.pruning.step import Step, holds, makes
from keras_distill.pruning.units import Channels

#: Activation functions that look at one value at a time.
_ELEMENTWISE = {
    getattr(keras.activations, name)
    for name in (
        "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu",
        "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu",
        "sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus", "sparse_sigmoid",
        "squareplus", "tanh", "tanh_shrink", "threshold",
    )
    if hasattr(keras.activations, name)
}  # fmt: skip


def is_elementwise(activation: Any) -> bool:
    """Whether an activation function is known to look at one value at a time."""
    return activation is None or activation in _ELEMENTWISE


def activated(step: Step, x: Channels, activation: Any) -> Channels:
    """Channels after an activation function."""
    if not is_elementwise(activation):
        step.keep("has an activation that may look at several channels at once", x)
        return x.vanishing(False)
    if activation is None:
        return x
    return _through(x, activation)


def _through(x: Channels, function: Callable) -> Channels:
    """Channels after a function of single values."""
    at_zero = keras.ops.convert_to_numpy(function(keras.ops.zeros((1, 1))))
    return x.vanishing(x.vanishes & bool(np.all(at_zero == 0)))


def _activation(step: Step) -> list[Channels]:
    return [activated(step, step.inputs[0], step.layer.activation)]


def _itself(step: Step) -> list[Channels]:
    """A layer that is an activation function."""
    return [_through(step.inputs[0], type(step.layer).from_config(step.layer.get_config()))]


def _slopes(step: Step) -> list[Channels]:
    """PReLU, whose slopes differ between channels unless they share its last axis."""
    (x,) = step.inputs
    slopes = step.layer.weights[0]
    if slopes.shape[-1] == len(x):
        step.weight(slopes, *[None] * (len(slopes.shape) - 1), holds(x))
    return [x]


def _operation(function: Callable) -> Callable[[Step], list[Channels]]:
    return lambda step: [_through(step.inputs[0], function)]


def _same_places(step: Step) -> list[Channels]:
    """The inputs' channels leave together; the output vanishes with all of them."""
    if _has_constants(step):
        return _with_constant(step)
    return [_tied(step, np.logical_and)]


def _products(step: Step) -> list[Channels]:
    """Likewise, but a product vanishes with any of its factors, a gate's as it is."""
    if _has_constants(step):
        return _with_constant(step)
    return [_tied(step, np.logical_or)]


def _tied(step: Step, combined: Callable) -> Channels:
    width = max(map(len, step.inputs))
    wide = [x for x in step.inputs if len(x) == width]
    for x in step.inputs:
        if len(x) != width:
            step.keep("spreads one channel over several", x)
    step.tie(*wide)
    # A narrow input stays, whatever leaves of the others.
    vanish = [x.vanishes if len(x) == width else np.zeros(width, bool) for x in step.inputs]
    vanishes = functools.reduce(combined, vanish)
    return wide[0].vanishing(vanishes)


def _has_constants(step: Step) -> bool:
    return not isinstance(step.layer, layers.Layer) and len(step.inputs) != 2


def _with_constant(step: Step) -> list[Channels]:
    """Arithmetic with one tensor and a constant: one number leaves the channels as they are."""
    operands = (*step.call.positional, *step.call.keywords.values())
    constants = [x for x in operands if not isinstance(x, keras.KerasTensor)]
    if len(step.inputs) != 1 or any(np.size(x) != 1 for x in constants):
        return step.whole("has a constant for each channel")
    is_product = type(step.layer).__name__ in ("Multiply", "Negative")
    (x,) = step.inputs
    return [x if is_product else x.vanishing(False)]


def _rescaling(step: Step) -> list[Channels]:
    scale, offset = step.layer.scale, step.layer.offset
    if np.size(scale) != 1 or np.size(offset) != 1:
        return step.whole("has a factor for each channel")
    (x,) = step.inputs
    return [x if offset == 0 else x.vanishing(False)]


def _normalization(step: Step) -> list[Channels]:
    """BatchNormalization: with a scale, what it makes vanishes with it."""
    layer, (x,) = step.layer, step.inputs
    if layer.axis not in (-1, len(step.call.inputs[0].shape) - 1):
        return step.whole("normalizes along another axis than the last")
    step.weight(layer.gamma, makes(x), is_scale=True)
    step.weight(layer.beta, makes(x))
    step.weight(layer.moving_mean, holds(x))
    step.weight(layer.moving_variance, holds(x))
    return [x.vanishing(bool(layer.scale))]


LAYERS: dict[type, Callable[[Step], list[Channels]]] = {
    layers.Activation: _activation,
    layers.Add: _same_places,
    layers.Average: _same_places,
    layers.BatchNormalization: _normalization,
    layers.ELU: _itself,
    layers.LeakyReLU: _itself,
    layers.Maximum: _same_places,
    layers.Minimum: _same_places,
    layers.Multiply: _products,
    layers.PReLU: _slopes,
    layers.ReLU: _itself,
    layers.Rescaling: _rescaling,
    layers.Subtract: _same_places,
}
OPERATIONS: dict[str, Callable[[Step], list[Channels]]] = {
    "Add": _same_places,
    "Maximum": _same_places,
    "Minimum": _same_places,
    "Multiply": _products,
    "Negative": _products,
    "Subtract": _same_places,
    **{
        name: _operation(getattr(keras.activations, function))
        for name, function in {
            "Gelu": "gelu",
            "HardSigmoid": "hard_sigmoid",
            "HardSilu": "hard_silu",
            "Relu": "relu",
            "Relu6": "relu6",
            "Sigmoid": "sigmoid",
            "Silu": "silu",
            "Tanh": "tanh",
        }.items()
    },
}
