"""Turns the float TFLite file of an export form into the integer file that was trained."""

import collections

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from keras_distill.quantization.export import FIRST_MARKER, Export, Marker
from keras_distill.quantization.ranges import FixedRange, limits

# Operators whose output has the range of their input.
_SAME_RANGE = {
    "AVERAGE_POOL_2D",
    "BROADCAST_TO",
    "CONCATENATION",
    "EXPAND_DIMS",
    "GATHER",
    "MAXIMUM",
    "MAX_POOL_2D",
    "MINIMUM",
    "PAD",
    "REDUCE_MAX",
    "RELU",
    "RELU6",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "SLICE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
}
# Where the bias stands among the inputs of operators that have one.
_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
_WEIGHTS = {**dict.fromkeys(_BIAS, 1), "PRELU": 1}
# Where the data stands, where not at 0.
_DATA = {"TRANSPOSE_CONV": 2}
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "uint8": schema.TensorType.UINT8,
}
_FLOAT = schema.TensorType.FLOAT32
_BY_BITS = {8: schema.TensorType.INT8, 16: schema.TensorType.INT16}
_GREATEST_BIAS = 2**30


def write_integers(model: keras.Model, tflite: bytes, io=("int8", "int8")) -> bytes:
    """Completes the float file of `export_form(model)`: integers, scales, zero points.

    Args:
        model: The quantize-aware model.
        tflite: The float file of its export form.
        io: Types of the file's inputs and outputs: `"float32"`, `"uint8"`, or that of their
            tensors (`"int8"` or `"int16"`, whichever it is).

    Returns:
        The integer file. Its tensors bear the paths of the layers.

    Raises:
        ValueError: If a tensor has neither a range nor a layer that stays float; names it.
    """
    export = Export(model)
    writer = _Writer(export, tflite)
    writer.run()
    writer.convert_ports(*io)
    return writer.bytes()


def check_export(model: keras.Model, tflite: bytes) -> None:
    """Checks that a file holds the ranges and integers that a model was trained with.

    Args:
        model: The quantize-aware model.
        tflite: Its file, names included.

    Raises:
        ValueError: If a scale differs by more than 1e-6 (relative), a zero point or an integer
            weight differs, a tensor stayed float that should not, or there are more `QUANTIZE`
            and `DEQUANTIZE` operators than the model asks for. Names the tensor.
    """
    export = Export(model)
    file = _File(tflite)
    by_name = collections.defaultdict(list)
    for tensor in file.graph.tensors:
        by_name[tensor.name.decode()].append(tensor)
    for marker in export.markers:
        for tensor in by_name[marker.name] or [None] if marker.bits else ():
            _check_range(marker, tensor)
    for kernel in export.kernels:
        (bias, *_) = by_name[f"{kernel.name}/bias"] or [None]
        bias = None if bias is None or bias.type != schema.TensorType.INT32 else bias
        for tensor in by_name[kernel.name] or [None]:
            _check_kernel(kernel, tensor, bias, file)
    _check_floats(export, file)


def _check_range(marker, tensor):
    if tensor is None:
        raise ValueError(f"The file has no tensor {marker.name!r}.")
    found = tensor.quantization
    if tensor.type != _BY_BITS[marker.bits] or found is None or found.scale is None:
        kind = flatbuffer_utils.type_to_name(tensor.type)
        raise ValueError(f"The tensor {marker.name!r} is {kind}, not {marker.bits}-bit integers.")
    scale, zero_point = float(found.scale[0]), int(found.zeroPoint[0])
    if abs(scale - marker.scale) > 1e-6 * marker.scale or zero_point != marker.zero_point:
        raise ValueError(
            f"The tensor {marker.name!r} has scale {scale} and zero point {zero_point} in the "
            f"file, but was trained with {marker.scale} and {marker.zero_point}."
        )


