"""An LSTM that computes as the integer kernel of TFLite's fused operator."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill._types import PACKAGE
from keras_distill.quantization.ranges import (
    LearnedRange,
    Range,
    fake_quantize,
    on_grid,
    rounded_by,
)

#: The gates in the order of Keras' kernels.
GATES = ("input", "forget", "cell", "output")
#: Steps of what goes into a gate's function, and of what comes out, as 16-bit integers.
_BEFORE, _AFTER = 2.0**-12, 2.0**-15
_HIGHEST = 127
#: Least step of a kernel: 127 of them are less than what a gate tells apart.
_LEAST_STEP = 1e-5
#: The kernel's tanh takes a cell with at most so many bits before the point.
_MOST_BITS = 6


@keras.saving.register_keras_serializable(PACKAGE)
class CellRange(Range):
    """The range of a cell: 16 bits, symmetric, its end a power of 2 from 1 to 64.

    It follows the cell's values as `Range`.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"bits": 16, **kwargs})

    def grid(self) -> tuple[Any, Any]:
        greatest = ops.maximum(-ops.min(self.minimum), ops.max(self.maximum))
        powers = 2.0 ** np.arange(_MOST_BITS, dtype="float32")
        exponent = ops.sum(ops.cast(greatest > powers, "float32"))
        return 2.0**exponent * _AFTER, 0.0


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedLSTM(keras.layers.Layer):
    """An LSTM with 8-bit kernels, inputs and outputs, and a cell of 16 bits.

    As in TFLite's kernel, each gate has a scale of its own for either of its kernels, sums and
    gates are rounded to 16 bits, and the output is rounded at each step, before the next one reads
    it. It computes in float32 under every dtype policy.

    Args:
        units: Number of units.
        return_sequences: Whether the outputs of all steps are returned.
        go_backwards: Whether it starts with the last step.
        dropout: Share of the inputs that is dropped in training.
        recurrent_dropout: Share of the state that is dropped in training.
        learned_steps: Whether the size of the output's steps is trained. Those of kernels and of
            the cell follow the values.
        activation_bits: Bits of inputs and outputs, 8 or 16.
        kernel_regularizer: As of `keras.layers.LSTM`.
        recurrent_regularizer: As of `keras.layers.LSTM`.
        bias_regularizer: As of `keras.layers.LSTM`.
    """

    def __init__(
        self,
        units: int,
        return_sequences: bool = False,
        go_backwards: bool = False,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        learned_steps: bool = False,
        activation_bits: int = 8,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units = units
        self.return_sequences = return_sequences
        self.go_backwards = go_backwards
        self.dropout = dropout
        self.recurrent_dropout = recurrent_dropout
        self.learned_steps = learned_steps
        self.activation_bits = activation_bits
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.seed_generator = keras.random.SeedGenerator()
        kind = LearnedRange if learned_steps else Range
        self.hidden_range: Any = kind(activation_bits, tensor=self.name, name="hidden_range")
        self.cell_range: Any = CellRange(tensor=f"{self.name}_cell", name="cell_range")

    def build(self, input_shape: Any) -> None:
        width = 4 * self.units
        self.kernel = self.add_weight(
            shape=(input_shape[-1], width), name="kernel", regularizer=self.kernel_regularizer
        )
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, width),
            name="recurrent_kernel",
            regularizer=self.recurrent_regularizer,
        )
        self.bias = self.add_weight(
            shape=(width,), name="bias", initializer="zeros", regularizer=self.bias_regularizer
        )
        for range in (self.hidden_range, self.cell_range):
            range.build((None, input_shape[1], self.units))

    def call(self, sequences: Any, training: bool = False) -> Any:
        batch = ops.shape(sequences)[0]
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
        sequences = sequences * self._kept((batch, 1, sequences.shape[-1]), self.dropout, training)
        kept = self._kept((batch, self.units), self.recurrent_dropout, training)
        inputs = on_grid(ops.matmul(sequences, self._rounded(self.kernel)) + self.bias, _BEFORE)
        recurrent_kernel = self._rounded(self.recurrent_kernel)
        step_size = self.cell_range.grid()[0]

        def step(state: tuple, x: Any) -> tuple:
            hidden, cell = state
            x = x + on_grid(ops.matmul(hidden * kept, recurrent_kernel), _BEFORE)
            i, f, g, o = ops.split(ops.clip(x, -8.0, 8.0 - _BEFORE), 4, axis=-1)
            forgotten = on_grid(_sigmoid(f) * cell, step_size)
            cell = forgotten + on_grid(_sigmoid(i) * _tanh(g), step_size)
            rounded = rounded_by(self.cell_range, cell)
            hidden = _sigmoid(o) * _tanh(rounded)
            return (rounded_by(self.hidden_range, hidden), rounded), (hidden, cell)

        zeros = ops.zeros((batch, self.units))
        _, (hidden, cells) = ops.scan(step, (zeros, zeros), ops.transpose(inputs, (1, 0, 2)))
        self.cell_range(cells)
        hidden = self.hidden_range(ops.transpose(hidden, (1, 0, 2)))
        return hidden if self.return_sequences else hidden[:, -1]

    def compute_output_shape(self, input_shape: Any) -> Any:
        steps = (input_shape[1],) if self.return_sequences else ()
        return (input_shape[0], *steps, self.units)

    def integers(self, kernel: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        """The integers of one of its kernels, and their step, for each gate.

        Returns:
            Pairs of an int8 array of shape `(units, inputs)` and a float32 array `(1,)`, in the
            order of `GATES`.
        """
        steps = np.split(ops.convert_to_numpy(self._steps(kernel)).ravel(), 4)
        gates = np.split(ops.convert_to_numpy(self._rounded(kernel)), 4, axis=-1)
        return [
            (np.round(gate.T / step).astype("int8"), step)
            for gate, step in zip(gates, steps, strict=True)
        ]

    def get_config(self) -> dict:
        names = ("kernel_regularizer", "recurrent_regularizer", "bias_regularizer")
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "go_backwards": self.go_backwards,
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "learned_steps": self.learned_steps,
            "activation_bits": self.activation_bits,
            **{name: keras.regularizers.serialize(getattr(self, name)) for name in names},
        }

    def _kept(self, shape: tuple, rate: float, training: bool) -> Any:
        """What inputs or states are multiplied by: one mask for all steps."""
        if not training or not rate:
            return 1.0
        return keras.random.dropout(ops.ones(shape), rate, seed=self.seed_generator)

    def _steps(self, kernel: Any) -> Any:
        """Size of a step for each gate, of shape `(1, 4, 1)`."""
        gates = ops.reshape(ops.abs(kernel), (-1, 4, self.units))
        greatest = ops.max(gates, axis=(0, 2), keepdims=True)
        return ops.stop_gradient(ops.maximum(greatest / _HIGHEST, _LEAST_STEP))

    def _rounded(self, kernel: Any) -> Any:
        gates = ops.reshape(kernel, (-1, 4, self.units))
        rounded = fake_quantize(gates, self._steps(kernel), 0.0, -_HIGHEST, _HIGHEST)
        return ops.reshape(rounded, kernel.shape)


def _sigmoid(x: Any) -> Any:
    return ops.minimum(on_grid(ops.sigmoid(x), _AFTER), 1 - _AFTER)


def _tanh(x: Any) -> Any:
    return ops.minimum(on_grid(ops.tanh(x), _AFTER), 1 - _AFTER)
