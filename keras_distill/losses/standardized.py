"""Features compared by the correlation of their channels, for heads of different kinds."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import safe_sqrt, very_negative
from keras_distill.losses.positions import check_positions, sample_means

#: Added to the standard deviation, as in the authors' code of PKD and CrossKD.
EPSILON = 1e-6


def channel_moments(
    features: Tensor, counted: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and spread of each channel, over the batch and all positions.

    Args:
        features: Float, shape `(batch, ..., channels)`.
        counted: Positions that count, bool, shape `(batch, ...)`, or `None` for all.

    Returns:
        `(centered, mean, deviation)`: the features less their mean, 0 where they don't count; the
        mean and the standard deviation, of shape `(1, ..., 1, channels)`. The deviation of a
        constant is exactly 0.
    """
    if counted is None:
        counted = ops.ones(ops.shape(features)[:-1], dtype="bool")
    counted = ops.broadcast_to(counted[..., None], ops.shape(features))
    axes = tuple(range(len(features.shape) - 1))
    count = ops.sum(ops.cast(counted, features.dtype), axis=axes, keepdims=True)
    count = ops.maximum(count, 1)
    # Subtracting a value first makes constants exactly 0.
    low = ops.where(counted, features, very_negative(features.dtype))
    start = ops.stop_gradient(ops.max(low, axis=axes, keepdims=True))
    start = ops.where(start > very_negative(features.dtype), start, ops.zeros_like(start))
    apart = ops.where(counted, features - start, ops.zeros_like(features))
    shift = ops.sum(apart, axis=axes, keepdims=True) / count
    centered = ops.where(counted, apart - shift, ops.zeros_like(apart))
    variance = ops.sum(ops.square(centered) / count, axis=axes, keepdims=True)
    return centered, start + shift, safe_sqrt(variance)


def standardized_channels(features: Tensor, counted: Tensor | None = None) -> Tensor:
    """Each channel with a mean of 0 and a deviation of 1 over the batch; constants become 0.

    Args:
        features: Float, shape `(batch, ..., channels)`.
        counted: Positions that count, bool, shape `(batch, ...)`, or `None` for all.
    """
    centered, _, deviation = channel_moments(features, counted)
    return centered / ops.where(deviation > 0, deviation + EPSILON, ops.ones_like(deviation))


def pkd(
    y_true: Tensor, y_pred: Tensor, counted: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Half the mean squared difference of features whose channels are standardized.

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape.
        counted: Positions that influence means and deviations, bool, shape `(batch, ...)`, or
            `None` for all.
        mask: Positions of which the mean is taken, bool, shape `(batch, ...)`, or `None` for all.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    difference = standardized_channels(y_pred, counted) - standardized_channels(y_true, counted)
    return sample_means(ops.square(difference) / 2, mask)


@keras.saving.register_keras_serializable(PACKAGE)
class PKD(DistillationLoss):
    """One minus Pearson's correlation of each channel (PKD).

    `mean ½ (ŝ − t̂)²`, where each channel of ŝ and t̂ has a mean of 0 and a standard deviation of 1
    over the batch and all positions. The mean over the batch is `mean_c (1 − ρ(s_c, t_c))`. Zero
    where each channel of the student is a positive affine image of the teacher's.

    Source: Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson
    Correlation Coefficient" (arXiv:2207.02039), equations 4 to 6. They compare each level of the
    feature pyramid, beside labels of weight 1, with a weight of 6; 1e-6 is added to deviations.
    Their code takes deviations over n − 1 positions instead of n.
    Costs memory and time linear in the features. For detectors whose heads or backbones are of
    different kinds: the scale of features, and channels much larger than others, have no say.

    Rows of weight 0 and masked positions have no part in means and deviations, and under
    `tf.distribute` each replica standardizes its own part of the batch.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`, with one or more
            axes of positions.
        y_pred: Features of the student, same shape.

    Raises:
        ValueError: If there is no axis of positions.

    Example:

    >>> loss = keras_distill.losses.PKD()
    >>> teacher = np.arange(4.0).reshape(1, 2, 2, 1)
    >>> abs(float(loss(teacher, 5 * teacher + 3))) < 1e-6
    True
    >>> round(float(loss(teacher, -teacher)), 4)
    2.0
    """

    between_samples = True
    uses_mask = True

    def __init__(
        self,
        name: str = "pkd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        check_positions("PKD", y_pred)
        return pkd(y_true, y_pred, counted_of(y_pred, present, mask), mask)


def counted_of(features: Tensor, present: Tensor, mask: Tensor | None) -> Tensor:
    """Positions of present rows that a mask leaves, bool, shape `(batch, ...)`.

    Args:
        features: Shape `(batch, ..., channels)`.
        present: Rows that count, bool, shape `(batch,)`.
        mask: Bool, shape `(batch, ...)`, or `None` for all.
    """
    shape = ops.shape(features)[:-1]
    counted = ops.reshape(present, (-1, *(1,) * (len(shape) - 1)))
    if mask is not None:
        counted = ops.logical_and(counted, mask)
    return ops.broadcast_to(counted, shape)
