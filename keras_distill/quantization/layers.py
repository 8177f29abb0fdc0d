"""Keras layers whose weights are rounded to the integers of the TFLite file."""

import math
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras
from keras_distill._types import PACKAGE
from keras_distill.quantization.ranges import (
    LEAST_SHARE,
    SMALLEST_STEP,
    AtLeast,
    fake_quantize,
    on_grid,
    scaled_gradient,
)

# Mixed into Keras layers, whose attributes it uses.
_Layer: Any = keras.layers.Layer if TYPE_CHECKING else object


class QuantizedKernel(_Layer):
    """What layers with a rounded kernel share: symmetric integers, one scale per channel.

    Args:
        bits: 8 for integers from -127 to 127, or 4 for integers from -7 to 7.
        learned_steps: Whether the scales are trained (arXiv:1902.08153) instead of following the
            greatest value of each channel. None falls below 1/256 of where it would start for the
            present kernel.
    """

    #: Axes of the kernel along which scales differ.
    channel_axes: tuple[int, ...] = (-1,)
    kernel_name = "kernel"

    def __init__(self, *args: Any, bits: int = 8, learned_steps: bool = False, **kwargs: Any):
        self.bits = bits
        self.learned_steps = learned_steps
        super().__init__(*args, **kwargs)

    @property
    def highest(self) -> int:
        """The greatest integer of a weight."""
        return 2 ** (self.bits - 1) - 1

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.learned_steps:
            with _keras.unlocked(self):
                self.step = self.add_weight(
                    shape=self._scale_shape(),
                    initializer="ones",
                    name="step",
                    autocast=False,
                    constraint=AtLeast(lambda: LEAST_SHARE * self._usual_step()),
                )
            self.start()

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("name") == self.kernel_name:
            # Rounded in float32, whatever the layer computes in.
            kwargs["autocast"] = False
        return super().add_weight(*args, **kwargs)

    def save_own_variables(self, store: Any) -> None:
        # Keras' own layers would store what they read as `kernel`: the rounded one.
        keras.layers.Layer.save_own_variables(self, store)

    def load_own_variables(self, store: Any) -> None:
        keras.layers.Layer.load_own_variables(self, store)

    def start(self) -> None:
        """Sets learned steps from the kernel."""
        if self.learned_steps:
            self.step.assign(self._usual_step())

    def scale(self) -> Any:
        """Size of a step, float32, 1 on all axes but those of the channels."""
        if self.learned_steps:
            return ops.maximum(self.step, SMALLEST_STEP)
        greatest = ops.max(ops.abs(self.float_kernel), axis=self._reduced_axes(), keepdims=True)
        return ops.stop_gradient(ops.maximum(greatest / self.highest, SMALLEST_STEP))

    def rounded_kernel(self) -> Any:
        """The kernel after a round trip through integers, in the layer's compute dtype."""
        scale = self.scale()
        if self.learned_steps:
            per_channel = self.float_kernel.shape.num_elements() / math.prod(scale.shape)
            scale = scaled_gradient(scale, 1.0 / math.sqrt(per_channel * self.highest))
        kernel = fake_quantize(self.float_kernel, scale, 0.0, -self.highest, self.highest)
        return ops.cast(kernel, self.compute_dtype)

    def rounded_bias(self, input_step: Any) -> Any:
        """The bias in steps of the sums that it is added to, as a file of 8 bits has it."""
        step = ops.stop_gradient(input_step * ops.reshape(self.scale(), (-1,)))
        return on_grid(self.bias, step)

    def integers(self) -> tuple[np.ndarray, np.ndarray]:
        """The kernel's integers and their scales, as float32 arrays: `(integers, scale)`."""
        scale = self.scale()
        kernel = fake_quantize(
            ops.convert_to_tensor(self.float_kernel), scale, 0.0, -self.highest, self.highest
        )
        return np.round(kernel / scale), ops.convert_to_numpy(scale)

    def get_config(self) -> dict:
        return {**super().get_config(), "bits": self.bits, "learned_steps": self.learned_steps}

    def _usual_step(self) -> Any:
        """Where learned steps of such a kernel start: `2 mean(|w|) / sqrt(highest)`."""
        mean = ops.mean(ops.abs(self.float_kernel), axis=self._reduced_axes(), keepdims=True)
        return ops.maximum(2 * mean / math.sqrt(self.highest), SMALLEST_STEP)

    def _reduced_axes(self) -> tuple[int, ...]:
        rank = len(self.float_kernel.shape)
        kept = {axis % rank for axis in self.channel_axes}
        return tuple(axis for axis in range(rank) if axis not in kept)

    def _scale_shape(self) -> list[int]:
        reduced = self._reduced_axes()
        return [1 if i in reduced else n for i, n in enumerate(self.float_kernel.shape)]


