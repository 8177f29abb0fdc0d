"""Turns the float TFLite file of an export form into the integer file that was trained."""

import collections
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite.converters import fused_lstm
from keras_distill.tflite.converters.export_form import ExportForm
from keras_distill.tflite.converters.markers import BIASES, BY_BITS, FIRST_MARKER, Kernel, Marker
from keras_distill.tflite.flatbuffer import File, quantization_of, shape_of

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
    "PACK",
    "PAD",
    "REDUCE_MAX",
    "RELU",
    "RELU6",
    "RESHAPE",
    "RESIZE_BILINEAR",
    "RESIZE_NEAREST_NEIGHBOR",
    "REVERSE_V2",
    "SLICE",
    "SQUEEZE",
    "STRIDED_SLICE",
    "TILE",
    "TRANSPOSE",
    "UNPACK",
}
# Position of the bias among the inputs of operators that have one.
_BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
_WEIGHTS = {**dict.fromkeys(_BIAS, 1), "PRELU": 1}
# Position of the data, where it isn't 0.
_DATA = {"TRANSPOSE_CONV": 2}
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int16": schema.TensorType.INT16,
    "uint8": schema.TensorType.UINT8,
}
#: Biases stay below it.
GREATEST_BIAS = 2**30

#: In place of the marker of a tensor that stays float.
_FLOAT = Marker("float")


