"""Losses on the values that layers compute."""

import math
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import number
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.positions import sample_means


def hint(y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of features, of the positions where `mask` is true.

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape.
        mask: Bool, shape `(batch, ...)`, or `None` for all positions.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    return sample_means(ops.square(y_pred - y_true), mask)


def variational_information(
    y_true: Tensor, y_pred: Tensor, variance: Tensor, mask: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of the teacher's features given the student's, up to a constant.

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape.
        variance: Variance σ² > 0 of each channel, shape `(channels,)`.
        mask: Bool, shape `(batch, ...)`, or `None` for all positions.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    variance = ops.cast(variance, y_pred.dtype)
    values = ops.square(y_true - y_pred) / variance + ops.log(variance)
    return sample_means(values / 2, mask)


@keras.saving.register_keras_serializable(PACKAGE)
class Hint(DistillationLoss):
    """Mean squared difference of features (FitNets).

    `mean (r(F_s) − F_t)²` over the positions and channels of a sample, where r is the adapter of
    the `Match`. Zero where the adapted features agree.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv:1412.6550), equation 3, which
    halves the sum of squares; the mean, of the same gradient up to a constant, doesn't grow with
    the map. A weight of 100 goes with it on CIFAR-100 (Tian et al., arXiv:1910.10699).
    Costs memory and time linear in the features, and the adapter. For a student built like its
    teacher but thinner or shallower; middle layers work better than the last ones.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape. Masked positions have no part.

    Example:

    >>> loss = keras_distill.losses.Hint()
    >>> float(loss([[1.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [0.0, 0.0]]))
    1.0
    """

    uses_mask = True

    def __init__(
        self,
        name: str = "hint",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
        return hint(y_true, y_pred, mask)


@keras.saving.register_keras_serializable(PACKAGE)
class VariationalInformation(DistillationLoss):
    """Negative log-likelihood of the teacher's features given the student's (VID).

    `mean ½ [(t − μ(s))² / σ_c² + log σ_c²]` over positions and channels, up to a constant: a lower
    bound on the mutual information of both. μ is the adapter of the `Match`; the variance
    `σ_c² = softplus(α_c) + 1e-5` of each channel is learned along with the student, so that
    channels that the student can't predict stop holding it back. The value may be negative, and
    equal features don't make it zero.

    Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer"
    (arXiv:1904.05835), equations 4 to 6, which sum where this takes the mean; the first variance
    of 5, the mean and a weight of 1 follow Tian et al. (arXiv:1910.10699).
    Costs memory and time linear in the features, and the adapter; the paper's μ is a chain of
    three 1×1 convolutions. For teachers whose features the student can match only in part.

    Args:
        initial_variance: Variance σ² to start from, above 1e-5.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape. Masked positions have no part.

    Raises:
        ValueError: If `initial_variance` is too small.

    Example:

    >>> loss = keras_distill.losses.VariationalInformation(initial_variance=1.0)
    >>> loss.build((None, 2), (None, 2))  # A `Distiller` does this.
    >>> round(float(loss([[1.0, 0.0]], [[1.0, 2.0]])), 4)
    1.0
    """

    uses_mask = True

    def __init__(
        self,
        initial_variance: float = 5.0,
        name: str = "variational_information",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.initial_variance = number("initial_variance", initial_variance)
        if self.initial_variance <= ChannelVariance.FLOOR:
            raise ValueError(
                f"`initial_variance` must be above {ChannelVariance.FLOOR}. "
                f"Received: initial_variance={initial_variance!r}"
            )
        self.state = ChannelVariance(self.initial_variance, name=name)

    def call(self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
        return variational_information(y_true, y_pred, self.state.variance(), mask)

    def get_config(self) -> dict:
        return {**super().get_config(), "initial_variance": self.initial_variance}


class ChannelVariance(keras.layers.Layer):
    """The variance of each channel that `VariationalInformation` learns.

    Args:
        initial_variance: Variance to start from.
        name: Name of the layer.
    """

    FLOOR = 1e-5

    def __init__(self, initial_variance: float, name: str):
        super().__init__(name=name, dtype="float32")
        self.initial_variance = initial_variance

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        above_floor = self.initial_variance - self.FLOOR
        start = above_floor + math.log(-math.expm1(-above_floor))  # The inverse of softplus.
        self.raw = self.add_weight(
            shape=(y_true_shape[-1],), initializer=keras.initializers.Constant(start), name="raw"
        )

    def variance(self) -> Tensor:
        """The variances, float32, shape `(channels,)`."""
        return ops.softplus(self.raw) + self.FLOOR
