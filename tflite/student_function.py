"""A student as a function of named inputs: what a file of it must compute."""

import dataclasses
import functools
import itertools
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras_distill.tflite import runtimes

from keras_distill import _keras, backends
from keras_distill.inputs import keys_of


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of the file, with a name that is safe in signatures, C and Kotlin.

    Attributes:
        name: Its name.
        shape: Its shape without batch axis.
        dtype: Its dtype.
    """

    name: str
    shape: tuple
    dtype: str


def inputs_of(model: keras.Model, input_signature: Any = None) -> list[Input]:
    """The inputs of a model.

    Args:
        model: A built Keras model.
        input_signature: Structure of `keras.InputSpec` or `tf.TensorSpec` with a batch axis, for
            models whose inputs aren't known or not fixed in shape.

    Returns:
        `Input`s in the order in which the model takes them.

    Raises:
        ValueError: The shapes of the inputs aren't known.
    """
    if input_signature is not None:
        specs = keras.tree.flatten(input_signature)
    elif getattr(model, "inputs", None):
        specs = model.inputs
    else:
        raise ValueError(
            f"The inputs of model {model.name!r} are not known. Give `input_signature`, such as "
            '`[keras.InputSpec(shape=(None, 28, 28, 1), dtype="float32")]`, for a model that is '
            "neither functional nor a built `Sequential`."
        )
    for spec in specs:
        if None in tuple(spec.shape)[1:]:
            raise ValueError(
                f"An input of model {model.name!r} has shape {tuple(spec.shape)}. A file needs "
                "fixed sizes: give `input_signature` with every size except the batch's."
            )
    structure = getattr(model, "input", None) if input_signature is None else input_signature
    keys = keys_of(structure) or [""] * len(specs)
    names = [_input_name(spec) or key for spec, key in zip(specs, keys, strict=True)]
    names = unique_names(names, "input")
    return [
        Input(name, tuple(spec.shape)[1:], _dtype(spec))
        for name, spec in zip(names, specs, strict=True)
    ]


def _dtype(spec):
    """Dtype of an input in the file, where half and double precision are float32."""
    dtype = keras.backend.standardize_dtype(spec.dtype or "float32")
    return "float32" if dtype in ("float16", "bfloat16", "float64") else dtype


def _input_name(spec):
    name = getattr(spec, "name", None) or ""
    return "" if re.fullmatch(r"(input_layer|keras_tensor|input|args)(_\d+)*", name) else name


def unique_names(names: Sequence[str], kind: str) -> list[str]:
    """Distinct names, safe in signatures, C and Kotlin.

    Empty names become `kind`, or `kind_0`, `kind_1`, ... of several.
    """
    plain = [kind] if len(names) == 1 else [f"{kind}_{i}" for i in range(len(names))]
    result: list[str] = []
    for name, fallback in zip(names, plain, strict=True):
        safe = re.sub(r"[\W_]+", "_", name, flags=re.ASCII).strip("_").lower() or fallback
        if safe[0].isdigit():
            safe = f"{kind}_{safe}"
        elif keyword.iskeyword(safe) or safe == "self":
            # TensorFlow calls functions with inputs as keyword arguments.
            safe = f"{safe}_{kind}"
        candidate, n = safe, 1
        while candidate in result:
            candidate, n = f"{safe}_{n}", n + 1
        result.append(candidate)
    return result


def _output_names(model, outputs):
    """Names of the model's outputs: of a dict its keys, else of the layers that users named."""
    if isinstance(outputs, dict):
        return unique_names(sorted(outputs), "output")
    count = len(keras.tree.flatten(outputs))
    names = [""] * count
    layers = getattr(model, "output_names", None) or [model.layers[-1].name]
    if len(layers) == count:
        names = ["" if _is_automatic(model, name) else name for name in layers]
    return unique_names(names, "output")


def _is_automatic(model, name):
    """Whether Keras made up the name from the layer's class."""
    for layer in model.layers:
        if layer.name == name:
            kind = type(layer).__name__.removeprefix("Quantized")
            return re.fullmatch(rf"{_keras.automatic_name(kind)}(_\d+)?", name) is not None
    return True


