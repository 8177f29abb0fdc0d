"""The ranges of an integer file, held against those that calibration found and repaired.

TensorFlow's quantizer hands the small range of a concatenation back through an average pooling to
the convolution before it, which then clips its values.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite.flatbuffer import HIDDEN_STATE, File, same_steps, scale_of
from keras_distill.tflite.inspect import Operator

#: `(low, high)` of a tensor.
Range = tuple[float, float]
#: How much of a calibrated range may lie outside of the file's before values count as clipped.
CLIPPED = 0.1
#: Operators whose kernels want their output in the scale of their first input.
_KEEPS_SCALE = {
    "AVERAGE_POOL_2D", "BATCH_TO_SPACE_ND", "BROADCAST_TO", "DEPTH_TO_SPACE", "EXPAND_DIMS",
    "GATHER", "GATHER_ND", "MAX_POOL_2D", "MIRROR_PAD", "PAD", "PADV2", "REDUCE_MAX", "REDUCE_MIN",
    "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "REVERSE_V2", "SLICE",
    "SPACE_TO_BATCH_ND", "SPACE_TO_DEPTH", "SPLIT", "SPLIT_V", "SQUEEZE", "STRIDED_SLICE", "TILE",
    "TRANSPOSE", "UNPACK", "RELU", "RELU6",
}  # fmt: skip
#: Operators whose kernels want all inputs in the scale of their output.
_JOINS = {"CONCATENATION", "MAXIMUM", "MINIMUM", "PACK", "SELECT", "SELECT_V2"}
#: Operators whose bias is counted in steps of the input times steps of the weights.
_BIASED = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
#: `(scale, zero point)` that kernels give their output by TFLite's specification, by its bits.
_FIXED = {
    "L2_NORMALIZATION": {8: (1 / 128, 0)},
    "LOGISTIC": {8: (1 / 256, -128), 16: (1 / 32768, 0)},
    "LOG_SOFTMAX": {8: (16 / 256, 127)},
    "SOFTMAX": {8: (1 / 256, -128), 16: (1 / 32768, 0)},
    "TANH": {8: (1 / 128, 0), 16: (1 / 32768, 0)},
}
#: Operators whose output holds the values of their first input, or values between these.
_SAME_VALUES = {
    "EXPAND_DIMS", "RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "SQUEEZE", "TRANSPOSE",
}  # fmt: skip
#: Operators whose output holds no value outside of those of their input and 0.
_WITHIN = _KEEPS_SCALE - _SAME_VALUES - {"PADV2"}
_DATA = {"TRANSPOSE_CONV": 2, "SPLIT": 1}
_TYPES = {schema.TensorType.INT8: 8, schema.TensorType.INT16: 16}


def calibrated(tflite: bytes) -> dict[str, Range]:
    """The ranges in a float file that TensorFlow's converter has calibrated.

    Args:
        tflite: The file.

    Returns:
        `(low, high)` by tensor name, `low <= 0 <= high`; of inputs and outputs by their names in
        the signature, too.
    """
    file = File(tflite)
    names = {i: [tensor.name.decode()] for i, tensor in enumerate(file.graph.tensors)}
    for signature in file.model.signatureDefs or ():
        for port in (*signature.inputs, *signature.outputs):
            names[port.tensorIndex].append(port.name.decode())
    found = {}
    for i, tensor in enumerate(file.graph.tensors):
        limits = tensor.quantization
        if limits is None or limits.min is None or limits.max is None:
            continue
        low, high = float(np.min(limits.min)), float(np.max(limits.max))
        for name in names[i]:
            found[name] = min(low, 0.0), max(high, 0.0)
    return found


def with_kept(operators: Iterable[Operator], met: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges widened by those of what operators compute in the scale of their input.

    Of a maximum, more of the values are large than of what it is taken of: without its outermost
    values, its range is the wider one.

    Args:
        operators: Operators of the float file, in order.
        met: `(low, high)` by tensor name.
    """
    found = dict(met)
    for op in reversed(list(operators)):
        source = op.inputs[_DATA.get(op.name, 0)] if op.name in _KEEPS_SCALE else None
        if source is None or source.name not in found:
            continue
        for tensor in op.outputs:
            (least, most), (low, high) = found[source.name], found.get(tensor.name, (0.0, 0.0))
            found[source.name] = min(low, least), max(high, most)
    return found


