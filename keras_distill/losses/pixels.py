"""Relations between the pixels of all images of a batch."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import kl_divergence, scalar, unit, very_negative
from keras_distill.losses.positions import to_common_size
from keras_distill.losses.standardized import counted_of


def cirkd(
    y_true: Tensor, y_pred: Tensor, temperature: float | Tensor = 0.1, counted: Tensor | None = None
) -> Tensor:
    """Divergence between how similar each pixel is to the pixels of each image of the batch.

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, of as many positions and any number of channels.
        temperature: Softening τ > 0 of the similarities.
        counted: Positions that count, bool, shape `(batch, ...)`, or `None` for all.

    Returns:
        One value per sample, shape `(batch,)`: the mean over its positions and over the images of
        the batch, itself included.
    """
    if counted is None:
        counted = ops.ones(ops.shape(y_pred)[:-1], dtype="bool")
    counted = ops.reshape(counted, (ops.shape(counted)[0], -1))
    log_p, log_q = (
        _log_similarities(x, scalar(temperature, y_pred.dtype), counted) for x in (y_true, y_pred)
    )
    divergence = kl_divergence(log_p, log_q)  # Image, its position, the other image.
    rows = ops.cast(counted, divergence.dtype)
    images = ops.cast(ops.any(counted, axis=1), divergence.dtype)
    of_positions = ops.sum(divergence * images, axis=-1) / ops.maximum(ops.sum(images), 1)
    return ops.sum(of_positions * rows, axis=1) / ops.maximum(ops.sum(rows, axis=1), 1)


def _log_similarities(features, temperature, counted):
    """Shape `(batch, positions, batch, positions)`, a distribution over the last axis."""
    batch, channels = ops.shape(features)[0], features.shape[-1]
    vectors = ops.reshape(features, (batch, -1, channels))
    vectors = ops.where(counted[..., None], vectors, ops.zeros_like(vectors))
    vectors = unit(ops.reshape(vectors, (-1, channels)), axis=-1)
    similar = ops.matmul(vectors, ops.transpose(vectors)) / temperature
    positions = ops.shape(counted)[1]
    similar = ops.reshape(similar, (batch, positions, batch, positions))
    similar = ops.where(counted[None, None], similar, very_negative(similar.dtype))
    return ops.log_softmax(similar, axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class CIRKD(DistillationLoss):
    """How similar pixels are, within images and across the batch.

    With the features F of image i scaled to unit length at each of A positions, and the
    similarities `S_ij = F_i F_jᵀ / τ`, the value of image i is
    `mean_j mean_a KL(softmax(S_ij^t[a]) ‖ softmax(S_ij^s[a]))`. Zero at equality, and unchanged by
    rotations of the channels and by the scale of each pixel's features.

    Source: Yang et al., "Cross-Image Relational Knowledge Distillation for Semantic Segmentation"
    (arXiv:2204.06986), equations 3 to 6, the mini-batch pixel-to-pixel term; τ = 0.1 and a weight
    of 1 are theirs. `CIRKDMemory` has their memory of other batches.
    Costs memory of (batch · positions)²: tap a map of a few hundred positions, or give the
    `Match` a pooling layer as adapter. For segmentation, beside a loss on the outputs.

    Rows of weight 0 and masked positions have no part in it, and under `tf.distribute` each
    replica relates its own part of the batch.

    Args:
        temperature: Softening τ > 0 of the similarities.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, likewise, of any number of channels. Where sizes differ,
            the larger map is averaged down.

    Raises:
        ValueError: If `temperature` isn't above 0, or the shapes don't fit: no positions, or
            numbers of them that can't be averaged to each other.

    Example:

    >>> loss = keras_distill.losses.CIRKD(temperature=1.0)
    >>> teacher, student = np.ones((1, 2, 1, 2)), np.ones((1, 2, 1, 2))
    >>> student[0, 0, 0] = [1.0, -1.0]  # Two pixels that the teacher finds alike.
    >>> round(float(loss(teacher, student)), 4)
    0.1201
    """

    same_shape = False
    between_samples = True
    uses_mask = True
    temperature = Hyperparameter(positive)

    def __init__(
        self,
        temperature: Any = 0.1,
        name: str = "cirkd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = temperature

    def call(
        self, y_true: Tensor, y_pred: Tensor, present: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        teacher, student = to_common_size("CIRKD", y_true, y_pred, mask)
        counted = counted_of(student, present, mask)
        return cirkd(teacher, student, self.temperature, counted)
