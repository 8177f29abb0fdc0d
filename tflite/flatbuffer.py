"""The editor of TFLite files, and changes that leave what a file computes as it should be."""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

_INTEGERS = {schema.TensorType.INT8: "int8", schema.TensorType.INT16: "int16"}


class File:
    """A TFLite file that is being edited.

    Attributes:
        model: The file, as the object `ModelT` of TFLite's schema.
        graph: Its first graph, a `SubGraphT`.
    """

    def __init__(self, tflite: bytes):
        self.model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
        self.graph: Any = self.model.subgraphs[0]

    def to_bytes(self) -> bytes:
        """The edited file."""
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    # Reading.

    def operator_name(self, operator: Any) -> str:
        """Name of an operator, such as `"CONV_2D"`."""
        return flatbuffer_utils.opcode_to_name(self.model, operator.opcodeIndex)

    def tensor_name(self, index: int) -> str:
        """Name of a tensor."""
        return self.graph.tensors[index].name.decode()

    def data(self, tensor: Any, dtype: str) -> np.ndarray | None:
        """The flat data of a constant tensor, `None` where it isn't constant."""
        data = self.model.buffers[tensor.buffer].data
        return None if data is None else np.frombuffer(bytes(data), dtype)

    def floats(self, index: int) -> np.ndarray | None:
        """The data of a constant float tensor in its shape, `None` where it isn't one."""
        tensor = self.graph.tensors[index]
        if tensor.type != schema.TensorType.FLOAT32:
            return None
        data = self.data(tensor, "float32")
        return None if data is None else data.reshape(shape_of(tensor))

    def integers(self, tensor: Any) -> np.ndarray:
        """The flat integers of constant weights of 8 or 4 bits, int8."""
        data = self.data(tensor, "int8")
        if data is None:
            raise ValueError(f"The tensor {tensor.name.decode()!r} isn't constant.")
        if tensor.type != schema.TensorType.INT4:
            return data
        both = np.stack([np.int8(data << 4) >> 4, data >> 4], axis=1).ravel()
        return both[: int(np.prod(shape_of(tensor)))]

    # Adding.

    def add_buffer(self, data: bytes) -> int:
        """Adds data, and returns the index of their buffer."""
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data, "uint8")
        self.model.buffers.append(buffer)
        return len(self.model.buffers) - 1

    def add_metadata(self, name: str, data: bytes) -> None:
        """Adds an entry to the file's metadata."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self.add_buffer(data)
        self.model.metadata = [*(self.model.metadata or []), entry]

    def add_tensor(
        self,
        name: str,
        shape: Sequence[int],
        kind: int,
        quantization: Any,
        data: bytes | None = None,
    ) -> int:
        """Adds a tensor to the graph, constant where there are `data`. Returns its index."""
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = [int(size) for size in shape]
        tensor.type = kind
        tensor.quantization = quantization
        tensor.hasRank = True
        tensor.buffer = 0 if data is None else self.add_buffer(data)
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def add_integers(self, name: str, values: Any) -> int:
        """Adds a constant tensor of int32. Returns its index."""
        array = np.asarray(values, "int32")
        return self.add_tensor(name, array.shape, schema.TensorType.INT32, None, array.tobytes())

    def conversion(self, name: str, source: int, target: int) -> Any:
        """A new `QUANTIZE` or `DEQUANTIZE`, which the caller puts into the list of operators."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, name))
        operator.inputs, operator.outputs = [source], [target]
        return operator

    def reshape(self, source: int, shape: Sequence[int], target: int) -> Any:
        """A new `RESHAPE`, which the caller puts into the list of operators."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(schema.BuiltinOperator.RESHAPE, version=1)
        operator.inputs = [source, self.add_integers("shape", shape)]
        operator.outputs = [target]
        return operator

    def clip(self, name: str, source: int, limit: float, target: int) -> Any:
        """A new `MAXIMUM` or `MINIMUM` with a number, in the steps of what it computes.

        The caller puts it into the list of operators.
        """
        result = self.graph.tensors[target]
        value = np.float32([limit])
        if scale_of(result):
            kind = _INTEGERS[result.type]
            steps = np.round(value / scale_of(result)) + result.quantization.zeroPoint[0]
            value = np.clip(steps, np.iinfo(kind).min, np.iinfo(kind).max).astype(kind)
        number = self.add_tensor(f"{limit}", [1], result.type, result.quantization, value.tobytes())
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, name))
        operator.builtinOptionsType = schema.BuiltinOptions.MaximumMinimumOptions
        operator.builtinOptions = schema.MaximumMinimumOptionsT()
        operator.inputs, operator.outputs = [source, number], [target]
        return operator

    def _code(self, builtin: int, version: int = 2) -> int:
        """Index of a built-in operator's code, added where the file doesn't have it.

        Conversions from one integer type to another are of version 2.
        """
        for index, code in enumerate(self.model.operatorCodes):
            if code.builtinCode == builtin:
                return index
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = builtin
        code.version = version
        self.model.operatorCodes.append(code)
        return len(self.model.operatorCodes) - 1

    # Changing.

    def rescale(self, op: Any, place: int, quantization: Any) -> None:
        """Brings an input of an operator to another scale: a constant itself, else by QUANTIZE."""
        graph = self.graph
        index = op.inputs[place]
        given = graph.tensors[index]
        rescaled = copy.copy(given)
        rescaled.name = rescaled.name + b"/rescaled"
        rescaled.quantization = quantization
        rescaled.buffer = 0
        graph.tensors.append(rescaled)
        op.inputs = list(op.inputs)
        op.inputs[place] = len(graph.tensors) - 1
        constant = self.data(given, "uint8")
        if constant is not None and len(constant):
            constant = constant.view(_INTEGERS[given.type])
            rescaled.buffer = self.add_buffer(_requantized(constant, given, quantization))
            return
        step = self.conversion("QUANTIZE", index, op.inputs[place])
        graph.operators.insert(graph.operators.index(op), step)

    def part(self, outputs: Sequence[Any]) -> None:
        """Copies a tensor that several outputs share, by RESHAPE, so that each has its own."""
        seen = set()
        for output in outputs:
            index = output.tensorIndex
            if index in seen:
                copied = copy.copy(self.graph.tensors[index])
                copied.buffer = 0
                self.graph.tensors.append(copied)
                output.tensorIndex = len(self.graph.tensors) - 1
                signature = copied.shapeSignature
                shape = shape_of(copied) if signature is None else signature
                self.graph.operators.append(self.reshape(index, shape, output.tensorIndex))
            seen.add(index)

    def replace(self, old: int, new: int) -> None:
        """Has all operators read and write another tensor in place of one."""
        for operator in self.graph.operators:
            operator.inputs = [new if i == old else i for i in operator.inputs]
            operator.outputs = [new if i == old else i for i in operator.outputs]

    def drop_unused(self) -> None:
        """Drops tensors, buffers and operator codes that nothing in the file's graph refers to."""
        self._drop_tensors()
        self.drop_buffers()
        codes = sorted({operator.opcodeIndex for operator in self.graph.operators})
        index = {old: new for new, old in enumerate(codes)}
        self.model.operatorCodes = [self.model.operatorCodes[i] for i in codes]
        for operator in self.graph.operators:
            operator.opcodeIndex = index[operator.opcodeIndex]

    def _drop_tensors(self) -> None:
        graph = self.graph
        between = [o for o in graph.operators if o.intermediates is not None]
        lists = [x for o in graph.operators for x in (o.inputs, o.outputs)]
        lists += [o.intermediates for o in between]
        lists += [graph.inputs, graph.outputs]
        used = sorted({int(i) for x in lists for i in x if i >= 0})
        index = {old: new for new, old in enumerate(used)} | {-1: -1}
        for operator in graph.operators:
            operator.inputs = [index[int(i)] for i in operator.inputs]
            operator.outputs = [index[int(i)] for i in operator.outputs]
        for operator in between:
            operator.intermediates = [index[int(i)] for i in operator.intermediates]
        graph.inputs = [index[int(i)] for i in graph.inputs]
        graph.outputs = [index[int(i)] for i in graph.outputs]
        for signature in self.model.signatureDefs or []:
            for port in (*signature.inputs, *signature.outputs):
                port.tensorIndex = index[port.tensorIndex]
        graph.tensors = [graph.tensors[i] for i in used]

    def drop_buffers(self) -> None:
        """Drops buffers that no tensor and no metadata refer to."""
        owners = [tensor for graph in self.model.subgraphs for tensor in graph.tensors]
        owners += self.model.metadata or []
        # The first buffer is that of tensors without data.
        kept = sorted({0, *(owner.buffer for owner in owners)})
        index = {old: new for new, old in enumerate(kept)}
        self.model.buffers = [self.model.buffers[i] for i in kept]
        for owner in owners:
            owner.buffer = index[owner.buffer]


