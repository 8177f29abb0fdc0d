"""Losses on what the models answer: logits, probabilities, values."""

import keras
from keras import ops

from keras_distill.losses.base import (
    PACKAGE,
    DistillationLoss,
    Hyperparameter,
    fraction,
    not_negative,
    positive,
)
from keras_distill.losses.numerics import (
    bernoulli_kl_divergence,
    kl_divergence,
    safe_sqrt,
    very_negative,
)


def standardized(logits):
    """Logits with mean 0 and standard deviation 1 over the classes.

    `Z(z) = (z − mean(z)) / (std(z) + 1e-7)`, with the population's standard deviation. Source: Sun
    et al., "Logit Standardization in Knowledge Distillation" (arXiv:2403.01427), algorithm 1.
    Where all logits of a sample are equal, they become 0 and keep the gradient of `z − mean(z)`:
    the formula's own would be ten million times as steep.
    """
    # Subtracting a logit first makes equal logits exactly 0.
    centered = logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))
    centered = centered - ops.mean(centered, axis=-1, keepdims=True)
    deviation = safe_sqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True))
    return centered / ops.where(deviation > 0, deviation + 1e-7, ops.ones_like(deviation))


def _softened(loss, logits, temperature):
    return (standardized(logits) if loss.standardize else logits) / temperature


def _check_logits(loss, y_pred, at_least=2):
    shape = tuple(y_pred.shape)
    if len(shape) < 2:
        raise ValueError(
            f"`{type(loss).__name__}` takes logits of shape `(batch, ..., classes)`. "
            f"Received: y_pred.shape={shape}"
        )
    if shape[-1] is not None and shape[-1] < at_least:
        raise ValueError(
            f"`{type(loss).__name__}` compares softmax distributions, and over {shape[-1]} class "
            "they are always equal. For a single logit use "
            f"`SoftTargets(activation='sigmoid')`. Received: y_pred.shape={shape}"
        )


def _target_class(labels, logits):
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
class SoftTargets(DistillationLoss):
    """Kullback-Leibler divergence between softened teacher and student answers.

    With `activation="softmax"`: `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, summed over the
    classes, one value per sample (or per token, or per pixel). The factor T² keeps the gradient's
    size independent of T. Zero where both answers agree; unmoved by a constant added to all
    logits of a sample.

    With `activation="sigmoid"` (a single logit, or several labels at once):
    `T² · [BCE(σ(z_t / T), σ(z_s / T)) − H(σ(z_t / T))]`, the mean over the labels, as
    `keras.losses.BinaryCrossentropy` takes it, so that the two are weighed on one scale.

    Source: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network"
    (arXiv:1503.02531), section 2. `standardize`: Sun et al. (arXiv:2403.01427).
    Usual settings: `temperature=4` with the labels weighed 0.1 (CIFAR), `temperature=1` with 0.5
    (ImageNet); with `standardize=True`, `temperature=2` and a weight of 9 beside labels weighed
    0.1. Costs next to nothing beside the models. The first loss to try, for any classifier.

    Args:
        temperature: Softening T > 0: a number, or a `keras.optimizers.schedules` schedule.
        standardize: Whether to bring each sample's logits to mean 0 and standard deviation 1
            first, which frees a small student from matching the size of the teacher's logits.
            With softmax only.
        activation: What turns the logits into probabilities, `"softmax"` (one class of several)
            or `"sigmoid"` (each output for itself).
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

    takes_logits = True
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        temperature=4.0,
        standardize=False,
        activation="softmax",
        name="soft_targets",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(
                f"`activation` must be 'softmax' or 'sigmoid'. Received: activation={activation!r}"
            )
        if standardize and activation == "sigmoid":
            raise ValueError(
                "`standardize=True` compares logits across the classes of a softmax; it has no "
                "meaning with activation='sigmoid'."
            )
        self.temperature = temperature
        self.standardize = standardize
        self.activation = activation

    def call(self, y_true, y_pred):
        _check_logits(self, y_pred, at_least=2 if self.activation == "softmax" else 1)
        temperature = ops.cast(self.temperature, y_pred.dtype)
        p = _softened(self, y_true, temperature)
        q = _softened(self, y_pred, temperature)
        if self.activation == "sigmoid":
            divergence = ops.mean(bernoulli_kl_divergence(p, q), axis=-1)
        else:
            divergence = kl_divergence(ops.log_softmax(p), ops.log_softmax(q))
        return ops.square(temperature) * divergence

    def get_config(self):
        config = super().get_config()
        return {**config, "standardize": self.standardize, "activation": self.activation}


@keras.saving.register_keras_serializable(PACKAGE)
class DKD(DistillationLoss):
    """Decoupled knowledge distillation: the target class and the others, weighed apart.

    `T² · [α · KL(b_t ‖ b_s) + β · KL(p̂_t ‖ p̂_s)]`, where `b = (p_y, 1 − p_y)` says how probable
    the true class is, and `p̂` is the softmax over the other classes, all at temperature T.
    `SoftTargets` is the same sum with `α = 1` and `β = 1 − p_y` of the teacher, which all but
    switches the second term off where a teacher is sure.

    Source: Zhao et al., "Decoupled Knowledge Distillation" (arXiv:2203.08679), equations 5 to 7.
    Defaults are theirs for CIFAR-100 (β of 2 or 6 for some pairs), with labels weighed 1 and this
    loss warmed up linearly over 20 epochs; for ImageNet `beta=0.5, temperature=1`.
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
    takes_logits = True
    alpha = Hyperparameter(not_negative)
    beta = Hyperparameter(not_negative)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        alpha=1.0,
        beta=8.0,
        temperature=4.0,
        standardize=False,
        name="dkd",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def call(self, y_true, y_pred):
        y_true, labels = y_true
        _check_logits(self, y_pred)
        dtype = y_pred.dtype
        temperature = ops.cast(self.temperature, dtype)
        target = _target_class(labels, y_pred)
        p = _softened(self, y_true, temperature)
        q = _softened(self, y_pred, temperature)
        p_others = ops.where(target, very_negative(dtype), p)
        q_others = ops.where(target, very_negative(dtype), q)
        # The logit of "the target class" against "any other".
        zero = ops.zeros_like(p)
        p_target = ops.sum(ops.where(target, p, zero), axis=-1) - ops.logsumexp(p_others, axis=-1)
        q_target = ops.sum(ops.where(target, q, zero), axis=-1) - ops.logsumexp(q_others, axis=-1)
        value = ops.cast(self.alpha, dtype) * bernoulli_kl_divergence(p_target, q_target)
        value += ops.cast(self.beta, dtype) * kl_divergence(
            ops.log_softmax(p_others), ops.log_softmax(q_others)
        )
        value = ops.where(ops.any(target, axis=-1), value, ops.zeros_like(value))
        return ops.square(temperature) * value

    def get_config(self):
        return {**super().get_config(), "standardize": self.standardize}


