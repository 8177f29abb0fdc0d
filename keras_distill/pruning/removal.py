"""Makes the smaller model: the layers without the units that leave."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import keras
import numpy as np

from keras_distill import _keras
from keras_distill.frozen import finalize
from keras_distill.pruning.structure import Structure, is_graph
from keras_distill.pruning.units import Channels


def without(model: keras.Model, structure: Structure, units: Iterable[int]) -> keras.Model:
    """A model without some of its units.

    Args:
        model: The model, which isn't changed.
        structure: Its `Structure`.
        units: The units that leave, from `structure.removable`.

    Returns:
        A new model: Sequential if `model` is, else Functional.
    """
    removal = _Removal(structure, units)
    smaller = removal.rebuilt(model, [_input_like(x, x.shape) for x in model.inputs])
    removal.copy_weights()
    return smaller


def _input_like(x: Any, shape: tuple) -> Any:
    """An input of the name and dtype of another."""
    producer = _keras.producer_of(x)
    return keras.Input(
        batch_shape=shape, dtype=x.dtype, name=producer.name, optional=_keras.is_optional(x)
    )


class _Removal:
    def __init__(self, structure: Structure, units: Iterable[int]):
        self._structure = structure
        self._leaving = np.zeros(len(structure.units), bool)
        self._leaving[list(units)] = True
        #: Counterparts of layers and of models inside.
        self._new: dict[Any, Any] = {}

    def rebuilt(self, model: Any, inputs: list) -> Any:
        """The counterpart of a model, on new inputs."""
        if isinstance(model, keras.Sequential):
            stack = [*inputs, *map(self._counterpart, model.layers)]
            return keras.Sequential(stack, name=model.name, trainable=model.trainable)
        graph = _keras.graph_of(model)
        outputs = _keras.walk(
            graph,
            inputs,
            lambda call, tensors: keras.tree.flatten(
                call.repeat(self._counterpart(call.operation), tensors)
            ),
        )
        return keras.Model(
            keras.tree.pack_sequence_as(graph.input, inputs),
            keras.tree.pack_sequence_as(graph.output, outputs),
            name=model.name,
            trainable=model.trainable,
        )

    def copy_weights(self) -> None:
        """Gives the new layers what the old ones' weights hold for the units that stay."""
        axes = {id(x.variable): x.axes for x in self._structure.weights}
        for old_layer, new_layer in self._new.items():
            if is_graph(old_layer):
                continue
            for old, new in zip(old_layer.weights, new_layer.weights, strict=True):
                value = keras.ops.convert_to_numpy(old)
                for place, axis in enumerate(axes.get(id(old), ())):
                    if axis is not None:
                        value = value.compress(self._stays(axis.channels), place)
                new.assign(value)
            finalize(new_layer)

    def _counterpart(self, operation: Any) -> Any:
        if not isinstance(operation, keras.layers.Layer):
            return operation
        if operation not in self._new:
            made = self._nested if is_graph(operation) else self._layer
            self._new[operation] = made(operation)
        return self._new[operation]

    def _nested(self, model: keras.Model) -> keras.Model:
        inputs = [
            _input_like(x, (*x.shape[:-1], x.shape[-1] and self._count(channels)))
            for x, channels in zip(model.inputs, self._structure.inputs[model], strict=True)
        ]
        return self.rebuilt(model, inputs)

    def _layer(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        for key, setting in self._structure.settings.get(layer, {}).items():
            config[key] = setting.value(self._count(setting.channels))
        try:
            return type(layer).from_config(config)
        except Exception as error:  # Whatever a user's class raises.
            raise ValueError(
                f"The layer {layer.name!r} ({type(layer).__name__}) can't be made anew from its "
                f"config: {error} Give its class `get_config` and `from_config`."
            ) from error

    def _stays(self, channels: Channels) -> np.ndarray:
        return ~self._leaving[self._structure.units.of(channels)]

    def _count(self, channels: Channels) -> int:
        return int(self._stays(channels).sum())