def shape_of(tensor: Any) -> list[int]:
    """The shape of a tensor; scalars may have none."""
    return [] if tensor.shape is None else list(tensor.shape)


def scale_of(tensor: Any) -> float:
    """The one scale of a tensor, 0 where it isn't quantized."""
    scales = getattr(tensor.quantization, "scale", None)
    return 0.0 if scales is None or len(scales) == 0 else scales[0]


def same_steps(a: Any, b: Any) -> bool:
    """Whether two quantized tensors have one scale and one zero point."""
    same_zero = a.quantization.zeroPoint[0] == b.quantization.zeroPoint[0]
    return scale_of(a) == scale_of(b) and same_zero


def _requantized(integers: np.ndarray, tensor: Any, quantization: Any) -> bytes:
    """The integers of a constant tensor in other steps."""
    values = integers.astype("float64") - tensor.quantization.zeroPoint[0]
    values = values * tensor.quantization.scale[0]
    steps = np.round(values / quantization.scale[0]) + quantization.zeroPoint[0]
    limits = np.iinfo(integers.dtype)
    return np.clip(steps, limits.min, limits.max).astype(integers.dtype).tobytes()


def quantization_of(scales: Iterable, zero_points: Iterable, axis: int = 0) -> Any:
    """Quantization parameters of a tensor, with a scale and zero point for each channel."""
    result = schema.QuantizationParametersT()
    result.scale = [float(x) for x in scales]
    result.zeroPoint = [int(x) for x in zero_points]
    result.quantizedDimension = axis
    return result


