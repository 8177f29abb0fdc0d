"""GRUs and SimpleRNNs that compute one step of time after the other by integer operators."""

from collections.abc import Callable
from typing import Any, ClassVar

import keras
from keras import ops

from keras_distill._types import PACKAGE
from keras_distill.quantization.layers import QuantizedDense, QuantizedKernel
from keras_distill.quantization.ranges import (
    AnyRange,
    FixedRange,
    LearnedRange,
    Range,
    rounded_by,
)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedProjection(QuantizedDense):
    """What a recurrent layer's kernel makes of its inputs, whose errors would go from step to step.

    So its bias is rounded, too, to the steps of the sums that it is added to.
    """

    def call(self, x: Any, input_step: Any = None) -> Any:
        """Takes the size of its input's steps, where the model that it is in knows it."""
        y = ops.matmul(x, self.kernel)
        if self.bias is None:
            return y
        return y + (self.bias if input_step is None else self.rounded_bias(input_step))


class QuantizedSteps(QuantizedKernel, keras.layers.Layer):
    """The steps of a recurrent layer, whose input is what its kernel makes of the sequence.

    Each operator's output is rounded to a range of its own, the same at all steps, and so is the
    state that the next step reads. Its kernel has a scale for each channel, and its bias is rounded
    to the steps of the sums that it is added to. It computes in float32 under every dtype policy.

    Args:
        units: Number of units.
        return_sequences: Whether the outputs of all steps are returned.
        go_backwards: Whether it starts with the last step.
        recurrent_dropout: Share of the state that is dropped in training, where the kernel reads
            it.
        use_bias: Whether the kernel has a bias.
        activation_bits: 8 or 16.
        recurrent_regularizer: As of `keras.layers.GRU`.
        bits: Bits of the kernel.
        learned_steps: Whether the sizes of steps are trained.
    """

    kernel_name = "recurrent_kernel"
    #: The operators of a step, the state's kernel first and the new state last: how many times the
    #: units they make, and whether the range that they prescribe is signed, `None` where they have
    #: one of their own.
    operators: ClassVar[dict[str, tuple[int, bool | None]]] = {}

    def __init__(
        self,
        units: int,
        return_sequences: bool = False,
        go_backwards: bool = False,
        recurrent_dropout: float = 0.0,
        use_bias: bool = True,
        activation_bits: int = 8,
        recurrent_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.units = units
        self.return_sequences = return_sequences
        self.go_backwards = go_backwards
        self.recurrent_dropout = recurrent_dropout
        self.use_bias = use_bias
        self.activation_bits = activation_bits
        self.recurrent_regularizer = keras.regularizers.get(recurrent_regularizer)
        self.seed_generator = keras.random.SeedGenerator()
        self.ranges: dict[str, Any] = {
            name: self._range(name, signed) for name, (_, signed) in self.operators.items()
        }

    def advance(self, x: Any, hidden: Any, recurrent: Callable, rounded: Callable) -> Any:
        """The next state, for the simulation and for the file alike.

        Args:
            x: What the layer's kernel makes of the input, shape `(batch, width)`.
            hidden: The state before, shape `(batch, units)`.
            recurrent: Function that returns what the kernel of the state makes of it.
            rounded: Function of an operator's name and output that returns what is left of it.
        """
        raise NotImplementedError

    def build(self, input_shape: Any) -> None:
        (times, _), *_ = self.operators.values()
        width = times * self.units
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, width),
            name="recurrent_kernel",
            regularizer=self.recurrent_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(width,), name="bias", initializer="zeros")
        for range in self.ranges.values():
            range.build((None, input_shape[1], self.units))
        super().build(input_shape)

    def call(self, sequences: Any, training: bool = False) -> Any:
        batch = ops.shape(sequences)[0]
        kernel, bias = self.rounded_kernel(), self._rounded_bias()
        if self.go_backwards:
            sequences = ops.flip(sequences, axis=1)
        kept: Any = 1.0
        if training and self.recurrent_dropout:
            ones = ops.ones((batch, self.units))
            kept = keras.random.dropout(ones, self.recurrent_dropout, seed=self.seed_generator)

        def step(state: list, x: Any) -> tuple:
            seen = {}

            def rounded(name: str, value: Any) -> Any:
                seen[name] = value
                return rounded_by(self.ranges[name], value)

            def recurrent(hidden: Any) -> Any:
                return ops.matmul(hidden * kept, kernel) + bias

            hidden = self.advance(x, state[-1], recurrent, rounded)
            values = [seen[name] for name in self.operators]
            # Keras wants a state like what is returned; only its last tensor is read.
            return [*values[:-1], hidden], values

        zeros = [ops.zeros((batch, times * self.units)) for times, _ in self.operators.values()]
        _, seen = ops.scan(step, zeros, ops.transpose(sequences, (1, 0, 2)))
        for name, values in zip(self.ranges, seen, strict=True):
            outputs = self.ranges[name](ops.transpose(values, (1, 0, 2)))
        return outputs if self.return_sequences else outputs[:, -1]

    def compute_output_shape(self, input_shape: Any) -> Any:
        steps = (input_shape[1],) if self.return_sequences else ()
        return (input_shape[0], *steps, self.units)

    @property
    def float_kernel(self) -> Any:
        """The variable that is trained."""
        return self.recurrent_kernel

    @property
    def hidden_range(self) -> AnyRange:
        """The range of its state and output."""
        return self.ranges["hidden"]

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "units": self.units,
            "return_sequences": self.return_sequences,
            "go_backwards": self.go_backwards,
            "recurrent_dropout": self.recurrent_dropout,
            "use_bias": self.use_bias,
            "activation_bits": self.activation_bits,
            "recurrent_regularizer": keras.regularizers.serialize(self.recurrent_regularizer),
        }

    def _range(self, name: str, signed: bool | None) -> AnyRange:
        tensor = self.name if name == "hidden" else f"{self.name}_{name}"
        options: dict[str, Any] = {"tensor": tensor, "name": f"{name}_range"}
        if signed is not None:
            return FixedRange(signed, self.activation_bits, **options)
        return (LearnedRange if self.learned_steps else Range)(self.activation_bits, **options)

    def _rounded_bias(self) -> Any:
        """The bias as the file has it: in the steps of the sums of integers."""
        if self.bias is None:
            return 0.0
        if self.hidden_range.observer is not None or self.activation_bits == 16:
            return self.bias
        return self.rounded_bias(self.hidden_range.grid()[0])


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedGRU(QuantizedSteps):
    """The steps of a `keras.layers.GRU` with `reset_after=True`.

    The new state is `candidate + update * (hidden - candidate)`.
    """

    operators: ClassVar = {
        "recurrent": (3, None),
        "gates": (2, None),
        "sigmoid": (2, False),
        "reset": (1, None),
        "candidate": (1, None),
        "tanh": (1, True),
        "apart": (1, None),
        "kept": (1, None),
        "hidden": (1, None),
    }

    def advance(self, x: Any, hidden: Any, recurrent: Callable, rounded: Callable) -> Any:
        both = 2 * self.units
        sums = rounded("recurrent", recurrent(hidden))
        gates = rounded("gates", x[:, :both] + sums[:, :both])
        gates = rounded("sigmoid", ops.sigmoid(gates))
        update, reset = gates[:, : self.units], gates[:, self.units :]
        remembered = rounded("reset", reset * sums[:, both:])
        candidate = rounded("candidate", x[:, both:] + remembered)
        candidate = rounded("tanh", ops.tanh(candidate))
        apart = rounded("apart", hidden - candidate)
        kept = rounded("kept", update * apart)
        return rounded("hidden", candidate + kept)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedSimpleRNN(QuantizedSteps):
    """The steps of a `keras.layers.SimpleRNN`."""

    operators: ClassVar = {"recurrent": (1, None), "sum": (1, None), "hidden": (1, True)}

    def advance(self, x: Any, hidden: Any, recurrent: Callable, rounded: Callable) -> Any:
        sums = rounded("recurrent", recurrent(hidden))
        return rounded("hidden", ops.tanh(rounded("sum", x + sums)))
