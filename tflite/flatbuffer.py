"""Changes to a TFLite file that leave what it computes as it is."""

from ai_edge_litert.tools import flatbuffer_utils


def ordered(tflite, inputs, outputs) -> bytes:
    """Orders the inputs and outputs of a file's one signature by their names.

    The converter sorts them as it likes; runtimes without signatures know them by index alone.
    """
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
    signature = model.signatureDefs[0]
    graph = model.subgraphs[signature.subgraphIndex]
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        maps = {m.name.decode(): m for m in getattr(signature, side)}
        setattr(signature, side, [maps[name] for name in names])
        setattr(graph, side, [maps[name].tensorIndex for name in names])
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


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
