"""Refined logits: where the teacher is wrong, the label decides what it passes on."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.losses.decoupled import DKD, odds, target_class
from keras_distill.losses.numerics import (
    bernoulli_kl_divergence,
    kl_divergence,
    scalar,
    very_negative,
)


def rld(
    p: Tensor,
    q: Tensor,
    target: Tensor,
    alpha: float | Tensor = 1.0,
    beta: float | Tensor = 8.0,
) -> Tensor:
    """Divergence of how sure both are, and of the classes that the teacher puts below the target.

    Args:
        p: Softened logits of the teacher, float, shape `(batch, ..., classes)`.
        q: Softened logits of the student, same shape.
        target: Which class is the target, bool, same shape; see `decoupled.target_class`.
        alpha: Weight of the term on certainty.
        beta: Weight of the term on the classes below the target.

    Returns:
        One value per sample and position, shape `(batch, ...)`; 0 where there is no target.
    """
    dtype = q.dtype
    top = target_class(ops.argmax(p, axis=-1), p)
    value = scalar(alpha, dtype) * bernoulli_kl_divergence(odds(p, top), odds(q, target))
    of_target = ops.sum(ops.where(target, p, ops.zeros_like(p)), axis=-1, keepdims=True)
    below = p < of_target
    # With no class below, both are uniform and differ by 0.
    lowest = very_negative(dtype)
    below_p, below_q = (ops.log_softmax(ops.where(below, x, lowest)) for x in (p, q))
    value += scalar(beta, dtype) * kl_divergence(below_p, below_q)
    return ops.where(ops.any(target, axis=-1), value, ops.zeros_like(value))


@keras.saving.register_keras_serializable(PACKAGE)
class RLD(DKD):
    """Refined logit distillation: the label corrects what a wrong teacher says.

    `T² · [α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s)]` at temperature T. `b_t = (max p_t, 1 − max p_t)`
    is how sure the teacher is, of whichever class; `b_s = (p_s[y], 1 − p_s[y])` how sure the
    student is of the true one: it learns the teacher's certainty, not its mistake. `p̂` is the
    softmax over the classes to which the teacher gives less than to the true class y; those that
    it ranks above y, wrongly, are left out with y itself. Where the teacher is right this is `DKD`.

    Source: Sun et al., "Knowledge Distillation with Refined Logits" (arXiv:2408.07703), equations
    of sample confidence and masked correlation. The authors' code has a temperature of its own for
    the first term; defaults are those of `DKD`, beside labels of weight 1 and warmed up likewise.
    Costs next to nothing. For classifiers whose teacher is often wrong on the labeled samples.

    Args:
        alpha: Weight of the term on certainty, at least 0.
        beta: Weight of the term on the classes below the true one, at least 0.
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

    >>> loss = keras_distill.losses.RLD(alpha=1.0, beta=8.0, temperature=4.0)
    >>> teacher, labels = [[6.0, 2.0, 0.0]], [1]  # Sure of the wrong class.
    >>> float(loss((teacher, labels), [[3.0, 0.0, 1.0]]))
    5.8783...
    """

    _divergence = staticmethod(rld)

    def __init__(
        self,
        alpha: Any = 1.0,
        beta: Any = 8.0,
        temperature: Any = 4.0,
        standardize: bool = False,
        name: str = "rld",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(alpha, beta, temperature, standardize, name, reduction, dtype)