def has_variables(tflite: bytes) -> bool:
    """Whether a file has tensors that keep their values from one invocation to the next."""
    return any(t.isVariable for g in File(tflite).model.subgraphs for t in g.tensors)


def port_counts(tflite: bytes) -> tuple[int, int]:
    """How many inputs and outputs a file has."""
    graph = File(tflite).graph
    return len(graph.inputs), len(graph.outputs)


def tidied(tflite: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Orders and names the inputs and outputs of a file's one signature, and fixes its scales.

    The converter sorts them as it likes; runtimes without signatures know them by index alone.

    Args:
        tflite: The file.
        inputs: Names of the inputs, in order.
        outputs: Names of the outputs, in order.
    """
    file = File(tflite)
    signature = file.model.signatureDefs[0]
    graph = file.graph = file.model.subgraphs[signature.subgraphIndex]
    for side, names in (("inputs", inputs), ("outputs", outputs)):
        maps = {m.name.decode(): m for m in getattr(signature, side)}
        setattr(signature, side, [maps[name] for name in names])
        if side == "outputs":
            file.part([maps[name] for name in names])
        indices = [maps[name].tensorIndex for name in names]
        setattr(graph, side, indices)
        for name, index in zip(names, indices, strict=True):
            graph.tensors[index].name = name.encode()
    for op in list(graph.operators):
        name = file.operator_name(op)
        if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            _fix_lstm(graph, op)
        elif name == "SOFTMAX":
            _fix_softmax(graph.tensors[op.inputs[0]])
        elif name in _MOVES:
            _fix_move(file, op, _MOVES[name])
    return file.to_bytes()


def with_select_v2(tflite: bytes) -> bytes:
    """The file with `SELECT_V2` in place of `SELECT`, which TFLite Micro lacks.

    They are the same where the condition has the shape of what it selects from. The file is
    returned as it is if one has a condition for each row.
    """
    file = File(tflite)
    found = [
        (graph, operator)
        for graph in file.model.subgraphs
        for operator in graph.operators
        if file.operator_name(operator) == "SELECT"
    ]
    shapes = [[shape_of(g.tensors[i]) for i in o.inputs[:2]] for g, o in found]
    if not found or any(condition != chosen for condition, chosen in shapes):
        return tflite
    for _, operator in found:
        operator.builtinOptionsType = schema.BuiltinOptions.SelectV2Options
        operator.builtinOptions = schema.SelectV2OptionsT()
    for code in file.model.operatorCodes:
        if code.builtinCode == schema.BuiltinOperator.SELECT:
            code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.SELECT_V2
    return file.to_bytes()


def with_plain_clip(tflite: bytes) -> bytes:
    """The file with `MAXIMUM` and `MINIMUM` in place of `RELU_N1_TO_1`, which TFLite Micro lacks.

    Those in loops stay.
    """
    file = File(tflite)
    graph = file.graph
    found = [o for o in graph.operators if file.operator_name(o) == "RELU_N1_TO_1"]
    if not found or len(file.model.subgraphs) > 1:
        return tflite
    for operator in found:
        index = operator.outputs[0]
        result = graph.tensors[index]
        between = copy.copy(result)
        between.name = result.name + b"/from_below"
        graph.tensors.append(between)
        middle = len(graph.tensors) - 1
        low = file.clip("MAXIMUM", operator.inputs[0], -1.0, middle)
        high = file.clip("MINIMUM", middle, 1.0, index)
        place = graph.operators.index(operator)
        graph.operators = [*graph.operators[:place], low, high, *graph.operators[place + 1 :]]
        if scale_of(result):
            _fix_move(file, low, slice(0, 1))
    file.drop_unused()
    return file.to_bytes()


def with_equal_relu6(tflite: bytes) -> bytes:
    """The file with each integer `RELU6` between tensors of one scale.

    TFLite Micro's kernel compares integers and copies them, whatever the scales say.
    """
    file = File(tflite)
    count = len(file.graph.operators)
    for operator in list(file.graph.operators):
        if file.operator_name(operator) == "RELU6":
            _fix_move(file, operator, slice(0, 1))
    return tflite if len(file.graph.operators) == count else file.to_bytes()


def fed_bytes(tflite: bytes) -> bytes:
    """The file with uint8 inputs that stand for themselves: scale 1, zero point 0.

    Calibration gives them the scale of its largest value. The QUANTIZE after each input turns
    one scale into the other.
    """
    file = File(tflite)
    graph = file.graph
    for index in graph.inputs:
        quantization = graph.tensors[index].quantization
        if graph.tensors[index].type == schema.TensorType.UINT8 and quantization is not None:
            quantization.scale, quantization.zeroPoint = [1.0], [0]
    return file.to_bytes()


#: Index of the hidden state among an LSTM's inputs.
HIDDEN_STATE = 18


def _fix_lstm(graph: Any, op: Any) -> None:
    """Gives an int8 LSTM's hidden state the scale of its output.

    Both are the same numbers, but where the output is concatenated with others the converter
    gives it their scale and forgets the state, so that the operator computes with a wrong one.
    """
    quantization = graph.tensors[op.outputs[0]].quantization
    if not scale_of(graph.tensors[op.outputs[0]]):
        return
    for index in (op.inputs[HIDDEN_STATE], op.intermediates[-1]):
        graph.tensors[index].quantization = quantization


#: The least scale of a softmax' input that the reference kernels take is above 2^-26.
_SOFTMAX_SCALE = 2.0**-25


def _fix_softmax(tensor: Any) -> None:
    """Raises a vanishing scale of a softmax' input, at which the reference kernels abort.

    256 such steps span less than 1e-5, which no softmax of 8 bits shows.
    """
    if 0 < scale_of(tensor) < _SOFTMAX_SCALE:
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


def _fix_move(file: File, op: Any, places: slice) -> None:
    """Brings what an operator copies to the scale of the tensor that it copies into.

    The converter gives such a tensor the scale of those that it is concatenated with, and leaves
    the values that ONE_HOT writes in scales of their own.
    """
    graph = file.graph
    wanted = graph.tensors[op.outputs[0]]
    for place in range(*places.indices(len(op.inputs))):
        given = graph.tensors[op.inputs[place]]
        if given.type == wanted.type and scale_of(given) and not same_steps(given, wanted):
            file.rescale(op, place, wanted.quantization)


def first_operators(tflite: bytes, count: int) -> bytes:
    """The file of the first operators alone; outputs are what they compute and none of them reads.

    Args:
        tflite: A file of one graph.
        count: How many.
    """
    file = File(tflite)
    graph = file.graph
    graph.operators = graph.operators[:count]
    read = {int(i) for o in graph.operators for i in o.inputs}
    graph.outputs = [i for o in graph.operators for i in o.outputs if i not in read]
    graph.inputs = [i for i in graph.inputs if i in read]
    file.model.signatureDefs = None
    file.drop_unused()
    return file.to_bytes()


def stripped(tflite: bytes) -> bytes:
    """The file without names and metadata, which microcontrollers don't read."""
    file = File(tflite)
    flatbuffer_utils.strip_strings(file.model)
    file.model.metadata = None
    file.model.metadataBuffer = None
    file.drop_buffers()
    return file.to_bytes()
