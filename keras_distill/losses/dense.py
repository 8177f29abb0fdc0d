"""Losses for dense prediction: segmentation maps, and the heads of detectors."""

from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import positive
from keras_distill.hyperparameters import Hyperparameter
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import kl_divergence, scalar, very_negative
from keras_distill.losses.positions import check_positions
from keras_distill.losses.response import SoftTargets


def channel_wise(
    y_true: Tensor, y_pred: Tensor, temperature: float | Tensor = 4.0, mask: Tensor | None = None
) -> Tensor:
    """Kullback-Leibler divergence between where each channel is active, times T².

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape.
        temperature: Softening T > 0.
        mask: Bool, shape `(batch, ...)`, or `None` for all positions.

    Returns:
        One value per sample, shape `(batch,)`.
    """
    temperature = scalar(temperature, y_pred.dtype)
    log_p = _log_softmax_over_positions(y_true / temperature, mask)
    log_q = _log_softmax_over_positions(y_pred / temperature, mask)
    return ops.square(temperature) * ops.mean(kl_divergence(log_p, log_q), axis=-1)


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
        self,
        temperature: Any = 4.0,
        name: str = "channel_wise",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.temperature = temperature

    def call(self, y_true: Tensor, y_pred: Tensor, mask: Tensor | None = None) -> Tensor:
        check_positions("ChannelWise", y_pred)
        return channel_wise(y_true, y_pred, self.temperature, mask)


def _log_softmax_over_positions(features, mask):
    """Shape `(batch, channels, positions)`."""
    if mask is not None:
        features = ops.where(mask[..., None], features, very_negative(features.dtype))
    channels = features.shape[-1]
    positions = ops.reshape(features, (ops.shape(features)[0], -1, channels))
    return ops.log_softmax(ops.transpose(positions, (0, 2, 1)), axis=-1)


def localization_distillation(
    y_true: Tensor, y_pred: Tensor, matched: Tensor, temperature: float = 10.0
) -> Tensor:
    """Kullback-Leibler divergence between box edges given as distributions (LD).

    For each matched anchor `T² · Σ_e KL(softmax(z_t[e] / T) ‖ softmax(z_s[e] / T))` over the four
    edges e, each a distribution over bins of its distance from the anchor, as heads with a
    distribution focal loss predict it (GFL, YOLOv8). Zero at equality. A teacher's flat or
    two-peaked edge shows that it isn't certain of it, which a box of four numbers can't.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection"
    (arXiv:2102.12252), equations 3 to 5, where T is 10 and the weight 0.25; their code takes the
    mean over bins and edges, this the sums, so that their weight becomes 0.25 / (4 · bins).
    Costs next to nothing.

    Args:
        y_true: Logits of the teacher, float, shape `(batch, anchors, 4, bins)`.
        y_pred: Logits of the student, same shape.
        matched: Which anchors count, bool, or how much, float of at least 0; shape `(batch,
            anchors)`: those matched to a true box, or those where the teacher sees an object.
        temperature: Softening T > 0.

    Returns:
        One value per image, shape `(batch,)`: the mean over its matched anchors, weighted by
        `matched`; 0 where it has none.

    Raises:
        ValueError: If the shapes don't fit.

    Example:

    >>> teacher, student = np.zeros((1, 2, 4, 8)), np.zeros((1, 2, 4, 8))
    >>> student[0, 1, 0, 3] = 10.0  # One edge of the second anchor.
    >>> losses = keras_distill.losses
    >>> losses.localization_distillation(teacher, student, np.array([[1, 0]])).numpy()
    array([0.], dtype=float32)
    """
    shape = tuple(ops.shape(y_pred))
    if len(shape) != 4 or shape[2] != 4:
        raise ValueError(
            "Boxes must be logits of shape (batch, anchors, 4, bins); reshape a head's "
            f"(batch, anchors, 4 * bins). Received: y_pred of shape {shape}"
        )
    divergence = _soft_targets(y_true, y_pred, temperature, "softmax")
    return _matched_mean(ops.sum(divergence, axis=-1), matched)


def matched_classification(
    y_true: Tensor,
    y_pred: Tensor,
    matched: Tensor,
    temperature: float = 1.0,
    activation: str = "sigmoid",
) -> Tensor:
    """Soft targets on the classes of matched anchors.

    `SoftTargets` at each anchor, and the mean over those that count: without it, the many anchors
    that see background drown the few that tell classes apart.

    Source: the classification part of Zheng et al. (arXiv:2102.12252), section 3.3.
    Costs next to nothing.

    Args:
        y_true: Logits of the teacher, float, shape `(batch, anchors, classes)`.
        y_pred: Logits of the student, same shape.
        matched: Which anchors count, bool, or how much, float of at least 0; shape `(batch,
            anchors)`.
        temperature: Softening T > 0.
        activation: `"sigmoid"` where each class is decided for itself (RetinaNet, YOLO),
            `"softmax"` where one of the classes is background (SSD, DETR).

    Returns:
        One value per image, shape `(batch,)`, as of `localization_distillation`.

    Raises:
        ValueError: If the shapes don't fit.

    Example:

    >>> teacher, student = np.zeros((1, 2, 3)), np.ones((1, 2, 3))
    >>> losses = keras_distill.losses
    >>> losses.matched_classification(teacher, student, np.array([[True, False]])).numpy()
    array([0.1201...], dtype=float32)
    """
    return _matched_mean(_soft_targets(y_true, y_pred, temperature, activation), matched)


def _soft_targets(y_true, y_pred, temperature, activation):
    loss = SoftTargets(temperature, activation=activation, reduction="none")
    return loss(y_true, y_pred)


def _matched_mean(values, matched):
    matched = ops.cast(matched, values.dtype)
    if tuple(matched.shape) != tuple(values.shape):
        raise ValueError(
            f"`matched` must have shape {tuple(values.shape)}, one value for each anchor. "
            f"Received: shape {tuple(matched.shape)}"
        )
    count = ops.sum(matched, axis=1)
    return ops.sum(values * matched, axis=1) / ops.where(count > 0, count, ops.ones_like(count))
