"""Losses on how the samples of a batch relate to one another."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import huber, rounding, safe_sqrt, unit, unit_peak


def relational_distance(
    y_true: Tensor, y_pred: Tensor, present: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Huber distance between the distances of samples on both sides (RKD-D).

    Args:
        y_true: Features of the teacher, float, shape `(batch, ...)`.
        y_pred: Features of the student, shape `(batch, ...)`, of whatever width.
        present: Rows that take part, bool, shape `(batch,)`, or `None` for all.
        mask: Positions that take part, bool, shape `(batch, ...)`, or `None` for all.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    teacher, student, present, count = _both_sides(y_true, y_pred, present, mask)
    difference = distances(student, present) - distances(teacher, present)
    return ops.sum(huber(difference), axis=1) / count


def relational_angle(
    y_true: Tensor, y_pred: Tensor, present: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Huber distance between the angles of triples of samples on both sides (RKD-A).

    Arguments and result as of `relational_distance`.
    """
    teacher, student, present, count = _both_sides(y_true, y_pred, present, mask)
    difference = angles(student, present) - angles(teacher, present)
    return ops.sum(huber(difference), axis=(1, 2)) / ops.square(count)


def similarity_preserving(
    y_true: Tensor, y_pred: Tensor, present: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Squared difference between the similarities of samples on both sides.

    Arguments and result as of `relational_distance`.
    """
    teacher, student, present, count = _both_sides(y_true, y_pred, present, mask)
    difference = similarities(student, present) - similarities(teacher, present)
    return ops.sum(ops.square(difference), axis=1) / count


def distances(vectors: Tensor, present: Tensor) -> Tensor:
    """Euclidean distances between rows, divided by the mean of those that aren't 0.

    Args:
        vectors: Float, shape `(batch, width)`.
        present: Rows that take part, bool, shape `(batch,)`; others are at a distance of 0.

    Returns:
        Shape `(batch, batch)`.
    """
    apart = _distances(vectors, present)
    is_apart = apart > 0
    count = ops.sum(ops.cast(is_apart, apart.dtype))
    mean = ops.sum(apart) / ops.maximum(count, 1)
    return apart / ops.where(count > 0, mean, ops.ones_like(mean))


def angles(vectors: Tensor, present: Tensor) -> Tensor:
    """Cosine of the angle at row i between rows j and k, shape `(batch, batch, batch)`.

    Arguments as of `distances`; 0 where one of the three is absent or two are equal.
    """
    differences = vectors[None, :, :] - vectors[:, None, :]
    both = pairs(present)[:, :, None]
    directions = unit(ops.where(both, differences, ops.zeros_like(differences)), axis=-1)
    return ops.matmul(directions, ops.transpose(directions, (0, 2, 1)))


def similarities(vectors: Tensor, present: Tensor) -> Tensor:
    """Products between rows, each row of them divided by its Euclidean norm: `(batch, batch)`.

    Arguments as of `distances`.
    """
    vectors = unit_peak(vectors, axis=(0, 1))
    return unit(ops.matmul(vectors, ops.transpose(vectors)), axis=1)


def row_vectors(features: Tensor, present: Tensor, mask: Tensor | None = None) -> Tensor:
    """Features as `(batch, values)`, with zeros for absent rows and masked positions.

    Args:
        features: Float, shape `(batch, ...)`.
        present: Rows that take part, bool, shape `(batch,)`.
        mask: Positions that take part, bool, shape `(batch, ...)`, or `None` for all.

    Raises:
        ValueError: If the mask doesn't fit the features.
    """
    rank = len(features.shape)
    counted = ops.reshape(present, (-1, *(1,) * (rank - 1)))
    if mask is not None and len(mask.shape) < rank:
        if any(
            None not in (a, b) and a != b
            for a, b in zip(mask.shape[1:], features.shape[1:], strict=False)
        ):
            raise ValueError(
                f"The student's mask of shape {tuple(mask.shape)} doesn't fit features of shape "
                f"{tuple(features.shape)}. Compare layers after the pooling of the steps."
            )
        mask = ops.reshape(mask, (*ops.shape(mask), *(1,) * (rank - len(mask.shape))))
        counted = ops.logical_and(counted, mask)
    features = ops.where(counted, features, ops.zeros_like(features))
    return ops.reshape(features, (ops.shape(features)[0], -1))


def pairs(present: Tensor) -> Tensor:
    """Which pairs of rows are both present, bool, shape `(batch, batch)`."""
    return ops.logical_and(present[:, None], present[None, :])


def _both_sides(y_true, y_pred, present, mask):
    """Teacher and student as vectors, the rows that take part, and how many they are."""
    if present is None:
        present = ops.ones(ops.shape(y_pred)[:1], dtype="bool")
    count = ops.maximum(ops.sum(ops.cast(present, y_pred.dtype)), 1)
    teacher, student = (row_vectors(features, present, mask) for features in (y_true, y_pred))
    return teacher, student, present, count


def _distances(vectors, present):
    """Euclidean distances between present rows, up to a common factor; 0 where rows are equal."""
    # Products round less around the mean, which leaves distances as they are.
    weights = ops.cast(present, vectors.dtype)[:, None]
    mean = ops.sum(weights * vectors, axis=0) / ops.maximum(ops.sum(weights), 1)
    vectors = unit_peak(weights * (vectors - ops.stop_gradient(mean)), axis=(0, 1))
    squares = ops.sum(ops.square(vectors), axis=1)
    sums = squares[:, None] + squares[None, :]
    apart = sums - 2 * ops.matmul(vectors, ops.transpose(vectors))
    # What is smaller comes from rounding.
    is_apart = ops.logical_and(pairs(present), apart > 8 * rounding(apart.dtype) * sums)
    return safe_sqrt(ops.where(is_apart, apart, ops.zeros_like(apart)))


class _BetweenSamples(DistillationLoss):
    """A loss on the relations between the samples of a batch.

    Widths may differ between teacher and student. Rows of weight 0 have no part in any relation,
    and masked positions none in a sample.
    """

    same_shape = False
    between_samples = True
    uses_mask = True


@keras.saving.register_keras_serializable(PACKAGE)
class RelationalDistance(_BetweenSamples):
    """Distances between the samples of a batch (RKD-D).

    With `d_ij = ‖f_i − f_j‖ / μ`, μ the mean of the distances that aren't 0, the value of sample i
    is `mean_j huber(d_ij of the student − d_ij of the teacher)`. Zero where the student's features
    are the teacher's rotated, shifted or scaled, of whatever width.

    Source: Park et al., "Relational Knowledge Distillation" (arXiv:1904.05068), equations 5 to 8;
    the mean is over all pairs, as in the authors' code. Their weight is 25 in classification,
    beside 50 for `RelationalAngle`.
    Costs batch² memory and time. For embeddings that are compared by distance, and beside soft
    targets.

    Under `tf.distribute` each replica relates its own part of the batch: use 32 samples or more
    *per replica*.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ...)`; all axes but the first are
            flattened.
        y_pred: Features of the student, likewise.

    Example:

    >>> loss = keras_distill.losses.RelationalDistance()
    >>> teacher = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    >>> student = [[5.0], [5.0], [7.0]]  # Can't tell the first two apart.
    >>> float(loss(teacher, student))
    0.0939...
    """

    def __init__(
        self,
        name: str = "relational_distance",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return relational_distance(y_true, y_pred, present, mask)


@keras.saving.register_keras_serializable(PACKAGE)
class RelationalAngle(_BetweenSamples):
    """Angles between the samples of a batch (RKD-A).

    With `a_ijk = cos ∠(f_j − f_i, f_k − f_i)`, the value of sample i is
    `mean_jk huber(a_ijk of the student − a_ijk of the teacher)`. Zero where the student's features
    are the teacher's rotated, shifted or scaled, of whatever width.

    Source: Park et al., "Relational Knowledge Distillation" (arXiv:1904.05068), equations 9 to 11;
    the mean is over all triples, as in the authors' code. Their weight is 50 in classification,
    beside 25 for `RelationalDistance`.
    Costs batch³ + batch² · width memory, and batch³ · width time: for a batch of 128 and float32
    that is 8 MB for the angles alone, for 512 it is 512 MB, and several times that for the
    gradient. For small batches; angles tell more than distances alone.

    Under `tf.distribute` each replica relates its own part of the batch.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ...)`; all axes but the first are
            flattened.
        y_pred: Features of the student, likewise.

    Example:

    >>> loss = keras_distill.losses.RelationalAngle()
    >>> teacher = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
    >>> student = [[0.0], [1.0], [2.0]]  # All on one line.
    >>> float(loss(teacher, student))
    0.1296...
    """

    def __init__(
        self,
        name: str = "relational_angle",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return relational_angle(y_true, y_pred, present, mask)


@keras.saving.register_keras_serializable(PACKAGE)
class SimilarityPreserving(_BetweenSamples):
    """Which samples of a batch activate a layer alike.

    With `G = F Fᵀ`, F the flattened features and each row of G divided by its Euclidean norm, the
    value of sample i is `Σ_j (G_t − G_s)_ij² / batch`. Zero where the student's features are the
    teacher's rotated or scaled, of whatever width.

    Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation" (arXiv:1907.09682),
    equations 1 to 4; the mean over samples divides by batch² as theirs. Their weight is 3000
    with batches of 128 to 256, on the last convolution's map.
    Costs batch² memory and batch² · size time. For students whose features have another shape
    than the teacher's; no adapter is needed.

    Under `tf.distribute` each replica relates its own part of the batch.

    Args:
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ...)`; all axes but the first are
            flattened.
        y_pred: Features of the student, likewise.

    Example:

    >>> loss = keras_distill.losses.SimilarityPreserving()
    >>> teacher, student = [[1.0, 0.0], [0.0, 1.0]], [[2.0], [2.0]]
    >>> float(loss(teacher, student))  # For the student both samples are alike.
    0.2928...
    """

    def __init__(
        self,
        name: str = "similarity_preserving",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        return similarity_preserving(y_true, y_pred, present, mask)
