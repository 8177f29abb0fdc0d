"""What is in a TFLite file: operators, tensors, weights, multiply-accumulates, bytes by part."""

import dataclasses
import math
import os
import pathlib
from typing import Any

from ai_edge_litert.tools import flatbuffer_utils
from keras_distill.tflite import cost, targets

from keras_distill._markdown import table


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        name: Name, empty in stripped files.
        shape: Shape; -1 for a dynamic axis.
        dtype: Type by its name in the schema, such as `"INT8"`.
        scales: Steps of quantization: none, one, or one per channel.
        zero_points: The integers that stand for 0.
        axis: Axis of the channels.
        bytes: Bytes of its constant data, 0 for activations.
        elements: Number of elements.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int
    bytes: int
    elements: int

    @property
    def constant(self) -> bool:
        """Whether the file holds its data."""
        return self.bytes > 0

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


@dataclasses.dataclass(frozen=True)
class Operator:
    """An operator of a file.

    Attributes:
        name: Name in the schema, such as `"CONV_2D"`; custom operators by their own name.
        inputs: `Tensor`s, `None` for an input left out.
        outputs: `Tensor`s.
        macs: Multiply-accumulates of one invocation of the file; `None` inside of a loop whose
            number of turns isn't known.
        custom: Whether it is a custom or Flex operator.
        subgraph: Index of its subgraph.
    """

    name: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    macs: int | None
    custom: bool
    subgraph: int

    @property
    def layer(self) -> str:
        """Name of the tensor that it computes, by which its layer is known."""
        return self.outputs[0].name if self.outputs else ""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What is in a TFLite file. `str()` makes a text of it, `to_dict()` plain types for JSON.

    Attributes:
        operators: `Operator`s in order.
        inputs: `Tensor`s that the file takes.
        outputs: `Tensor`s that the file gives.
        signatures: Names of inputs and outputs by signature: `{key: (inputs, outputs)}`.
        parameters: Number of weights and biases: the elements of the constant tensors that
            operators compute with, without shapes, axes and paddings.
        macs: Multiply-accumulates of one invocation, `None` where they aren't known.
        bytes: Bytes by part: `total`, `weights`, `metadata`, `structure`.
        refusals: By target, why it can't run the file; an empty list if it can.
    """

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    signatures: dict[str, tuple[list[str], list[str]]]
    parameters: int
    macs: int | None
    bytes: dict[str, int]
    refusals: dict[str, list[str]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of operators by name."""
        names = [operator.name for operator in self.operators]
        return {name: names.count(name) for name in sorted(set(names))}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain types."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        sizes = ", ".join(f"{part} {size:,}" for part, size in self.bytes.items())
        lines = [
            f"{self.parameters:,} parameters, {_count(self.macs)} multiply-accumulates",
            f"bytes: {sizes}",
            *(f"signature {key!r}: {i} -> {o}" for key, (i, o) in self.signatures.items()),
            *(f"input {_described(t)}" for t in self.inputs),
            *(f"output {_described(t)}" for t in self.outputs),
            "",
            table(
                ("operator", "inputs", "outputs", "MACs", "bytes"),
                [
                    (
                        op.name,
                        " ".join(str(t) for t in op.inputs if t),
                        " ".join(map(str, op.outputs)),
                        _count(op.macs),
                        f"{sum(t.bytes for t in op.inputs if t):,}",
                    )
                    for op in self.operators
                ],
            ),
            "",
            *(
                f"{target}: " + ("accepted" if not reasons else "refused: " + "; ".join(reasons))
                for target, reasons in self.refusals.items()
            ),
        ]
        return "\n".join(lines)


def _count(macs):
    return "unknown" if macs is None else f"{macs:,}"


def _described(tensor):
    text = f"{tensor.name or '(no name)'}: {tensor}"
    if len(tensor.scales) == 1:
        text += f", scale {tensor.scales[0]:.9g}, zero point {tensor.zero_points[0]}"
    return text


def inspect(file: str | os.PathLike | bytes) -> Inspection:
    """Reads what is in a TFLite file, ours or from elsewhere.

    Args:
        file: Path or bytes of the file.

    Returns:
        An `Inspection`.

    Raises:
        ValueError: Not a TFLite file, or a damaged one.

    Example:

    >>> print(keras_distill.tflite.inspect("student.tflite"))
    """
    tflite = read(file)
    try:
        inspection = _inspected(tflite)
    except Exception as error:
        # Flatbuffers are read without checks: damaged ones raise whatever their bytes lead to.
        raise ValueError(
            f"The TFLite file is damaged: it ends early, or its tables point nowhere ({error})."
        ) from error
    refusals = {name: targets.refusals(inspection, name) for name in targets.SHOWN}
    return dataclasses.replace(inspection, refusals=refusals)


