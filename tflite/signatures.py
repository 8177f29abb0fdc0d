"""Files joined to one with a signature for each, and files run by the names of their signatures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite import _litert, runtimes
from keras_distill.tflite.flatbuffer import File

#: What the options of operators call other graphs of the file.
_GRAPHS = (
    "condSubgraphIndex",
    "bodySubgraphIndex",
    "thenSubgraphIndex",
    "elseSubgraphIndex",
    "initSubgraphIndex",
)


def joined(files: Mapping[str, bytes]) -> bytes:
    """One file with a signature for each of several, in which equal weights are stored once.

    Args:
        files: Files of one signature each, by the name that it shall have.
    """
    whole: File | None = None
    stored: dict[bytes, int] = {}
    for name, tflite in files.items():
        part = File(tflite)
        part.model.signatureDefs[0].signatureKey = name.encode()
        part.model.metadata = None
        if whole is None:
            whole = part
            for number, buffer in reversed(list(enumerate(part.model.buffers))):
                stored[_data(buffer)] = number
        else:
            _add(whole, part, stored)
    assert whole is not None
    whole.drop_buffers()
    return whole.to_bytes()


def _add(whole: File, part: File, stored: dict[bytes, int]) -> None:
    """Adds the graphs of a file to another."""
    first = len(whole.model.subgraphs)
    codes = {_code(code): i for i, code in enumerate(whole.model.operatorCodes)}
    for code in part.model.operatorCodes:
        if _code(code) not in codes:
            codes[_code(code)] = len(whole.model.operatorCodes)
            whole.model.operatorCodes.append(code)
    for graph in part.model.subgraphs:
        for tensor in graph.tensors:
            data = _data(part.model.buffers[tensor.buffer])
            if data not in stored:
                stored[data] = whole.add_buffer(data)
            tensor.buffer = stored[data] if data else 0
        for operator in graph.operators:
            operator.opcodeIndex = codes[_code(part.model.operatorCodes[operator.opcodeIndex])]
            for field in _GRAPHS:
                if hasattr(operator.builtinOptions, field):
                    moved = getattr(operator.builtinOptions, field) + first
                    setattr(operator.builtinOptions, field, moved)
        whole.model.subgraphs.append(graph)
    (signature,) = part.model.signatureDefs
    signature.subgraphIndex += first
    whole.model.signatureDefs.append(signature)


def _data(buffer: schema.BufferT) -> bytes:
    return b"" if buffer.data is None else bytes(buffer.data)


def _code(code: schema.OperatorCodeT) -> tuple:
    return code.builtinCode, code.customCode, code.version


class Signatures:
    """A file of several signatures, run by LiteRT.

    Args:
        tflite: The file.

    Attributes:
        inputs: The inputs of each signature, `Port`s by their names.
        outputs: Its outputs.

    Raises:
        Refusal: LiteRT can't run the file.
    """

    def __init__(self, tflite: bytes):
        try:
            self._interpreter = _litert.litert_interpreter(tflite)
        except (RuntimeError, ValueError) as error:
            raise runtimes.Refusal(f"LiteRT: {error}") from None
        self._runners = {
            name: self._interpreter.get_signature_runner(name)
            for name in self._interpreter.get_signature_list()
        }
        self.inputs = {
            name: _ports(runner.get_input_details()) for name, runner in self._runners.items()
        }
        self.outputs = {
            name: _ports(runner.get_output_details()) for name, runner in self._runners.items()
        }

    def run(self, name: str, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """One invocation of a signature: outputs by name, as floats where the file has integers.

        Args:
            name: Name of the signature.
            arrays: Its inputs by name; floats where the file quantizes.
        """
        given = {
            key: self.inputs[name][key].quantize(x) if self.inputs[name][key].scale else x
            for key, x in arrays.items()
        }
        found = self._runners[name](**given)
        return {key: self.outputs[name][key].dequantize(x) for key, x in found.items()}


def _ports(details: Mapping[str, Any]) -> dict[str, runtimes.Port]:
    found = {}
    for name, port in details.items():
        scale, zero_point = port["quantization"]
        shape = tuple(int(size) for size in port["shape"])
        dtype = np.dtype(port["dtype"]).name
        found[name] = runtimes.Port(name, shape, dtype, float(scale), int(zero_point))
    return found
