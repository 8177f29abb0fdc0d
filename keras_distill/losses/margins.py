"""Margins between the scores of a query's candidates."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.losses.base import DistillationLoss


def margin_mse(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean squared difference of the margins by which the first candidate leads the others.

    Args:
        y_true: Scores of the teacher, float, shape `(batch, ..., candidates)`.
        y_pred: Scores of the student, same shape.

    Returns:
        One value per query, shape `(batch, ...)`.
    """
    apart = y_pred - y_true
    return ops.mean(ops.square(apart[..., :1] - apart[..., 1:]), axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class MarginMSE(DistillationLoss):
    """Squared difference of the margins between a relevant candidate and others.

    `mean_j ((s_0 − s_j) − (t_0 − t_j))²` over the candidates `j` of a query, of which the first one
    is the relevant one. A student whose scores lie elsewhere than the teacher's, such as the dot
    products of two encoders beside the logits of a cross-encoder, has to give the same margins, not
    the same scores. Zero where it does; unchanged by a constant added to all scores of a query.

    Source: Hofstätter et al., "Improving Efficient Neural Ranking Models with Cross-Architecture
    Knowledge Distillation" (arXiv:2010.02666), equation 5; with one other passage for each query,
    and without labels beside it. Costs next to nothing. For search and recommendation.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Scores of the teacher, float, shape `(batch, ..., candidates)`, at least two.
        y_pred: Scores of the student, same shape.

    Raises:
        ValueError: If there is a single candidate.

    Example:

    >>> loss = keras_distill.losses.MarginMSE()
    >>> float(loss([[9.0, 5.0, 6.0]], [[2.0, 0.0, 0.0]]))
    2.5
    """

    def __init__(
        self,
        name: str = "margin_mse",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        if y_pred.shape[-1] == 1:
            raise ValueError(
                "`MarginMSE` compares a query's first candidate with its others: it takes scores "
                f"of at least two. Received: y_pred.shape={tuple(y_pred.shape)}"
            )
        return margin_mse(y_true, y_pred)
