"""What a detector without anchors is to predict at each place, and losses that compare it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.detection.heads import Head, checked_activation
from keras_distill.losses.cross_head import generalized_iou
from keras_distill.outputs import Output, logits_of_probabilities

#: A box belongs to the level on which its longer side is nearest to so many strides.
_SIDE = 5.0
#: Places this near to the middle of a box, in strides, are to find it.
_RADIUS = 1.5


def targets(head: Head) -> Callable:
    """A function for `tf.data.Dataset.map` from boxes to what a head is to predict.

    A box belongs to one level, by its size, and there to the places that are inside of it and
    nearest to its middle; where boxes overlap, the smallest wins (FCOS, arXiv:1904.01355, with
    center sampling). Places inside of a box that is ignored are left out, unless they find another.

    Args:
        head: A `Head` with boxes as "distances" or "edges".

    Returns:
        Function from `(image, boxes)`, one at a time, as `dataset` gives them, to `(image, y)`. y
        is for the head's outputs: classes, float32, 1 for the class at a place, shape `(places,
        classes)`, -1 where a place is left out; distances, float32, in strides, shape `(places,
        4)`, -1 where there is no object.

    Raises:
        ValueError: If the head has anchors.

    Example:

    >>> data = keras_distill.detection.dataset(train, head.image_size).cache()
    >>> student.compile("adam", {"classes": TargetClasses(), "boxes": TargetBoxes()})
    >>> student.fit(data.map(keras_distill.detection.targets(head)).batch(16))
    """
    if head.boxes_as == "deltas":
        raise ValueError(
            '`targets` are for heads without anchors. Received: a head with boxes as "deltas". '
            "Train it as its own library does."
        )
    points = tf.constant(head.points())
    xy, stride = points[:, None, :2], points[:, None, 2]

    def assigned(image, given):
        boxes, labels = tf.cast(given["boxes"], "float32"), tf.cast(given["labels"], "int32")
        size = boxes[:, 2:] - boxes[:, :2]
        sides = tf.concat([xy - boxes[None, :, :2], boxes[None, :, 2:] - xy], axis=-1)
        longest = tf.maximum(tf.reduce_max(size, axis=-1), 1e-3)
        strides = tf.constant(head.strides, "float32")
        misfit = tf.abs(tf.math.log(longest[:, None] / (_SIDE * strides)))
        level = tf.gather(strides, tf.argmin(misfit, axis=-1))
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        away = tf.reduce_max(tf.abs(xy - middle), axis=-1) / stride
        inside = tf.reduce_min(sides, axis=-1) > 0
        candidate = (inside & (away < _RADIUS)) | (away <= 0.5)
        ignored = given.get("ignored", tf.zeros_like(labels, tf.bool))
        candidate &= (stride == level) & (labels >= 0) & ~ignored
        area = tf.where(candidate, tf.reduce_prod(size, axis=-1), tf.float32.max)
        chosen = tf.argmin(area, axis=-1)
        found = tf.reduce_any(candidate, axis=-1)
        label = tf.where(found, tf.gather(labels, chosen), -1)
        distances = tf.gather(sides, chosen, axis=1, batch_dims=1) / stride
        distances = tf.where(found[:, None], tf.maximum(distances, 0), -1.0)
        left_out = tf.reduce_any(inside & (labels >= 0) & ignored, axis=-1) & ~found
        classes = tf.one_hot(label, len(head.class_names))
        classes = tf.where(left_out[:, None], -1.0, classes)
        return image, in_outputs(head, classes, distances)

    return assigned


def in_outputs(head: Head, classes: Any, boxes: Any) -> Any:
    """Values for a head's two outputs, in a dict or a tuple as its outputs are named."""
    if isinstance(head.classes, str):
        return {head.classes: classes, head.boxes: boxes}
    return (classes, boxes) if head.classes < head.boxes else (boxes, classes)  # type: ignore[operator]


@keras.saving.register_keras_serializable(PACKAGE)
class TargetClasses(keras.losses.Loss):
    """Focal loss of the classes at all places, divided by the number of objects' places.

    Source: Lin et al. (arXiv:1708.02002), with α = 0.25 and γ = 2.

    Args:
        activation: `"sigmoid"` for a head that ends in it (see `Head`), or `None` for logits.
        name: Name of the loss.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype of the computation.

    Call arguments:
        y_true: 1 for the class at a place, else 0, and -1 at places that are left out, shape
            `(batch, places, classes)`.
        y_pred: Logits, or their sigmoid, same shape.
    """

    def __init__(
        self,
        activation: str | None = None,
        name: str = "target_classes",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.activation = checked_activation(activation)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        logits = ops.cast(with_class_logits(y_pred, self.activation).logits_at(), y_pred.dtype)
        counted = ops.cast(y_true >= 0, y_pred.dtype)
        y_true = ops.maximum(y_true, 0)
        p = ops.sigmoid(logits)
        yes = -0.25 * ops.square(1 - p) * ops.log_sigmoid(logits)
        no = -0.75 * ops.square(p) * ops.log_sigmoid(-logits)
        values = ops.sum(counted * (y_true * yes + (1 - y_true) * no), axis=(1, 2))
        return values / ops.maximum(ops.sum(y_true, axis=(1, 2)), 1)

    def get_config(self) -> dict:
        return {**super().get_config(), "activation": self.activation}


@keras.saving.register_keras_serializable(PACKAGE)
class TargetBoxes(keras.losses.Loss):
    """`2 · (1 − GIoU)` of the boxes at objects' places, and of edges the focal loss of bins.

    Source: Li et al., "Generalized Focal Loss" (arXiv:2006.04388), whose weights are 2 and, for the
    cross-entropy of the two nearest bins, 0.25.

    Args:
        name: Name of the loss.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype of the computation.

    Call arguments:
        y_true: Distances in strides, shape `(batch, places, 4)`, -1 where there is no object.
        y_pred: Distances, same shape, or logits of edges, shape `(batch, places, 4, bins)`.
    """

    def __init__(
        self,
        name: str = "target_boxes",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        counted = ops.cast(y_true[..., 0] >= 0, y_pred.dtype)
        y_true = ops.maximum(y_true, 0)
        values = 2 * (1 - generalized_iou(y_true, as_distances(y_pred)))
        if len(y_pred.shape) == 4:
            bins = y_pred.shape[-1]
            at = ops.minimum(y_true, bins - 1.0)
            wanted = ops.relu(1 - ops.abs(at[..., None] - ops.arange(bins, dtype=y_pred.dtype)))
            surprise = -ops.sum(wanted * ops.log_softmax(y_pred), axis=-1)
            values += 0.25 * ops.mean(surprise, axis=-1)
        return ops.sum(values * counted, axis=1) / ops.maximum(ops.sum(counted, axis=1), 1)


def with_class_logits(classes: Any, activation: str | None) -> Output:
    """Classes with the logits whose sigmoid they are, as `activation` says or Keras has noted."""
    output = Output.of(classes)
    if activation is None or output.logits is not None:
        return output
    logits = logits_of_probabilities(output.values, activation)
    return dataclasses.replace(output, logits=logits, activation=activation)


def as_distances(boxes: Tensor) -> Tensor:
    """Distances of at least 0, the mean of a distribution where edges are given.

    Args:
        boxes: Distances, shape `(batch, places, 4)`, or logits, `(batch, places, 4, bins)`.
    """
    if len(boxes.shape) == 3:
        return ops.relu(boxes)
    bins = ops.arange(boxes.shape[-1], dtype=boxes.dtype)
    return ops.sum(ops.softmax(boxes) * bins, axis=-1)
