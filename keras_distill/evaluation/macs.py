"""Multiply-accumulates of a Keras model, counted in the graph that the backend traces of it."""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_distill import _keras, backends
from keras_distill.evaluation import macs_on_jax, macs_on_torch
from keras_distill.evaluation.macs_on_jax import Opaque


def multiply_accumulates(model: Callable[[Any], Any], inputs: Any = None) -> int:
    """Counts the multiply-accumulates of one inference on one sample.

    Every product that is summed up counts once: those of convolutions (also depthwise, separable,
    grouped, dilated and transposed), dense layers, attention, recurrent layers (all steps) and
    `keras.ops.matmul` or `einsum` anywhere in the model, subclassed or not. Biases, batch
    normalization (which export folds into other layers) and activations don't count. Positions of
    a convolution in the padding count, as is customary.

    Args:
        model: A built `keras.Model`, or a function of tensors.
        inputs: A batch of inputs (arrays, or objects with `shape` and `dtype`), of which only
            shapes and dtypes matter. Defaults to `None`: the model's own inputs. Needed if they
            have unknown sizes other than the batch.

    Returns:
        The count, an int.

    Raises:
        ValueError: If sizes are unknown, the number of iterations of a loop depends on the data,
            or the model runs Python code.

    Example:

    >>> inputs = keras.Input((8, 8, 1))
    >>> outputs = keras.layers.Conv2D(4, 3)(inputs)
    >>> keras_distill.evaluation.multiply_accumulates(keras.Model(inputs, outputs))
    1296
    """
    backends.require("`multiply_accumulates`", "tensorflow", "jax", "torch")
    if inputs is None:
        # A Sequential model that was never called has inputs in its graph alone.
        inputs = getattr(_keras.graph_of(model) or model, "input", None)
    if inputs is None:
        raise ValueError("The model doesn't know its inputs: give a sample batch as `inputs`.")
    specs = keras.tree.map_structure(_one_sample, inputs)
    if keras.backend.backend() == "jax":
        return macs_on_jax.count(model, specs)
    if keras.backend.backend() == "torch":
        return macs_on_torch.count(model, specs)
    call = (lambda x: model(x, training=False)) if isinstance(model, keras.Model) else model
    return _count(tf.function(call, autograph=False).get_concrete_function(specs).graph)


def _one_sample(x: Any) -> Any:
    shape = (1, *x.shape[1:])
    if None in shape:
        raise ValueError(
            f"The model's input has shape {tuple(x.shape)}, and the count depends on the unknown "
            "sizes. Give a sample batch as `inputs`."
        )
    # NumPy keeps text as objects.
    dtype = "string" if x.dtype == object else keras.backend.standardize_dtype(x.dtype)
    return tf.TensorSpec(shape, dtype)


def _count(graph: Any) -> int:
    return sum(_operation(op, graph) for op in _needed(graph.outputs))


def _needed(tensors: Iterable[Any]) -> set:
    """The operations that tensors need. Keras traces more, such as a cell's shapes."""
    found, pending = set(), [tensor.op for tensor in tensors]
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending.extend(tensor.op for tensor in op.inputs)
    return found


def _operation(op: Any, graph: Any) -> int:
    if op.type in ("PartitionedCall", "StatefulPartitionedCall"):
        return _count(_function(graph, op.get_attr("f")))
    if op.type in ("While", "StatelessWhile"):
        body = _count(_function(graph, op.get_attr("body")))
        return body and body * _trips(op)
    if op.type in ("If", "StatelessIf"):
        branches = (op.get_attr("then_branch"), op.get_attr("else_branch"))
        return max(_count(_function(graph, branch)) for branch in branches)
    if op.type in ("EagerPyFunc", "PyFunc", "PyFuncStateless"):
        raise Opaque("The model runs Python code, whose cost is unknown.")
    products = _PRODUCTS.get(op.type)
    return products(op) if products else 0


def _function(graph: Any, attribute: Any) -> Any:
    return _keras.function_graph(graph, attribute.name)


def _trips(op: Any) -> int:
    """The number of iterations of a loop, if it doesn't depend on the data."""
    try:
        # Keras computes the number of steps from constants, inside the graph.
        with tf.compat.v1.Session(graph=op.graph) as session:
            trips = int(session.run(op.inputs[1]))
        return trips if trips >= 0 else _iterated(op)
    except tf.errors.OpError as error:
        raise ValueError(
            f"The number of iterations of the loop {op.name!r} depends on the data: its "
            "multiply-accumulates can't be counted."
        ) from error


