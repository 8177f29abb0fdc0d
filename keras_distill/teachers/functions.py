"""Live teachers that aren't Keras models: functions, SavedModels and TFLite files."""

import os
import pathlib
import threading

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers.base import contents_of, map_outputs, said_of
from keras_distill.teachers.live import LiveTeacher


class Function(LiveTeacher):
    """Any function that answers for a batch.

    Args:
        function: Function of the batch's inputs. It takes and returns tensors, as a
            `tf.function` or a SavedModel's signature does, unless `output_spec` is given.
        preprocess: As in `Teacher`.
        from_logits: As in `Teacher`.
        activation: As in `Teacher`.
        class_map: As in `Teacher`.
        output_spec: For a function of NumPy arrays (scikit-learn's `predict_proba`, say), what
            it returns: a `tf.TensorSpec`, or a structure of them. Such a function can't be
            compiled by XLA. Defaults to `None`: it is a function of tensors.
        name: Name for messages and reports. Defaults to the function's.

    Raises:
        TypeError: If `function` can't be called.

    Example:

    >>> teacher = keras_distill.teachers.Function(
    ...     forest.predict_proba, from_logits=False, output_spec=tf.TensorSpec((None, 10))
    ... )
    """

    def __init__(
        self,
        function,
        preprocess=None,
        from_logits=True,
        activation="softmax",
        class_map=None,
        output_spec=None,
        name=None,
    ):
        if not callable(function):
            raise TypeError(f"`function` must be callable. Received: {function!r}")
        name = name or getattr(function, "__name__", type(function).__name__).strip("<>")
        super().__init__(name, preprocess, from_logits, activation, class_map)
        self.function = function
        self.output_spec = output_spec
        self.supports_jit = output_spec is None

    def run(self, inputs, taps):
        if self.output_spec is None:
            outputs = self.function(inputs)
            return keras.tree.map_structure(tf.convert_to_tensor, outputs), []
        return _call_numpy(self.function, inputs, self.output_spec), []

    @property
    def variables(self):
        return list(getattr(self.function, "variables", ()))

    def contents(self):
        return [*super().contents(), *contents_of(self.variables)]


class SavedModel(Function):
    """A TensorFlow SavedModel, of Keras' `model.export(path)` or of any other maker.

    Args:
        path: The folder.
        signature: Name of the signature to call. Defaults to `None`: the function `serve` that
            Keras exports, or else the signature `"serving_default"`.
        preprocess: As in `Teacher`. A signature with several inputs takes a dict by their names.
        from_logits: As in `Teacher`.
        activation: As in `Teacher`.
        class_map: As in `Teacher`.
        name: Name for messages and reports. Defaults to the folder's.

    Raises:
        ValueError: If the folder holds no SavedModel, or it has no such signature, or if it
            answers with probabilities and `from_logits` doesn't say so.
    """

    def __init__(
        self,
        path,
        signature=None,
        preprocess=None,
        from_logits=True,
        activation="softmax",
        class_map=None,
        name=None,
    ):
        path = pathlib.Path(path)
        if not tf.saved_model.contains_saved_model(str(path)):
            raise ValueError(f"There is no SavedModel at {path}.")
        # Functions hold their variables only as long as what was loaded lives.
        self._loaded = tf.saved_model.load(str(path))
        function, specs = _serving_function(self._loaded, signature, path)
        super().__init__(
            function, preprocess, from_logits, activation, class_map, name=name or path.name
        )
        try:
            outputs = function(*keras.tree.map_structure(_made_up, specs))
        except (tf.errors.OpError, TypeError, ValueError):
            # Some inputs can't be made up: their size isn't known, or they are bound to others.
            return
        _check_said(self, path, map_outputs(lambda y, _: _are_probabilities(y.numpy()), outputs))

    @property
    def variables(self):
        return list(getattr(self._loaded, "variables", ()))


class LiteRT(Function):
    """A `.tflite` file, run by LiteRT on the CPU.

    Floats are quantized on the way in and out where the file's inputs and outputs are integers;
    inputs of the file's own integer type are passed as they are.

    Args:
        path: The file.
        preprocess: As in `Teacher`. A file with several inputs takes a list in their order.
        from_logits: As in `Teacher`.
        activation: As in `Teacher`.
        class_map: As in `Teacher`.
        name: Name for messages and reports. Defaults to the file's.

    Raises:
        ValueError: If the file doesn't exist or isn't a TFLite model, or if it answers with
            probabilities and `from_logits` doesn't say so.
    """

    def __init__(
        self,
        path,
        preprocess=None,
        from_logits=True,
        activation="softmax",
        class_map=None,
        name=None,
    ):
        path = pathlib.Path(path)
        self._file = _LiteRTFile(path)
        super().__init__(
            self._file,
            preprocess,
            from_logits,
            activation,
            class_map,
            output_spec=self._file.output_spec,
            name=name or path.stem,
        )
        _check_said(self, path, self._file.answers_with_probabilities)
        self._path = path

    def contents(self):
        return [*super().contents(), self._path.read_bytes()]