class IntegerFile(File):
    """The float file of an export form, on its way to integers.

    `settle` goes through the operators in order and gives each tensor its type. A tensor that was
    float in the file is raw until a marker, or an operator with the range of its input, settles
    it.

    Args:
        form: The export form.
        tflite: Its float file.
    """

    def __init__(self, form: ExportForm, tflite: bytes):
        super().__init__(tflite)
        self._markers = form.markers
        #: By their bytes: several layers may have the same, and come in the same order.
        self._kernels: dict[bytes, list[Kernel]] = collections.defaultdict(list)
        for kernel in form.kernels:
            # With one input channel the converter makes a convolution of a depthwise one.
            forms = (kernel.floats, np.moveaxis(kernel.floats, -1, 0))
            for floats in {array.tobytes() for array in forms}:
                self._kernels[floats].append(kernel)
        #: The tensors of the integers of kernels, and of their biases, by what they depend on.
        self._added: dict[tuple, list[int]] = {}
        self._lstms = list(form.lstms)
        #: Operators of LSTMs, which are completed once the range of their output is known.
        self._fused: list[tuple[Any, fused_lstm.Lstm]] = []
        #: For each tensor of float origin: its marker, `None` while it is raw.
        self._state: dict[int, Marker | None] = {
            i: None for i in self.graph.inputs if self._is_float(i)
        }
        #: Raw tensors that take the range of a tensor further on.
        self._waiting: dict[int, list[int]] = {}
        #: Tensors that stand for others after a marker is dropped.
        self._replaced: dict[int, int] = {}
        self._producers: dict[int, Any] = {}

    def settle(self) -> None:
        """Gives all tensors their types, scales and integers."""
        kept = []
        for operator in self.graph.operators:
            operator.inputs = [self._replaced.get(i, i) for i in operator.inputs]
            marker = self._marker(operator)
            if marker is None:
                self._settle_operator(operator)
            else:
                operator = self._mark(operator, marker)
            if operator is not None:
                kept.append(operator)
                self._producers.update(dict.fromkeys(operator.outputs, operator))
        self.graph.operators = kept
        for index in self.graph.outputs:
            self._settle_output(index)
        for operator, lstm in self._fused:
            data, output = (self._known(x[0]) for x in (operator.inputs, operator.outputs))
            fused_lstm.settle(self, operator, lstm, data, output)

    def convert_ports(self, inputs: str, outputs: str) -> None:
        """Puts conversions at the inputs and outputs that are to have another type."""
        before = []
        for index in self.graph.inputs:
            marker = self._port(index, inputs, "input")
            if marker is not None:
                inner = self._port_copy(index, marker, inputs)
                self.replace(index, inner)
                before.append(self.conversion("QUANTIZE", index, inner))
        self.graph.operators = [*before, *self.graph.operators]
        for index in self.graph.outputs:
            marker = self._port(index, outputs, "output")
            if marker is not None:
                inner = self._port_copy(index, marker, outputs)
                self.replace(index, inner)
                name = "DEQUANTIZE" if outputs == "float32" else "QUANTIZE"
                self.graph.operators.append(self.conversion(name, inner, index))

    def _is_float(self, index: int) -> bool:
        return self.graph.tensors[index].type == schema.TensorType.FLOAT32

    # Markers.

    def _marker(self, operator: Any) -> Marker | None:
        if self.operator_name(operator) != "POW":
            return None
        exponent = self.floats(operator.inputs[1])
        if exponent is None or exponent.size != 1:
            return None
        number = round(float(exponent.ravel()[0])) - FIRST_MARKER
        return self._markers[number] if 0 <= number < len(self._markers) else None

    def _mark(self, operator: Any, marker: Marker) -> Any:
        """Settles the tensor that a marker reads; returns the operator in the marker's place."""
        source, target = operator.inputs[0], operator.outputs[0]
        known = self._state[source]
        if known is None or not (marker.bits or known.bits):
            self._settle(source, marker)
            return self._joined(source, target)
        self._settle(target, marker)
        return self.conversion("QUANTIZE" if marker.bits else "DEQUANTIZE", source, target)

    def _joined(self, source: int, target: int) -> Any:
        """Drops the marker between two tensors; returns what must stay between them, or `None`."""
        if target not in self.graph.outputs:
            self._replaced[target] = source
            return None
        if source not in self._producers:
            # An input that is an output, too: tensors of the file are one or the other.
            self._settle(target, self._known(source), named=False)
            shape = shape_of(self.graph.tensors[source])
            return self.reshape(source, [-1, *shape[1:]], target)
        # The signature knows an output by its index, so the producer writes there.
        producer = self._producers[source]
        producer.outputs = [target if i == source else i for i in producer.outputs]
        self._producers[target] = producer
        self._replaced[source] = target
        self._state[target] = self._state[source]
        for name in ("type", "quantization", "name"):
            value = getattr(self.graph.tensors[source], name)
            setattr(self.graph.tensors[target], name, value)
        return None

    def _settle(self, index: int, marker: Marker, named: bool = True) -> None:
        """Gives a tensor its type, and those that wait for it."""
        self._state[index] = marker
        if marker.bits:
            tensor = self.graph.tensors[index]
            tensor.type = BY_BITS[marker.bits]
            tensor.quantization = quantization_of([marker.scale], [marker.zero_point])
            if named:
                tensor.name = marker.name.encode()
            self._quantize_table(self._producers.get(index), marker)
        for waiting in self._waiting.pop(index, ()):
            self._settle(waiting, marker, named=False)

    # Operators.

    def _settle_operator(self, operator: Any) -> None:
        name = self.operator_name(operator)
        inputs = [i for i in operator.inputs if i in self._state]
        outputs = [i for i in operator.outputs if self._is_float(i)]
        for index in inputs:
            if self._state[index] is None and index in self.graph.inputs:
                # What a wrapper computes before the model's own input is rounded.
                self._settle(index, _FLOAT)
        states = [self._state[i] for i in inputs]
        self._state.update(dict.fromkeys(outputs))
        if any(state is not None and not state.bits for state in states):
            self._state.update(dict.fromkeys(outputs, _FLOAT))
        elif name in _SAME_RANGE and inputs:
            self._pass_range(inputs, outputs)
        elif None in states:
            self._raise_rangeless(inputs[states.index(None)])
        elif name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
            self._fused.append((operator, fused_lstm.find(self, operator, self._lstms)))
        elif outputs and name != "GATHER":
            self._quantize_constants(operator, name)

    def _pass_range(self, inputs: list[int], outputs: list[int]) -> None:
        """Gives outputs the range of the inputs, or lets raw inputs wait for that of the output."""
        raw = [i for i in inputs if self._state[i] is None]
        if raw:
            self._waiting[outputs[0]] = raw
            return
        for index in outputs:
            self._settle(index, self._known(inputs[0]), named=False)

    def _settle_output(self, index: int) -> None:
        """Gives outputs that a wrapper computes from the model's their prescribed range."""
        if index not in self._state or self._state[index] is not None:
            return
        producer = self._producers[index]
        if self.operator_name(producer) not in ("SOFTMAX", "LOGISTIC"):
            self._raise_rangeless(index)
        bits = self._known(producer.inputs[0]).bits
        scale, zero_point = FixedRange(bits=bits).grid()
        self._settle(index, Marker(self.tensor_name(index), bits, scale, int(zero_point)))

    def _known(self, index: int) -> Marker:
        """The marker of a tensor that is settled."""
        marker = self._state[index]
        if marker is None:
            self._raise_rangeless(index)
        assert marker is not None
        return marker

    def _raise_rangeless(self, index: int) -> None:
        raise ValueError(
            f"The tensor {self.tensor_name(index)!r} has no trained range, so it would stay float. "
            "Make the layer that computes it part of the model that `quantize_aware` is given."
        )

    # Constants.

    def _quantize_constants(self, operator: Any, name: str) -> None:
        bias = operator.inputs[_BIAS[name]] if len(operator.inputs) > _BIAS.get(name, 99) else -1
        for place, index in enumerate(operator.inputs):
            floats = None if index < 0 or index == bias else self.floats(index)
            if floats is None:
                continue
            kernels = self._kernels[floats.tobytes()]
            if place != _WEIGHTS.get(name) or not kernels:
                self._raise_rangeless(index)
            kernel = kernels.pop(0) if len(kernels) > 1 else kernels[0]
            data = self._known(operator.inputs[_DATA.get(name, 0)])
            scales = self._kernel_scales(kernel, data, bias)
            # Each step of time reads the same kernel.
            key = (id(kernel), scales.tobytes(), bias >= 0, data.scale)
            if key not in self._added:
                added = [self._add_kernel(index, kernel, scales)]
                if bias >= 0:
                    added.append(self._add_bias(bias, kernel, data, scales))
                self._added[key] = added
            operator.inputs[place] = self._added[key][0]
            if bias >= 0:
                operator.inputs[_BIAS[name]] = self._added[key][1]

    def _kernel_scales(self, kernel: Kernel, data: Marker, bias: int) -> np.ndarray:
        """Scales per channel, raised where the bias would not fit into 32 bits.

        A channel that a normalization multiplies by 0 has no scale of its own.
        """
        scales = np.float64(kernel.scales)
        is_empty = scales == 0
        if bias >= 0:
            least = np.abs(np.float64(self.floats(bias))) / (data.scale * GREATEST_BIAS)  # type: ignore[arg-type]
            raised = is_empty if data.bits == 16 else np.ones_like(is_empty)
            scales = np.where(raised, np.maximum(scales, least), scales)
        return np.where(scales == 0, 1.0, scales).astype("float32")

    def _add_kernel(self, like: int, kernel: Kernel, scales: np.ndarray) -> int:
        """Adds a kernel's integers in the place of a constant float tensor."""
        axis = kernel.axis if scales.size > 1 or kernel.axis else 0
        shape = shape_of(self.graph.tensors[like])
        # Where the converter made a convolution of a depthwise one, its channels come first.
        axis = next((i for i in (axis, 0, len(shape) - 1) if shape[i] == scales.size), 0)
        integers = kernel.rescaled(scales)
        floats = self.floats(like)
        if floats is not None and floats.tobytes() != kernel.floats.tobytes():
            integers = np.moveaxis(integers, -1, 0)
        integers = integers.ravel()
        kind = schema.TensorType.INT8
        if kernel.bits == 4:
            kind = schema.TensorType.INT4
            pairs = np.append(integers, [0] * (integers.size % 2)).astype("int8").reshape(-1, 2)
            integers = (pairs[:, 0] & 15) | (pairs[:, 1] << 4)
        parameters = quantization_of(scales, np.zeros(scales.size, int), axis)
        data = integers.astype("int8").tobytes()
        return self.add_tensor(kernel.name, shape, kind, parameters, data)

    def _add_bias(self, index: int, kernel: Kernel, data: Marker, scales: np.ndarray) -> int:
        """Adds the integers of a bias, whose scale is that of the data times the kernel's."""
        steps = np.float64(data.scale) * np.asarray(scales, "float64")
        bias = np.round(np.asarray(self.floats(index), "float64") / steps)
        kind, dtype = BIASES[data.bits]
        return self.add_tensor(
            f"{kernel.name}/bias",
            shape_of(self.graph.tensors[index]),
            kind,
            quantization_of(steps, np.zeros(steps.size, int)),
            bias.astype(dtype).tobytes(),
        )

    def _quantize_table(self, producer: Any, marker: Marker) -> None:
        """Rounds the table that an embedding's rows are taken from."""
        if producer is None or self.operator_name(producer) != "GATHER":
            return
        table = self.floats(producer.inputs[0])
        if table is not None:
            lowest, highest = limits(marker.bits)
            steps = np.round(table.astype("float64") / marker.scale) + marker.zero_point
            producer.inputs[0] = self.add_tensor(
                f"{marker.name}/table",
                table.shape,
                BY_BITS[marker.bits],
                quantization_of([marker.scale], [marker.zero_point]),
                np.clip(steps, lowest, highest).astype(f"int{marker.bits}").tobytes(),
            )

    # Inputs and outputs of the file.

    def _port(self, index: int, kind: str, role: str) -> Marker | None:
        """The range of an input or output that is to have another type, else `None`."""
        marker = self._state.get(index)
        if marker is None or (not marker.bits and kind == "float32"):
            return None
        name = self.tensor_name(index)
        if not marker.bits:
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

    def _port_copy(self, index: int, marker: Marker, kind: str) -> int:
        """A tensor of the port's integers; the port itself gets another type."""
        port = self.graph.tensors[index]
        inner = self.add_tensor(marker.name, shape_of(port), port.type, port.quantization)
        port.name = f"{marker.name}/{kind}".encode()
        port.type = _TYPES[kind]
        port.quantization = None
        if kind == "uint8":
            port.quantization = quantization_of([marker.scale], [marker.zero_point + 128])
        return inner
