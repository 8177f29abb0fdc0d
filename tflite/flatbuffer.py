"""Changes to a TFLite file that leave what it computes as it is, or as it should be."""

import copy
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils


def port_counts(tflite: bytes) -> tuple[int, int]:
    """How many inputs and outputs a file has."""
    graph = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite)).subgraphs[0]
    return len(graph.inputs), len(graph.outputs)


def tidied(tflite, inputs, outputs) -> bytes:
    """Orders and names the inputs and outputs of a file's one signature, and mends its scales.

    The converter sorts them as it likes; runtimes without signatures know them by index alone.

    Args:
        tflite: The file.
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        maps = {m.name.decode(): m for m in getattr(signature, side)}
        setattr(signature, side, [maps[name] for name in names])
        indices = [maps[name].tensorIndex for name in names]
        setattr(graph, side, indices)
        for name, index in zip(names, indices, strict=True):
            graph.tensors[index].name = name.encode()
    for op in list(graph.operators):
        name = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)
        if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            _mend_lstm(graph, op)
        elif name == "SOFTMAX":
            _mend_softmax(graph.tensors[op.inputs[0]])
        elif name in _MOVES:
            _mend_move(model, graph, op, _MOVES[name])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def fed_bytes(tflite) -> bytes:
    """The file with uint8 inputs that stand for themselves: scale 1, zero point 0.

    Calibration gives them the scale of its largest value. The QUANTIZE behind each input turns
    one scale into the other.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
    graph = model.subgraphs[0]
    for index in graph.inputs:
        quantization = graph.tensors[index].quantization
        if graph.tensors[index].type == schema.TensorType.UINT8 and quantization is not None:
            quantization.scale, quantization.zeroPoint = [1.0], [0]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


#: Index of the hidden state among an LSTM's inputs.
HIDDEN_STATE = 18


def _mend_lstm(graph, op):
    """Gives an int8 LSTM's hidden state the scale of its output.

    Both are the same numbers, but where the output is concatenated with others the converter
    gives it their scale and forgets the state, so that the operator computes with a wrong one.
    """
    quantization = graph.tensors[op.outputs[0]].quantization
    if not _scale(graph.tensors[op.outputs[0]]):
        return
    for index in (op.inputs[HIDDEN_STATE], op.intermediates[-1]):
        graph.tensors[index].quantization = quantization


#: The least scale of a softmax' input that the reference kernels take is above 2^-26.
_SOFTMAX_SCALE = 2.0**-25


def _mend_softmax(tensor):
    """Raises a vanishing scale of a softmax' input, at which the reference kernels abort.

    256 such steps span less than 1e-5, which no softmax of 8 bits shows.
    """
    if 0 < _scale(tensor) < _SOFTMAX_SCALE:
        tensor.quantization.scale = [_SOFTMAX_SCALE]


#: Operators whose kernels copy integers, whatever the scales say, with the inputs that they copy.
_MOVES = {
    **dict.fromkeys(("CONCATENATION", "MAXIMUM", "MINIMUM", "PACK"), slice(None)),
    **dict.fromkeys(("SELECT", "SELECT_V2"), slice(1, 3)),
    "ONE_HOT": slice(2, 4),
    "PADV2": slice(0, 3, 2),
    "SPLIT": slice(1, 2),
    **dict.fromkeys(
        (
            "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "DEPTH_TO_SPACE",
            "EXPAND_DIMS", "GATHER", "GATHER_ND", "MAX_POOL_2D", "MIRROR_PAD", "PAD", "REDUCE_MAX",
            "REDUCE_MIN", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2",
            "SLICE", "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SQUEEZE", "STRIDED_SLICE", "TILE",
            "TRANSPOSE", "UNPACK",
        ),
        slice(0, 1),
    ),
}  # fmt: skip


def _mend_move(model, graph, op, places):
    """Brings what an operator copies to the scale of the tensor that it copies into.

    The converter gives such a tensor the scale of those that it is concatenated with, and leaves
    the values that ONE_HOT writes in scales of their own.
    """
    wanted = graph.tensors[op.outputs[0]]
    for place in range(*places.indices(len(op.inputs))):
        given = graph.tensors[op.inputs[place]]
        if given.type == wanted.type and _scale(given) and not _same_steps(given, wanted):
            rescale(model, graph, op, place, wanted.quantization)


def rescale(model: Any, graph: Any, op: Any, place: int, quantization: Any) -> None:
    """Brings an input of an operator to another scale: a constant by itself, else by a QUANTIZE."""
    index = op.inputs[place]
    given = graph.tensors[index]
    rescaled = copy.copy(given)
    rescaled.name = rescaled.name + b"/rescaled"
    rescaled.quantization = quantization
    rescaled.buffer = 0
    graph.tensors.append(rescaled)
    op.inputs = list(op.inputs)
    op.inputs[place] = len(graph.tensors) - 1
    constant = model.buffers[given.buffer].data
    if constant is not None and len(constant):
        model.buffers.append(_requantized(constant, given, quantization))
        rescaled.buffer = len(model.buffers) - 1
        return
    step = schema.OperatorT()
    step.opcodeIndex = _code(model, schema.BuiltinOperator.QUANTIZE)
    step.inputs, step.outputs = [index], [op.inputs[place]]
    graph.operators.insert(graph.operators.index(op), step)


def _requantized(data, tensor, quantization):
    """A buffer with the values of a constant in other steps."""
    dtype = _INTEGERS[tensor.type]
    values = np.frombuffer(bytes(data), dtype).astype("float64")
    values = (values - tensor.quantization.zeroPoint[0]) * tensor.quantization.scale[0]
    steps = np.round(values / quantization.scale[0]) + quantization.zeroPoint[0]
    limits = np.iinfo(dtype)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.clip(steps, limits.min, limits.max).astype(dtype), "uint8")
    return buffer


_INTEGERS = {schema.TensorType.INT8: "int8", schema.TensorType.INT16: "int16"}


def _scale(tensor):
    """The one scale of a tensor, 0 where it isn't quantized."""
    scales = getattr(tensor.quantization, "scale", None)
    return 0.0 if scales is None or len(scales) == 0 else scales[0]


def _same_steps(a, b):
    return _scale(a) == _scale(b) and a.quantization.zeroPoint[0] == b.quantization.zeroPoint[0]


def _code(model, builtin):
    """Index of a built-in operator's code, added where the file doesn't have it."""
    for index, code in enumerate(model.operatorCodes):
        if code.builtinCode == builtin:
            return index
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = builtin
    code.version = 2  # from one integer type to another
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def stripped(tflite) -> bytes:
    """The file without names and metadata, which microcontrollers don't read."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
    flatbuffer_utils.strip_strings(model)
    used = {0} | {t.buffer for g in model.subgraphs for t in g.tensors}
    model.metadata = None
    model.metadataBuffer = None
    keep = sorted(used)
    index = {old: new for new, old in enumerate(keep)}
    model.buffers = [model.buffers[old] for old in keep]
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = index[tensor.buffer]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
