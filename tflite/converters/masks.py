"""Masks of attention, softmax and extremes, brought near the scores that they leave out.

A mask adds or selects a large constant, such as -1e9. In integers that constant would become the
range of the scores, which all round to one value then.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf
from keras_distill.tflite import runtimes, targets
from keras_distill.tflite.converters.activation_ranges import Range, activations
from keras_distill.tflite.converters.converter import Samples, Scores
from keras_distill.tflite.inspect import inspect
from keras_distill.tflite.trace import Graph

#: On how many samples scores are looked at.
_FEW = 100
#: What masks are for, by the name in graphs: the operator in files, and from where on a constant
#: before it is taken for a mask.
_MASKED = {"Softmax": ("SOFTMAX", 50.0), "Max": ("REDUCE_MAX", 1e4), "Min": ("REDUCE_MIN", 1e4)}
#: By how much masked scores lie below all others: exp(-12) is nothing in 8 and 16 bits.
_BELOW = 12.0
#: Operations through which a constant reaches a softmax as it is, or times a factor.
_PASSES = {
    "Add", "AddV2", "BroadcastTo", "Cast", "Fill", "Identity", "Mul", "Neg", "Reshape", "Select",
    "SelectV2", "Squeeze", "ExpandDims", "StridedSlice", "Sub", "Tile", "Transpose", "Where",
}  # fmt: skip


def clamp(graph: Graph, samples: Samples, convert: Callable[[], bytes]) -> Scores:
    """Brings the masks of a traced graph near the scores that they leave out.

    Where that would change an output, the graph is left as it is.

    Args:
        graph: The traced graph.
        samples: Calibration data.
        convert: Makes the float32 file of the graph as it is.

    Returns:
        The scores, by which `replace` does the same to another trace of the graph.
    """
    path = _path(graph)
    masked = _masked(path)
    if not masked:
        return {}
    arrays = [samples[i.name][:_FEW] for i in graph.function.inputs]
    float32 = convert()
    scores = _scores(float32, arrays, masked)
    before = path.read_bytes()
    replace(graph, scores)
    if _same_outputs(float32, convert(), arrays):
        return scores
    path.write_bytes(before)
    return {}


def replace(graph: Graph, scores: Scores) -> None:
    """Replaces the masks of a traced graph by constants that leave the scores their precision.

    Args:
        graph: The traced graph.
        scores: `(low, high)` of the scores that aren't masked, by the name of what reads them.
    """
    saved = _read(_path(graph))
    for nodes in _graphs(saved):
        by_name = {node.name: node for node in nodes}
        bounds: dict[str, float] = {}
        for node in nodes:
            if node.op in _MASKED and node.name in scores:
                low, high = scores[node.name]
                # An extreme isn't among the masked; what a softmax gives them must be nothing.
                bound = high - low + _BELOW
                bound = bound if node.op == "Softmax" else max(high - low, -low, high)
                for constant in _large_constants(node, by_name):
                    bounds[constant.name] = max(bound, bounds.get(constant.name, 0.0))
        for name, bound in bounds.items():
            value = tf.make_ndarray(by_name[name].attr["value"].tensor)
            near = tf.make_tensor_proto(np.clip(value, -bound, bound), value.dtype, value.shape)
            by_name[name].attr["value"].tensor.CopyFrom(near)
    _path(graph).write_bytes(saved.SerializeToString())


def _path(graph):
    return graph.folder / "saved_model" / "saved_model.pb"


def _read(path):
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.read_bytes())
    return saved


def _graphs(saved):
    """The nodes of each graph and function of a SavedModel."""
    for graph in saved.meta_graphs:
        yield graph.graph_def.node
        for function in graph.graph_def.library.function:
            yield function.node_def


def _masked(path):
    """The operations of a SavedModel that a large constant reaches: what they are, by name."""
    return {
        node.name: node.op
        for nodes in _graphs(_read(path))
        for node in nodes
        if node.op in _MASKED and _large_constants(node, {n.name: n for n in nodes})
    }


def _large_constants(node, by_name):
    """The large constants that reach a node through arithmetic."""
    large = _MASKED[node.op][1]
    pending, seen, found = [node], set(), []
    while pending:
        for name in pending.pop().input:
            source = by_name.get(name.lstrip("^").split(":")[0])
            if source is None or source.name in seen:
                continue
            seen.add(source.name)
            if source.op == "Const":
                found.append(source)
            elif source.op in _PASSES:
                pending.append(source)
    return [constant for constant in found if _largest(constant) >= large]


def _largest(constant):
    tensor = constant.attr["value"].tensor
    if not tf.dtypes.as_dtype(tensor.dtype).is_floating:
        return 0.0
    return float(np.abs(tf.make_ndarray(tensor)).max(initial=0.0))


def _scores(tflite, arrays, masked):
    """`(low, high)` of the scores before each masked operation that aren't masked themselves."""
    kinds = {operator: (kind, large) for kind, (operator, large) in _MASKED.items()}
    names: dict[str, set[str]] = {}
    larges: dict[str, float] = {}
    for op in inspect(tflite).operators:
        kind, large = kinds.get(op.name, ("", 0.0))
        own = {name for name, other in masked.items() if other == kind}
        if own:
            parts = {targets.without_call(part) for part in op.layer.split(";")}
            # What is an output has the output's name.
            names.setdefault(op.inputs[0].name, set()).update(parts & own or own)
            larges[op.inputs[0].name] = large
    found: dict[str, Range] = {}
    for tensor, values in activations(tflite, arrays):
        met = values[np.abs(values) < larges.get(tensor, 0.0) / 2]
        for name in names[tensor] if met.size else ():
            low, high = found.get(name, (np.inf, -np.inf))
            found[name] = min(low, float(met.min())), max(high, float(met.max()))
    return found


def _same_outputs(a, b, arrays):
    """Whether two float files give the same but for what integers don't show."""
    first, second = (runtimes.run_samples(runtimes.LiteRT(file), arrays) for file in (a, b))
    return all(
        np.sqrt(np.mean((x - y) ** 2)) <= 1e-3 * x.std() + 1e-9
        for x, y in zip(first, second, strict=True)
        if x.dtype.kind == "f"
    )