def widened(met: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges of which those of tensors that were 0 throughout are from 0 to 1.

    Such is the output of a layer none of whose units is ever active. In steps of next to nothing,
    the bias of the layer that reads it wouldn't fit its integers, and XNNPACK refuses the file.

    Args:
        met: `(low, high)` by tensor name.
    """
    return {name: (0.0, 1.0) if limits == (0.0, 0.0) else limits for name, limits in met.items()}


def clipped(tflite: bytes, ranges: Mapping[str, Range]) -> dict[str, float]:
    """The share of each calibrated range that a file leaves out, where it is more than `CLIPPED`.

    Args:
        tflite: The integer file, names included.
        ranges: `(low, high)` by tensor name, as calibration found them.
    """
    file = File(tflite)
    return _clipped(file.graph, _known(file, ranges))


def _known(file, ranges):
    """The ranges that hold, with those of tensors that the file has in another form, too.

    The calibrator may take for a tensor's range that of what a later operator writes over it: such
    ranges are left out, or taken from where the same values come from.
    """
    readers: dict[int, set[str]] = {}
    for op in file.graph.operators:
        for index in op.inputs:
            readers.setdefault(index, set()).add(file.operator_name(op))
    found = dict(ranges)
    # Twice: a tensor may be known from a DEQUANTIZE after the QUANTIZE that reads it.
    for op in [*file.graph.operators] * 2:
        kind = file.operator_name(op)
        if kind in _FIXED:
            found.pop(file.tensor_name(op.outputs[0]), None)
        if kind not in ("QUANTIZE", "DEQUANTIZE", *_KEEPS_SCALE):
            continue
        source = file.tensor_name(op.inputs[_DATA.get(kind, 0)])
        result = file.tensor_name(op.outputs[0])
        if kind in _KEEPS_SCALE:
            if source in found and result in found:
                found[result] = _met(kind, found[source], found[result])
        elif kind == "DEQUANTIZE" and result in found:
            found.setdefault(source, found[result])
        # A SELECT may well clip what it leaves out.
        elif source in found and readers.get(op.outputs[0], set()) - _JOINS:
            found.setdefault(result, found[source])
    return found


def _met(kind, source, result):
    """The range of what an operator computes in the scale of its input, given both ranges."""
    if kind in _SAME_VALUES:
        return source
    if kind in _WITHIN:
        return max(result[0], source[0]), min(result[1], source[1])
    return result


def _clipped(graph, ranges):
    found = {}
    for name, bits, scale, zero_point in _activations(graph):
        if name not in ranges or not scale:
            continue
        low, high = ranges[name]
        least, most = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        below = (least - zero_point - 0.5) * scale - low
        above = high - (most - zero_point + 0.5) * scale
        share = max(below, above, 0.0) / max(high - low, 1e-30)
        if share > CLIPPED:
            found[name] = share
    return found


def _activations(graph):
    """`(name, bits, scale, zero point)` of the integer tensors that operators compute."""
    indices = [*graph.inputs, *(i for op in graph.operators for i in op.outputs)]
    return [
        (tensor.name.decode(), _TYPES[tensor.type], tensor.quantization.scale[0],
         tensor.quantization.zeroPoint[0])
        for tensor in (graph.tensors[i] for i in indices)
        if tensor.type in _TYPES and scale_of(tensor)
    ]  # fmt: skip


def repaired(tflite: bytes, ranges: Mapping[str, Range]) -> bytes:
    """The file with calibrated ranges where its own leave out values that calibration met.

    Outputs that TFLite's specification gives a scale have that one: TFLite Micro takes it for
    granted.

    Args:
        tflite: The file, names included.
        ranges: `(low, high)` by tensor name.
    """
    file = File(tflite)
    ranges = _known(file, ranges)
    wrong = _clipped(file.graph, ranges)
    if not wrong and not any(_fixed(file, op) for op in file.graph.operators):
        return tflite
    _Repair(file, ranges, wrong).run()
    return file.to_bytes()


def _fixed(file, op):
    """The quantization that an operator's output should have, `None` where it has it."""
    known, tensor = _FIXED.get(file.operator_name(op)), file.graph.tensors[op.outputs[0]]
    if known is None or _TYPES.get(tensor.type) not in known or not scale_of(tensor):
        return None
    wanted = copy.copy(tensor.quantization)
    scale, zero_point = known[_TYPES[tensor.type]]
    if np.isclose(scale_of(tensor), scale, 1e-6, 0) and wanted.zeroPoint[0] == zero_point:
        return None
    wanted.scale, wanted.zeroPoint = [scale], [zero_point]
    return wanted


class _Repair:
    """One file; changes spread from the operators that compute a wrong tensor to those behind."""

    def __init__(self, file, ranges, wrong):
        self.file = file
        self.graph = file.graph
        self.ranges = ranges
        self.wrong = wrong
        #: What a tensor's quantization was, for each that changed.
        self.before = {}
        #: What is quantized anew for one operator alone.
        self.quantized = {
            op.outputs[0]
            for op in self.graph.operators
            if file.operator_name(op) == "QUANTIZE"
            and sum(op.outputs[0] in reader.inputs for reader in self.graph.operators) == 1
        }

    def run(self):
        for index in self.graph.inputs:
            self._renew(index)
        for op in list(self.graph.operators):
            name = self.file.operator_name(op)
            if name in _JOINS:
                self._join(op)
            elif name in _KEEPS_SCALE:
                self._follow(op, op.inputs[_DATA.get(name, 0)])
            elif name in _FIXED:
                wanted = _fixed(self.file, op)
                if wanted is not None:
                    self._set(op.outputs[0], wanted)
            else:
                if name in _BIASED:
                    self._count_bias(op, _BIASED[name], _DATA.get(name, 0))
                elif name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
                    self._restore(op, 0)
                for index in op.outputs:
                    self._renew(index)
                if name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
                    self._tie(op)

    def _renew(self, index):
        """Gives a tensor the range that calibration found, if its own is wrong."""
        tensor = self.graph.tensors[index]
        if tensor.type in _TYPES and tensor.name.decode() in self.wrong:
            low, high = self.ranges[tensor.name.decode()]
            self._set(index, parameters(low, high, _TYPES[tensor.type]))

    def _set(self, index, quantization):
        tensor = self.graph.tensors[index]
        self.before.setdefault(index, tensor.quantization)
        tensor.quantization = copy.copy(quantization)

    def _follow(self, op, source):
        if source in self.before:
            for index in op.outputs:
                if scale_of(self.graph.tensors[index]):
                    self._set(index, self.graph.tensors[source].quantization)

    def _join(self, op):
        """Brings inputs to the output's scale, where one of them changed."""
        self._renew(op.outputs[0])
        wanted = self.graph.tensors[op.outputs[0]]
        for place, index in enumerate(op.inputs):
            given = self.graph.tensors[index]
            changed = index in self.before or op.outputs[0] in self.before
            if changed and given.type == wanted.type and not same_steps(given, wanted):
                if index in self.quantized:
                    self._set(index, wanted.quantization)
                else:
                    self.file.rescale(op, place, wanted.quantization)

    def _restore(self, op, place):
        """Brings a changed input back to what the constants of an operator were made for."""
        index = op.inputs[place]
        if index in self.before:
            self.file.rescale(op, place, self.before[index])

    def _tie(self, op):
        """Gives an LSTM's hidden state the scale of its output: both are the same numbers."""
        if op.outputs[0] in self.before:
            for index in (op.inputs[HIDDEN_STATE], op.intermediates[-1]):
                self.graph.tensors[index].quantization = self.graph.tensors[
                    op.outputs[0]
                ].quantization

    def _count_bias(self, op, place, data):
        """Counts a bias anew, in steps of a changed input."""
        index = op.inputs[data]
        bias = op.inputs[place] if len(op.inputs) > place else -1
        if index not in self.before or bias < 0:
            return
        tensor = copy.copy(self.graph.tensors[bias])
        ratio = scale_of(self.graph.tensors[index]) / self.before[index].scale[0]
        dtype = {schema.TensorType.INT32: "int32", schema.TensorType.INT64: "int64"}[tensor.type]
        values = self.file.data(tensor, dtype)
        tensor.buffer = self.file.add_buffer(np.round(values / ratio).astype(dtype).tobytes())
        tensor.quantization = copy.copy(tensor.quantization)
        tensor.quantization.scale = [s * ratio for s in tensor.quantization.scale]
        self.graph.tensors.append(tensor)
        op.inputs = [len(self.graph.tensors) - 1 if i == place else n
                     for i, n in enumerate(op.inputs)]  # fmt: skip


def parameters(low: float, high: float, bits: int) -> Any:
    """Quantization of a range: asymmetric in 8 bits, symmetric in 16."""
    result = schema.QuantizationParametersT()
    if bits == 16:
        result.scale, result.zeroPoint = [max(-low, high) / 32767], [0]
        return result
    scale = (high - low) / 255
    result.scale = [float(np.float32(scale))]
    result.zeroPoint = [int(np.clip(np.round(-128 - low / scale), -128, 127))]
    return result
