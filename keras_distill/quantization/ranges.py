"""The ranges of tensors, and the rounding to integers that they imply."""

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras
from keras_distill._types import PACKAGE, Tensor

MOMENTUM = 0.99
#: How many times the least of some inverse square roots the greatest may be. They are of 8-bit
#: integers, or of 16-bit ones, of which LiteRT's kernel has a table with 256 positive entries.
_INVERSES_SPAN = 256**0.5
SMALLEST_STEP = 1e-12
#: The least that training leaves of a learned step. All 8 bits then span what one step did before:
#: no training ends there, but a gradient still leads back.
LEAST_SHARE = 2.0**-8


def limits(bits: int) -> tuple[int, int]:
    """The least and the greatest integer of an activation with `bits` bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def fake_quantize(x: Tensor, scale: Any, zero_point: Any, lowest: int, highest: int) -> Any:
    """What is left of `x` after a round trip through integers.

    `(clip(round(x / scale) + zero_point, lowest, highest) - zero_point) * scale`. The gradient
    goes straight through the rounding and is 0 where `x` was clipped; that of `scale` is the one
    of learned step size quantization (arXiv:1902.08153, equation 3).

    Args:
        x: Tensor of any shape, float32.
        scale: Size of a step, above 0, broadcast against `x`.
        zero_point: The integer that stands for 0.
        lowest: The least integer.
        highest: The greatest integer.

    Returns:
        A tensor of the shape of `x`, float32.
    """

    # By hand, since TensorFlow's own gradient of a clipped tensor takes longer than a convolution.
    @ops.custom_gradient
    def rounded(x: Any, scale: Any, lower: Any, upper: Any) -> Any:
        steps = x / scale
        clipped = ops.clip(steps, lower, upper)
        integers = ops.round(clipped)

        def gradient(*args: Any, upstream: Any = None) -> Any:
            upstream = args[0] if upstream is None else upstream
            inside = ops.cast(ops.equal(steps, clipped), steps.dtype)
            of_scale = upstream * (integers - clipped * inside)
            axes = [axis for axis, size in enumerate(_shape_at(scale, x)) if size == 1]
            of_scale = ops.reshape(ops.sum(of_scale, axes), ops.shape(scale))
            return upstream * inside, of_scale, None, None

        return integers * scale, gradient

    # All that is computed or trained is an argument.
    ends = (_keras.read(lowest - zero_point), _keras.read(highest - zero_point))
    return rounded(_keras.read(x), _keras.read(scale), *ends)


def _shape_at(scale: Any, x: Any) -> tuple:
    """The shape of a scale with as many axes as `x` has."""
    return (1,) * (len(x.shape) - len(scale.shape)) + tuple(scale.shape)


def on_grid(x: Any, step: Any) -> Any:
    """`x` rounded to a multiple of `step`; its gradient goes straight through."""
    return x + ops.stop_gradient(ops.round(x / step) * step - x)


def scaled_gradient(x: Any, factor: Any) -> Any:
    """`x`, with its gradient multiplied by `factor`."""
    return x * factor + ops.stop_gradient(x - x * factor)


class AtLeast(keras.constraints.Constraint):
    """Keeps a trained step from falling to 0 or below, at however large a learning rate.

    Args:
        bound: Function that returns the least value, broadcast against the step.
    """

    def __init__(self, bound: Callable[[], Any]):
        self.bound = bound

    def __call__(self, step: Any) -> Any:
        return ops.maximum(step, self.bound())


class AnyRange(keras.layers.Layer):
    """Rounds a tensor to the integers that a TFLite file holds for it.

    There is such a layer after each tensor of a quantize-aware model. It computes in float32
    under every dtype policy. Called with `step_only=True`, it returns the size of its steps.

    Args:
        bits: 8 or 16. With 16 bits the zero point is 0, as the kernels want it.
        tensor: Name of the layer whose output this is. Defaults to the layer's own name.
        of_inverses: Whether the values are inverse square roots of rounded ones. Of what was
            rounded to 0 they are infinite, which becomes the greatest value, as in the kernel.
    """

    def __init__(
        self,
        bits: int = 8,
        tensor: str | None = None,
        of_inverses: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.bits = bits
        self.tensor = tensor or self.name
        self.of_inverses = of_inverses
        self.supports_masking = True
        #: In calibration, a function that is called with every tensor; nothing is rounded then.
        self.observer: Callable[[Any], None] | None = None

    def grid(self) -> tuple[Any, Any]:
        """Scale and zero point, as tensors of float32."""
        raise NotImplementedError

    @property
    def has_started(self) -> bool:
        """Whether the range is known: prescribed, calibrated, or met in training."""
        started = getattr(self, "started", None)
        return started is None or float(np.max(started)) > 0

    def call(self, x: Any, step_only: bool = False) -> Any:
        if step_only:
            return ops.convert_to_tensor(self.grid()[0])
        if self.observer is not None:
            self.observer(x)
            return x
        # Losses on logits find those that a softmax was computed from.
        return _keras.with_logits(self.rounded(x), x)

    def rounded(self, x: Any) -> Any:
        """`x` on the grid."""
        return fake_quantize(x, *self.grid(), *limits(self.bits))

    def ends(self, minimum: Any, maximum: Any) -> tuple[Any, Any]:
        """The ends of a range that holds 0 from the least and greatest value of its tensors.

        Inverses that span more than their kernel can tell apart are clipped: they belong to rows
        of next to no variance, and would leave the others too few steps.
        """
        if self.of_inverses:
            maximum = ops.minimum(maximum, _INVERSES_SPAN * minimum)
        return ops.minimum(minimum, 0.0), ops.maximum(maximum, 0.0)

    def compute_output_spec(self, x: Any, step_only: bool = False, **_: Any) -> Any:
        return keras.KerasTensor(() if step_only else x.shape, "float32")

    def get_config(self) -> dict:
        config = {"bits": self.bits, "tensor": self.tensor, "of_inverses": self.of_inverses}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(PACKAGE)
class FixedRange(AnyRange):
    """A range that the TFLite kernel prescribes: [0, 1) after softmax, [-1, 1) after tanh.

    Args:
        signed: Whether the tensor has values below 0.
        bits: 8 or 16.
        tensor: Name of the layer whose output this is.
    """

    def __init__(
        self, signed: bool = False, bits: int = 8, tensor: str | None = None, **kwargs: Any
    ):
        super().__init__(bits, tensor, **kwargs)
        self.signed = signed

    def grid(self) -> tuple[Any, Any]:
        if self.bits == 8 and not self.signed:
            return 2.0**-8, -128.0
        return 2.0 ** (1 - self.bits), 0.0

    def get_config(self) -> dict:
        return {**super().get_config(), "signed": self.signed}


@keras.saving.register_keras_serializable(PACKAGE)
class Range(AnyRange):
    """A range that follows the least and greatest values of the training batches.

    Both move by an exponential average (momentum 0.99) from where calibration put them, or from
    the first batch. Values pass unrounded until the range has seen any.

    Args:
        bits: 8 or 16.
        tensor: Name of the layer whose output this is.
        tensors: How many tensors share the range, which spans the averages of all of them. The
            argument `index` of a call is the number of the tensor among them.
        of_inverses: Whether the values are inverse square roots of rounded ones.
    """

    def __init__(self, bits: int = 8, tensor: str | None = None, tensors: int = 1, **kwargs: Any):
        super().__init__(bits, tensor, **kwargs)
        self.tensors = tensors

    def build(self, input_shape: Any) -> None:
        self.minimum, self.maximum, self.started = (
            self.add_weight(
                shape=(self.tensors,),
                initializer="zeros",
                trainable=False,
                name=name,
                aggregation="mean",
            )
            for name in ("minimum", "maximum", "started")
        )
        self.frozen = self.add_weight(
            shape=(), initializer="zeros", trainable=False, name="frozen", aggregation="mean"
        )

    def grid(self) -> tuple[Any, Any]:
        return grid_of(ops.min(self.minimum), ops.max(self.maximum), self.bits)

    def start(self, minimum: float, maximum: float) -> None:
        """Sets the range; 0 is always part of it."""
        for variable, end in zip(
            (self.minimum, self.maximum), self.ends(minimum, maximum), strict=True
        ):
            variable.assign(ops.full((self.tensors,), end))
        self.started.assign(ops.ones((self.tensors,)))

    def call(self, x: Any, step_only: bool = False, index: int = 0, training: bool = False) -> Any:
        if step_only:
            return super().call(x, step_only)
        if training and self.trainable and self.observer is None:
            self._follow(ops.stop_gradient(x), index)
        return super().call(x)

    def rounded(self, x: Any) -> Any:
        # Not `ops.where`, which is slow where one flag decides for a whole tensor.
        rounded = super().rounded
        return ops.cond(ops.max(self.started) > 0, lambda: rounded(x), lambda: x)

    def _follow(self, x: Any, index: int) -> None:
        mine = ops.one_hot(index, self.tensors)
        momentum = ops.where(self.frozen > 0, 1.0, MOMENTUM) * self.started
        momentum = 1 - mine * (1 - momentum)
        low, high = self.ends(ops.min(x), ops.max(x))
        if self.of_inverses:  # A batch that is rounded to 0 throughout leaves the range as it is.
            high = ops.where(ops.isinf(high), ops.max(self.maximum), high)
        for variable, end in ((self.minimum, low), (self.maximum, high)):
            variable.assign(momentum * variable + (1 - momentum) * end)
        self.started.assign(ops.maximum(self.started, mine))

    def get_config(self) -> dict:
        return {**super().get_config(), "tensors": self.tensors}


@keras.saving.register_keras_serializable(PACKAGE)
class LearnedRange(AnyRange):
    """A range whose step is trained by gradient descent, from where calibration put it.

    Source: Esser et al., "Learned Step Size Quantization" (arXiv:1902.08153), equations 1 to 3,
    its gradient scaled as in section 2.2. The zero point stays as calibrated. The step doesn't fall
    below 1/256 of the calibrated one.

    Args:
        bits: 8 or 16.
        tensor: Name of the layer whose output this is.
        of_inverses: Whether the values are inverse square roots of rounded ones.
    """

    def build(self, input_shape: Any) -> None:
        self.step = self.add_weight(
            shape=(), initializer="ones", name="step", constraint=AtLeast(self._least)
        )
        self.zero_point, self.started, self.frozen, self.least = (
            self.add_weight(
                shape=(), initializer="zeros", trainable=False, name=name, aggregation="mean"
            )
            for name in ("zero_point", "started", "frozen", "least")
        )
        size = math.prod(size or 1 for size in input_shape[1:])
        self.factor = 1.0 / math.sqrt(size * limits(self.bits)[1])

    def grid(self) -> tuple[Any, Any]:
        return ops.maximum(self.step, SMALLEST_STEP), ops.convert_to_tensor(self.zero_point)

    def start(self, minimum: float, maximum: float) -> None:
        """Sets step and zero point from the least and greatest value seen."""
        step, zero_point = grid_of(*self.ends(minimum, maximum), self.bits)
        self.step.assign(step)
        self.least.assign(LEAST_SHARE * step)
        self.zero_point.assign(zero_point)
        self.started.assign(1.0)

    def load_own_variables(self, store: Any) -> None:
        values = {name: store[name] for name in store.keys()}  # noqa: SIM118
        # Files of earlier versions hold no bound: it is taken from the step.
        values.setdefault("4", LEAST_SHARE * np.asarray(values["0"]))
        super().load_own_variables(values)

    def _least(self) -> Any:
        return ops.maximum(self.least, SMALLEST_STEP)

    def rounded(self, x: Any) -> Any:
        step, zero_point = self.grid()
        step = scaled_gradient(step, self.factor * (1 - self.frozen))
        return fake_quantize(x, step, zero_point, *limits(self.bits))


def grid_of(minimum: Any, maximum: Any, bits: int) -> tuple[Any, Any]:
    """Scale and zero point of a range that holds 0, as TFLite chooses them.

    The range of what is 0 throughout, such as units that are never active, becomes 1 wide: kernels
    refuse steps of next to nothing.
    """
    lowest, highest = limits(bits)
    is_symmetric = bits == 16
    width = ops.maximum(-minimum, maximum) if is_symmetric else maximum - minimum
    steps = highest if is_symmetric else highest - lowest
    scale = ops.where(width < steps * SMALLEST_STEP, 1.0, width) / steps
    if is_symmetric:
        return scale, ops.zeros_like(scale)
    return scale, ops.clip(ops.round(lowest - minimum / scale), lowest, highest)


def rounded_by(range: Any, x: Any) -> Any:
    """`x` in a range, which isn't followed; unrounded in calibration."""
    return x if range.observer is not None else range.rounded(x)


def is_quantize_aware(model: keras.Model) -> bool:
    """Whether a model was made by `quantize_aware`."""
    return isinstance(model, keras.Model) and any(
        isinstance(layer, AnyRange) for layer in _keras.layers_of(model)
    )


def require_quantize_aware(model: keras.Model) -> None:
    """Raises a `ValueError` if a model wasn't made by `quantize_aware`."""
    if not is_quantize_aware(model):
        raise ValueError(
            f"The model {model.name!r} isn't quantize-aware: "
            "make it with `keras_distill.quantization.quantize_aware`."
        )