def _inspected(tflite):
    """An `Inspection` that doesn't know yet what targets refuse."""
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
    graphs = [[_tensor(model, t) for t in graph.tensors] for graph in model.subgraphs]
    runs = cost.runs_of_loops(model)
    operators = [
        _operator(model, op, graphs[g], g, runs.get(g, 1))
        for g, graph in enumerate(model.subgraphs)
        for op in graph.operators or []
    ]
    main = model.subgraphs[0]
    used = {id(t): t for op in operators for t in op.inputs if t and _is_weight(op, t)}
    return Inspection(
        operators=tuple(operators),
        inputs=tuple(graphs[0][i] for i in main.inputs),
        outputs=tuple(graphs[0][i] for i in main.outputs),
        signatures={
            _text(s.signatureKey): (
                [_text(t.name) for t in s.inputs],
                [_text(t.name) for t in s.outputs],
            )
            for s in model.signatureDefs or []
        },
        parameters=sum(t.elements for t in used.values()),
        macs=None if any(op.macs is None for op in operators) else sum(op.macs for op in operators),
        bytes=_bytes_by_part(model, tflite),
        refusals={},
    )


def read(file: str | os.PathLike | bytes) -> bytes:
    """The bytes of a TFLite file given by path or bytes; checks that it is one."""
    if isinstance(file, (str, os.PathLike)):
        path = pathlib.Path(file)
        if not path.is_file():
            raise ValueError(f"No such file: {path}")
        tflite = path.read_bytes()
    elif isinstance(file, (bytes, bytearray, memoryview)):
        tflite = bytes(file)
    else:
        raise TypeError(f"A TFLite file is given by path or bytes. Received: {file!r}")
    if len(tflite) < 8 or tflite[4:8] != b"TFL3":
        raise ValueError(
            f"Not a TFLite file (its identifier 'TFL3' is missing): "
            f"{file if isinstance(file, (str, os.PathLike)) else f'{len(tflite)} bytes'}"
        )
    return tflite


def _text(value):
    return value.decode() if isinstance(value, bytes) else value or ""


def _tensor(model, tensor):
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    shape = tuple(int(size) for size in ([] if shape is None else shape))
    fixed = [int(size) for size in ([] if tensor.shape is None else tensor.shape)]
    quantization = tensor.quantization
    scales = getattr(quantization, "scale", None)
    zeros = getattr(quantization, "zeroPoint", None)
    return Tensor(
        name=_text(tensor.name),
        shape=shape,
        dtype=flatbuffer_utils.type_to_name(tensor.type),
        scales=tuple(float(s) for s in ([] if scales is None else scales)),
        zero_points=tuple(int(z) for z in ([] if zeros is None else zeros)),
        axis=getattr(quantization, "quantizedDimension", 0) or 0,
        bytes=_buffer_size(model.buffers[tensor.buffer]),
        elements=math.prod(fixed),
    )


def _buffer_size(buffer):
    return len(buffer.data) if buffer.data is not None else int(buffer.size or 0)


def _operator(model, op, tensors, subgraph, runs):
    custom = bool(model.operatorCodes[op.opcodeIndex].customCode)
    name = cost.operator_name(model, op)
    inputs = tuple(tensors[i] if i >= 0 else None for i in op.inputs)
    outputs = tuple(tensors[i] for i in op.outputs)
    macs = cost.multiply_accumulates(name, op, inputs, outputs)
    if macs:
        macs = None if runs is None else macs * runs
    return Operator(name, inputs, outputs, macs, custom, subgraph)


#: Operators whose constant inputs are all numbers to compute with.
_COMPUTES = {
    "ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "PRELU", "POW", "SQUARED_DIFFERENCE",
    "BATCH_MATMUL", "DEQUANTIZE", "CONCATENATION", "EMBEDDING_LOOKUP",
    "UNIDIRECTIONAL_SEQUENCE_LSTM", "FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D",
}  # fmt: skip


def _is_weight(op, tensor):
    """Whether a constant is a number to compute with, and not a shape, an axis or a padding."""
    if not tensor.constant:
        return False
    if op.name == "TRANSPOSE_CONV":
        return tensor is not op.inputs[0]
    if op.name == "GATHER":
        return tensor is op.inputs[0]
    return op.name in _COMPUTES or op.custom


def _bytes_by_part(model, tflite):
    names = {m.buffer: _text(m.name) for m in model.metadata or []}
    sizes = {i: _buffer_size(buffer) for i, buffer in enumerate(model.buffers)}
    metadata = sum(size for i, size in sizes.items() if i in names)
    weights = sum(sizes.values()) - metadata
    return {
        "total": len(tflite),
        "weights": weights,
        "metadata": metadata,
        "structure": len(tflite) - weights - metadata,
    }