@dataclasses.dataclass(frozen=True, eq=False)
class StudentFunction:
    """A student between preprocessing and postprocessing, as one function of named inputs.

    Attributes:
        model: The student, a Keras model.
        inputs: Its `Input`s.
        preprocessing: Keras layer or function on the (only) input, or `None`.
        postprocessing: Keras layer or function on each output, or `None`.
        cast: Dtype of float inputs in the file where it isn't their own: raw bytes that become
            floats inside a float file.
        named_by: Model whose layers name the outputs where it isn't `model`.
        outputs: Names of the outputs where they aren't those of layers.
        structure: Structure of the inputs of a model that has no graph of layers.
    """

    model: keras.Model
    inputs: list[Input]
    preprocessing: Any = None
    postprocessing: Any = None
    cast: str | None = None
    named_by: keras.Model | None = None
    outputs: list[str] | None = None
    structure: Any = None

    def __call__(self, tensors: Mapping[str, Any], check: bool = True) -> dict[str, Any]:
        """Outputs by name, from inputs by name.

        Without `check`, inputs may be of another length than the student was built for.
        """
        flat = [ops.cast(tensors[i.name], i.dtype) for i in self.inputs]
        if self.preprocessing is not None:
            flat = [self.preprocessing(flat[0]), *flat[1:]]
        model = self.model if check else self.model.call
        with _keras.computing_in_float32(self.model), _keras.starting_from_zero(self.model):
            outputs = model(self._packed(flat), training=False)
        names = self.outputs or _output_names(self.named_by or self.model, outputs)
        if isinstance(outputs, dict):
            outputs = [outputs[key] for key in sorted(outputs)]
        outputs = keras.tree.flatten(outputs)
        if self.postprocessing is not None:
            outputs = [self.postprocessing(x) for x in outputs]
        return dict(zip(names, outputs, strict=True))

    @property
    def states(self) -> list[str]:
        """Names of the inputs that are state: a whole student has none."""
        return []

    @property
    def along_time(self) -> list[str]:
        """Names of the outputs that a single step gives for each step: a whole student has none."""
        return []

    def dtype(self, given: Input) -> str:
        """Dtype in which an `Input` arrives."""
        return self.cast if self.cast and given.dtype == "float32" else given.dtype

    def made_up(
        self, count: int, ranges: Sequence[tuple[float, float] | None] = ()
    ) -> dict[str, np.ndarray]:
        """Inputs by name for where there are no data.

        Args:
            count: Number of samples.
            ranges: `(low, high)` of each input; floats are from 0 to 1 where there is none.
        """
        generator = np.random.default_rng(0)
        result = {}
        for i, limits in itertools.zip_longest(self.inputs, ranges[: len(self.inputs)]):
            dtype, shape = self.dtype(i), (count, *i.shape)
            if keras.backend.is_float_dtype(dtype):
                low, high = limits or (0.0, 1.0)
                values = low + (high - low) * generator.random(shape, "float32")
            else:
                high = {"uint8": 256, "bool": 2}.get(dtype, self._vocabulary())
                values = generator.integers(0, high, shape)
            result[i.name] = values.astype(dtype)
        return result

    def zeros(self) -> dict[str, np.ndarray]:
        """One sample of zeros by name: silence, a black image, a text that is all padding."""
        return {i.name: np.zeros((1, *i.shape), self.dtype(i)) for i in self.inputs}

    def _vocabulary(self):
        """How many ids every embedding of the student knows."""
        sizes = [
            layer.input_dim
            for layer in _keras.layers_of(self.model)
            if isinstance(layer, keras.layers.Embedding)
        ]
        return min(sizes, default=2)

    @property
    def variables(self) -> list:
        """TensorFlow variables of the student and of the layers around it."""
        return [variable.value for variable in self._keras_variables]

    @property
    def _keras_variables(self):
        around = (self.preprocessing, self.postprocessing)
        layers = [layer for layer in around if isinstance(layer, keras.Layer)]
        return [variable for layer in (self.model, *layers) for variable in layer.variables]

    def _packed(self, flat):
        """Inputs in the structure of the student's own."""
        structure = getattr(self.model, "input", None) if self._is_graph() else self.structure
        if structure is not None:
            return keras.tree.pack_sequence_as(structure, flat)
        return flat[0] if len(flat) == 1 else flat

    def _is_graph(self):
        return bool(getattr(self.model, "inputs", None))

    @functools.cached_property
    def _function(self):
        if keras.backend.backend() != "tensorflow":
            return backends.compiled(self, self._keras_variables)
        specs = {i.name: tf.TensorSpec((None, *i.shape), self.dtype(i)) for i in self.inputs}
        function = tf.function(lambda x: self(x), input_signature=[specs], autograph=False)
        # TensorFlow would warn of retracing where many students are verified.
        return function.get_concrete_function()

    def predict(
        self, inputs: Mapping[str, np.ndarray], batch_size: int = 64
    ) -> dict[str, np.ndarray]:
        """Outputs by name as NumPy arrays, for arrays by name. A file must compute the same."""
        count = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, count, batch_size):
            block = {
                i.name: tf.cast(inputs[i.name][start : start + batch_size], self.dtype(i))
                for i in self.inputs
            }
            if keras.backend.backend() != "tensorflow":
                block = {name: x.numpy() for name, x in block.items()}
            parts.append(self._function(block))
        return {n: np.concatenate([np.asarray(part[n]) for part in parts]) for n in parts[0]}

    def own_errors(
        self, expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """How far a file is off by the measure of the layer that makes the outputs, if it has one.

        Such a layer has a method `errors`: its results, for example, are in an order that means
        little. Of all other students, outputs are compared element by element.

        Args:
            expected: The student's outputs by name.
            got: The file's.

        Returns:
            Errors by what they are of, in the unit of `closeness.LIMITS`; empty without a measure.
        """
        # A Sequential has no `output` before it is called.
        graph = self._is_graph()
        structure = getattr(self.model, "output", self.model.outputs) if graph else []
        layers = {id(x): x for x in map(_keras.producer_of, keras.tree.flatten(structure))}
        measure = getattr(next(iter(layers.values()), None), "errors", None)
        if len(layers) != 1 or measure is None or self.postprocessing is not None:
            return {}
        names = sorted(structure) if isinstance(structure, dict) else range(len(expected))
        own = [{n: x[e] for n, e in zip(names, expected, strict=True)} for x in (expected, got)]
        return measure(*own)


def beside_file(model: keras.Model, ports: runtimes.Ports) -> StudentFunction:
    """A student under the names of a file's inputs and outputs, to be compared with it.

    Where the names aren't the student's own, they are paired in order.

    Args:
        model: The student, a built Keras model.
        ports: The file's inputs and outputs.

    Raises:
        ValueError: The file has inputs or outputs of another number or shape.
    """
    student = StudentFunction(model, inputs_of(model))
    given = _paired("input", {i.name: i.shape for i in student.inputs}, ports.inputs)
    results = {name: x.shape[1:] for name, x in student.predict(student.made_up(1)).items()}
    return dataclasses.replace(
        student,
        inputs=[dataclasses.replace(i, name=given[i.name]) for i in student.inputs],
        outputs=list(_paired("output", results, ports.outputs).values()),
    )


def _paired(kind, shapes, ports):
    """The file's name for each of the student's `shapes`."""
    known = {port.name: port.shape[1:] for port in ports}
    names = shapes if known.keys() == shapes.keys() else known
    pairs = dict(zip(shapes, names, strict=False))
    fit = len(known) == len(shapes) and all(
        len(shape) == len(known[pairs[name]])
        and all(b in (a, None) for a, b in zip(shape, known[pairs[name]], strict=True))
        for name, shape in shapes.items()
    )
    if not fit:
        raise ValueError(
            f"The {kind}s of the file, {known}, aren't those of the student, {shapes} (shapes "
            "without batch axis): it belongs to another student."
        )
    return pairs