class _LiteRTFile:
    """A TFLite file as a function of a batch of arrays."""

    def __init__(self, path):
        from ai_edge_litert.interpreter import Interpreter

        if not path.is_file():
            raise ValueError(f"There is no file {path}.")
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=os.cpu_count())
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"{path} isn't a TFLite model that LiteRT can run: {error}") from error
        self._lock = threading.Lock()
        self._inputs = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        specs = [
            tf.TensorSpec((None, *map(_known, output["shape_signature"][1:])))
            for output in self._outputs
        ]
        self.output_spec = specs if len(specs) > 1 else specs[0]
        rng = np.random.default_rng(0)
        probe = [
            rng.uniform(size=(2, *np.maximum(details["shape_signature"][1:], 1))).astype("float32")
            for details in self._inputs
        ]
        one_by_one = self._one_by_one(probe)
        self._takes_batches = self._agrees(probe, one_by_one)
        said = [
            _are_probabilities(y) or _is_scaled_as_probabilities(details)
            for y, details in zip(one_by_one, self._outputs, strict=True)
        ]
        self.answers_with_probabilities = said if len(said) > 1 else said[0]

    def __call__(self, inputs):
        inputs = keras.tree.flatten(inputs)
        if len(inputs) != len(self._inputs):
            raise ValueError(
                f"The TFLite model reads {len(self._inputs)} inputs. Received: {len(inputs)}"
            )
        with self._lock:
            outputs = self._run(inputs) if self._takes_batches else self._one_by_one(inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _agrees(self, probe, expected):
        """Whether a batch of two gives what its rows give alone."""
        try:
            outputs = self._run(probe)
        except (RuntimeError, ValueError):
            return False
        return all(
            y.shape == e.shape and np.allclose(y, e, rtol=1e-3, atol=1e-3 * np.abs(e).max())
            for y, e in zip(outputs, expected, strict=True)
        )

    def _one_by_one(self, inputs):
        rows = [self._run([x[i : i + 1] for x in inputs]) for i in range(len(inputs[0]))]
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]

    def _run(self, inputs):
        if any(
            tuple(self._interpreter.get_tensor(details["index"]).shape) != x.shape
            for details, x in zip(self._inputs, inputs, strict=True)
        ):
            for details, x in zip(self._inputs, inputs, strict=True):
                self._interpreter.resize_tensor_input(details["index"], x.shape)
            self._interpreter.allocate_tensors()
        for details, x in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(details["index"], _quantized(x, details))
        self._interpreter.invoke()
        return [_dequantized(self._interpreter.get_tensor(y["index"]), y) for y in self._outputs]


def _check_said(teacher, path, are_probabilities):
    """Raises if an output of a file is probabilities and `from_logits` doesn't say so.

    Args:
        teacher: The teacher.
        path: The file.
        are_probabilities: A bool for each output, in the structure of the outputs.
    """

    def check(is_probability, name):
        if is_probability and said_of(teacher.from_logits, name, True):
            what = "" if name is None else f" in its output {name!r}"
            said = "False" if name is None else f"{{{name!r}: False}}"
            raise ValueError(
                f"{path} answers with probabilities{what}, not with logits. "
                f"Say so: `{type(teacher).__name__}(path, from_logits={said})`; and "
                '`activation="sigmoid"` where a sigmoid gives them.'
            )

    map_outputs(check, are_probabilities)


def _are_probabilities(y):
    """Whether the rows of an output are floats that add up to 1."""
    floats = np.issubdtype(y.dtype, np.floating)
    return floats and y.shape[-1] > 1 and (y >= 0).all() and np.allclose(y.sum(-1), 1, atol=0.02)


def _is_scaled_as_probabilities(details):
    """Whether a file's output has the scale that TFLite gives to 8-bit softmax and sigmoid."""
    dtype, quantization = details["dtype"], details["quantization"]
    return np.issubdtype(dtype, np.integer) and quantization == (1 / 256, np.iinfo(dtype).min)


def _made_up(spec):
    """Two rows of inputs for a SavedModel."""
    if not isinstance(spec, tf.TensorSpec):
        return spec
    shape = [size or (32 if axis else 2) for axis, size in enumerate(spec.shape)]
    if not spec.dtype.is_floating:
        return tf.zeros(shape, spec.dtype)
    return tf.cast(np.random.default_rng(0).uniform(size=shape), spec.dtype)


def _quantized(x, details):
    dtype, (scale, zero_point) = details["dtype"], details["quantization"]
    if x.dtype == dtype or not np.issubdtype(dtype, np.integer) or not scale:
        return x.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.round(x / scale) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantized(y, details):
    scale, zero_point = details["quantization"]
    if np.issubdtype(y.dtype, np.integer) and scale:
        return (y.astype("float32") - zero_point) * np.float32(scale)
    return y.astype("float32")


def _known(size):
    return None if size < 0 else int(size)


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
        outputs = function(**(inputs if isinstance(inputs, dict) else {names[0]: inputs}))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    return serve, (specs,)
