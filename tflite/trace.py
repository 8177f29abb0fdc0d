"""The inference graph of a student, traced in the form that converters and targets take."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras_distill.tflite.given_states import GivenStates
from keras_distill.tflite.inspect import Inspection, Operator
from keras_distill.tflite.lowering import lowered, scopes
from keras_distill.tflite.request import Request
from keras_distill.tflite.single_step import SingleStep
from keras_distill.tflite.student_function import StudentFunction

#: What a graph is traced from.
Function: TypeAlias = StudentFunction | SingleStep | GivenStates

#: The exponent of the operators that a marked graph has after its outputs.
_MARK = 1000.0


@dataclasses.dataclass(frozen=True)
class Graph:
    """The graph of a student, saved for TensorFlow's converter.

    Attributes:
        function: The function that was traced.
        folder: Folder with the graph in `saved_model`, a SavedModel with one signature,
            `serving_default`.
        outputs: Names of the outputs, in the student's order.
        loops: Names of the loops in the graph.
        scopes: Name scopes of each layer's operators, by the layer's name.
    """

    function: Function
    folder: pathlib.Path
    outputs: list[str]
    loops: list[str]
    scopes: dict[str, set[str]]


def prepared(
    request: Request,
    student: StudentFunction,
    arrays: Mapping[str, np.ndarray] | None,
    fused: bool = True,
) -> tuple[Function, Mapping[str, np.ndarray] | None]:
    """The function to be traced, and calibration data at its inputs.

    Args:
        request: What was asked for.
        student: The student in the form that its converter takes.
        arrays: Calibration data at the student's inputs, or `None`.
        fused: Whether the LSTMs of a stream keep the operator of their own.

    Raises:
        ValueError: The student can't be run step by step, or there are too few data.
    """
    function: Function = student
    if request.recurrent == "step":
        function = step = SingleStep(student)
        count = 500 if request.calibration is None else request.calibration.samples
        arrays = step.rollout(arrays or student.made_up(4), count)
    elif request.stream is not None and request.way != "trained":
        given = GivenStates(student, fused)
        if given.carried:
            function, arrays = given, given.rollout(arrays or student.made_up(4))
    if arrays is not None and not request.is_float and request.way != "trained":
        _check_count(arrays, request.batch_size)
    return function, arrays


def _check_count(arrays, batch_size):
    count = len(next(iter(arrays.values())))
    if batch_size is not None and count < batch_size:
        raise ValueError(
            f"`calibration` gives {count} samples, fewer than the batch of {batch_size} that they "
            "are run in. Give more of them; `Calibration(samples=...)` may limit their number."
        )


def trace(
    request: Request, function: Function, folder: pathlib.Path, marked: bool = False
) -> Graph:
    """Traces and saves the inference graph of a student.

    Args:
        request: What was asked for.
        function: What to trace: the student, or one step of it.
        folder: Folder to save to.
        marked: Puts an operator after each float output, so that the converter leaves the one
            that computes it the name of its layer. `unmarked` knows it.

    Raises:
        ValueError: A recurrent layer became a loop, which can't be quantized as asked for.
    """
    specs = [
        tf.TensorSpec((request.batch_size, *i.shape), function.dtype(i), i.name)
        for i in function.inputs
    ]
    options = {
        "micro": request.target.runtime == "micro",
        # After training, the converter takes no integers of 16 bits for it.
        "fuse": request.quantization != "int16x8" or request.way == "trained",
        "unroll": request.recurrent == "unroll",
        "integers": not request.is_float and request.way != "trained",
    }
    names: list[str] = []
    recurrent: list[keras.Layer] = []
    found: dict[str, set[str]] = {}

    def serve(*tensors):
        given = {i.name: x for i, x in zip(function.inputs, tensors, strict=True)}
        with lowered(function.model, **options) as looped, scopes(function.model) as met:
            outputs = function(given)
        names[:], recurrent[:] = outputs, looped
        found.update(met)
        if marked:
            outputs = {
                name: tf.pow(x, _MARK) if x.dtype.is_floating else x for name, x in outputs.items()
            }
        return {name: tf.identity(x, name=name) for name, x in outputs.items()}

    module = tf.Module()
    # Keras 3 models aren't tracked as a SavedModel needs: only their variables are handed over.
    module.kept = function.variables
    # Not kept in the module, for which TensorFlow would trace it once more.
    traced = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()
    path = str(folder / "saved_model")
    tf.saved_model.save(module, path, signatures={"serving_default": traced})
    if recurrent and not request.is_float:
        _refuse_loop(recurrent[0], request.quantization)
    return Graph(function, folder, names, _loops(traced.graph), found)


def _refuse_loop(layer, quantization):
    """Raises for a recurrent layer that the converter is known to crash on."""
    raise ValueError(
        f"Layer {layer.name!r} ({type(layer).__name__}) becomes a loop, which the converter can't "
        f'quantize to {quantization}. Give `recurrent="unroll"` (its operators once for each time '
        'step) or `recurrent="step"` (the file computes one step, the caller keeps the state). An '
        "`LSTM` with default activations, without mask or initial state, has an operator of its "
        "own in int8."
    )


def unmarked(found: Inspection) -> list[Operator]:
    """The operators of a file whose graph was traced `marked`, without the marks."""
    outputs = [id(tensor) for tensor in found.outputs]
    return [op for op in found.operators if op.name != "POW" or id(op.outputs[0]) not in outputs]


def _loops(graph):
    """Names of the loops in a graph, those in its functions too."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return sorted({node.name for node in nodes if "While" in node.op})
