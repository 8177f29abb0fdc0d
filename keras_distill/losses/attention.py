"""Losses on where layers look: positions of maps, steps of sequences."""

import math
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor, Tensors
from keras_distill.checks import number, whole_number
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import kl_divergence, unit, unit_peak, very_negative
from keras_distill.losses.positions import flat, sample_means, to_common_size


def attention_transfer(
    y_true: Tensor, y_pred: Tensor, power: float = 2.0, mask: Tensor | None = None
) -> Tensor:
    """Mean squared difference of two normalized maps of activity.

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, likewise. Where the sizes differ, the larger map is
            averaged down to the smaller.
        power: Exponent p of the activity `Σ_c |A_c|^p`, at least 1.
        mask: Bool, shape `(batch, ...)`, or `None` for all positions.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    teacher, student = to_common_size("AttentionTransfer", y_true, y_pred, mask)
    teacher, student = activity(teacher, power, mask), activity(student, power, mask)
    if mask is not None:
        mask = flat(mask)
    return sample_means(ops.square(student - teacher), mask)


def activity(features: Tensor, power: float = 2.0, mask: Tensor | None = None) -> Tensor:
    """How active each position of a map is: `Σ_c |A_c|^p`, divided by its Euclidean norm.

    Args:
        features: Float, shape `(batch, ..., channels)`.
        power: Exponent p, at least 1.
        mask: Bool, shape `(batch, ...)`, or `None` for all positions. Others are 0.

    Returns:
        Shape `(batch, positions)`.
    """
    if mask is not None:
        features = ops.where(mask[..., None], features, ops.zeros_like(features))
    # The scale has no part in the result, so it may be taken out before powers overflow.
    features = unit_peak(features, axis=tuple(range(1, len(features.shape))))
    active = ops.square(features) if power == 2 else ops.power(ops.abs(features), power)
    return unit(flat(ops.sum(active, axis=-1)), axis=-1)


def log_relation(
    a: Tensor, b: Tensor, use_causal_mask: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Logarithm of how much each step of `a` attends to each step of `b`: softmax(A Bᵀ / √d).

    Args:
        a: Float, shape `(batch, steps, heads, size)`: queries, for example.
        b: Likewise: keys, for example.
        use_causal_mask: Whether steps see only those before them, as in a decoder.
        mask: Steps that can be attended to, bool, shape `(batch, steps)`, or `None` for all.

    Returns:
        Shape `(batch, heads, steps, steps)`.
    """
    scores = ops.einsum("bqhd,bkhd->bhqk", a, b) / math.sqrt(a.shape[-1])
    steps = ops.shape(scores)[2:]
    blocked = None
    if mask is not None and a.shape[1] == b.shape[1]:
        blocked = ops.logical_not(mask)[:, None, None, :]
    if use_causal_mask:
        later = ops.arange(steps[1])[None, :] > ops.arange(steps[0])[:, None]
        blocked = later if blocked is None else ops.logical_or(blocked, later)
    if blocked is not None:
        scores = ops.where(blocked, very_negative(scores.dtype), scores)
    return ops.log_softmax(scores, axis=-1)


