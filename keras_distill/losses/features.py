"""Losses on what layers compute: feature maps, attention maps, sequences."""

import math

import keras
import numpy as np
from keras import ops

from keras_distill.losses.base import (
    PACKAGE,
    DistillationLoss,
    Hyperparameter,
    number,
    positive,
)
from keras_distill.losses.numerics import kl_divergence, unit, unit_peak, very_negative


@keras.saving.register_keras_serializable(PACKAGE)
class Hint(DistillationLoss):
    """Mean squared difference of features (FitNets).

    `mean (r(F_s) − F_t)²` over the positions and channels of a sample, where r is the adapter of
    the `Match`. Zero where the adapted features agree.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets" (arXiv:1412.6550), equation 3, which
    halves the sum of squares; the mean, of the same gradient up to a constant, doesn't grow with
    the map. A weight of 100 goes with it on CIFAR-100 (Tian et al., arXiv:1910.10699).
    Costs memory and time linear in the features, and the adapter. For a student built like its
    teacher but thinner or shallower; middle layers work better than the last ones.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape. Masked positions have no part.

    Example:

    >>> loss = keras_distill.losses.Hint()
    >>> float(loss([[1.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [0.0, 0.0]]))
    1.0
    """

    uses_mask = True

    def __init__(self, name="hint", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true, y_pred, mask=None):
        return _sample_means(ops.square(y_pred - y_true), mask)


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionTransfer(DistillationLoss):
    """Difference of where two layers look: which positions of a map are active.

    With `Q = vec(Σ_c |A_c|^p)`, the channels' activity at each position,
    `mean (Q_s / ‖Q_s‖₂ − Q_t / ‖Q_t‖₂)²` over the positions. Zero at equality; ignores the scale of
    the features and the order and number of channels, so it needs no adapter.
    Where the maps' sizes differ, the features of the larger are averaged down to the smaller.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention" (arXiv:1612.03928),
    equation 2, in the form of the authors' code: the mean of squares, to be weighed 1000, where
    the paper prints β/2 times a norm. p = 2 is theirs.
    Costs memory and time linear in the features. For convolutional students of another width than
    the teacher, at the ends of two to four stages: `keras_distill.losses.attention_transfer`.

    Args:
        power: Exponent p, at least 1. High ones stress the most active positions.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`, with one or more
            axes of positions (steps; height and width).
        y_pred: Features of the student, likewise. Masked positions have no part.

    Raises:
        ValueError: If `power` is below 1, or the maps can't be brought to one size.

    Example:

    >>> loss = keras_distill.losses.AttentionTransfer()
    >>> teacher = [[[1.0, 0.0], [0.0, 0.0]]]  # Two positions, two channels: looks at the first.
    >>> float(loss(teacher, [[[0.0], [5.0]]]))  # One channel: looks at the second.
    1.0
    """

    same_shape = False
    uses_mask = True

    def __init__(
        self, power=2.0, name="attention_transfer", reduction="sum_over_batch_size", dtype=None
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.power = number("power", power)
        if self.power < 1:
            raise ValueError(f"`power` must be at least 1. Received: power={power!r}")

    def call(self, y_true, y_pred, mask=None):
        teacher, student = _to_common_size(self, y_true, y_pred, mask)
        teacher, student = self._attention(teacher, mask), self._attention(student, mask)
        if mask is not None:
            mask = _flat(mask)
        return _sample_means(ops.square(student - teacher), mask)

    def _attention(self, features, mask):
        if mask is not None:
            features = ops.where(mask[..., None], features, ops.zeros_like(features))
        # The scale has no part in the result, so it may be taken out before powers overflow.
        features = unit_peak(features, axis=tuple(range(1, len(features.shape))))
        if self.power == 2:
            activity = ops.square(features)
        else:
            activity = ops.power(ops.abs(features), self.power)
        return unit(_flat(ops.sum(activity, axis=-1)), axis=-1)

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@keras.saving.register_keras_serializable(PACKAGE)
class ChannelWise(DistillationLoss):
    """Kullback-Leibler divergence between where each channel is active.

    `T² · mean_c KL(φ(F_t[:, c]) ‖ φ(F_s[:, c]))`, φ the softmax over the positions of a channel at
    temperature T. Zero at equality; ignores a constant added to a channel.

    Source: Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction"
    (arXiv:2011.13256), equations 4 and 5. T = 4 is theirs, with a weight of 50 on features and 3
    on the logits of a segmentation model.
    Costs memory and time linear in the features. For segmentation and detection.

    Args:
        temperature: Softening T > 0.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features (or logits) of the teacher, float, shape `(batch, ..., channels)`, with
            one or more axes of positions.
        y_pred: Features of the student, same shape. Masked positions have no part.

    Raises:
        ValueError: If `temperature` isn't above 0, or there is no axis of positions.

    Example:

    >>> loss = keras_distill.losses.ChannelWise(temperature=1.0)
    >>> teacher, student = np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2, 3))
    >>> student[:, 0, 0, 0] = 3.0  # One channel is active at one position.
    >>> float(loss(teacher, student))
    0.3343...
    """

    uses_mask = True
    temperature = Hyperparameter(positive)

    def __init__(
        self, temperature=4.0, name="channel_wise", reduction="sum_over_batch_size", dtype=None
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = temperature

    def call(self, y_true, y_pred, mask=None):
        _check_positions(self, y_pred)
        temperature = ops.cast(self.temperature, y_pred.dtype)
        log_p = _log_softmax_over_positions(y_true / temperature, mask)
        log_q = _log_softmax_over_positions(y_pred / temperature, mask)
        return ops.square(temperature) * ops.mean(kl_divergence(log_p, log_q), axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class VariationalInformation(DistillationLoss):
    """Negative log-likelihood of the teacher's features given the student's (VID).

    `mean ½ [(t − μ(s))² / σ_c² + log σ_c²]` over positions and channels, up to a constant: a lower
    bound on the mutual information of both. μ is the adapter of the `Match`; the variance
    `σ_c² = softplus(α_c) + 1e-5` of each channel is learnt along, so that channels that the
    student can't predict stop weighing it down. The value may be negative, and equal features
    don't make it zero.

    Source: Ahn et al., "Variational Information Distillation for Knowledge Transfer"
    (arXiv:1904.05835), equations 4 to 6, which sum where this takes the mean; the first variance
    of 5, the mean and a weight of 1 follow Tian et al. (arXiv:1910.10699).
    Costs memory and time linear in the features, and the adapter; the paper's μ is a chain of
    three 1×1 convolutions. For teachers whose features the student can match only in part.

    Args:
        initial_variance: Variance σ² to start from, above 1e-5.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape. Masked positions have no part.

    Raises:
        ValueError: If `initial_variance` is too small.

    Example:

    >>> loss = keras_distill.losses.VariationalInformation(initial_variance=1.0)
    >>> loss.build((None, 2), (None, 2))  # A `Distiller` does this.
    >>> round(float(loss([[1.0, 0.0]], [[1.0, 2.0]])), 4)
    1.0
    """

    uses_mask = True

    def __init__(
        self,
        initial_variance=5.0,
        name="variational_information",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.initial_variance = number("initial_variance", initial_variance)
        if self.initial_variance <= ChannelVariance.FLOOR:
            raise ValueError(
                f"`initial_variance` must be above {ChannelVariance.FLOOR}. "
                f"Received: initial_variance={initial_variance!r}"
            )
        self.state = ChannelVariance(self.initial_variance, name=name)

    def call(self, y_true, y_pred, mask=None):
        variance = ops.cast(self.state.variance(), y_pred.dtype)
        values = ops.square(y_true - y_pred) / variance + ops.log(variance)
        return _sample_means(values / 2, mask)

    def get_config(self):
        return {**super().get_config(), "initial_variance": self.initial_variance}


class ChannelVariance(keras.layers.Layer):
    """The variance of each channel that `VariationalInformation` learns."""

    FLOOR = 1e-5

    def __init__(self, initial_variance, name):
        super().__init__(name=name, dtype="float32")
        self.initial_variance = initial_variance

    def build(self, y_true_shape, y_pred_shape):
        above_floor = self.initial_variance - self.FLOOR
        start = above_floor + math.log(-math.expm1(-above_floor))  # The inverse of softplus.
        self.raw = self.add_weight(
            shape=(y_true_shape[-1],), initializer=keras.initializers.Constant(start), name="raw"
        )

    def variance(self):
        return ops.softplus(self.raw) + self.FLOOR


class _StepRelation(DistillationLoss):
    """KL divergence between how the steps of a sequence relate to one another.

    Subclasses say which two tensors of shape `(batch, steps, heads, size)` are multiplied.
    """

    same_shape = False
    uses_mask = True

    def __init__(self, heads, use_causal_mask, name, reduction, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        if heads is not None and (not isinstance(heads, int) or heads < 1):
            raise ValueError(
                f"`heads` must be a whole number above 0, or None. Received: heads={heads!r}"
            )
        self.heads = heads
        self.use_causal_mask = use_causal_mask

    def call(self, y_true, y_pred, mask=None):
        log_p = self._log_relation(*self._factors(y_true), mask)
        log_q = self._log_relation(*self._factors(y_pred), mask)
        shapes = tuple(log_p.shape[1:]), tuple(log_q.shape[1:])
        if any(None not in (t, s) and t != s for t, s in zip(*shapes, strict=True)):
            raise ValueError(
                f"`{type(self).__name__}` compares maps of shape (heads, steps, steps). Received: "
                f"teacher {shapes[0]}, student {shapes[1]}. Where the heads differ, give the "
                "number to split both into: `heads=`, a divisor of heads times their size on both "
                "sides."
            )
        divergence = ops.mean(kl_divergence(log_p, log_q), axis=1)
        return _sample_means(divergence, mask)

    def _log_relation(self, a, b, mask):
        a, b = self._split(a), self._split(b)
        scores = ops.einsum("bqhd,bkhd->bhqk", a, b) / math.sqrt(a.shape[-1])
        steps = ops.shape(scores)[2:]
        blocked = None
        if mask is not None and a.shape[1] == b.shape[1]:
            blocked = ops.logical_not(mask)[:, None, None, :]
        if self.use_causal_mask:
            later = ops.arange(steps[1])[None, :] > ops.arange(steps[0])[:, None]
            blocked = later if blocked is None else ops.logical_or(blocked, later)
        if blocked is not None:
            scores = ops.where(blocked, very_negative(scores.dtype), scores)
        return ops.log_softmax(scores, axis=-1)

    def _split(self, x):
        """`x` with its channels split into `self.heads` heads."""
        if len(x.shape) != 4:
            raise ValueError(
                f"`{type(self).__name__}` takes tensors of shape (batch, steps, heads, size), as "
                "the layers 'query', 'key' and 'value' of `keras.layers.MultiHeadAttention` "
                f"return. Received: shape {tuple(x.shape)}"
            )
        if self.heads is None:
            return x
        channels = x.shape[2] * x.shape[3]
        if channels % self.heads:
            raise ValueError(
                f"`heads={self.heads}` doesn't divide {x.shape[2]} heads of size {x.shape[3]}."
            )
        return ops.reshape(x, (-1, ops.shape(x)[1], self.heads, channels // self.heads))

    def get_config(self):
        config = super().get_config()
        return {**config, "heads": self.heads, "use_causal_mask": self.use_causal_mask}


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionMap(_StepRelation):
    """Kullback-Leibler divergence between the attention maps of two transformer layers.

    `mean_h mean_i KL(A_t[h, i, :] ‖ A_s[h, i, :])`, `A = softmax(Q Kᵀ / √d)` the attention of step
    i in head h. Zero at equality. Unlike `AttentionTransfer`, which is made for feature maps, it
    compares what each step attends to.

    Source: Wang et al., "MiniLM: Deep Self-Attention Distillation" (arXiv:2002.10957), equation 7,
    on the last layer of each model, weighed 1 beside `ValueRelation`; `heads` is the relation
    heads of MiniLMv2 (arXiv:2012.15828), equation 1.
    Costs memory and time of heads × steps² per sample, for both models. For small transformers
    that keep the teacher's number of steps; their width, depth and number of heads may differ.

    Args:
        heads: Number of heads into which both sides' channels are split anew, needed where the
            number of heads differs. Defaults to `None`: the layers' own.
        use_causal_mask: Whether steps see only those before them, as in a decoder.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(query, key)` of the teacher, each float, shape `(batch, steps, heads, size)`: what
            the layers `"query"` and `"key"` inside a `keras.layers.MultiHeadAttention` return.
        y_pred: `(query, key)` of the student. Keras' attention takes the mask off its queries and
            keys, so that padded steps would count; a third tensor brings it back, what the
            attention layer itself returns: `student=("attention/query", "attention/key",
            "attention")`.

    Raises:
        ValueError: If the maps' shapes differ.

    Example:

    >>> loss = keras_distill.losses.AttentionMap()
    >>> query, key = np.ones((1, 3, 2, 4)), np.zeros((1, 3, 2, 4))
    >>> float(loss((query, key), (query, key)))
    0.0
    """

    def __init__(
        self,
        heads=None,
        use_causal_mask=False,
        name="attention_map",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(heads, use_causal_mask, name, reduction, dtype)

    def _factors(self, features):
        return features[0], features[1]


@keras.saving.register_keras_serializable(PACKAGE)
class ValueRelation(_StepRelation):
    """Kullback-Leibler divergence between how the values of two transformer layers relate.

    `mean_h mean_i KL(R_t[h, i, :] ‖ R_s[h, i, :])`, `R = softmax(V Vᵀ / √d)`. Zero at equality.
    The same on queries or on keys is the self-relation of MiniLMv2.

    Source: Wang et al., "MiniLM: Deep Self-Attention Distillation" (arXiv:2002.10957), equations 8
    to 10; on queries, keys and values with as many `heads` on both sides: MiniLMv2
    (arXiv:2012.15828), equation 1, which takes 48 heads for BERT's base model.
    Cost and use as of `AttentionMap`, beside which it stands.

    Args:
        heads: Number of heads into which both sides' channels are split anew, needed where the
            number of heads differs. Defaults to `None`: the layers' own.
        use_causal_mask: Whether steps see only those before them, as in a decoder.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Values of the teacher, float, shape `(batch, steps, heads, size)`: what the layer
            `"value"` inside a `keras.layers.MultiHeadAttention` returns.
        y_pred: Values of the student, or `(values, x)` where `x` brings the Keras mask (see
            `AttentionMap`).

    Raises:
        ValueError: If the relations' shapes differ.

    Example:

    >>> loss = keras_distill.losses.ValueRelation()
    >>> teacher, student = np.ones((1, 3, 2, 8)), np.ones((1, 3, 2, 4))
    >>> float(loss(teacher, student))
    0.0
    """

    def __init__(
        self,
        heads=None,
        use_causal_mask=False,
        name="value_relation",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(heads, use_causal_mask, name, reduction, dtype)

    def _factors(self, features):
        values = features[0] if isinstance(features, (tuple, list)) else features
        return values, values


@keras.saving.register_keras_serializable(PACKAGE)
class Review(DistillationLoss):
    """Features of several stages, each student stage fused with the deeper ones (ReviewKD).

    From the deepest stage up, a small network fuses a stage of the student with what the deeper
    ones gave: `f = z_1 · u(F_s) + z_2 · resize(f_deeper)`, attention z from both, then a 3×3
    convolution to the teacher's channels. Each fused map is compared with the teacher's by the
    hierarchical context loss: the mean squared difference of the maps, plus ½, ¼, ⅛ of it on their
    averages over 4×4, 2×2 and 1×1 parts, divided by the sum of these weights.
    The sum over stages is the value; equal features don't make it zero.

    Source: Chen et al., "Distilling Knowledge via Knowledge Review" (arXiv:2104.09044), equations
    6 and 7, figure 3; sizes and factors are those of the authors' code, where the weight is 0.6 to
    8 on CIFAR-100 and 1 on ImageNet, warmed up over 20 epochs.
    Costs the fusion network's time in each step (about that of a stage of the student) and its
    weights, which the exported student doesn't have. For convolutional models with stages; among
    the best of feature losses where that cost is welcome.

    The fusion network's batch normalization sees the samples of the batch; rows of weight 0 have
    no part in it. Under `tf.distribute` each replica normalizes over its own.

    Args:
        channels: Width of the fusion network. Defaults to `None`: that of the student's deepest
            stage, at most 512.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Tuple of the teacher's maps, from shallow to deep, each float, shape `(batch,
            height, width, channels)`.
        y_pred: Tuple of the student's maps, as many, likewise. Where sizes differ, the larger map
            is averaged down.

    Raises:
        ValueError: If the taps aren't as many maps of four axes on both sides.

    Example:

    >>> loss = keras_distill.losses.Review()
    >>> shapes = ((None, 8, 8, 16), (None, 4, 4, 32)), ((None, 8, 8, 4), (None, 4, 4, 8))
    >>> loss.build(*shapes)  # A `Distiller` does this.
    >>> loss.state.count_params()
    3842
    """

    same_shape = False
    between_samples = True

    def __init__(self, channels=None, name="review", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.channels = channels
        self.state = ReviewFusion(channels, name=name)

    def call(self, y_true, y_pred, present):
        fused = self.state(y_pred, present)
        total = 0
        for teacher, student in zip(y_true, fused, strict=True):
            student = ops.cast(student, teacher.dtype)
            teacher, student = _to_common_size(self, teacher, student)
            total += _hierarchical_context(teacher, student)
        return total

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


def _hierarchical_context(teacher, student):
    """Mean squared difference of maps and of their averages over ever larger parts."""
    total, weight, weights = _sample_means(ops.square(student - teacher)), 1.0, 1.0
    for size in (4, 2, 1):
        if size < min(teacher.shape[1:3]):
            weight /= 2
            parts = _pool(student, (size, size)) - _pool(teacher, (size, size))
            total += weight * _sample_means(ops.square(parts))
            weights += weight
    return total / weights


class ReviewFusion(keras.layers.Layer):
    """The network of `Review` that fuses each stage of the student with the deeper ones."""

    def __init__(self, channels, name):
        super().__init__(name=name, dtype="float32")
        self.channels = channels

    def build(self, y_true_shape, y_pred_shape):
        shapes = [*y_true_shape, *y_pred_shape]
        if len(y_true_shape) != len(y_pred_shape) or any(
            not isinstance(shape, (tuple, list)) or len(shape) != 4 or None in shape[1:]
            for shape in shapes
        ):
            raise ValueError(
                "`Review` compares tuples of as many maps of shape (batch, height, width, "
                "channels), all but the batch known. "
                f"Received: teacher {y_true_shape}, student {y_pred_shape}"
            )
        width = self.channels or min(512, y_pred_shape[-1][-1])

        def convolution(filters, size, inputs, use_bias=False):
            layer = keras.layers.Conv2D(
                filters, size, padding="same", use_bias=use_bias, dtype="float32"
            )
            layer.build((None, None, None, inputs))
            return layer

        def normalization(channels):
            layer = keras.layers.BatchNormalization(epsilon=1e-5, dtype="float32")
            layer.build((None, None, None, channels))
            return layer

        outputs = [shape[-1] for shape in y_true_shape]
        self.enter = [convolution(width, 1, shape[-1]) for shape in y_pred_shape]
        self.enter_norm = [normalization(width) for _ in outputs]
        # The deepest stage has nothing to be fused with.
        self.attend = [convolution(2, 1, 2 * width, use_bias=True) for _ in outputs[1:]]
        self.leave = [convolution(channels, 3, width) for channels in outputs]
        self.leave_norm = [normalization(channels) for channels in outputs]

    def call(self, stages, present):
        fused, outputs = None, []
        for i in reversed(range(len(stages))):
            x = stages[i]
            mask = ops.broadcast_to(present[:, None, None], ops.shape(x)[:3])
            x = _normalized(self.enter_norm[i], self.enter[i](x), mask)
            if fused is not None:
                fused = _nearest(fused, x.shape[1:3])
                z = ops.sigmoid(self.attend[i](ops.concatenate([x, fused], axis=-1)))
                x = x * z[..., :1] + fused * z[..., 1:]
            fused = x
            outputs.insert(0, _normalized(self.leave_norm[i], self.leave[i](x), mask))
        return outputs


def _normalized(normalization, x, mask):
    x = normalization(x, training=True, mask=mask)
    x._keras_mask = None  # It has served; convolutions would warn of it.
    return x


def _nearest(maps, sizes):
    """Maps resized to `sizes`, each position from the nearest."""
    for axis, size in enumerate(sizes, start=1):
        if maps.shape[axis] != size:
            maps = ops.take(maps, np.arange(size) * maps.shape[axis] // size, axis=axis)
    return maps


def _flat(x):
    """`(batch, ...)` as `(batch, all)`."""
    return ops.reshape(x, (ops.shape(x)[0], -1))


def _sample_means(values, mask=None):
    """The mean over all axes but the first, of the positions that `mask` leaves."""
    axes = tuple(range(1, len(values.shape)))
    if mask is None:
        return ops.mean(values, axis=axes)
    mask = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(values.shape) - len(mask.shape))))
    mask = ops.broadcast_to(mask, ops.shape(values))
    total = ops.sum(ops.where(mask, values, ops.zeros_like(values)), axis=axes)
    return total / ops.maximum(ops.sum(ops.cast(mask, values.dtype), axis=axes), 1)


def _log_softmax_over_positions(features, mask):
    """Shape `(batch, channels, positions)`."""
    if mask is not None:
        features = ops.where(mask[..., None], features, very_negative(features.dtype))
    channels = features.shape[-1]
    positions = ops.reshape(features, (ops.shape(features)[0], -1, channels))
    return ops.log_softmax(ops.transpose(positions, (0, 2, 1)), axis=-1)


def _check_positions(loss, features):
    if len(features.shape) < 3:
        raise ValueError(
            f"`{type(loss).__name__}` takes features with positions, shape `(batch, ..., "
            f"channels)`. Received: shape {tuple(features.shape)}"
        )


def _to_common_size(loss, teacher, student, mask=None):
    """Both features averaged down to the smaller of each of their sizes."""
    _check_positions(loss, teacher)
    _check_positions(loss, student)
    theirs, ours = teacher.shape[1:-1], student.shape[1:-1]
    if theirs == ours or None in (*theirs, *ours):
        return teacher, student
    if mask is None and len(theirs) != len(ours) and math.prod(theirs) == math.prod(ours):
        # Patches of a vision transformer beside a map: the same positions in the same order.
        return teacher, student
    if len(theirs) != len(ours) or mask is not None:
        raise ValueError(
            f"`{type(loss).__name__}` can't bring the teacher's positions {tuple(theirs)} and the "
            f"student's {tuple(ours)} to one size"
            + (" under a mask." if mask is not None else ".")
            + " Give the `Match` an adapter that does."
        )
    sizes = tuple(map(min, theirs, ours))
    return _pool(teacher, sizes), _pool(student, sizes)


def _pool(features, sizes):
    """Features averaged over as many parts of each axis as `sizes` says."""
    for axis, size in enumerate(sizes, start=1):
        if features.shape[axis] != size:
            matrix = ops.cast(_averages(features.shape[axis], size), features.dtype)
            features = ops.moveaxis(ops.tensordot(matrix, features, axes=[[1], [axis]]), 0, axis)
    return features


def _averages(positions, parts):
    """Matrix `(parts, positions)` that averages over equal parts, which may share their ends."""
    matrix = np.zeros((parts, positions), "float32")
    for i in range(parts):
        part = slice(i * positions // parts, -(-(i + 1) * positions // parts))
        matrix[i, part] = 1 / len(range(*part.indices(positions)))
    return matrix
