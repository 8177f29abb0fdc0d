"""The teacher's features generated from the student's, of which a part is masked."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.positions import sample_means


def mgd(
    y_true: Tensor,
    y_pred: Tensor,
    kept: Tensor,
    generate: Callable[[Tensor], Tensor],
    mask: Tensor | None = None,
) -> Tensor:
    """Mean squared difference of the teacher's features and those generated from what is kept.

    Args:
        y_true: Features of the teacher, float, shape `(batch, height, width, channels)`.
        y_pred: Features of the student, same shape.
        kept: 1 for positions that are kept, 0 for those masked, shape `(batch, height, width, 1)`.
        generate: Function from features to features of the same shape.
        mask: Positions of which the mean is taken, bool, shape `(batch, height, width)`, or `None`
            for all.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    return sample_means(ops.square(generate(kept * y_pred) - y_true), mask)


@keras.saving.register_keras_serializable(PACKAGE)
class MGD(DistillationLoss):
    """Masked generative distillation: the teacher's features from a part of the student's.

    `mean (G(M · r(F_s)) − F_t)²` over positions and channels. M masks each position with a
    probability of `masked`, anew in each step; r is the adapter of the `Match`; G, two 3×3
    convolutions with a ReLU between, is trained along with the student and never exported. The
    student's features must say enough about their neighbors to fill the gaps. Equal features don't
    make it zero.

    Source: Yang et al., "Masked Generative Distillation" (arXiv:2205.01529), equations 2 to 5.
    They sum where this takes the mean, so that their weight α, 2e-5 for one-stage detectors and
    segmentation, 5e-7 for two-stage detectors, becomes `α · height · width · channels`. They mask
    0.65 for one-stage and 0.45 for two-stage detectors, 0.75 in segmentation.
    Costs the time of G in each step, on as many channels as the teacher has. For detection (at
    each level of the feature pyramid) and segmentation.

    Args:
        masked: Probability with which a position is masked, from 0 to 1.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, height, width, channels)`.
        y_pred: Features of the student, same shape. Masked positions have no part.

    Raises:
        ValueError: If `masked` isn't from 0 to 1, or features aren't maps.

    Example:

    >>> loss = keras_distill.losses.MGD()
    >>> loss.build((None, 8, 8, 16), (None, 8, 8, 16))  # A `Distiller` does this.
    >>> len(loss.state.trainable_weights)
    4
    """

    uses_mask = True

    def __init__(
        self,
        masked: float = 0.65,
        name: str = "mgd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.masked = fraction("masked", masked)
        self.state = Generation(name=name)

    def call(self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
        kept = self.state.draw(ops.shape(y_pred)[:-1]) >= self.masked
        if mask is not None:
            kept = ops.logical_and(kept, mask)
        kept = ops.cast(kept, y_pred.dtype)[..., None]
        return mgd(y_true, y_pred, kept, lambda x: ops.cast(self.state(x), x.dtype), mask)

    def get_config(self) -> dict:
        return {**super().get_config(), "masked": self.masked}


class Generation(keras.layers.Layer):
    """The network of `MGD` that fills in what is masked.

    Args:
        name: Name of the layer.
    """

    def __init__(self, name: str):
        super().__init__(name=name, dtype="float32")
        self.seed_generator = keras.random.SeedGenerator()

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        if len(y_true_shape) != 4 or None in y_true_shape[-1:]:
            raise ValueError(
                "`MGD` compares maps of shape (batch, height, width, channels), with the channels "
                f"known. Received: teacher {y_true_shape}, student {y_pred_shape}"
            )
        channels = y_true_shape[-1]
        for name in ("first", "second"):
            layer = keras.layers.Conv2D(channels, 3, padding="same", dtype="float32", name=name)
            layer.build((None, None, None, channels))
            setattr(self, name, layer)

    def call(self, features: Tensor) -> Tensor:
        return self.second(ops.relu(self.first(features)))

    def draw(self, shape: tuple) -> Tensor:
        """Random numbers from 0 to 1."""
        return keras.random.uniform(shape, seed=self.seed_generator)
