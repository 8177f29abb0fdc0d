"""Losses on the values of a regression."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import not_negative
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import scalar


def teacher_bounded(
    y_true: Tensor, y_pred: Tensor, labels: Tensor, margin: float | Tensor = 0.0
) -> Tensor:
    """Squared error to the labels, 0 where it is below the teacher's by more than a margin.

    Args:
        y_true: Values of the teacher, float, shape `(batch, ..., values)`.
        y_pred: Values of the student, same shape.
        labels: The true values, same shape.
        margin: By how much the student must be better before it stops counting, at least 0.

    Returns:
        One value per sample and position, shape `(batch, ...)`.
    """
    student = ops.sum(ops.square(y_pred - labels), axis=-1)
    teacher = ops.sum(ops.square(y_true - labels), axis=-1)
    counts = student + scalar(margin, y_pred.dtype) > teacher
    return ops.where(counts, student, ops.zeros_like(student))


@keras.saving.register_keras_serializable(PACKAGE)
class TeacherBoundedRegression(DistillationLoss):
    """Squared error to the labels, where the student isn't better than the teacher by a margin.

    `‖s − y‖²` where `‖s − y‖² + m > ‖t − y‖²`, else 0: the teacher's error is a bound up to which
    the student is pushed, since a teacher's wrong values, unlike its class probabilities, hold
    nothing to learn from. With `margin=0` a student counts where its error exceeds the teacher's.

    Source: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation"
    (NeurIPS 2017), equation 6; their weight is 0.5. Costs next to nothing.
    For regression with labels: boxes, key points, plain values.

    Args:
        margin: By how much the student's squared error must fall below the teacher's before it
            stops counting, at least 0.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(teacher, labels)`: the teacher's values, float, shape `(batch, ..., values)`, and
            the true ones, of the same shape, or without the last axis where it is 1.
        y_pred: Values of the student, shape `(batch, ..., values)`.

    Raises:
        ValueError: If `margin` is below 0.

    Example:

    >>> loss = keras_distill.losses.TeacherBoundedRegression()
    >>> teacher, labels = [[1.5], [1.5]], [[1.0], [1.0]]
    >>> float(loss((teacher, labels), [[1.2], [2.0]]))  # Only the second is worse: (0 + 1) / 2.
    0.5
    """

    needs_labels = True
    margin = Hyperparameter(not_negative)

    def __init__(
        self,
        margin: Any = 0.0,
        name: str = "teacher_bounded_regression",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = margin

    def call(self, y_true: tuple[Tensor, Tensor], y_pred: Tensor) -> Tensor:
        y_true, labels = y_true
        labels = ops.cast(labels, y_pred.dtype)
        if len(labels.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            labels = ops.expand_dims(labels, axis=-1)
        self._check_shapes(labels, y_pred)
        return teacher_bounded(y_true, y_pred, labels, self.margin)
