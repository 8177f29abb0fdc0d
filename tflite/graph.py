"""The inference graph of a student, in the form that the converter and the targets take."""

import dataclasses
import functools
import re

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from keras_distill.tflite.forms import export_forms, scopes


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of the file, with a name that is safe in signatures, C and Kotlin."""

    name: str
    shape: tuple
    dtype: str


def inputs_of(student, input_signature=None) -> list[Input]:
    """The student's inputs, without batch axis.

    Args:
        student: A built Keras model.
        input_signature: Structure of `keras.InputSpec` or `tf.TensorSpec` with a batch axis, for
            models whose inputs aren't known or not fixed in shape.

    Returns:
        `Input`s in the order in which the model takes them.

    Raises:
        ValueError: The shapes of the inputs aren't known.
    """
    if input_signature is not None:
        specs = keras.tree.flatten(input_signature)
    elif getattr(student, "inputs", None):
        specs = student.inputs
    else:
        raise ValueError(
            f"The inputs of model {student.name!r} are not known. Give `input_signature`, such as "
            '`[keras.InputSpec(shape=(None, 28, 28, 1), dtype="float32")]`, for a model that is '
            "neither functional nor a built `Sequential`."
        )
    for spec in specs:
        if None in tuple(spec.shape)[1:]:
            raise ValueError(
                f"An input of model {student.name!r} has shape {tuple(spec.shape)}. A file needs "
                "fixed sizes: give `input_signature` with every size but the batch's set."
            )
    names = unique_names([_input_name(spec) for spec in specs], "input")
    return [
        Input(name, tuple(spec.shape)[1:], keras.backend.standardize_dtype(spec.dtype or "float32"))
        for name, spec in zip(names, specs, strict=True)
    ]


def _input_name(spec):
    name = getattr(spec, "name", None) or ""
    return "" if re.fullmatch(r"(input_layer|keras_tensor|input|args)(_\d+)*", name) else name


def unique_names(names, kind) -> list[str]:
    """Names made safe for signatures, C and Kotlin, and unlike each other.

    Empty names become `kind`, or `kind_0`, `kind_1`, ... of several.
    """
    plain = [kind] if len(names) == 1 else [f"{kind}_{i}" for i in range(len(names))]
    result = []
    for name, fallback in zip(names, plain, strict=True):
        safe = re.sub(r"[\W_]+", "_", name, flags=re.ASCII).strip("_").lower() or fallback
        safe = f"_{safe}" if safe[0].isdigit() else safe
        candidate, n = safe, 1
        while candidate in result:
            candidate, n = f"{safe}_{n}", n + 1
        result.append(candidate)
    return result


def _output_names(student, outputs):
    """Names of the student's outputs: of a dict its keys, else of the layers that users named."""
    if isinstance(outputs, dict):
        return unique_names(sorted(outputs), "output")
    count = len(keras.tree.flatten(outputs))
    names = [""] * count
    layers = getattr(student, "output_names", None) or [student.layers[-1].name]
    if len(layers) == count:
        names = ["" if _is_automatic(student, name) else name for name in layers]
    return unique_names(names, "output")


def _is_automatic(student, name):
    """Whether Keras made the name up from the layer's class."""
    for layer in student.layers:
        if layer.name == name:
            kind = type(layer).__name__.removeprefix("Quantized")
            snake = keras.src.utils.naming.to_snake_case(kind)
            return re.fullmatch(rf"{snake}(_\d+)?", name) is not None
    return True


@dataclasses.dataclass
class Wrapped:
    """The student between preprocessing and postprocessing, as one function of named inputs.

    Attributes:
        student: Keras model.
        inputs: Its `Input`s.
        preprocessing: Keras layer or function on the (only) input, or `None`.
        postprocessing: Keras layer or function on each output, or `None`.
        cast: Dtype of float inputs in the file where it isn't their own: raw bytes that become
            floats inside a float file.
        named_by: Model whose layers name the outputs, or `None`: the student's.
        outputs: Names of the outputs where they aren't those of layers.
    """

    student: keras.Model
    inputs: list
    preprocessing: object = None
    postprocessing: object = None
    cast: str | None = None
    named_by: keras.Model | None = None
    outputs: list | None = None

    def __call__(self, tensors, check=True):
        """Outputs by name, from inputs by name.

        Without `check`, inputs may be of another length than the student was built for.
        """
        flat = [ops.cast(tensors[i.name], i.dtype) for i in self.inputs]
        if self.preprocessing is not None:
            flat = [self.preprocessing(flat[0]), *flat[1:]]
        student = self.student if check else self.student.call
        outputs = student(self._packed(flat), training=False)
        names = self.outputs or _output_names(self.named_by or self.student, outputs)
        if isinstance(outputs, dict):
            outputs = [outputs[key] for key in sorted(outputs)]
        outputs = keras.tree.flatten(outputs)
        if self.postprocessing is not None:
            outputs = [self.postprocessing(x) for x in outputs]
        return dict(zip(names, outputs, strict=True))

    def dtype(self, given):
        """Dtype in which an `Input` arrives."""
        return self.cast if self.cast and given.dtype == "float32" else given.dtype

    def made_up(self, count):
        """Inputs by name for where there are no data: floats from 0 to 1, zeros elsewhere."""
        generator = np.random.default_rng(0)
        return {
            i.name: generator.random((count, *i.shape), "float32").astype(self.dtype(i))
            for i in self.inputs
        }

    @property
    def variables(self) -> list:
        """TensorFlow variables of the student and of the layers around it."""
        layers = [
            x for x in (self.preprocessing, self.postprocessing) if isinstance(x, keras.Layer)
        ]
        return [v.value for layer in (self.student, *layers) for v in layer.variables]

    def _packed(self, flat):
        """Inputs in the structure that the student takes."""
        structure = getattr(self.student, "input", None) if self._is_graph() else None
        if structure is not None:
            return keras.tree.pack_sequence_as(structure, flat)
        return flat[0] if len(flat) == 1 else flat

    def _is_graph(self):
        return bool(getattr(self.student, "inputs", None))

    @functools.cached_property
    def _function(self):
        specs = {i.name: tf.TensorSpec((None, *i.shape), self.dtype(i)) for i in self.inputs}
        function = tf.function(lambda x: self(x), input_signature=[specs], autograph=False)
        # TensorFlow would warn of retracing where many students are verified.
        return function.get_concrete_function()

    def predict(self, inputs, batch_size=64):
        """Outputs by name as NumPy arrays, for arrays by name. The answer a file must give."""
        count = len(next(iter(inputs.values())))
        parts = []
        for start in range(0, count, batch_size):
            block = {
                i.name: tf.cast(inputs[i.name][start : start + batch_size], self.dtype(i))
                for i in self.inputs
            }
            parts.append(self._function(block))
        return {n: np.concatenate([part[n].numpy() for part in parts]) for n in parts[0]}


