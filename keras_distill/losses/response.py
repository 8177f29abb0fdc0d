"""Losses on the logits of the two models."""

import contextvars
import warnings
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction, one_of, positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import bernoulli_kl_divergence, kl_divergence, safe_sqrt, scalar
from keras_distill.outputs import as_outputs, require_last_axis


def soft_targets(p: Tensor, q: Tensor, activation: str = "softmax") -> Tensor:
    """Kullback-Leibler divergence between the probabilities of two softened logits.

    Args:
        p: Softened logits of the teacher, float, shape `(batch, ..., classes)`; see `softened`.
        q: Softened logits of the student, same shape.
        activation: `"softmax"` (summed over the classes) or `"sigmoid"` (the mean over them).

    Returns:
        One value per sample and position, shape `(batch, ...)`.
    """
    if activation == "sigmoid":
        return ops.mean(bernoulli_kl_divergence(p, q), axis=-1)
    return kl_divergence(ops.log_softmax(p), ops.log_softmax(q))


def jensen_shannon(p: Tensor, q: Tensor, beta: float | Tensor = 0.5) -> Tensor:
    """Generalized Jensen-Shannon divergence between the probabilities of two softened logits.

    Args:
        p: Softened logits of the teacher, float, shape `(batch, ..., classes)`; see `softened`.
        q: Softened logits of the student, same shape.
        beta: Weight β of the teacher in the mixture, 0 to 1. At 0 it is the forward divergence
            `KL(P_t ‖ P_s)`, at 1 the reverse `KL(P_s ‖ P_t)`.

    Returns:
        One value per sample and position, shape `(batch, ...)`.
    """
    beta = scalar(beta, q.dtype)
    log_p, log_q = ops.log_softmax(p), ops.log_softmax(q)
    # β may be a variable that reaches its ends while training goes on.
    inside = ops.where(ops.logical_and(beta > 0, beta < 1), beta, 0.5)
    mixture = ops.stack([log_p + ops.log(inside), log_q + ops.log(1 - inside)], axis=-1)
    log_m = ops.logsumexp(mixture, axis=-1)
    divergence = inside * kl_divergence(log_p, log_m)
    divergence += (1 - inside) * kl_divergence(log_q, log_m)
    divergence = ops.where(beta <= 0, kl_divergence(log_p, log_q), divergence)
    return ops.where(beta >= 1, kl_divergence(log_q, log_p), divergence)


