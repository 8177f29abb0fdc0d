"""Rebuilding Keras 3 models as `tf_keras` models."""

import inspect
from typing import Any, NoReturn

import keras
import numpy as np
import tf_keras

from keras_distill import _keras
from keras_distill.quantization.rules import operation_name

#: Largest difference between a model's outputs and those of its counterpart.
TOLERANCE = 1e-5

_OPERATIONS = {
    "Add": tf_keras.layers.Add,
    "Concatenate": tf_keras.layers.Concatenate,
    "Maximum": tf_keras.layers.Maximum,
    "Multiply": tf_keras.layers.Multiply,
    "Relu": tf_keras.layers.ReLU,
    "Subtract": tf_keras.layers.Subtract,
}


def to_tf_keras(model: keras.Model) -> tf_keras.Model:
    """Rebuilds a Keras 3 model in `tf_keras`, with the same layers, names and weights.

    Args:
        model: Functional or Sequential Keras 3 model; models nested in it likewise.

    Returns:
        A functional `tf_keras.Model`. On random inputs its outputs differ from those of `model`
        by at most 1e-5 of the largest output.

    Raises:
        TypeError: If `model` isn't a Keras 3 model.
        ValueError: If it is neither Functional nor a built Sequential model, if a layer has no
            counterpart in `tf_keras`, or if the outputs differ by more.

    Example:

    >>> student = keras_distill.legacy.to_tf_keras(student)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a Keras 3 model. Received: model={model!r}")
    rebuilt = _rebuild(model, "", {})
    _check(model, rebuilt)
    return rebuilt


def _rebuild(model: keras.Model, prefix: str, known: dict) -> tf_keras.Model:
    graph = _keras.graph_of(model)
    if graph is None:
        raise ValueError(
            f"The model {prefix + model.name!r} is neither Functional nor a built Sequential "
            "model, so it can't be converted. Build it with the functional API."
        )

    def visit(call, tensors):
        operation = call.operation
        if operation not in known:
            known[operation] = _counterpart(operation, prefix, known)

        def counterpart(*args, **kwargs):
            if not isinstance(operation, keras.layers.Layer):
                args = (list(args),) if len(args) > 1 else args
            return known[operation](*args, **{k: v for k, v in kwargs.items() if v is not None})

        outputs = call.repeat(counterpart, tensors)
        _copy_weights(operation, known[operation])
        return keras.tree.flatten(outputs)

    inputs = [
        tf_keras.Input(tuple(x.shape[1:]), batch_size=x.shape[0], dtype=x.dtype, name=x.name)
        for x in graph.inputs
    ]
    outputs = keras.tree.pack_sequence_as(graph.output, _keras.walk(graph, inputs, visit))
    return tf_keras.Model(
        keras.tree.pack_sequence_as(graph.input, inputs), outputs, name=model.name
    )


def _counterpart(operation: Any, prefix: str, known: dict) -> Any:
    path = prefix + operation.name
    if isinstance(operation, keras.Model):
        return _rebuild(operation, f"{path}/", known)
    if not isinstance(operation, keras.layers.Layer):
        kind = _OPERATIONS.get(operation_name(operation) or "")
        if kind is None:
            _refuse(path, operation)
        return kind(name=operation.name)
    kind = getattr(tf_keras.layers, type(operation).__name__, None)
    if kind is None or not type(operation).__module__.startswith("keras."):
        _refuse(path, operation)
    return kind(**_config(kind, operation, path))


def _refuse(path: str, operation: Any) -> NoReturn:
    raise ValueError(
        f"The layer {path!r} ({type(operation).__name__}) has no counterpart in tf_keras. Use a "
        "layer that both have, or `keras_distill.quantization`, which works on Keras 3 models."
    )


def _config(kind: type, layer: keras.layers.Layer, path: str) -> dict[str, Any]:
    """The part of a layer's config that the `tf_keras` class accepts."""
    config = layer.get_config()
    parameters = {
        name
        for cls in kind.__mro__
        if cls is not object and "__init__" in vars(cls)
        for name in inspect.signature(vars(cls)["__init__"]).parameters
    }
    result = {}
    for key, value in config.items():
        if key not in parameters or key.endswith("_initializer"):
            continue
        if key == "dtype":
            value = layer.dtype_policy.name
        elif key.endswith(("_regularizer", "_constraint")) and value is not None:
            value = {"class_name": value["class_name"], "config": value["config"]}
            module = tf_keras.regularizers if key.endswith("r") else tf_keras.constraints
            try:
                value = module.get(value)
            except (ValueError, TypeError) as error:
                raise ValueError(
                    f"The {key} of the layer {path!r} has no counterpart in tf_keras: {error}"
                ) from error
        result[key] = value
    return result


def _copy_weights(old: Any, new: Any) -> None:
    if isinstance(old, keras.Model) or not isinstance(old, keras.layers.Layer):
        return
    if old.get_weights():
        new.set_weights(old.get_weights())


def _check(model: keras.Model, rebuilt: tf_keras.Model) -> None:
    """Raises if the two differ on random inputs."""
    rng = np.random.default_rng(0)
    inputs = [
        rng.integers(0, 2, [n or 4 for n in x.shape]).astype(x.dtype)
        if not keras.backend.is_float_dtype(x.dtype)
        else rng.normal(0, 1, [n or 4 for n in x.shape]).astype(x.dtype)
        for x in model.inputs
    ]
    inputs = keras.tree.pack_sequence_as(_keras.graph_of(model).input, inputs)
    expected = keras.tree.flatten(model(inputs, training=False))
    answers = keras.tree.flatten(rebuilt(inputs, training=False))
    for x, y in zip(expected, answers, strict=True):
        x, y = np.float64(x), np.float64(y)
        difference = np.max(np.abs(x - y)) / max(np.max(np.abs(x)), 1.0)
        if not difference <= TOLERANCE:
            raise ValueError(
                f"The tf_keras counterpart of {model.name!r} differs by {difference:.1e} on random "
                f"inputs, more than {TOLERANCE}: a layer computes something else in tf_keras."
            )