def _iterated(op: Any) -> int:
    """The number of iterations of a loop without a limit, such as that of `keras.ops.scan`.

    Only what the loop's condition reads is computed.
    """
    condition, body = (_function(op.graph, op.get_attr(name)) for name in ("cond", "body"))
    read = _places(condition, condition.outputs)
    while (more := read | _places(body, [body.outputs[place] for place in read])) > read:
        read = more
    state = _computes([op.inputs[place] for place in read])({})
    goes_on = _computes(condition.outputs[:1])
    advance = _computes([body.outputs[place] for place in read])
    trips = 0
    while goes_on({condition.inputs[i].name: x for i, x in zip(read, state, strict=True)})[0]:
        state = advance({body.inputs[i].name: x for i, x in zip(read, state, strict=True)})
        trips += 1
    return trips


def _computes(tensors: Sequence[Any]) -> Callable[[dict[str, Any]], list]:
    """A function of values by name that computes tensors of a graph, and no other operation.

    In the graph itself, they wait for all that has side effects.
    """
    definition = tf.compat.v1.GraphDef()
    for op in _needed(tensors):
        node = definition.node.add()
        node.CopyFrom(op.node_def)
        node.input[:] = [x.name for x in op.inputs]
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(graph=graph)
    return functools.partial(session.run, [x.name for x in tensors])


def _places(graph: Any, tensors: Iterable[Any]) -> set[int]:
    """The places of the inputs of a graph that tensors of it need."""
    needed = _needed(tensors)
    return {place for place, x in enumerate(graph.inputs) if x.op in needed}


def _size(tensor: Any) -> int:
    if None in tensor.shape:
        raise ValueError(
            f"The shape {tuple(tensor.shape)} inside the model, at {tensor.op.name!r}, depends on "
            "the data: its multiply-accumulates can't be counted."
        )
    return math.prod(tensor.shape)


def _convolution(op: Any) -> int:
    return _size(_assembled(op.outputs[0])) * math.prod(op.inputs[1].shape[:-1])


def _depthwise(op: Any) -> int:
    return _size(_assembled(op.outputs[0])) * math.prod(op.inputs[1].shape[:2])


def _assembled(tensor: Any) -> Any:
    """The map that a dilated convolution's output is a part of, or the output itself.

    TensorFlow runs a dilated convolution as an ordinary one on interleaved and padded parts.
    """
    for op in tensor.consumers():
        if op.type == "BatchToSpaceND":
            return op.outputs[0]
        if op.type == "Squeeze" and _assembled(op.outputs[0]) is not op.outputs[0]:
            return _assembled(op.outputs[0])
    return tensor


def _transposed_convolution(op: Any) -> int:
    # The forward pass of a transposed convolution is the backward pass of a convolution.
    return _size(op.inputs[2]) * math.prod(op.inputs[1].shape[:-1])


def _matmul(op: Any) -> int:
    axis = -2 if op.get_attr("transpose_a") else -1
    return _size(op.outputs[0]) * op.inputs[0].shape[axis]


def _batch_matmul(op: Any) -> int:
    axis = -2 if op.get_attr("adj_x") else -1
    return _size(op.outputs[0]) * op.inputs[0].shape[axis]


def _einsum(op: Any) -> int:
    terms = op.get_attr("equation").decode().split("->")[0].split(",")
    if len(terms) == 1:
        return 0
    sizes = {}
    for term, tensor in zip(terms, op.inputs, strict=True):
        labels, shape = term.replace("...", ""), list(tensor.shape)
        if "..." in term:
            start = term.index("...")
            stop = len(shape) - (len(labels) - start)
            sizes["..."] = max(sizes.get("...", 1), math.prod(shape[start:stop]))
            del shape[start:stop]
        sizes.update(zip(labels, shape, strict=True))
    return math.prod(sizes.values())


def _cudnn_rnn(op: Any) -> int:
    """A recurrent layer of one direction, which Keras runs as a single operation on GPUs."""
    steps_and_batch = _size(op.inputs[0]) // op.inputs[0].shape[-1]
    inputs, units = op.inputs[0].shape[-1], op.inputs[1].shape[-1]
    gates = {b"lstm": 4, b"gru": 3}[op.get_attr("rnn_mode")]
    return steps_and_batch * gates * units * (inputs + units)


_PRODUCTS = {
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "Conv2D": _convolution,
    "Conv2DBackpropInput": _transposed_convolution,
    "Conv3D": _convolution,
    "Conv3DBackpropInputV2": _transposed_convolution,
    "CudnnRNNV3": _cudnn_rnn,
    "DepthwiseConv2dNative": _depthwise,
    "Einsum": _einsum,
    "MatMul": _matmul,
}
