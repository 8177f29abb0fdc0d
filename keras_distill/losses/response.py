"""Losses on what the models answer: logits, probabilities, values."""

import keras
from keras import ops

from keras_distill.losses.base import PACKAGE, DistillationLoss, Hyperparameter, positive


@keras.saving.register_keras_serializable(PACKAGE)
class SoftTargets(DistillationLoss):
    """Kullback-Leibler divergence between softened teacher and student answers.

    `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, summed over classes, one value per sample (or
    per token, or per pixel). The factor T² keeps the gradient's size independent of T.
    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
    (arXiv:1503.02531), section 2. Usual settings: `temperature=4` with a labels' weight of 0.1
    (CIFAR), `temperature=1` with 0.5 (ImageNet).

    Args:
        temperature: Softening T > 0: a number, or a `keras.optimizers.schedules` schedule.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape. Where a model ends in softmax, the logits
            behind its probabilities are recovered.

    Raises:
        ValueError: If `temperature` isn't above 0.

    Example:

    >>> loss = keras_distill.losses.SoftTargets(temperature=2.0)
    >>> float(loss([[2.0, 0.0]], [[0.0, 0.0]]))
    0.44369...
    """

    takes_logits = True
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        temperature=4.0,
        name="soft_targets",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = temperature

    def call(self, y_true, y_pred):
        temperature = ops.cast(self.temperature, y_pred.dtype)
        log_p = ops.log_softmax(y_true / temperature)
        log_q = ops.log_softmax(y_pred / temperature)
        return ops.square(temperature) * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)
