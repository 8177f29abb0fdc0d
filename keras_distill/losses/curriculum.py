"""A temperature that is learned against the student, from easy to hard."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import not_negative, positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.numerics import scalar
from keras_distill.losses.response import ClassLoss, check_logits, soft_targets


class AdversarialTemperature(keras.layers.Layer):
    """`start + span · sigmoid(θ)`, θ trained to raise the loss that the temperature is part of."""

    def __init__(self, start: float, span: float, **arguments: Any):
        super().__init__(**arguments)
        self.start, self.span = start, span

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        self.raw = self.add_weight(shape=(), initializer="ones", name="raw")

    def temperature(self, reversal: float | Tensor) -> Tensor:
        """The temperature, whose gradient to θ is multiplied by `-reversal`."""
        raw = ops.convert_to_tensor(self.raw)
        reversal = scalar(reversal, raw.dtype)
        reversed_raw = ops.stop_gradient((1 + reversal) * raw) - reversal * raw
        return self.start + self.span * ops.sigmoid(reversed_raw)


@keras.saving.register_keras_serializable(PACKAGE)
class CTKD(ClassLoss):
    """Soft targets at a learned temperature, which makes them harder while the student learns.

    `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))` with `T = start + span · sigmoid(θ)`. θ is
    trained along with the student but *raises* the loss: its gradient is multiplied by −λ,
    `reversal`. While λ grows from 0 to 1, in the paper's first 10 epochs, the task gets harder.

    Source: Li et al., "Curriculum Temperature for Knowledge Distillation" (arXiv:2211.16231), the
    global temperature; θ starts at 1, and the defaults are those of the authors' code. Beside
    labels of weight 0.1 this loss has 0.9. Costs next to nothing. For runs too
    long for a search of the temperature.

    Args:
        reversal: λ, at least 0: a number, or a `keras.optimizers.schedules` schedule, such as
            `PolynomialDecay(0.0, ten_epochs, end_learning_rate=1.0)`.
        start: The lower end of the range of temperatures, more than 0.
        span: The width of the range of temperatures, more than 0.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape.

    Raises:
        ValueError: If `reversal` is below 0, or `start` or `span` isn't above 0.

    Example:

    >>> loss = keras_distill.losses.CTKD()
    >>> loss.build((1, 2), (1, 2))  # As a `Distiller` does.
    >>> float(loss([[2.0, 0.0]], [[0.0, 0.0]]))
    0.4989...
    """

    reversal = Hyperparameter(not_negative)

    def __init__(
        self,
        reversal: Any = 1.0,
        start: float = 1.0,
        span: float = 20.0,
        name: str = "ctkd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.reversal = reversal
        self.start = positive("start", start)
        self.span = positive("span", span)
        self.state = AdversarialTemperature(self.start, self.span, name=name)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        check_logits("CTKD", y_pred)
        temperature = ops.cast(self.state.temperature(self.reversal), y_pred.dtype)
        value = soft_targets(y_true / temperature, y_pred / temperature)
        return ops.square(temperature) * value

    def get_config(self) -> dict:
        return {**super().get_config(), "start": self.start, "span": self.span}
