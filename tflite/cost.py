"""What one invocation of a file costs: multiply-accumulates, and how often loops turn."""

import math
from collections.abc import Sequence
from typing import Any

from ai_edge_litert.tools import flatbuffer_utils


def operator_name(model: Any, op: Any) -> str:
    """Name of an operator in the schema, such as `"CONV_2D"`; custom ones by their own name."""
    custom = model.operatorCodes[op.opcodeIndex].customCode
    name = custom.decode() if isinstance(custom, bytes) else custom
    return name or flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)


def runs_of_loops(model: Any, graph: int = 0, times: int | None = 1) -> dict[int, int | None]:
    """How often each body of a loop runs in one invocation.

    Args:
        model: The file, as the object `ModelT` of TFLite's schema.
        graph: Index of the subgraph that runs.
        times: How often it runs.

    Returns:
        The number of runs by index of the body's subgraph, `None` where it isn't known.
    """
    runs: dict[int, int | None] = {}
    for op in model.subgraphs[graph].operators or []:
        if operator_name(model, op) == "WHILE":
            body = op.builtinOptions.bodySubgraphIndex
            turns = _turns(model, model.subgraphs[graph], op)
            runs[body] = None if turns is None or times is None else times * turns
            runs |= runs_of_loops(model, body, runs[body])
    return runs


def _turns(model, graph, op):
    """How often a loop turns that counts from one constant to another, else `None`."""
    cond = model.subgraphs[op.builtinOptions.condSubgraphIndex]
    body = model.subgraphs[op.builtinOptions.bodySubgraphIndex]
    makers = {
        o: (operator_name(model, m), list(m.inputs)) for m in cond.operators for o in m.outputs
    }
    steps = {
        o: (operator_name(model, m), list(m.inputs)) for m in body.operators for o in m.outputs
    }
    pending = [cond.outputs[0]]
    turns: list[int] = []
    while pending:
        name, inputs = makers.get(pending.pop(), ("", []))
        if name == "LOGICAL_AND":
            pending += inputs
            continue
        if name != "LESS" or inputs[0] not in cond.inputs:
            return None
        counter = list(cond.inputs).index(inputs[0])
        kind, added = steps.get(body.outputs[counter], ("", []))
        if kind != "ADD" or body.inputs[counter] not in added:
            return None
        added.remove(body.inputs[counter])
        start = _integer(model, graph, op.inputs[counter])
        end, step = _integer(model, cond, inputs[1]), _integer(model, body, added[0])
        if start is None or end is None or not step or step < 0:
            return None
        turns.append(max(0, math.ceil((end - start) / step)))
    return min(turns)


def _integer(model, graph, index):
    """The value of a constant of one integer, else `None`."""
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    size = {"INT32": 4, "INT64": 8}.get(flatbuffer_utils.type_to_name(tensor.type))
    if data is None or len(data) != size:
        return None
    return int.from_bytes(bytes(data), "little", signed=True)


def _size(tensor):
    """Elements of an activation, a dynamic axis counting as 1."""
    return math.prod(abs(size) for size in tensor.shape)


def multiply_accumulates(name: str, op: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Multiply-accumulates of one run of an operator: products that are summed up.

    Args:
        name: Name of the operator.
        op: The operator, an `OperatorT` of TFLite's schema.
        inputs: Its inputs, `inspect.Tensor`s or `None`.
        outputs: Its outputs.
    """
    if name in ("CONV_2D", "CONV_3D"):
        return _size(outputs[0]) * _size(inputs[1]) // _channels(name, inputs[1])
    if name == "DEPTHWISE_CONV_2D":
        return _size(outputs[0]) * math.prod(inputs[1].shape[1:3])
    if name == "TRANSPOSE_CONV":
        return _size(inputs[2]) * math.prod(inputs[1].shape[:3])
    if name == "FULLY_CONNECTED":
        return _size(outputs[0]) * inputs[1].shape[-1]
    if name == "BATCH_MATMUL":
        adjoint = bool(getattr(op.builtinOptions, "adjX", False))
        return _size(outputs[0]) * abs(inputs[0].shape[-2 if adjoint else -1])
    if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        steps = _size(inputs[0]) // abs(inputs[0].shape[-1])
        return steps * sum(t.elements for t in inputs[1:9] if t)
    return 0


def _channels(name, weights):
    """Output channels: the first axis in 2-D convolutions, the last in 3-D ones."""
    return weights.shape[0] if name == "CONV_2D" else weights.shape[-1]