@keras.saving.register_keras_serializable(PACKAGE)
class DIST(DistillationLoss):
    """Correlation of predictions, within each sample and, for each class, across the batch.

    With `Y = softmax(z / τ)` and ρ Pearson's correlation,
    `τ² · [β · (1 − ρ(Y_s[i, :], Y_t[i, :])) + γ · mean_j(1 − ρ(Y_s[:, j], Y_t[:, j]))]` for sample
    i. Zero where the student's probabilities are a positive affine image of the teacher's (up to
    the 1e-8 below): a small student need not reach the teacher's certainty, only its preferences.

    Source: Huang et al., "Knowledge Distillation from A Stronger Teacher" (arXiv:2205.10536),
    equations 8 to 10; ρ has 1e-8 added to its denominator, and the defaults are those of the
    authors' code. For CIFAR-100 they use `temperature=4` and β = γ = 2, with labels weighed 1.
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

    takes_logits = True
    between_samples = True
    uses_mask = True
    beta = Hyperparameter(not_negative)
    gamma = Hyperparameter(not_negative)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        beta=1.0,
        gamma=1.0,
        temperature=1.0,
        standardize=False,
        name="dist",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature
        self.standardize = standardize

    def call(self, y_true, y_pred, present, mask=None):
        _check_logits(self, y_pred)
        dtype = y_pred.dtype
        temperature = ops.cast(self.temperature, dtype)
        p = ops.softmax(_softened(self, y_true, temperature))
        q = ops.softmax(_softened(self, y_pred, temperature))

        shape = ops.shape(p)[:-1]
        counted = ops.reshape(present, (-1, *(1,) * (len(shape) - 1)))
        if mask is not None:
            counted = ops.logical_and(counted, mask)
        counted = ops.cast(ops.reshape(ops.broadcast_to(counted, shape), (-1, 1)), dtype)
        rows = (-1, ops.shape(p)[-1])
        across_samples = ops.mean(
            1 - _correlation(ops.reshape(p, rows), ops.reshape(q, rows), counted, axis=0)
        )
        across_samples = ops.where(ops.sum(counted) > 1, across_samples, 0)

        across_classes = 1 - _correlation(p, q, ops.ones_like(p), axis=-1)
        return ops.square(temperature) * (
            ops.cast(self.beta, dtype) * across_classes
            + ops.cast(self.gamma, dtype) * across_samples
        )

    def get_config(self):
        return {**super().get_config(), "standardize": self.standardize}


def _correlation(x, y, counted, axis):
    """Pearson's correlation over `axis`, of the values where `counted` is 1; of constants, 0."""
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
class LogitMSE(DistillationLoss):
    """Mean squared difference of the logits.

    `mean_j (z_s[j] − z_t[j])²` over the classes, one value per sample (token, pixel). Soft targets
    at a high temperature tend to half of it, taken on centred logits.

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

    def __init__(self, name="logit_mse", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred):
        _check_logits(self, y_pred, at_least=1)
        return ops.mean(ops.square(y_pred - y_true), axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class JensenShannon(DistillationLoss):
    """Generalized Jensen-Shannon divergence, from forward to reverse Kullback-Leibler.

    `β · KL(P_t ‖ M) + (1 − β) · KL(P_s ‖ M)` with `M = β P_t + (1 − β) P_s`, for 0 < β < 1. The
    divergence, divided by β, tends to the forward `KL(P_t ‖ P_s)` as β goes to 0, and, divided by
    1 − β, to the reverse `KL(P_s ‖ P_t)` as β goes to 1; with β exactly 0 or 1 the loss is the
    forward or the reverse divergence itself. Zero where both agree. `P = softmax(z / T)`, and the
    value is multiplied by T² as in `SoftTargets`, which `beta=0` equals.

    Source: Agarwal et al., "On-Policy Distillation of Language Models" (arXiv:2306.13649),
    equation 1 and the remark below it; they use β of 0.1, 0.5 and 0.9, and T = 1.
    Costs next to nothing (about three times `SoftTargets`, which tells with large vocabularies).
    For a student that can't cover all that the teacher thinks possible: a high β makes it choose
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

    takes_logits = True
    beta = Hyperparameter(fraction)
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        beta=0.5,
        temperature=1.0,
        standardize=False,
        name="jensen_shannon",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def call(self, y_true, y_pred):
        _check_logits(self, y_pred)
        temperature = ops.cast(self.temperature, y_pred.dtype)
        beta = ops.cast(self.beta, y_pred.dtype)
        log_p = ops.log_softmax(_softened(self, y_true, temperature))
        log_q = ops.log_softmax(_softened(self, y_pred, temperature))
        # β may be a variable that reaches its ends while training goes on.
        inside = ops.where(ops.logical_and(beta > 0, beta < 1), beta, 0.5)
        mixture = ops.stack([log_p + ops.log(inside), log_q + ops.log(1 - inside)], axis=-1)
        log_m = ops.logsumexp(mixture, axis=-1)
        divergence = inside * kl_divergence(log_p, log_m)
        divergence += (1 - inside) * kl_divergence(log_q, log_m)
        divergence = ops.where(beta <= 0, kl_divergence(log_p, log_q), divergence)
        divergence = ops.where(beta >= 1, kl_divergence(log_q, log_p), divergence)
        return ops.square(temperature) * divergence

    def get_config(self):
        return {**super().get_config(), "standardize": self.standardize}


