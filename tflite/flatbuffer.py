"""Changes to a TFLite file that leave what it computes as it is, or as it should be."""

from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils


def tidied(tflite, inputs, outputs) -> bytes:
    """Orders and names the inputs and outputs of a file's one signature, and mends its LSTMs.

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
    for op in graph.operators:
        if flatbuffer_utils.opcode_to_name(model, op.opcodeIndex) == _LSTM:
            _mend_lstm(graph, op)
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


_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"
HIDDEN_STATE = 18


def _mend_lstm(graph, op):
    """Gives an int8 LSTM's hidden state the scale of its output.

    Both are the same numbers, but where the output is concatenated with others the converter
    gives it their scale and forgets the state, so that the operator computes with a wrong one.
    """
    quantization = graph.tensors[op.outputs[0]].quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) == 0:
        return
    for index in (op.inputs[HIDDEN_STATE], op.intermediates[-1]):
        graph.tensors[index].quantization = quantization


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
