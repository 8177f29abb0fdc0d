"""Logits compared by sample, by batch and by class, at several temperatures."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import positive
from keras_distill.losses.numerics import kl_divergence
from keras_distill.losses.response import ClassLoss, check_logits, softened


def mlkd(p: Tensor, q: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
    """Divergence of each sample, and squared differences of how samples and classes resemble.

    Args:
        p: Softened logits of the teacher, float, shape `(..., samples, classes)`.
        q: Softened logits of the student, same shape.
        counted: 1 for samples that influence the others, 0 for the rest, shape `(samples, 1)`.

    Returns:
        `(of_samples, of_relations)`: the divergences, and the other two terms, each of shape
        `(..., samples)`.
    """
    log_p, log_q = ops.log_softmax(p), ops.log_softmax(q)
    p, q = counted * ops.exp(log_p), counted * ops.exp(log_q)
    # With d = p − q, rows of P Pᵀ − Q Qᵀ are d_i Pᵀ + q_i Dᵀ, and Pᵀ P − Qᵀ Q is
    # Pᵀ D + Dᵀ P − Dᵀ D: no matrix of samples times samples, and no difference of near equals.
    d = p - q
    pp, pd, dd = (ops.matmul(_transposed(a), b) for a, b in ((p, p), (p, d), (d, d)))
    relations = ops.sum(ops.matmul(d, pp) * d, axis=-1)
    relations += ops.sum((2 * ops.matmul(d, pd) + ops.matmul(q, dd)) * q, axis=-1)
    of_classes = ops.square(pd + _transposed(pd) - dd)
    relations += ops.mean(ops.sum(of_classes, axis=-1), axis=-1, keepdims=True)
    return kl_divergence(log_p, log_q), relations


def _transposed(x):
    return ops.swapaxes(x, -1, -2)


@keras.saving.register_keras_serializable(PACKAGE)
class MLKD(ClassLoss):
    """Multi-level logit distillation: samples, batch and classes, at several temperatures.

    With `P = softmax(z / T)` of the whole batch, one row a sample, and B samples of C classes,
    `Σ_T [T² · KL(P_t[i] ‖ P_s[i]) + Σ_j (P_t P_tᵀ − P_s P_sᵀ)[i, j]² + ‖P_tᵀ P_t − P_sᵀ P_s‖² / C]`
    for sample i. The second term compares how alike samples are, the third how alike classes are;
    both grow with the batch.

    Source: Jin, Wang and Lin, "Multi-Level Logit Distillation" (CVPR 2023), sections 3.2 to 3.4.
    The factor T² is that of the authors' code. They add this loss on weakly and on strongly
    augmented images: put both in the batch. On the weak ones their code counts only the half of
    samples and classes of which the teacher is least sure, which isn't done here. Standardized
    logits (arXiv:2403.01427) improve on their results. Costs matrices of classes times classes, so
    for classifiers of up to a few thousand classes.

    Rows of weight 0 and masked positions have no part in the last two terms (tokens and pixels
    count as samples), and under `tf.distribute` each replica relates its own part of the batch.

    Args:
        temperatures: The softenings T > 0 that are added up.
        standardize: Whether to standardize the logits first (see `SoftTargets`).
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape.

    Raises:
        TypeError: If `temperatures` isn't a list of numbers.
        ValueError: If there is no temperature, or one isn't above 0.

    Example:

    >>> loss = keras_distill.losses.MLKD(temperatures=[1.0, 4.0])
    >>> float(loss([[4.0, 1.0, 0.0], [0.0, 2.0, 1.0]], [[2.0, 1.0, 0.0], [0.0, 1.0, 1.0]]))
    0.6689...
    """

    between_samples = True
    uses_mask = True

    def __init__(
        self,
        temperatures: Sequence[float] = (2.0, 3.0, 4.0, 5.0, 6.0),
        standardize: bool = False,
        name: str = "mlkd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if isinstance(temperatures, str) or not isinstance(temperatures, Iterable):
            raise TypeError(
                "`temperatures` must be a list of numbers, such as `[2.0, 4.0]`. "
                f"Received: temperatures={temperatures!r}"
            )
        self.temperatures = [positive("temperatures", T) for T in temperatures]
        if not self.temperatures:
            raise ValueError("`temperatures` must name at least one. Received: temperatures=[]")
        self.standardize = standardize

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        check_logits("MLKD", y_pred)
        shape = ops.shape(y_pred)[:-1]
        counted = ops.reshape(present, (-1, *(1,) * (len(shape) - 1)))
        if mask is not None:
            counted = ops.logical_and(counted, mask)
        counted = ops.cast(ops.reshape(ops.broadcast_to(counted, shape), (-1, 1)), y_pred.dtype)
        teacher, student = (ops.reshape(z, (-1, ops.shape(z)[-1])) for z in (y_true, y_pred))
        temperatures = ops.reshape(
            ops.convert_to_tensor(self.temperatures, y_pred.dtype), (-1, 1, 1)
        )
        both = (softened(z, temperatures, self.standardize) for z in (teacher, student))
        of_samples, of_relations = mlkd(*both, counted)
        value = ops.sum(ops.square(temperatures[..., 0]) * of_samples + of_relations, axis=0)
        return ops.reshape(value, shape)

    def get_config(self) -> dict:
        config = {"temperatures": self.temperatures, "standardize": self.standardize}
        return {**super().get_config(), **config}