@keras.saving.register_keras_serializable(PACKAGE)
class TeacherBoundedRegression(DistillationLoss):
    """Squared error to the labels, where the student isn't better than the teacher by a margin.

    `‖s − y‖²` where `‖s − y‖² + m > ‖t − y‖²`, else 0: the teacher's error is a bound up to which
    the student is pushed, since a teacher's wrong values, unlike its class probabilities, hold
    nothing to learn from. With `margin=0` a student counts where its error exceeds the teacher's.

    Source: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation"
    (NeurIPS 2017), equation 6; they weigh it 0.5. Costs next to nothing.
    For regression with labels: boxes, key points, plain values.

    Args:
        margin: By how much the student's squared error must fall below the teacher's before it
            stops counting, at least 0.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(teacher, labels)`: the teacher's values, float, shape `(batch, ..., values)`, and
            the true ones, of the same shape, or without the last axis where it is 1.
        y_pred: Values of the student, shape `(batch, ..., values)`.

    Raises:
        ValueError: If `margin` is below 0.

    Example:

    >>> loss = keras_distill.losses.TeacherBoundedRegression()
    >>> teacher, labels = [[1.5], [1.5]], [[1.0], [1.0]]
    >>> float(loss((teacher, labels), [[1.2], [2.0]]))  # Only the second is worse: (0 + 1) / 2.
    0.5
    """

    needs_labels = True
    margin = Hyperparameter(not_negative)

    def __init__(
        self,
        margin=0.0,
        name="teacher_bounded_regression",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.margin = margin

    def call(self, y_true, y_pred):
        y_true, labels = y_true
        labels = ops.cast(labels, y_pred.dtype)
        if len(labels.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
            labels = ops.expand_dims(labels, axis=-1)
        self._check_shapes(labels, y_pred)
        student = ops.sum(ops.square(y_pred - labels), axis=-1)
        teacher = ops.sum(ops.square(y_true - labels), axis=-1)
        counts = student + ops.cast(self.margin, y_pred.dtype) > teacher
        return ops.where(counts, student, ops.zeros_like(student))
