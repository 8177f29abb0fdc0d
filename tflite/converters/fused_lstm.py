"""The fused LSTM operator of a float file, given the integers that a student was trained with."""

import dataclasses
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from keras_distill.tflite.converters.markers import BIASES, BY_BITS, Kernel, Marker
from keras_distill.tflite.flatbuffer import HIDDEN_STATE, File, quantization_of

from keras_distill.quantization.lstm import GATES, QuantizedLSTM

# Places among the operator's inputs.
_KERNELS, _BIASES, _CELL = 1, 12, HIDDEN_STATE + 1


@dataclasses.dataclass(frozen=True)
class Lstm:
    """An LSTM of a student.

    Attributes:
        name: Path of the layer.
        kernels: Its kernels, those of the input before those of the state, in the order of `GATES`.
        biases: The biases of its gates, float32.
        cell_scale: Size of the cell's steps.
    """

    name: str
    kernels: list[Kernel]
    biases: list[np.ndarray]
    cell_scale: float

    @property
    def weights(self) -> list[np.ndarray]:
        """The weights of the Keras layer that the float file is made from."""
        halves = (self.kernels[: len(GATES)], self.kernels[len(GATES) :])
        kernels = [np.concatenate([x.floats.T for x in half], axis=-1) for half in halves]
        return [*kernels, np.concatenate(self.biases)]


def lstm_of(layer: QuantizedLSTM, path: str) -> Lstm:
    """What the file is to hold of a layer."""
    kernels = []
    for name, variable in (("kernel", layer.kernel), ("recurrent_kernel", layer.recurrent_kernel)):
        for gate, (integers, step) in zip(GATES, layer.integers(variable), strict=True):
            floats = np.float32(integers) * step
            kernels.append(Kernel(f"{path}/{gate}/{name}", integers, step, 0, 8, floats))
    biases = np.split(np.float32(layer.bias), len(GATES))
    return Lstm(path, kernels, biases, float(layer.cell_range.grid()[0]))


def find(file: File, operator: Any, lstms: list[Lstm]) -> Lstm:
    """The LSTM that an operator computes; it is taken from the list.

    Raises:
        ValueError: If there is none.
    """
    places = range(_KERNELS, _KERNELS + 2 * len(GATES))
    floats = [file.floats(operator.inputs[place]) for place in places]
    for lstm in lstms:
        pairs = zip(floats, lstm.kernels, strict=True)
        if all(x is not None and np.array_equal(x, kernel.floats) for x, kernel in pairs):
            lstms.remove(lstm)
            return lstm
    raise ValueError(f"The LSTM of {file.tensor_name(operator.outputs[0])!r} has unknown weights.")


def settle(file: File, operator: Any, lstm: Lstm, data: Marker, output: Marker) -> None:
    """Gives an operator its integers.

    Args:
        file: The file.
        operator: The operator, its input and output settled.
        lstm: What it computes.
        data: The range of its input.
        output: The range of its output, which is that of its hidden state.
    """
    for place, kernel in enumerate(lstm.kernels, _KERNELS):
        parameters = quantization_of(kernel.scales, [0])
        operator.inputs[place] = file.add_tensor(
            kernel.name,
            kernel.integers.shape,
            schema.TensorType.INT8,
            parameters,
            kernel.integers.tobytes(),
        )
    bias_type, dtype = BIASES[data.bits]
    gates = zip(GATES, lstm.kernels, lstm.biases, strict=False)
    for place, (gate, kernel, bias) in enumerate(gates, _BIASES):
        step = np.float64(data.scale) * np.float64(kernel.scales)
        operator.inputs[place] = file.add_tensor(
            f"{lstm.name}/{gate}/bias",
            bias.shape,
            bias_type,
            quantization_of(step, [0]),
            np.round(bias / step).astype(dtype).tobytes(),
        )
    hidden = quantization_of([output.scale], [output.zero_point])
    states = (
        (HIDDEN_STATE, BY_BITS[output.bits], hidden),
        (_CELL, schema.TensorType.INT16, quantization_of([lstm.cell_scale], [0])),
    )
    for place, kind, parameters in states:
        tensor = file.graph.tensors[operator.inputs[place]]
        tensor.type, tensor.quantization = kind, parameters
    # LiteRT reads the range of the hidden state from the last of these; the others it only counts.
    operator.intermediates = [
        file.add_tensor(f"{lstm.name}/{gate}/sum", [0], schema.TensorType.FLOAT32, None)
        for gate in GATES
    ]
    operator.intermediates.append(
        file.add_tensor(f"{lstm.name}/state", [0], BY_BITS[output.bits], hidden)
    )
    # The converter's bound of 10; here the cell's range bounds it.
    operator.builtinOptions.cellClip = 0.0