def _check_kernel(kernel, tensor, bias, file):
    if tensor is None:
        raise ValueError(f"The file has no weights {kernel.name!r}.")
    integers = file.integers(tensor)
    scales = np.float32(tensor.quantization.scale)
    wanted, steps = kernel.integers, kernel.scales
    if bias is not None and scales.shape == steps.shape:
        # Scales are raised where the bias would overflow; the integers shrink with them.
        data = np.frombuffer(bytes(file.model.buffers[bias.buffer].data), "int32")
        full = np.abs(data) >= _GREATEST_BIAS * 0.999
        steps = np.where(full, np.maximum(scales, steps), steps)
        wanted = rescaled(kernel, steps)
    if scales.shape != steps.shape or not np.allclose(scales, steps, rtol=1e-6, atol=0):
        raise ValueError(
            f"The weights {kernel.name!r} have other scales in the file than they were trained "
            f"with: {scales[:4]}... instead of {steps[:4]}..."
        )
    if not np.array_equal(integers, wanted.ravel()):
        count = np.sum(integers != wanted.ravel()) if integers.size == wanted.size else "all"
        raise ValueError(
            f"The weights {kernel.name!r} differ from the trained ones in {count} of "
            f"{wanted.size} integers."
        )


def _check_floats(export, file):
    graph = file.graph
    ports = {*graph.inputs, *graph.outputs}
    turns = sum(marker.turns_type for marker in export.markers)
    has_floats = any(not marker.bits for marker in export.markers)
    found = 0
    for operator in graph.operators:
        if file.name(operator) in ("QUANTIZE", "DEQUANTIZE"):
            found += not ({*operator.inputs, *operator.outputs} & ports)
            if {*operator.inputs, *operator.outputs} & ports:
                continue
        elif not has_floats:
            for index in (*operator.inputs, *operator.outputs):
                if index >= 0 and graph.tensors[index].type == _FLOAT:
                    name = graph.tensors[index].name.decode()
                    raise ValueError(f"The tensor {name!r} stayed float.")
    if found > turns:
        raise ValueError(
            f"The file has {found} inner QUANTIZE and DEQUANTIZE operators, the model asks for "
            f"{turns}."
        )


def rescaled(kernel, scales):
    """The integers of a kernel for other scales per channel, int8."""
    shape = [1] * kernel.integers.ndim
    shape[kernel.axis] = -1
    ratio = np.float64(kernel.scales) / np.float64(scales)
    return np.int8(np.round(kernel.integers * ratio.reshape(shape)))


class _File:
    """A TFLite file with one graph."""

    def __init__(self, tflite):
        self.model = flatbuffer_utils.read_model_from_bytearray(bytearray(tflite))
        if len(self.model.subgraphs) != 1:
            raise ValueError(f"The file has {len(self.model.subgraphs)} graphs instead of one.")
        self.graph = self.model.subgraphs[0]

    def name(self, operator):
        """Name of an operator, such as `"CONV_2D"`."""
        return flatbuffer_utils.opcode_to_name(self.model, operator.opcodeIndex)

    def constant(self, index):
        """Floats of a constant tensor, or `None`."""
        tensor = self.graph.tensors[index]
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type != _FLOAT:
            return None
        return np.frombuffer(bytes(data), "float32").reshape(_shape(tensor))

    def is_constant(self, index):
        """Whether a tensor holds data."""
        return self.model.buffers[self.graph.tensors[index].buffer].data is not None

    def integers(self, tensor):
        """The integers of constant weights, flat, int8."""
        data = np.frombuffer(bytes(self.model.buffers[tensor.buffer].data), "int8")
        if tensor.type != schema.TensorType.INT4:
            return data
        both = np.stack([np.int8(data << 4) >> 4, data >> 4], axis=1).ravel()
        return both[: int(np.prod(_shape(tensor)))]