def beside_file(student, inputs, outputs) -> Wrapped:
    """A student under the names of a file's inputs and outputs, to be compared with it.

    Where the names aren't the student's own, they are paired in order.

    Args:
        student: A built Keras model.
        inputs: The file's inputs, as `artifact.ports` gives them.
        outputs: Its outputs.

    Raises:
        ValueError: The file has inputs or outputs of another number or shape.
    """
    whole = Wrapped(student, inputs_of(student))
    given = _paired("input", {i.name: i.shape for i in whole.inputs}, inputs)
    results = {name: x.shape[1:] for name, x in whole.predict(whole.made_up(1)).items()}
    return dataclasses.replace(
        whole,
        inputs=[dataclasses.replace(i, name=given[i.name]) for i in whole.inputs],
        outputs=list(_paired("output", results, outputs).values()),
    )


def _paired(kind, shapes, ports):
    """The file's name for each of the student's `shapes`."""
    known = {port["name"]: tuple(port["shape"][1:]) for port in ports}
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


@dataclasses.dataclass(frozen=True)
class Saved:
    """What is known of a graph when it has been saved.

    Attributes:
        outputs: Names of the outputs, in the student's order.
        recurrent: Recurrent layers that became loops.
        loops: Names of all loops in the graph.
        scopes: Name scopes of each layer's operators, by the layer's name.
    """

    outputs: list
    recurrent: list
    loops: list
    scopes: dict


#: The exponent of the operators that `save` puts behind outputs.
_MARK = 1000.0


def save(wrapped, folder, batch_size=1, marked=False, **options) -> Saved:
    """Saves the inference graph as a SavedModel with one signature, `serving_default`.

    Args:
        wrapped: A `Wrapped` student, or a `steps.Step` of one.
        folder: Folder of the SavedModel.
        batch_size: Static batch size, or `None`.
        marked: Puts an operator behind each float output, so that the converter leaves the one
            that computes it the name of its layer. `unmarked` knows it.
        **options: As in `forms.export_forms`.
    """
    specs = [
        tf.TensorSpec((batch_size, *i.shape), wrapped.dtype(i), i.name) for i in wrapped.inputs
    ]
    names, recurrent, found = [], [], {}

    def serve(*tensors):
        given = {i.name: x for i, x in zip(wrapped.inputs, tensors, strict=True)}
        with export_forms(wrapped.student, **options) as looped, scopes(wrapped.student) as met:
            outputs = wrapped(given)
        names[:], recurrent[:] = outputs, looped
        found.update(met)
        if marked:
            outputs = {
                name: tf.pow(x, _MARK) if x.dtype.is_floating else x for name, x in outputs.items()
            }
        return {name: tf.identity(x, name=name) for name, x in outputs.items()}

    module = tf.Module()
    # Keras 3 models aren't tracked as a SavedModel needs: only their variables are handed over.
    module.kept = wrapped.variables
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    function = module.serve.get_concrete_function()
    tf.saved_model.save(module, str(folder), signatures={"serving_default": function})
    return Saved(names, recurrent, _loops(function.graph), found)


def unmarked(found) -> list:
    """The operators of a file that was saved `marked`, without the marks.

    Args:
        found: The file's `Inspection`.
    """
    outputs = [id(tensor) for tensor in found.outputs]
    return [op for op in found.operators if op.name != "POW" or id(op.outputs[0]) not in outputs]


def _loops(graph):
    """Names of the loops in a graph, those in its functions too."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return sorted({node.name for node in nodes if "While" in node.op})
