"""What an export form is marked with: ranges and kernels that are found again in its file.

And the layers that leave the marks, or become operators that Keras' own layers don't become.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

#: A marker raises its tensor to the power of its number, counted from here. The converter passes
#: that on as it is, so the number is found again in the file.
FIRST_MARKER = 1000

#: The type of tensors by their bits.
BY_BITS = {8: schema.TensorType.INT8, 16: schema.TensorType.INT16}
#: The type of biases, and of their arrays, by the bits of the data.
BIASES = {8: (schema.TensorType.INT32, "int32"), 16: (schema.TensorType.INT64, "int64")}


@dataclasses.dataclass(frozen=True)
class Marker:
    """The range of the tensor called `name`.

    Attributes:
        name: Path of the layer that makes the tensor.
        bits: 8 or 16; 0 where the tensor is float.
        scale: Size of a step.
        zero_point: The integer that stands for 0.
        turns_type: Whether the tensor was an integer of another range, or a float, before.
    """

    name: str
    bits: int = 0
    scale: float = 0.0
    zero_point: int = 0
    turns_type: bool = False


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Constant weights of a kernel, BatchNormalization folded into them.

    Attributes:
        name: Path of the layer, and `"/kernel"` or `"/alpha"`.
        integers: The integers in TFLite's layout, int8.
        scales: Size of a step for each channel, float32.
        axis: Axis of the channels in TFLite's layout.
        bits: 8 or 4.
        floats: What the integers stand for, in TFLite's layout, float32.
    """

    name: str
    integers: np.ndarray
    scales: np.ndarray
    axis: int
    bits: int
    floats: np.ndarray

    def rescaled(self, scales: np.ndarray) -> np.ndarray:
        """The integers for other scales per channel, int8."""
        shape = [1] * self.integers.ndim
        shape[self.axis] = -1
        ratio = np.float64(self.scales) / np.float64(scales)
        return np.int8(np.round(self.integers * ratio.reshape(shape)))  # type: ignore[return-value]


class Mark(keras.layers.Layer):
    """Leaves a number in the file, to be found again by `FIRST_MARKER`."""

    def __init__(self, number: int, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.number = number

    def call(self, x: Any) -> Any:
        return tf.pow(x, tf.constant(float(self.number)))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


class Nearest(keras.layers.Layer):
    """Upsampling by one `RESIZE_NEAREST_NEIGHBOR` where heights and widths are known only later."""

    def __init__(self, size: tuple[int, int], **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.size = size

    def call(self, x: Any) -> Any:
        size = [n * k for n, k in zip(x.shape[1:3], self.size, strict=True)]
        return tf.image.resize(x, size, method="nearest")

    def compute_output_spec(self, x: Any) -> Any:
        sizes = (n and n * k for n, k in zip(x.shape[1:3], self.size, strict=True))
        return keras.KerasTensor((x.shape[0], *sizes, x.shape[3]), "float32")


class Lookup(keras.layers.Layer):
    """Rows of a constant table: one `GATHER`."""

    def __init__(self, table: np.ndarray, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.table = table

    def call(self, ids: Any) -> Any:
        return tf.gather(tf.constant(self.table), tf.cast(ids, "int32"))

    def compute_output_spec(self, ids: Any) -> Any:
        return keras.KerasTensor((*ids.shape, self.table.shape[1]), "float32")