def relation_divergence(log_p: Tensor, log_q: Tensor, mask: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence between two `log_relation`s, the mean over heads and steps.

    Args:
        log_p: Of the teacher, shape `(batch, heads, steps, steps)`.
        log_q: Of the student, same shape.
        mask: Steps that count, bool, shape `(batch, steps)`, or `None` for all.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    return sample_means(ops.mean(kl_divergence(log_p, log_q), axis=1), mask)


def split_heads(x: Tensor, heads: int | None = None) -> Tensor:
    """`x`, of shape `(batch, steps, heads, size)`, with its channels split into other heads.

    Raises:
        ValueError: If `heads` doesn't divide the channels.
    """
    if heads is None:
        return x
    channels = x.shape[2] * x.shape[3]
    if channels % heads:
        raise ValueError(f"`heads={heads}` doesn't divide {x.shape[2]} heads of size {x.shape[3]}.")
    return ops.reshape(x, (-1, ops.shape(x)[1], heads, channels // heads))


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionTransfer(DistillationLoss):
    """Difference of where two layers look: which positions of a map are active.

    With `Q = vec(Σ_c |A_c|^p)`, the channels' activity at each position,
    `mean (Q_s / ‖Q_s‖₂ − Q_t / ‖Q_t‖₂)²` over the positions. Zero at equality; ignores the scale of
    the features and the order and number of channels, so it needs no adapter.
    Where the maps' sizes differ, the features of the larger are averaged down to the smaller.

    Source: Zagoruyko and Komodakis, "Paying More Attention to Attention" (arXiv:1612.03928),
    equation 2, in the form of the authors' code: the mean of squares, with a weight of 1000,
    where the paper prints β/2 times a norm. p = 2 is theirs.
    Costs memory and time linear in the features. For convolutional students of another width than
    the teacher, at the ends of two to four stages: `keras_distill.methods.attention_transfer`.

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
        self,
        power: float = 2.0,
        name: str = "attention_transfer",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.power = number("power", power)
        if self.power < 1:
            raise ValueError(f"`power` must be at least 1. Received: power={power!r}")

    def call(self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
        return attention_transfer(y_true, y_pred, self.power, mask)

    def get_config(self) -> dict:
        return {**super().get_config(), "power": self.power}


class _StepRelation(DistillationLoss):
    """KL divergence between how the steps of a sequence relate to one another.

    Subclasses choose the two tensors of shape `(batch, steps, heads, size)` that are multiplied.
    """

    same_shape = False
    uses_mask = True

    def __init__(
        self,
        heads: int | None,
        use_causal_mask: bool,
        name: str,
        reduction: str | None,
        dtype: Any,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.heads = None if heads is None else whole_number("heads", heads, 1)
        self.use_causal_mask = use_causal_mask

    def call(self, y_true: Tensors, y_pred: Tensors, mask: Tensor | None = None) -> Tensor:
        log_p = self._log_relation(y_true, mask)
        log_q = self._log_relation(y_pred, mask)
        shapes = tuple(log_p.shape[1:]), tuple(log_q.shape[1:])
        if any(None not in (t, s) and t != s for t, s in zip(*shapes, strict=True)):
            raise ValueError(
                f"`{type(self).__name__}` compares maps of shape (heads, steps, steps). Received: "
                f"teacher {shapes[0]}, student {shapes[1]}. Where the heads differ, give the "
                "number to split both into: `heads=`, a divisor of heads times their size on both "
                "sides."
            )
        return relation_divergence(log_p, log_q, mask)

    def _factors(self, features: Tensors) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def _log_relation(self, features, mask):
        factors = self._factors(features)
        for x in factors:
            if len(x.shape) != 4:
                raise ValueError(
                    f"`{type(self).__name__}` takes tensors of shape (batch, steps, heads, size), "
                    "as the layers 'query', 'key' and 'value' of `keras.layers.MultiHeadAttention` "
                    f"return. Received: shape {tuple(x.shape)}"
                )
        a, b = (split_heads(x, self.heads) for x in factors)
        return log_relation(a, b, self.use_causal_mask, mask)

    def get_config(self) -> dict:
        config = super().get_config()
        return {**config, "heads": self.heads, "use_causal_mask": self.use_causal_mask}


@keras.saving.register_keras_serializable(PACKAGE)
class AttentionMap(_StepRelation):
    """Kullback-Leibler divergence between the attention maps of two transformer layers.

    `mean_h mean_i KL(A_t[h, i, :] ‖ A_s[h, i, :])`, `A = softmax(Q Kᵀ / √d)` the attention of step
    i in head h. Zero at equality. Unlike `AttentionTransfer`, which is made for feature maps, it
    compares what each step attends to.

    Source: Wang et al., "MiniLM: Deep Self-Attention Distillation" (arXiv:2002.10957), equation 7,
    on the last layer of each model, with a weight of 1 beside `ValueRelation`; `heads` is the
    relation heads of MiniLMv2 (arXiv:2012.15828), equation 1.
    Costs memory and time of heads × steps² per sample, for both models. For small transformers
    that keep the teacher's number of steps; their width, depth and number of heads may differ.

    Args:
        heads: Number of heads into which the channels of both sides are split instead of their
            own, needed where the number of heads differs. Defaults to `None`: the layers' own.
        use_causal_mask: Whether steps see only those before them, as in a decoder.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(query, key)` of the teacher, each float, shape `(batch, steps, heads, size)`: what
            the layers `"query"` and `"key"` inside a `keras.layers.MultiHeadAttention` return.
        y_pred: `(query, key)` of the student. Keras' attention takes the mask off its queries and
            keys, so that padded steps would count. Add what the attention layer itself returns,
            which has the mask, as a third tensor: `student=("attention/query", "attention/key",
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
        heads: int | None = None,
        use_causal_mask: bool = False,
        name: str = "attention_map",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(heads, use_causal_mask, name, reduction, dtype)

    def _factors(self, features: Tensors) -> tuple[Tensor, Tensor]:
        return features[0], features[1]


@keras.saving.register_keras_serializable(PACKAGE)
class ValueRelation(_StepRelation):
    """Kullback-Leibler divergence between how the values of two transformer layers relate.

    `mean_h mean_i KL(R_t[h, i, :] ‖ R_s[h, i, :])`, `R = softmax(V Vᵀ / √d)`. Zero at equality.
    The same on queries or on keys is the self-relation of MiniLMv2.

    Source: Wang et al., "MiniLM: Deep Self-Attention Distillation" (arXiv:2002.10957), equations 8
    to 10; on queries, keys and values with as many `heads` on both sides: MiniLMv2
    (arXiv:2012.15828), equation 1, which takes 48 heads for BERT's base model.
    Costs and uses are those of `AttentionMap`, together with which it is used.

    Args:
        heads: Number of heads into which the channels of both sides are split instead of their
            own, needed where the number of heads differs. Defaults to `None`: the layers' own.
        use_causal_mask: Whether steps see only those before them, as in a decoder.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Values of the teacher, float, shape `(batch, steps, heads, size)`: what the layer
            `"value"` inside a `keras.layers.MultiHeadAttention` returns.
        y_pred: Values of the student, or `(values, x)` where `x` has the Keras mask (see
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
        heads: int | None = None,
        use_causal_mask: bool = False,
        name: str = "value_relation",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(heads, use_causal_mask, name, reduction, dtype)

    def _factors(self, features: Tensors) -> tuple[Tensor, Tensor]:
        values = features[0] if isinstance(features, (tuple, list)) else features
        return values, values