class _Kernel(QuantizedKernel):
    """Rounds the attribute `kernel` wherever the Keras layer reads it."""

    @property
    def float_kernel(self) -> Any:
        """The variable that is trained."""
        return _keras.kernel_variable(self)

    @property
    def kernel(self) -> Any:
        """The rounded kernel, which the layer computes with."""
        return self.rounded_kernel()

    @kernel.setter
    def kernel(self, value: Any) -> None:
        _keras.set_kernel_variable(self, value)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedConv1D(_Kernel, keras.layers.Conv1D):
    """A `keras.layers.Conv1D` with a rounded kernel."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedConv2D(_Kernel, keras.layers.Conv2D):
    """A `keras.layers.Conv2D` with a rounded kernel."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedDense(_Kernel, keras.layers.Dense):
    """A `keras.layers.Dense` with a rounded kernel."""


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedDepthwiseConv1D(_Kernel, keras.layers.DepthwiseConv1D):
    """A `keras.layers.DepthwiseConv1D` with a rounded kernel."""

    channel_axes = (-2, -1)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedDepthwiseConv2D(_Kernel, keras.layers.DepthwiseConv2D):
    """A `keras.layers.DepthwiseConv2D` with a rounded kernel."""

    channel_axes = (-2, -1)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedConv1DTranspose(_Kernel, keras.layers.Conv1DTranspose):
    """A `keras.layers.Conv1DTranspose` with a rounded kernel."""

    channel_axes = (-2,)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedConv2DTranspose(_Kernel, keras.layers.Conv2DTranspose):
    """A `keras.layers.Conv2DTranspose` with a rounded kernel."""

    channel_axes = (-2,)


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedPReLU(QuantizedKernel, keras.layers.PReLU):
    """A `keras.layers.PReLU` with rounded slopes, one scale for all."""

    channel_axes = ()
    kernel_name = "alpha"

    @property
    def float_kernel(self) -> Any:
        """The variable that is trained."""
        return self._alpha

    @property
    def alpha(self) -> Any:
        """The rounded slopes."""
        return self.rounded_kernel()

    @alpha.setter
    def alpha(self, value: Any) -> None:
        self._alpha = value


@keras.saving.register_keras_serializable(PACKAGE)
class QuantizedBatchNormalization(_keras.BatchNormalization):
    """A `keras.layers.BatchNormalization` whose statistics can be frozen while it trains.

    After a layer with a rounded kernel it is folded into the kernel at export. That changes no
    integer: one scale per channel makes rounding and scaling a channel interchangeable. So
    training keeps the batch's own statistics, and the file computes what `evaluate` computes.
    """

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        with _keras.unlocked(self):
            self.frozen = self.add_weight(
                shape=(), initializer="zeros", trainable=False, name="frozen", aggregation="mean"
            )

    def statistics(self, mean: Any, variance: Any) -> tuple[Any, Any]:
        is_frozen = ops.convert_to_tensor(self.frozen) > 0
        return (
            ops.where(is_frozen, ops.cast(self.moving_mean, mean.dtype), mean),
            ops.where(is_frozen, ops.cast(self.moving_variance, variance.dtype), variance),
        )

    def scale_and_offset(self) -> tuple[Any, Any]:
        """What it multiplies by and adds at inference, as float64 arrays of shape `(channels,)`."""
        mean, variance = (np.float64(x) for x in (self.moving_mean, self.moving_variance))
        scale = 1 / np.sqrt(variance + self.epsilon)
        if self.scale:
            scale = scale * np.float64(self.gamma)
        offset = -mean * scale
        if self.center:
            offset = offset + np.float64(self.beta)
        return scale, offset


@keras.saving.register_keras_serializable(PACKAGE)
class ToFloat(keras.layers.Layer):
    """Turns a rounded tensor to float for a layer that stays float: a `DEQUANTIZE` in the file."""

    def call(self, x: Any) -> Any:
        return x


@keras.saving.register_keras_serializable(PACKAGE)
class InverseRoot(keras.layers.Layer):
    """`1 / sqrt(x)` of rounded values of at least 0: infinite at 0, with a gradient of 0 there.

    The range after it clips infinity to its greatest value, as the kernels of `RSQRT` do.
    """

    def call(self, x: Any) -> Any:
        positive = x > 0
        root = ops.rsqrt(ops.where(positive, x, ops.ones_like(x)))
        return ops.where(positive, root, float("inf"))


@keras.saving.register_keras_serializable(PACKAGE)
class ScaleAndOffset(keras.layers.Layer):
    """Multiplies the last axis by trained factors and adds trained offsets.

    Args:
        scale: Whether there are factors.
        center: Whether there are offsets.
    """

    def __init__(self, scale: bool = True, center: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        self.scale = scale
        self.center = center

    def build(self, input_shape: Any) -> None:
        shape = input_shape[-1:]
        self.gamma: Any = None
        self.beta: Any = None
        if self.scale:
            self.gamma = self.add_weight(shape=shape, initializer="ones", name="gamma")
        if self.center:
            self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta")

    def call(self, x: Any) -> Any:
        x = x * self.gamma if self.scale else x
        return x + self.beta if self.center else x

    def scale_and_offset(self) -> tuple[Any, Any]:
        """What it multiplies by and adds, as float64 arrays of shape `(channels,)` or scalars."""
        return (
            np.float64(self.gamma) if self.scale else 1.0,
            np.float64(self.beta) if self.center else 0.0,
        )

    def get_config(self) -> dict:
        return {**super().get_config(), "scale": self.scale, "center": self.center}