def logit_mse(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Mean squared difference over the last axis.

    Args:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape.

    Returns:
        One value per sample and position, shape `(batch, ...)`.
    """
    return ops.mean(ops.square(y_pred - y_true), axis=-1)


def standardized(logits: Tensor) -> Tensor:
    """Logits with mean 0 and standard deviation 1 over the classes.

    `Z(z) = (z − mean(z)) / (std(z) + 1e-7)`, with the population's standard deviation. Source: Sun
    et al., "Logit Standardization in Knowledge Distillation" (arXiv:2403.01427), algorithm 1.
    Where all logits of a sample are equal, they become 0 and keep the gradient of `z − mean(z)`:
    the formula's own would be ten million times as steep.

    The authors' code divides by the square root of the sum of squares over C − 1, not over the
    number of classes C: its temperature T is `T · sqrt(C / (C − 1))` here, and a loss with the
    factor T² is then `C / (C − 1)` times theirs.
    """
    # Subtracting a logit first makes equal logits exactly 0.
    centered = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    centered = centered - ops.mean(centered, axis=-1, keepdims=True)
    deviation = safe_sqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True))
    return centered / ops.where(deviation > 0, deviation + 1e-7, ops.ones_like(deviation))


def softened(logits: Tensor, temperature: float | Tensor, standardize: bool = False) -> Tensor:
    """`logits / temperature`, `standardized` before if `standardize` is true."""
    return (standardized(logits) if standardize else logits) / temperature


def check_logits(loss: str, y_pred: Tensor, at_least: int = 2) -> None:
    """Raises a `ValueError` if `y_pred` can't be logits of classes.

    Args:
        loss: Name of the loss, for messages.
        y_pred: Should have shape `(batch, ..., classes)`.
        at_least: How many classes there must be.
    """
    shape = tuple(y_pred.shape)
    if len(shape) < 2:
        raise ValueError(
            f"`{loss}` takes logits of shape `(batch, ..., classes)`. "
            f"Received: y_pred.shape={shape}"
        )
    if shape[-1] is not None and shape[-1] < at_least:
        raise ValueError(
            f"`{loss}` compares softmax distributions, and over {shape[-1]} class "
            "they are always equal. For a single logit use "
            f"`SoftTargets(activation='sigmoid')`. Received: y_pred.shape={shape}"
        )


#: What the models of the present call end in. Replicas call one loss at the same time, in threads.
_ENDS_IN: contextvars.ContextVar[str] = contextvars.ContextVar("ends_in", default="softmax")


class ClassLoss(DistillationLoss):
    """Base of the losses between the probabilities that two models give to classes.

    What the models end in is read from their outputs, so that decisions of their own (sigmoid)
    aren't compared as if they excluded each other (softmax) without a word.
    """

    takes_logits = True
    #: What turns the logits into probabilities: `"softmax"`, over the last axis, `"sigmoid"`, or
    #: `None` for what the models end in.
    activation: str | None = "softmax"

    @property
    def ends_in(self) -> str:
        """Inside `call`, what both models end in: `"softmax"` or `"sigmoid"`."""
        return _ENDS_IN.get()

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        teacher, *given = y_true if self.needs_labels else (y_true,)
        teacher, student = as_outputs(teacher), as_outputs(y_pred)
        found = _ENDS_IN.set(self._read(*(_ends_in(x) for x in (teacher, student))))
        y_true = (teacher, *given) if self.needs_labels else teacher
        try:
            return super().__call__(y_true, student, sample_weight)
        finally:
            _ENDS_IN.reset(found)

    def _read(self, teacher: str | None, student: str | None) -> str:
        """What both models end in; warns where that isn't what the loss compares."""
        found = {teacher, student} - {None}
        loss = type(self).__name__
        if len(found) == 2 and self.activation is None:
            warnings.warn(
                f"The teacher ends in {teacher}, the student in {student}: `{loss}` compares them "
                'by softmax. Say which is meant: `activation="softmax"` or "sigmoid". Of a '
                "teacher that returns probabilities, tell what made them: "
                '`Teacher(..., activation="sigmoid")`.',
                stacklevel=4,
            )
        elif found == {"sigmoid"} and self.activation == "softmax":
            warnings.warn(
                f"`{loss}` compares the probabilities of a softmax over the classes, but the "
                f"models end in a sigmoid: each output is a decision of its own. Compare those by "
                '`SoftTargets(activation="sigmoid")`.',
                stacklevel=4,
            )
        return "sigmoid" if found == {"sigmoid"} else "softmax"


def _ends_in(outputs: Any) -> str | None:
    """The activation that a model is known to end in, or `None`."""
    for output in keras.tree.flatten(outputs):
        require_last_axis(output.activation)
        # That of a teacher's plain logits is an assumption.
        if output.activation == "sigmoid" or output.logits is not None:
            return output.activation
    return None


@keras.saving.register_keras_serializable(PACKAGE)
class SoftTargets(ClassLoss):
    """Kullback-Leibler divergence between softened outputs of teacher and student.

    With `activation="softmax"`: `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, summed over the
    classes, one value per sample (or per token, or per pixel). The factor T² keeps the gradient's
    size independent of T. Zero where both agree; unchanged by a constant added to all
    logits of a sample.

    With `activation="sigmoid"` (a single logit, or several labels at once):
    `T² · [BCE(σ(z_t / T), σ(z_s / T)) − H(σ(z_t / T))]`, the mean over the labels, as
    `keras.losses.BinaryCrossentropy` takes it, so that the two are on one scale.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
    (arXiv:1503.02531), section 2. `standardize`: Sun et al. (arXiv:2403.01427).
    Usual settings: `temperature=4` beside labels of weight 0.1 (CIFAR), `temperature=1` beside 0.5
    (ImageNet); with `standardize=True`, `temperature=2` and a weight of 9 beside labels of weight
    0.1. Costs next to nothing beside the models. The first loss to try, for any classifier.

    Args:
        temperature: Softening T > 0: a number, or a `keras.optimizers.schedules` schedule.
        standardize: Whether to bring each sample's logits to mean 0 and standard deviation 1
            first, which frees a small student from matching the size of the teacher's logits.
            With softmax only.
        activation: What turns the logits into probabilities, `"softmax"` (one class of several)
            or `"sigmoid"` (each output by itself). Defaults to `None`: sigmoid if a model ends in
            it, else softmax.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape. Where a model ends in softmax (or sigmoid), the
            logits behind its probabilities are recovered.

    Raises:
        ValueError: If `temperature` isn't above 0, `activation` is neither of the two, or
            `standardize` is asked for with sigmoid.

    Example:

    >>> loss = keras_distill.losses.SoftTargets(temperature=2.0)
    >>> float(loss([[2.0, 0.0]], [[0.0, 0.0]]))
    0.4437...
    """

    temperature = Hyperparameter(positive)

    def __init__(
        self,
        temperature: Any = 4.0,
        standardize: bool = False,
        activation: str | None = None,
        name: str = "soft_targets",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if activation is not None:
            one_of("activation", activation, ("softmax", "sigmoid"))
        if standardize and activation == "sigmoid":
            raise ValueError(
                "`standardize=True` compares logits across the classes of a softmax; it has no "
                "meaning with activation='sigmoid'."
            )
        self.temperature = temperature
        self.standardize = standardize
        self.activation = "softmax" if standardize else activation

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        activation = self.activation or self.ends_in
        check_logits("SoftTargets", y_pred, at_least=2 if activation == "softmax" else 1)
        temperature = scalar(self.temperature, y_pred.dtype)
        p = softened(y_true, temperature, self.standardize)
        q = softened(y_pred, temperature, self.standardize)
        return ops.square(temperature) * soft_targets(p, q, activation)

    def get_config(self) -> dict:
        config = super().get_config()
        return {**config, "standardize": self.standardize, "activation": self.activation}


@keras.saving.register_keras_serializable(PACKAGE)
class LogitMSE(DistillationLoss):
    """Mean squared difference of the logits.

    `mean_j (z_s[j] − z_t[j])²` over the classes, one value per sample (token, pixel). Soft targets
    at a high temperature tend to half of it, taken on centered logits.

    Source: Ba and Caruana, "Do Deep Nets Really Need to be Deep?" (arXiv:1312.6184), equation 1,
    which halves the sum over the classes: `classes / 2` times this mean.
    Costs next to nothing. For a student with room to copy the teacher outright; with several
    teachers or stored float16 answers, soft targets are the safer choice.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Logits of the teacher, float, shape `(batch, ..., classes)`.
        y_pred: Logits of the student, same shape. Where a model ends in softmax (or sigmoid), the
            logits behind its probabilities are recovered.

    Example:

    >>> loss = keras_distill.losses.LogitMSE()
    >>> float(loss([[2.0, 0.0]], [[1.0, 1.0]]))
    1.0
    """

    takes_logits = True

    def __init__(
        self,
        name: str = "logit_mse",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        check_logits("LogitMSE", y_pred, at_least=1)
        return logit_mse(y_true, y_pred)


@keras.saving.register_keras_serializable(PACKAGE)
class JensenShannon(ClassLoss):
    """Generalized Jensen-Shannon divergence, from forward to reverse Kullback-Leibler.

    `β · KL(P_t ‖ M) + (1 − β) · KL(P_s ‖ M)` with `M = β P_t + (1 − β) P_s`, for 0 < β < 1. The
    divergence, divided by β, tends to the forward `KL(P_t ‖ P_s)` as β goes to 0, and, divided by
    1 − β, to the reverse `KL(P_s ‖ P_t)` as β goes to 1; with β exactly 0 or 1 the loss is the
    forward or the reverse divergence itself. Zero where both agree. `P = softmax(z / T)`, and the
    value is multiplied by T² as in `SoftTargets`, which `beta=0` equals.

    Source: Agarwal et al., "On-Policy Distillation of Language Models" (arXiv:2306.13649),
    equation 1 and the remark below it; they use β of 0.1, 0.5 and 0.9, and T = 1.
    Costs next to nothing (about three times `SoftTargets`, which matters with large vocabularies).
    For a student that can't cover all that the teacher holds possible: a high β makes it choose
    (reverse), a low one makes it cover (forward).

    Args:
        beta: Weight of the teacher in the mixture, 0 to 1.
        temperature: Softening T > 0.
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

    >>> loss = keras_distill.losses.JensenShannon(beta=0.5)
    >>> float(loss([[2.0, 0.0]], [[0.0, 0.0]]))
    0.0895...
    """

    beta = Hyperparameter(fraction)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        beta: Any = 0.5,
        temperature: Any = 1.0,
        standardize: bool = False,
        name: str = "jensen_shannon",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        check_logits("JensenShannon", y_pred)
        temperature = scalar(self.temperature, y_pred.dtype)
        p = softened(y_true, temperature, self.standardize)
        q = softened(y_pred, temperature, self.standardize)
        return ops.square(temperature) * jensen_shannon(p, q, self.beta)

    def get_config(self) -> dict:
        return {**super().get_config(), "standardize": self.standardize}