class _Writer(_File):
    """Walks through the operators in order and settles the type of each tensor.

    A tensor that was float in the file is raw until a marker settles its range; `"float"` where
    a layer is to stay float.
    """

    def __init__(self, export, tflite):
        super().__init__(tflite)
        self.markers = export.markers
        #: By their bytes: several layers may have the same, and come in the same order.
        self.kernels = collections.defaultdict(list)
        for kernel in export.kernels:
            # With one input channel the converter makes a convolution of a depthwise one.
            forms = (kernel.floats, np.moveaxis(kernel.floats, -1, 0))
            for floats in {form.tobytes() for form in forms}:
                self.kernels[floats].append(kernel)
        #: For each tensor of float origin: None while raw, its `Marker`, or "float".
        self.state = {i: None for i in self.graph.inputs if self._is_float(i)}
        #: Raw tensors that take the range of a tensor further on.
        self.waiting = {}
        #: Tensors that stand for others after a marker is dropped.
        self.replaced = {}
        self.producers = {}

    def run(self):
        """Turns the float file into an integer one."""
        kept = []
        for operator in self.graph.operators:
            operator.inputs = [self.replaced.get(i, i) for i in operator.inputs]
            marker = self._marker(operator)
            if marker is None:
                self._settle_operator(operator)
            else:
                operator = self._mark(operator, marker)
            if operator is not None:
                kept.append(operator)
                self.producers.update(dict.fromkeys(operator.outputs, operator))
        self.graph.operators = kept
        for index in self.graph.outputs:
            self._settle_output(index)

    def convert_ports(self, inputs, outputs):
        """Puts conversions at the inputs and outputs that are to have another type."""
        before = []
        for index in self.graph.inputs:
            marker = self._port(index, inputs, "input")
            if marker is not None:
                inner = self._port_copy(index, marker, inputs)
                self._replace(index, inner)
                before.append(self._conversion("QUANTIZE", index, inner))
        self.graph.operators = [*before, *self.graph.operators]
        for index in self.graph.outputs:
            marker = self._port(index, outputs, "output")
            if marker is not None:
                inner = self._port_copy(index, marker, outputs)
                self._replace(index, inner)
                name = "DEQUANTIZE" if outputs == "float32" else "QUANTIZE"
                self.graph.operators.append(self._conversion(name, inner, index))

    def bytes(self):
        """The file, free of what nothing refers to."""
        graph, model = self.graph, self.model
        maps = [x for d in model.signatureDefs or [] for x in (*d.inputs, *d.outputs)]
        lists = [x for o in graph.operators for x in (o.inputs, o.outputs)]
        lists += [graph.inputs, graph.outputs]
        used = sorted({int(i) for x in lists for i in x if i >= 0})
        index = {old: new for new, old in enumerate(used)} | {-1: -1}
        for operator in graph.operators:
            operator.inputs = [index[int(i)] for i in operator.inputs]
            operator.outputs = [index[int(i)] for i in operator.outputs]
        graph.inputs = [index[int(i)] for i in graph.inputs]
        graph.outputs = [index[int(i)] for i in graph.outputs]
        for x in maps:
            x.tensorIndex = index[x.tensorIndex]
        graph.tensors = [graph.tensors[i] for i in used]
        owners = [*graph.tensors, *(model.metadata or [])]
        buffers = sorted({0, *(owner.buffer for owner in owners)})
        index = {old: new for new, old in enumerate(buffers)}
        model.buffers = [model.buffers[i] for i in buffers]
        for owner in owners:
            owner.buffer = index[owner.buffer]
        codes = sorted({operator.opcodeIndex for operator in graph.operators})
        index = {old: new for new, old in enumerate(codes)}
        model.operatorCodes = [model.operatorCodes[i] for i in codes]
        for operator in graph.operators:
            operator.opcodeIndex = index[operator.opcodeIndex]
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))

    def _is_float(self, index):
        return self.graph.tensors[index].type == _FLOAT

    # Markers.

    def _marker(self, operator):
        if self.name(operator) != "POW":
            return None
        exponent = self.constant(operator.inputs[1])
        if exponent is None or exponent.size != 1:
            return None
        number = round(float(exponent.ravel()[0])) - FIRST_MARKER
        return self.markers[number] if 0 <= number < len(self.markers) else None

    def _mark(self, operator, marker):
        """Settles what a marker stands behind; returns the operator that takes its place."""
        source, target = operator.inputs[0], operator.outputs[0]
        state = self.state[source]
        if not marker.bits and isinstance(state, Marker):
            self.state[target] = "float"
            return self._conversion("DEQUANTIZE", source, target)
        if not marker.bits or state is None:
            self._settle(source, marker if marker.bits else "float")
            self._join(source, target)
            return None
        self._settle(target, marker)
        return self._conversion("QUANTIZE", source, target)

    def _join(self, source, target):
        """Drops the marker between two tensors."""
        if target not in self.graph.outputs:
            self.replaced[target] = source
            return
        # The signature knows an output by its index, so the producer writes there.
        if source not in self.producers:
            raise ValueError("An input of the model is its output, too: there is nothing to run.")
        producer = self.producers[source]
        producer.outputs = [target if i == source else i for i in producer.outputs]
        self.producers[target] = producer
        self.replaced[source] = target
        self.state[target] = self.state[source]
        for name in ("type", "quantization", "name"):
            value = getattr(self.graph.tensors[source], name)
            setattr(self.graph.tensors[target], name, value)

    def _settle(self, index, marker, named=True):
        """Gives a tensor its type, and those that wait for it."""
        self.state[index] = marker
        if marker != "float":
            tensor = self.graph.tensors[index]
            tensor.type = _BY_BITS[marker.bits]
            tensor.quantization = _quantization([marker.scale], [marker.zero_point])
            if named:
                tensor.name = marker.name.encode()
            self._quantize_table(self.producers.get(index), marker)
        for waiting in self.waiting.pop(index, ()):
            self._settle(waiting, marker, named=False)

    # Operators.

    def _settle_operator(self, operator):
        name = self.name(operator)
        inputs = [i for i in operator.inputs if i in self.state]
        outputs = [i for i in operator.outputs if self._is_float(i)]
        for index in inputs:
            if self.state[index] is None and index in self.graph.inputs:
                # What a wrapper computes before the model's own input is rounded.
                self._settle(index, "float")
        states = [self.state[i] for i in inputs]
        self.state.update(dict.fromkeys(outputs))
        if "float" in states:
            self.state.update(dict.fromkeys(outputs, "float"))
        elif name in _SAME_RANGE and inputs:
            self._pass_range(operator, inputs, outputs)
        elif None in states:
            self._raise_rangeless(inputs[states.index(None)])
        elif outputs and name != "GATHER":
            self._quantize_constants(operator, name)

    def _pass_range(self, operator, inputs, outputs):
        """Gives outputs the range of the inputs, or lets raw inputs wait for that of the output."""
        raw = [i for i in inputs if self.state[i] is None]
        if raw:
            self.waiting[outputs[0]] = raw
            return
        for index in outputs:
            self._settle(index, self.state[inputs[0]], named=False)

    def _settle_output(self, index):
        """Gives outputs that a wrapper computes from the model's their prescribed range."""
        if index not in self.state or self.state[index] is not None:
            return
        producer = self.producers[index]
        if self.name(producer) not in ("SOFTMAX", "LOGISTIC"):
            self._raise_rangeless(index)
        bits = self.state[producer.inputs[0]].bits
        scale, zero_point = FixedRange(bits=bits).grid()
        name = self.graph.tensors[index].name.decode()
        self._settle(index, Marker(name, bits, scale, int(zero_point)))

    def _raise_rangeless(self, index):
        name = self.graph.tensors[index].name.decode()
        raise ValueError(
            f"The tensor {name!r} has no trained range, so it would stay float. Make the layer "
            "that computes it part of the model that `quantize_aware` is given."
        )

    # Constants.

    def _quantize_constants(self, operator, name):
        bias = operator.inputs[_BIAS[name]] if len(operator.inputs) > _BIAS.get(name, 99) else -1
        for place, index in enumerate(operator.inputs):
            if index < 0 or index == bias or self.constant(index) is None:
                continue
            kernels = self.kernels[self.constant(index).tobytes()]
            if place != _WEIGHTS.get(name) or not kernels:
                self._raise_rangeless(index)
            kernel = kernels.pop(0) if len(kernels) > 1 else kernels[0]
            data = self.state[operator.inputs[_DATA.get(name, 0)]]
            scales = self._kernel_scales(kernel, data, bias)
            operator.inputs[place] = self._add_kernel(index, kernel, scales)
            if bias >= 0:
                operator.inputs[_BIAS[name]] = self._add_bias(bias, kernel, data, scales)

    def _kernel_scales(self, kernel, data, bias):
        """Scales per channel, raised where the bias would not fit into 32 bits."""
        if bias < 0 or data.bits == 16:
            return kernel.scales
        least = np.abs(np.float64(self.constant(bias))) / (data.scale * _GREATEST_BIAS)
        return np.float32(np.maximum(kernel.scales, least))

    def _add_kernel(self, like, kernel, scales):
        axis = kernel.axis if scales.size > 1 or kernel.axis else 0
        shape = _shape(self.graph.tensors[like])
        # Where the converter made a convolution of a depthwise one, its channels come first.
        axis = next((i for i in (axis, 0, len(shape) - 1) if shape[i] == scales.size), 0)
        integers = rescaled(kernel, scales).ravel()
        if self.constant(like).tobytes() != kernel.floats.tobytes():
            integers = np.moveaxis(rescaled(kernel, scales), -1, 0).ravel()
        kind = schema.TensorType.INT8
        if kernel.bits == 4:
            kind = schema.TensorType.INT4
            pairs = np.append(integers, [0] * (integers.size % 2)).astype("int8").reshape(-1, 2)
            integers = (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
        zeros = np.zeros(scales.size, int)
        parameters = _quantization(scales, zeros, axis)
        return self._add_tensor(kernel.name, shape, kind, parameters, np.int8(integers).tobytes())

    def _add_bias(self, index, kernel, data, scales):
        steps = np.float64(data.scale) * np.float64(scales)
        bias = np.round(np.float64(self.constant(index)) / steps)
        kind, dtype = (
            (schema.TensorType.INT32, "int32")
            if data.bits == 8
            else (schema.TensorType.INT64, "int64")
        )
        return self._add_tensor(
            f"{kernel.name}/bias",
            _shape(self.graph.tensors[index]),
            kind,
            _quantization(steps, np.zeros(steps.size, int)),
            bias.astype(dtype).tobytes(),
        )

    def _quantize_table(self, producer, marker):
        """Rounds the table that an embedding's rows are taken from."""
        if producer is None or self.name(producer) != "GATHER":
            return
        table = self.constant(producer.inputs[0])
        if table is not None:
            lowest, highest = limits(marker.bits)
            steps = np.round(np.float64(table) / marker.scale) + marker.zero_point
            producer.inputs[0] = self._add_tensor(
                f"{marker.name}/table",
                table.shape,
                _BY_BITS[marker.bits],
                _quantization([marker.scale], [marker.zero_point]),
                np.clip(steps, lowest, highest).astype(f"int{marker.bits}").tobytes(),
            )

    # Parts of a file.

    def _add_tensor(self, name, shape, kind, quantization, data=None):
        tensor = schema.TensorT()
        tensor.name = name.encode()
        tensor.shape = [int(size) for size in shape]
        tensor.type = kind
        tensor.quantization = quantization
        tensor.hasRank = True
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data, "uint8")
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _conversion(self, name, source, target):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 2
        known = [c.builtinCode for c in self.model.operatorCodes]
        if code.builtinCode not in known:
            known.append(code.builtinCode)
            self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = known.index(code.builtinCode)
        operator.inputs, operator.outputs = [source], [target]
        return operator

    def _port(self, index, kind, role):
        """The range of an input or output that is to have another type, else `None`."""
        marker = self.state.get(index)
        if marker is None or (marker == "float" and kind == "float32"):
            return None
        name = self.graph.tensors[index].name.decode()
        if marker == "float":
            raise ValueError(
                f"The {role} {name!r} is float, so it can't be {kind}: a layer that stays float, "
                "or a step before the student's own input, reads or makes it. Make preprocessing "
                "part of the model that `quantize_aware` is given."
            )
        if kind.startswith("int"):
            return None
        if kind == "uint8" and marker.bits != 8:
            raise ValueError(f"The {role} {name!r} has {marker.bits} bits, so it can't be {kind}.")
        return marker

    def _port_copy(self, index, marker, kind):
        """A tensor of the port's integers; the port itself gets another type."""
        port = self.graph.tensors[index]
        inner = self._add_tensor(marker.name, _shape(port), port.type, port.quantization)
        port.name = f"{marker.name}/{kind}".encode()
        port.type = _TYPES[kind]
        port.quantization = None
        if kind == "uint8":
            port.quantization = _quantization([marker.scale], [marker.zero_point + 128])
        return inner

    def _replace(self, old, new):
        for operator in self.graph.operators:
            operator.inputs = [new if i == old else i for i in operator.inputs]
            operator.outputs = [new if i == old else i for i in operator.outputs]


def _shape(tensor):
    return [] if tensor.shape is None else list(tensor.shape)


def _quantization(scales, zero_points, axis=0):
    result = schema.QuantizationParametersT()
    result.scale = [float(x) for x in scales]
    result.zeroPoint = [int(x) for x in zero_points]
    result.quantizedDimension = axis
    return result
