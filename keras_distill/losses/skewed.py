"""Divergences from a mixture that holds some of the distribution itself."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import number, positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.numerics import kl_divergence, scalar
from keras_distill.losses.response import ClassLoss, check_logits, softened


def skewed_kl(p: Tensor, q: Tensor, alpha: float | Tensor = 0.1) -> Tensor:
    """`KL(P ‖ α P + (1 − α) Q)` between the probabilities of two softened logits.

    Args:
        p: Softened logits of the first distribution, float, shape `(batch, ..., classes)`.
        q: Softened logits of the second one, same shape.
        alpha: Share α of the first in the mixture, at least 0 and below 1.

    Returns:
        One value per sample and position, shape `(batch, ...)`.
    """
    alpha = scalar(alpha, q.dtype)
    log_p, log_q = ops.log_softmax(p), ops.log_softmax(q)
    # α may be a variable that reaches 0 while training goes on.
    inside = ops.where(alpha > 0, alpha, 0.5)
    log_m = ops.logaddexp(log_p + ops.log(inside), log_q + ops.log(1 - inside))
    return kl_divergence(log_p, ops.where(alpha > 0, log_m, log_q))


def _skew(name: str, value: Any) -> float:
    value = number(name, value)
    if not 0 <= value < 1:
        raise ValueError(f"`{name}` must be at least 0 and below 1. Received: {name}={value!r}")
    return value


@keras.saving.register_keras_serializable(PACKAGE)
class SkewedKL(ClassLoss):
    """Skewed Kullback-Leibler divergence, forward or reverse.

    Forward: `KL(P_t ‖ α P_t + (1 − α) P_s)`; reverse: `KL(P_s ‖ (1 − α) P_t + α P_s)`. With α = 0
    they are `SoftTargets` and the reverse divergence; a small α bounds both, and with them the
    gradient, where one model holds something nearly impossible. Zero where both agree.
    `P = softmax(z / T)`, and the value is multiplied by T² as in `SoftTargets`.

    Source: Ko et al., "DistiLLM: Towards Streamlined Distillation for Large Language Models"
    (arXiv:2402.03898), equation 4 and section 3.1; they use α = 0.1 and T = 1.
    Costs next to nothing (about twice `SoftTargets`, which matters with large vocabularies). For
    language models, also on sequences that the student wrote.

    Args:
        alpha: Share α of the first distribution in the mixture, at least 0 and below 1.
        reverse: Whether to take the reverse divergence.
        temperature: Softening T > 0.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape.

    Raises:
        ValueError: If a hyperparameter is out of its range.

    Example:

    >>> loss = keras_distill.losses.SkewedKL(alpha=0.1)
    >>> float(loss([[2.0, 0.0]], [[0.0, 0.0]]))
    0.2726...
    """

    alpha = Hyperparameter(_skew)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        alpha: Any = 0.1,
        reverse: bool = False,
        temperature: Any = 1.0,
        name: str = "skewed_kl",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha = alpha
        self.reverse = reverse
        self.temperature = temperature

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        check_logits("SkewedKL", y_pred)
        temperature = scalar(self.temperature, y_pred.dtype)
        p, q = softened(y_true, temperature), softened(y_pred, temperature)
        first, second = (q, p) if self.reverse else (p, q)
        return ops.square(temperature) * skewed_kl(first, second, self.alpha)

    def get_config(self) -> dict:
        return {**super().get_config(), "reverse": self.reverse}
