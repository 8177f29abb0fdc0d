"""Knowledge review: stages of the student fused with the deeper ones."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import _keras
from keras_distill._types import PACKAGE, Tensor
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.positions import pool, sample_means, to_common_size


def hierarchical_context(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean squared difference of two maps and of their averages over 4×4, 2×2 and 1×1 parts.

    The differences have the weights 1, ½, ¼ and ⅛, divided by their sum. Parts are left out where
    the map is no higher than there are rows of them; as in the authors' code, its width has no say.

    Args:
        y_true: Maps of the teacher, float, shape `(batch, height, width, channels)`.
        y_pred: Maps of the student, same shape.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    total, weight, weights = sample_means(ops.square(y_pred - y_true)), 1.0, 1.0
    for size in (4, 2, 1):
        if size < y_true.shape[1]:
            weight /= 2
            parts = pool(y_pred, (size, size)) - pool(y_true, (size, size))
            total += weight * sample_means(ops.square(parts))
            weights += weight
    return total / weights


@keras.saving.register_keras_serializable(PACKAGE)
class Review(DistillationLoss):
    """Features of several stages, each student stage fused with the deeper ones (ReviewKD).

    From the deepest stage up, a small network fuses a stage of the student with what the deeper
    ones gave: `f = z_1 · u(F_s) + z_2 · resize(f_deeper)`, attention z from both, then a 3×3
    convolution to the teacher's channels. Each fused map is compared with the teacher's by the
    hierarchical context loss: the mean squared difference of the maps, plus ½, ¼, ⅛ of it on their
    averages over 4×4, 2×2 and 1×1 parts, divided by the sum of these weights.
    The sum over stages is the value; equal features don't make it zero.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review" (arXiv:2104.09044), equations
    6 and 7, figure 3; sizes and factors are those of the authors' code, where the weight is 0.6 to
    8 on CIFAR-100 and 1 on ImageNet, warmed up over 20 epochs.
    Costs the fusion network's time in each step (about that of a stage of the student) and its
    weights, which the exported student doesn't have. For convolutional models with stages; among
    the best of feature losses where that cost is welcome.

    The fusion network's batch normalization sees the samples of the batch; rows of weight 0 have
    no part in it. Under `tf.distribute` each replica normalizes over its own.

    Args:
        channels: Width of the fusion network. Defaults to `None`: that of the student's deepest
            stage, at most 512.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Tuple of the teacher's maps, from shallow to deep, each float, shape `(batch,
            height, width, channels)`.
        y_pred: Tuple of the student's maps, as many, likewise. Where sizes differ, the larger map
            is averaged down.

    Raises:
        ValueError: If the taps aren't as many maps of four axes on both sides.

    Example:

    >>> loss = keras_distill.losses.Review()
    >>> shapes = ((None, 8, 8, 16), (None, 4, 4, 32)), ((None, 8, 8, 4), (None, 4, 4, 8))
    >>> loss.build(*shapes)  # A `Distiller` does this.
    >>> loss.state.count_params()
    3842
    """

    same_shape = False
    between_samples = True

    def __init__(
        self,
        channels: int | None = None,
        name: str = "review",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.channels = channels
        self.state = ReviewFusion(channels, name=name)

    def call(
        self, y_true: tuple[Tensor, ...], y_pred: tuple[Tensor, ...], present: Tensor
    ) -> Tensor:
        fused = self.state(y_pred, present)
        total = 0
        for teacher, student in zip(y_true, fused, strict=True):
            student = ops.cast(student, teacher.dtype)
            teacher, student = to_common_size("Review", teacher, student)
            total += hierarchical_context(teacher, student)
        return total

    def get_config(self) -> dict:
        return {**super().get_config(), "channels": self.channels}


class ReviewFusion(keras.layers.Layer):
    """The network of `Review` that fuses each stage of the student with the deeper ones.

    Args:
        channels: Width of the network, or `None` for that of the student's deepest stage.
        name: Name of the layer.
    """

    def __init__(self, channels: int | None, name: str):
        super().__init__(name=name, dtype="float32")
        self.channels = channels

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        shapes = [*y_true_shape, *y_pred_shape]
        if len(y_true_shape) != len(y_pred_shape) or any(
            not isinstance(shape, (tuple, list)) or len(shape) != 4 or None in shape[1:]
            for shape in shapes
        ):
            raise ValueError(
                "`Review` compares two tuples of as many maps of shape (batch, height, width, "
                "channels), with all sizes but the batch known. "
                f"Received: teacher {y_true_shape}, student {y_pred_shape}"
            )
        width = self.channels or min(512, y_pred_shape[-1][-1])

        def convolution(filters, size, inputs, use_bias=False):
            layer = keras.layers.Conv2D(
                filters, size, padding="same", use_bias=use_bias, dtype="float32"
            )
            layer.build((None, None, None, inputs))
            return layer

        def normalization(channels):
            layer = keras.layers.BatchNormalization(epsilon=1e-5, dtype="float32")
            layer.build((None, None, None, channels))
            return layer

        outputs = [shape[-1] for shape in y_true_shape]
        self.enter = [convolution(width, 1, shape[-1]) for shape in y_pred_shape]
        self.enter_norm = [normalization(width) for _ in outputs]
        # The deepest stage has nothing to be fused with.
        self.attend = [convolution(2, 1, 2 * width, use_bias=True) for _ in outputs[1:]]
        self.leave = [convolution(channels, 3, width) for channels in outputs]
        self.leave_norm = [normalization(channels) for channels in outputs]

    def call(self, stages: tuple[Tensor, ...], present: Tensor) -> list[Tensor]:
        fused, outputs = None, []
        for i in reversed(range(len(stages))):
            x = stages[i]
            mask = ops.broadcast_to(present[:, None, None], ops.shape(x)[:3])
            x = _normalized(self.enter_norm[i], self.enter[i](x), mask)
            if fused is not None:
                fused = _nearest(fused, x.shape[1:3])
                z = ops.sigmoid(self.attend[i](ops.concatenate([x, fused], axis=-1)))
                x = x * z[..., :1] + fused * z[..., 1:]
            fused = x
            outputs.insert(0, _normalized(self.leave_norm[i], self.leave[i](x), mask))
        return outputs


def _normalized(normalization, x, mask):
    x = normalization(x, training=True, mask=mask)
    return _keras.with_mask(x, None)  # Convolutions would warn that they ignore it.


def _nearest(maps, sizes):
    """Maps resized to `sizes`, each position from the nearest."""
    for axis, size in enumerate(sizes, start=1):
        if maps.shape[axis] != size:
            maps = ops.take(maps, np.arange(size) * maps.shape[axis] // size, axis=axis)
    return maps
