"""Functions and SavedModels as teachers."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers import host_calls
from keras_distill.teachers.base import contents_of, map_outputs, option_for
from keras_distill.teachers.live import LiveTeacher


class Function(LiveTeacher):
    """Any function that answers for a batch.

    Args:
        function: Function of the batch's inputs. It takes and returns tensors, as a
            `tf.function` or a SavedModel's signature does, unless `output_spec` is given. On the
            JAX or PyTorch backend it is a function of that backend's tensors, or a `tf.function`,
            which is called on the host.
        output_spec: For a function of NumPy arrays (such as scikit-learn's `predict_proba`),
            what it returns: a `tf.TensorSpec`, or a structure of them. With TensorFlow, such a
            function can't be compiled by XLA. Defaults to `None`: it is a function of tensors.
        name: Name for messages and reports. Defaults to the function's.

    Raises:
        TypeError: If `function` can't be called.

    Example:

    >>> probabilities = keras_distill.teachers.Function(
    ...     forest.predict_proba, output_spec=tf.TensorSpec((None, 10))
    ... )
    >>> teacher = keras_distill.teachers.Teacher(probabilities, from_logits=False)
    """

    def __init__(self, function: Callable, output_spec: Any = None, name: str | None = None):
        if not callable(function):
            raise TypeError(f"`function` must be callable. Received: {function!r}")
        self.name = name or getattr(function, "__name__", type(function).__name__).strip("<>")
        self.function = function
        self.output_spec = output_spec
        self.supports_jit = output_spec is None or keras.backend.backend() != "tensorflow"

    def run(self, inputs: Any, taps: Any) -> tuple:
        if keras.backend.backend() != "tensorflow":
            return host_calls.outputs_of(self.function, inputs, self.output_spec), []
        if self.output_spec is None:
            outputs = self.function(inputs)
            return keras.tree.map_structure(tf.convert_to_tensor, outputs), []
        return _call_numpy(self.function, inputs, self.output_spec), []

    @property
    def variables(self) -> list:
        return list(getattr(self.function, "variables", ()))

    def own_contents(self) -> Iterable:
        return contents_of(self.variables)


class SavedModel(Function):
    """A TensorFlow SavedModel, of Keras' `model.export(path)` or of any other maker.

    A signature with several inputs takes a dict by their names, which `Teacher(preprocess=...)`
    makes.

    Args:
        path: The folder.
        signature: Name of the signature to call. Defaults to `None`: the function `serve` that
            Keras exports, or else the signature `"serving_default"`.
        name: Name for messages and reports. Defaults to the folder's.

    Raises:
        ValueError: If the folder holds no SavedModel, or it has no such signature.

    Example:

    ```python
    model.export("saved")
    teacher = keras_distill.teachers.SavedModel("saved")
    ```
    """

    def __init__(self, path: Any, signature: str | None = None, name: str | None = None):
        path = pathlib.Path(path)
        if not tf.saved_model.contains_saved_model(str(path)):
            raise ValueError(f"There is no SavedModel at {path}.")
        # Functions hold their variables only as long as what was loaded lives.
        self._loaded = tf.saved_model.load(str(path))
        function, specs = _serving_function(self._loaded, signature, path)
        is_foreign = keras.backend.backend() != "tensorflow"
        super().__init__(tf.function(function) if is_foreign else function, name=name or path.name)
        self._path = path
        self._are_probabilities: Any = None
        try:
            outputs = function(*keras.tree.map_structure(_made_up, specs))
        except (tf.errors.OpError, TypeError, ValueError):
            # Some inputs can't be made up: their size isn't known, or they are bound to others.
            return
        self._are_probabilities = map_outputs(lambda y, _: are_probabilities(y.numpy()), outputs)

    @property
    def variables(self) -> list:
        return list(getattr(self._loaded, "variables", ()))

    def require_logits(self, from_logits: bool | dict) -> None:
        if self._are_probabilities is not None:
            refuse_probabilities(self._path, self._are_probabilities, from_logits)


def refuse_probabilities(path: Any, probabilities: Any, from_logits: bool | dict) -> None:
    """Raises if an output of a file is probabilities although `from_logits` is true of it.

    Args:
        path: The file.
        probabilities: A bool for each output, in the structure of the outputs.
        from_logits: As in `Teacher`.
    """

    def check(is_probability, name):
        if is_probability and option_for(from_logits, name, True):
            what = "" if name is None else f" in its output {name!r}"
            value = "False" if name is None else f"{{{name!r}: False}}"
            raise ValueError(
                f"{path} answers with probabilities{what}, not with logits. Give "
                f"`keras_distill.teachers.Teacher(path, from_logits={value})`; and "
                '`activation="sigmoid"` where a sigmoid gives them.'
            )

    map_outputs(check, probabilities)


def are_probabilities(y: Any) -> bool:
    """Whether the rows of an output are floats that add up to 1."""
    floats = np.issubdtype(y.dtype, np.floating)
    return floats and y.shape[-1] > 1 and (y >= 0).all() and np.allclose(y.sum(-1), 1, atol=0.02)


def _made_up(spec):
    """Two rows of inputs for a SavedModel."""
    if not isinstance(spec, tf.TensorSpec):
        return spec
    shape = [size or (32 if axis else 2) for axis, size in enumerate(spec.shape)]
    if not spec.dtype.is_floating:
        return tf.zeros(shape, spec.dtype)
    return tf.cast(np.random.default_rng(0).uniform(size=shape), spec.dtype)


def _call_numpy(function, inputs, output_spec):
    """Calls a function of arrays from a TensorFlow graph."""
    specs = keras.tree.flatten(output_spec)

    def call(*leaves):
        outputs = keras.tree.flatten(function(keras.tree.pack_sequence_as(inputs, leaves)))
        return [
            np.asarray(y, tf.as_dtype(spec.dtype).as_numpy_dtype)
            for y, spec in zip(outputs, specs, strict=True)
        ]

    # Run eagerly, TensorFlow gives the only output without its list.
    outputs = keras.tree.flatten(
        tf.numpy_function(
            call, keras.tree.flatten(inputs), [spec.dtype for spec in specs], stateful=False
        )
    )
    for output, spec in zip(outputs, specs, strict=True):
        output.set_shape(spec.shape)
    return keras.tree.pack_sequence_as(output_spec, outputs)


def _serving_function(loaded, signature, path):
    """The function of a SavedModel that takes what a model of one input takes, and its inputs."""
    if signature is None and hasattr(loaded, "serve"):
        return loaded.serve, loaded.serve.concrete_functions[0].structured_input_signature[0]
    signature = signature or "serving_default"
    if signature not in loaded.signatures:
        raise ValueError(
            f"The SavedModel at {path} has no signature {signature!r}. "
            f"It has: {', '.join(loaded.signatures) or 'none'}."
        )
    function = loaded.signatures[signature]
    specs = function.structured_input_signature[1]
    names = list(specs)

    def serve(inputs):
        given = inputs if isinstance(inputs, dict) else {names[0]: inputs}
        outputs = function(**{name: x for name, x in given.items() if name in names})
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    return serve, (specs,)
