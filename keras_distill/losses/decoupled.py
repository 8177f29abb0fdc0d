"""Decoupled knowledge distillation: the target class and the others, each with its weight."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import not_negative, positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.numerics import (
    bernoulli_kl_divergence,
    kl_divergence,
    scalar,
    very_negative,
)
from keras_distill.losses.response import ClassLoss, check_logits, softened


def dkd(
    p: Tensor,
    q: Tensor,
    target: Tensor,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 8.0,
) -> Tensor:
    """Divergence of the target class against the others, and of the others among themselves.

    Args:
        p: Softened logits of the teacher, float, shape `(batch, ..., classes)`.
        q: Softened logits of the student, same shape.
        target: Which class is the target, bool, same shape; see `target_class`.
        alpha: Weight of the target class' term.
        beta: Weight of the other classes' term.

    Returns:
        One value per sample and position, shape `(batch, ...)`; 0 where there is no target.
    """
    dtype = q.dtype
    value = scalar(alpha, dtype) * bernoulli_kl_divergence(odds(p, target), odds(q, target))
    others_p, others_q = (ops.log_softmax(_without(target, x)) for x in (p, q))
    value += scalar(beta, dtype) * kl_divergence(others_p, others_q)
    return ops.where(ops.any(target, axis=-1), value, ops.zeros_like(value))


def odds(logits: Tensor, chosen: Tensor) -> Tensor:
    """The logit of the chosen class (bool, of the logits' shape) against any other."""
    own = ops.sum(ops.where(chosen, logits, ops.zeros_like(logits)), axis=-1)
    return own - ops.logsumexp(_without(chosen, logits), axis=-1)


def _without(chosen, logits):
    return ops.where(chosen, very_negative(logits.dtype), logits)


def target_class(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels, as class numbers or one-hot, as a bool tensor of the logits' shape.

    Rows whose label names no class (-1, say) hold no `True`.
    """
    rank, classes = len(logits.shape), ops.shape(logits)[-1]
    if len(labels.shape) == rank and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, axis=-1)
    if len(labels.shape) == rank:
        named = ops.any(labels > 0, axis=-1)
        labels = ops.where(named, ops.argmax(labels, axis=-1), -1)
    elif len(labels.shape) != rank - 1:
        raise ValueError(
            "Labels must be class numbers of shape `(batch, ...)` or one-hot of the logits' shape. "
            f"Received: labels of shape {tuple(labels.shape)} for logits of shape "
            f"{tuple(logits.shape)}"
        )
    labels = ops.expand_dims(ops.cast(labels, "int32"), axis=-1)
    return ops.equal(labels, ops.arange(classes, dtype="int32"))


@keras.saving.register_keras_serializable(PACKAGE)
class DKD(ClassLoss):
    """Decoupled knowledge distillation: the target class and the others, each weighted.

    `T² · [α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s)]`, where `b = (p_y, 1 − p_y)` is how probable the
    true class is, and `p̂` is the softmax over the other classes, all at temperature T.
    `SoftTargets` is the same sum with `α = 1` and `β = 1 − p_y` of the teacher, which all but
    switches the second term off where a teacher is sure.

    Source: Zhao et al., "Decoupled Knowledge Distillation" (arXiv:2203.08679), equations 5 to 7.
    Defaults are theirs for CIFAR-100 (β of 2 or 6 for some pairs), beside labels of weight 1
    and with this loss warmed up linearly over 20 epochs; for ImageNet `beta=0.5, temperature=1`.
    Costs next to nothing. For classifiers whose teacher is right and sure most of the time.

    Args:
        alpha: Weight of the target class' term, at least 0.
        beta: Weight of the other classes' term, at least 0.
        temperature: Softening T > 0.
        standardize: Whether to standardize the logits first (see `SoftTargets`).
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(teacher, labels)`: the teacher's logits, float, shape `(batch, ..., classes)`,
            and the labels, as class numbers of shape `(batch, ...)` or one-hot. Of mixed labels
            the largest counts. Where a label names no class (-1, say), the value is 0.
        y_pred: Logits of the student, shape `(batch, ..., classes)`.

    Raises:
        ValueError: If a hyperparameter is out of its range.

    Example:

    >>> loss = keras_distill.losses.DKD(alpha=1.0, beta=8.0, temperature=4.0)
    >>> teacher, labels = [[6.0, 2.0, 0.0]], [0]
    >>> float(loss((teacher, labels), [[3.0, 0.0, 1.0]]))
    9.4968...
    """

    needs_labels = True
    _divergence = staticmethod(dkd)
    alpha = Hyperparameter(not_negative)
    beta = Hyperparameter(not_negative)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        alpha: Any = 1.0,
        beta: Any = 8.0,
        temperature: Any = 4.0,
        standardize: bool = False,
        name: str = "dkd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def call(self, y_true: tuple[Tensor, Tensor], y_pred: Tensor) -> Tensor:
        y_true, labels = y_true
        check_logits(type(self).__name__, y_pred)
        temperature = scalar(self.temperature, y_pred.dtype)
        p = softened(y_true, temperature, self.standardize)
        q = softened(y_pred, temperature, self.standardize)
        value = self._divergence(p, q, target_class(labels, y_pred), self.alpha, self.beta)
        return ops.square(temperature) * value

    def get_config(self) -> dict:
        return {**super().get_config(), "standardize": self.standardize}
