"""Correlation of predictions, within samples and across the batch."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import not_negative, positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.numerics import safe_sqrt, scalar
from keras_distill.losses.response import ClassLoss, check_logits, softened


def dist(
    p: Tensor,
    q: Tensor,
    beta: float | Tensor = 1.0,
    gamma: float | Tensor = 1.0,
    present: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """One minus the correlation of probabilities, between classes and between samples.

    Args:
        p: Probabilities of the teacher, float, shape `(batch, ..., classes)`.
        q: Probabilities of the student, same shape.
        beta: Weight of the relation between classes.
        gamma: Weight of the relation between samples.
        present: Rows that take part in the relation between samples, bool, shape `(batch,)`, or
            `None` for all.
        mask: Positions that do, bool, shape `(batch, ...)`, or `None` for all.

    Returns:
        One value per sample and position, shape `(batch, ...)`.
    """
    dtype = q.dtype
    shape = ops.shape(p)[:-1]
    if present is None:
        present = ops.ones(shape[:1], dtype="bool")
    counted = ops.reshape(present, (-1, *(1,) * (len(shape) - 1)))
    if mask is not None:
        counted = ops.logical_and(counted, mask)
    counted = ops.cast(ops.reshape(ops.broadcast_to(counted, shape), (-1, 1)), dtype)
    rows = (-1, ops.shape(p)[-1])
    across_samples = ops.mean(
        1 - correlation(ops.reshape(p, rows), ops.reshape(q, rows), counted, axis=0)
    )
    across_samples = ops.where(ops.sum(counted) > 1, across_samples, 0)
    across_classes = 1 - correlation(p, q, ops.ones_like(p), axis=-1)
    return scalar(beta, dtype) * across_classes + scalar(gamma, dtype) * across_samples


def correlation(x: Tensor, y: Tensor, counted: Tensor, axis: int) -> Tensor:
    """Pearson's correlation over `axis`, of the values where `counted` is 1; 0 for constants."""
    x, y = _centered(x, counted, axis), _centered(y, counted, axis)
    norms = safe_sqrt(ops.sum(ops.square(x), axis=axis)) * safe_sqrt(
        ops.sum(ops.square(y), axis=axis)
    )
    # Divided by 1e-8 alone, the gradient at a constant would be a hundred million times too steep.
    return ops.sum(x * y, axis=axis) / ops.where(norms > 0, norms + 1e-8, ops.ones_like(norms))


def _centered(x, counted, axis):
    # Subtracting a value first makes constants exactly 0.
    x = counted * (x - ops.stop_gradient(ops.max(counted * x, axis=axis, keepdims=True)))
    count = ops.maximum(ops.sum(counted, axis=axis, keepdims=True), 1)
    return counted * (x - ops.sum(x, axis=axis, keepdims=True) / count)


@keras.saving.register_keras_serializable(PACKAGE)
class DIST(ClassLoss):
    """Correlation of predictions, within each sample and, for each class, across the batch.

    With `Y = softmax(z / τ)` and ρ Pearson's correlation,
    `τ² · [β · (1 − ρ(Y_s[i, :], Y_t[i, :])) + γ · mean_j(1 − ρ(Y_s[:, j], Y_t[:, j]))]` for sample
    i. Zero where the student's probabilities are a positive affine image of the teacher's (up to
    the 1e-8 below): a small student need not reach the teacher's certainty, only its preferences.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher" (arXiv:2205.10536),
    equations 8 to 10; ρ has 1e-8 added to its denominator, and the defaults are those of the
    authors' code. For CIFAR-100 they use `temperature=4` and β = γ = 2, beside labels of weight 1.
    Costs next to nothing. For teachers much stronger than the student.

    The second term relates the samples of a batch (tokens or pixels count as samples): batches of
    fewer than two leave it out, rows of weight 0 and masked positions have no part in it, and
    under `tf.distribute` each replica relates its own part of the batch.

    Args:
        beta: Weight of the relation between classes, at least 0.
        gamma: Weight of the relation between samples, at least 0.
        temperature: Softening τ > 0.
        standardize: Whether to standardize the logits first (see `SoftTargets`).
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape.

    Raises:
        ValueError: If a hyperparameter is out of its range.

    Example:

    >>> loss = keras_distill.losses.DIST(temperature=4.0)
    >>> float(loss([[4.0, 1.0, 0.0], [0.0, 2.0, 1.0]], [[2.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    1.7266...
    """

    between_samples = True
    uses_mask = True
    beta = Hyperparameter(not_negative)
    gamma = Hyperparameter(not_negative)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        beta: Any = 1.0,
        gamma: Any = 1.0,
        temperature: Any = 1.0,
        standardize: bool = False,
        name: str = "dist",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.standardize = standardize

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        check_logits("DIST", y_pred)
        temperature = scalar(self.temperature, y_pred.dtype)
        p = ops.softmax(softened(y_true, temperature, self.standardize))
        q = ops.softmax(softened(y_pred, temperature, self.standardize))
        return ops.square(temperature) * dist(p, q, self.beta, self.gamma, present, mask)

    def get_config(self) -> dict:
        return {**super().get_config(), "standardize": self.standardize}
