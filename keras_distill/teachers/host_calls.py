"""What a step of JAX or PyTorch can't hold, and calls on the host: arrays in, arrays out."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers.base import Misfit

_refusal: contextvars.ContextVar = contextvars.ContextVar("refusal", default=None)


@contextlib.contextmanager
def refused_with(error: Exception) -> Iterator[None]:
    """Inside this context, calls on the host raise an error, on the PyTorch backend."""
    token = _refusal.set(error)
    try:
        yield
    finally:
        _refusal.reset(token)


def outputs_of(function: Callable, inputs: Any, output_spec: Any) -> Any:
    """What a teacher's function answers, on the JAX and PyTorch backends.

    Args:
        function: A function of arrays, if `output_spec` is given; a `tf.function`; or a function
            of the backend's own arrays, which becomes part of the step.
        inputs: A batch, arrays of the backend of shape `(batch, ...)`.
        output_spec: A structure of `tf.TensorSpec`, or `None`.
    """
    if output_spec is not None:
        return _called(function, inputs, output_spec)
    if not hasattr(function, "get_concrete_function"):
        return keras.tree.map_structure(keras.ops.convert_to_tensor, _traced(function, inputs))
    spec = keras.tree.map_structure(_spec, inputs)

    def on_arrays(arrays: Any) -> Any:
        outputs = function(keras.tree.map_structure(tf.convert_to_tensor, arrays))
        return keras.tree.map_structure(np.asarray, outputs)

    return _called(on_arrays, inputs, function.get_concrete_function(spec).structured_outputs)


def _traced(function, inputs):
    """What a function of the backend's own arrays answers."""
    try:
        return function(inputs)
    except Exception as error:
        # What TensorFlow and NumPy meet in an array of JAX that has no values yet.
        if type(error).__name__ != "TracerArrayConversionError":
            raise
        raise Misfit(
            "The teacher's function computes with TensorFlow or NumPy, and gets arrays of JAX: "
            "wrap it in `tf.function`, or give `output_spec`, to have it called with arrays."
        ) from None


def _spec(x):
    """What TensorFlow knows of an array of JAX or PyTorch, whose size may be a symbol."""
    shape = [size if isinstance(size, int) else None for size in x.shape]
    return tf.TensorSpec(shape, keras.backend.standardize_dtype(x.dtype))


def _called(function, inputs, output_spec):
    """The outputs of a function of arrays, as arrays of the backend, by a call out of the step."""
    if keras.backend.backend() == "torch":
        return _called_at_once(function, inputs, output_spec)
    import jax

    batch = keras.tree.flatten(inputs)[0].shape[0]
    results = [_result(spec, batch) for spec in keras.tree.flatten(output_spec)]

    def call(*leaves):
        arrays = [np.asarray(x) for x in leaves]
        outputs = keras.tree.flatten(function(keras.tree.pack_sequence_as(inputs, arrays)))
        return [np.asarray(y, r.dtype) for y, r in zip(outputs, results, strict=True)]

    outputs = jax.pure_callback(call, results, *keras.tree.flatten(inputs))
    return keras.tree.pack_sequence_as(output_spec, outputs)


def _called_at_once(function, inputs, output_spec):
    """Likewise with PyTorch; of symbolic inputs, on device "meta", tensors without values."""
    if _refusal.get() is not None:
        raise _refusal.get()
    leaves = keras.tree.flatten(inputs)
    if leaves[0].device.type == "meta":
        batch = leaves[0].shape[0]
        return keras.tree.map_structure(
            lambda spec: keras.ops.zeros((batch, *spec.shape[1:]), spec.dtype.name), output_spec
        )
    arrays = keras.tree.map_structure(keras.ops.convert_to_numpy, inputs)
    outputs = keras.tree.flatten(function(arrays))
    outputs = [
        keras.ops.convert_to_tensor(np.asarray(y, spec.dtype.as_numpy_dtype))
        for y, spec in zip(outputs, keras.tree.flatten(output_spec), strict=True)
    ]
    return keras.tree.pack_sequence_as(output_spec, outputs)


def _result(spec, batch):
    """Shape and dtype of an output for a batch."""
    import jax

    shape = (batch, *spec.shape[1:]) if spec.shape.rank else (None,)
    if None in shape:
        raise ValueError(
            "On the JAX backend, a teacher's function must answer in tensors of a known size, but "
            f"it answers with {spec}. Give `output_spec` with all sizes but that of the batch."
        )
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(spec.dtype.as_numpy_dtype))
