"""Attention, of which heads leave, and recurrent layers, of which units leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import layers

from keras_distill.pruning.rules.elementwise import is_elementwise
from keras_distill.pruning.step import Step, makes, reads
from keras_distill.pruning.units import Channels


def _attention(step: Step) -> list[Channels]:
    layer = step.layer
    query, value, key = _by_name(step)
    if query is None or len(step.call.outputs) != 1 or _is_special(layer):
        return step.whole("is called or configured in a way that no rule covers")
    heads = step.make(layer.num_heads, "heads")
    made = step.make(step.call.outputs[0].shape[-1])
    steps = math.prod(step.output_sizes[:-1])
    for x, dense in (
        (query, layer.query_dense),
        (key, layer.key_dense),
        (value, layer.value_dense),
    ):
        step.weight(dense.kernel, reads(x), makes(heads), None, positions=steps)
        step.weight(dense.bias, makes(heads), None)
    output = layer.output_dense
    step.weight(output.kernel, reads(heads), None, makes(made), positions=steps)
    step.weight(output.bias, makes(made))
    step.setting("num_heads", heads)
    step.setting("output_shape", made)
    return [made]


def _by_name(step: Step) -> tuple[Any, Any, Any]:
    """Units of query, value and key; other tensors, such as masks, must have no say in them."""

    def bound(query: Any, value: Any, key: Any = None, **others: Any) -> tuple[Any, Any, Any]:
        if any(isinstance(x, Channels) for x in others.values()):
            return None, None, None
        return query, value, value if key is None else key

    return step.call.repeat(bound, step.inputs)


def _is_special(layer: Any) -> bool:
    config = layer.get_config()
    return bool(config.get("use_gate")) or isinstance(config.get("output_shape"), (list, tuple))


def _recurrent(step: Step) -> list[Channels]:
    layer, x = step.layer, step.inputs[0]
    if len(step.inputs) != 1:
        return step.whole("starts from states that are given")
    functions = [layer.activation, getattr(layer, "recurrent_activation", None)]
    if not all(map(is_elementwise, functions)) or layer.activation(np.zeros(1))[0] != 0:
        return step.whole("has activations that no rule covers")
    made = step.make(layer.units)
    gates = made.moved(lambda a: np.tile(a, _GATES[type(layer)]))
    cell, steps = layer.cell, math.prod(step.input_sizes[:-1])
    step.weight(cell.kernel, reads(x), makes(gates), positions=steps)
    step.weight(cell.recurrent_kernel, reads(made), makes(gates), positions=steps)
    if cell.bias is not None:
        both = [None] * (len(cell.bias.shape) - 1)
        step.weight(cell.bias, *both, makes(gates))
    step.setting("units", made)
    return [made] * len(step.call.outputs)


_GATES = {layers.LSTM: 4, layers.GRU: 3, layers.SimpleRNN: 1}
LAYERS: dict[type, Callable[[Step], list[Channels]]] = {
    layers.MultiHeadAttention: _attention,
    **dict.fromkeys(_GATES, _recurrent),
}
