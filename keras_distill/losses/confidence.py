"""Which samples count, by how sure the teacher is of them."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.chunked import check_pointwise
from keras_distill.losses.numerics import scalar
from keras_distill.losses.response import ClassLoss, SoftTargets, check_logits


def is_sure(y_true: Tensor, threshold: float | Tensor) -> Tensor:
    """Whether the teacher gives its likeliest class a probability of `threshold` or more.

    Args:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        threshold: From 0 to 1.

    Returns:
        Bool, shape `(batch, ...)`. True for NaN, which thus shows in the loss.
    """
    likeliest = ops.max(ops.softmax(y_true, axis=-1), axis=-1)
    return ops.logical_not(likeliest < scalar(threshold, y_true.dtype))


@keras.saving.register_keras_serializable(PACKAGE)
class Confident(ClassLoss):
    """Another loss on logits, of those samples alone of which the teacher is sure.

    `1[max σ(z_t) ≥ threshold] · loss`: a sample of which it isn't has the value 0, and stays among
    those that the mean is over. With a threshold that stays, the teacher's answers on samples
    without labels are pseudo-labels that are taken where they are likely to be right. With one that
    falls to 0 while training goes on, it is a curriculum, from what the teacher finds easy to what
    it finds hard.

    Source: Sohn et al., "FixMatch" (arXiv:2001.07685), equation 4, for the threshold, there 0.95
    with the likeliest class as target; Bengio et al., "Curriculum Learning" (ICML 2009), for the
    order. Costs next to nothing. For samples unlike those that the teacher learned from; where it
    is right about most, its less certain answers tell the student more.

    Args:
        loss: The loss, one that takes logits and compares each position by itself. Its
            hyperparameters stay as they are. Defaults to `SoftTargets(temperature=1.0)`.
        threshold: From 0, with which all count, to 1: a number, or a
            `keras.optimizers.schedules` schedule, such as
            `PolynomialDecay(0.9, half_of_the_steps, end_learning_rate=0.0)`.
        name: Name of the loss, under which `fit` reports it. Defaults to the name of `loss`.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`, or `(logits, labels)`
            where `loss` needs labels.
        y_pred: Logits of the student, same shape.

    Raises:
        TypeError: If `loss` isn't a distillation loss.
        ValueError: If `loss` compares more than the logits of one position, `threshold` is out of
            its range, or a model ends in a sigmoid.

    Example:

    >>> loss = keras_distill.losses.Confident(threshold=0.8)
    >>> teacher = np.log([[0.9, 0.1], [0.7, 0.3]])
    >>> round(float(loss(teacher, np.zeros((2, 2)))), 4)  # Half of the first's divergence.
    0.184
    """

    activation = None
    threshold = Hyperparameter(fraction)

    def __init__(
        self,
        loss: DistillationLoss | None = None,
        threshold: Any = 0.95,
        name: str | None = None,
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        self.loss = SoftTargets(temperature=1.0) if loss is None else loss
        check_pointwise(self.loss, "Confident")
        super().__init__(name=name or self.loss.name, reduction=reduction, dtype=dtype)
        self.threshold = threshold
        self.needs_labels = self.loss.needs_labels

    @property
    def temperature(self) -> Any:
        """That of `loss`, at which stored answers are completed."""
        return getattr(self.loss, "temperature", None)

    def call(self, y_true: Any, y_pred: Tensor) -> Tensor:
        check_logits("Confident", y_pred)
        if "sigmoid" in (self.ends_in, getattr(self.loss, "activation", None)):
            raise ValueError(
                "`Confident` asks how sure the teacher is of one class among several, but here "
                "each output is a decision of its own (sigmoid)."
            )
        sure = is_sure(y_true[0] if self.needs_labels else y_true, self.threshold)
        values = self.loss.call(y_true, y_pred)
        return ops.where(sure, values, ops.zeros_like(values))

    def get_config(self) -> dict:
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}
