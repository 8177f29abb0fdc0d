"""What a model reads of a batch: its own entries, by name, and whether it rescales bytes."""

import warnings
from collections.abc import Iterator
from typing import Any

import keras

from keras_distill import _keras
from keras_distill._types import Tensors

_WITH_KERNELS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Dense,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv2D,
)
#: Layers without weights that change how large values are.
_RESCALE = (
    keras.layers.Activation,
    keras.layers.Lambda,
    keras.layers.Rescaling,
    keras.layers.Softmax,
    keras.layers.UnitNormalization,
)
_NORMALIZE = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.UnitNormalization,
)


def reads_of(model: Any) -> Any:
    """What a model reads, as a structure of `keras.KerasTensor`s, or `None` if it doesn't tell.

    Functional and built Sequential models tell.
    """
    if isinstance(model, keras.Sequential):
        return model.inputs[0] if model.built and model.inputs else None
    return model.input if isinstance(model, keras.Model) and hasattr(model, "operations") else None


def known_inputs(model: Any) -> tuple[Any, bool]:
    """The inputs of a built model, as far as it knows them, and whether they are complete."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0], True
    called_with = getattr(model, "input", None)
    if called_with is not None:
        return called_with, hasattr(model, "operations") and not isinstance(called_with, dict)
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None or not all(size is None or isinstance(size, int) for size in shape):
        return None, False
    return keras.KerasTensor(shape), False


def entries_for(model: Any, x: Tensors, role: str) -> Tensors:
    """The entries of a dict that a model reads; anything else as it is.

    Keras gives a model whose inputs are a dict the first entries of a larger one, whatever their
    names. Models that don't tell what they read get the whole dict.

    Args:
        model: A model of Keras or `tf_keras`.
        x: Inputs of a batch.
        role: "student" or "teacher", for messages.

    Raises:
        ValueError: If the dict lacks an entry that the model reads.
    """
    reads = reads_of(model) if isinstance(x, dict) else None
    return x if reads is None else _pick(reads, x, role)


def _pick(reads, x, role):
    if not isinstance(x, dict):
        return x
    if isinstance(reads, dict):
        return {
            name: _pick(part, _entry(x, name, part, role), role) for name, part in reads.items()
        }
    if isinstance(reads, (list, tuple)):
        return [_pick(part, x, role) for part in reads]
    return _entry(x, reads.name, reads, role)


def _entry(x, name, reads, role):
    if name in x:
        return x[name]
    if isinstance(reads, keras.KerasTensor) and _keras.is_optional(reads):
        return None
    raise ValueError(
        f"The {role} reads the input {name!r}, but the batch holds only "
        f"{', '.join(map(repr, sorted(x)))}. Give each input of a model the name of its entry, "
        "such as `keras.Input(shape, name=...)`."
    )


def warn_of_bytes(model: Any, x: Any, role: str) -> None:
    """Warns if a model gets bytes and doesn't rescale them: it would hardly learn.

    Args:
        model: A model of Keras.
        x: Its inputs, or `tf.TensorSpec`s of them.
        role: "student" or "teacher", for the message.
    """
    are_bytes = any(getattr(leaf, "dtype", None) == "uint8" for leaf in keras.tree.flatten(x))
    if are_bytes and _applies_weights_first(model):
        warnings.warn(
            f"The {role} gets bytes from 0 to 255 and doesn't rescale them, so it may hardly "
            "learn. Begin it with `keras.layers.Rescaling(1 / 255)`, or scale the data: "
            "`dataset.map(lambda x, y: (tf.cast(x, tf.float32) / 255, y))`.",
            stacklevel=1,  # The same place, whoever finds out, so that it is said once.
        )


def _applies_weights_first(model: Any) -> bool:
    """Whether a model applies weights to its inputs as they come, without normalizing the result.

    Models that don't tell what they read are taken to rescale.
    """
    if reads_of(model) is None:
        return False
    change = (layer for layer in _layers_in_order(model) if not _keeps_magnitude(layer))
    first, second = next(change, None), next(change, None)
    return isinstance(first, _WITH_KERNELS) and not isinstance(second, _NORMALIZE)


def _keeps_magnitude(layer: Any) -> bool:
    """Whether a layer is one of Keras that passes values on, moves them or averages them."""
    is_keras = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return is_keras and not layer.weights and not isinstance(layer, _RESCALE)


def _layers_in_order(model: Any) -> Iterator[Any]:
    # Of a Functional model, operations such as `x / 255` too.
    for layer in getattr(model, "operations", model.layers):
        if reads_of(layer) is None:
            yield layer
        else:
            yield from _layers_in_order(layer)
