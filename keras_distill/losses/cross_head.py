"""What the teacher's head predicts from the student's features."""

from typing import Any

import keras
from keras import ops

from keras_distill import _keras
from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import one_of
from keras_distill.frozen import frozen_copy
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.numerics import kl_divergence
from keras_distill.losses.standardized import channel_moments, counted_of, standardized_channels
from keras_distill.outputs import Output


def quality_focal(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """`|σ(z_s) − σ(z_t)| · BCE(σ(z_t), z_s)`, summed over the classes.

    Args:
        y_true: Logits of the teacher, float, shape `(..., classes)`.
        y_pred: Logits of the student, same shape.

    Returns:
        Shape `(...)`; 0 where both agree.
    """
    target = ops.sigmoid(y_true)
    surprise = -target * ops.log_sigmoid(y_pred) - (1 - target) * ops.log_sigmoid(-y_pred)
    return ops.sum(ops.abs(ops.sigmoid(y_pred) - target) * surprise, axis=-1)


def generalized_iou(a: Tensor, b: Tensor) -> Tensor:
    """Generalized intersection over union of boxes given by distances from one point.

    Source: Rezatofighi et al. (arXiv:1902.09630).

    Args:
        a: Distances of at least 0 from the point to the left, top, right and bottom edge, float,
            shape `(..., 4)`.
        b: Likewise, from the same point.

    Returns:
        From -1 to 1, 1 for equal boxes, shape `(...)`.
    """

    def area(edges):
        return (edges[..., 0] + edges[..., 2]) * (edges[..., 1] + edges[..., 3])

    def share(part, whole):
        return ops.where(whole > 0, part / ops.where(whole > 0, whole, ops.ones_like(whole)), 1)

    shared, hull = area(ops.minimum(a, b)), area(ops.maximum(a, b))
    union = area(a) + area(b) - shared
    return share(shared, union) + share(union, hull) - 1


def per_score(values: Tensor, scores: Tensor) -> Tensor:
    """The sum of values over places, divided by that of the scores.

    Args:
        values: Float, shape `(batch, places)`.
        scores: At least 0, same shape.

    Returns:
        Shape `(batch,)`; the sum itself where all scores are 0.
    """
    total = ops.sum(scores, axis=1)
    return ops.sum(values, axis=1) / ops.where(total > 0, total, ops.ones_like(total))


def aligned(y_true: Tensor, y_pred: Tensor, counted: Tensor | None = None) -> Tensor:
    """The student's features with the mean and spread of each of the teacher's channels.

    Args:
        y_true: Features of the teacher, float, shape `(batch, ..., channels)`.
        y_pred: Features of the student, same shape.
        counted: Positions that influence both, bool, shape `(batch, ...)`, or `None` for all.
    """
    _, mean, deviation = channel_moments(y_true, counted)
    return standardized_channels(y_pred, counted) * deviation + mean


@keras.saving.register_keras_serializable(PACKAGE)
class CrossKD(DistillationLoss):
    """Cross-head distillation: the teacher's head, on the student's features, is to agree.

    The student's features, scaled and shifted to the mean and spread of the teacher's channels, run
    through what is left of the teacher's head. What it predicts is compared with the teacher's own
    prediction, so that the student's own head learns from the labels alone and nothing contradicts
    them. With the teacher's scores `w = max_c σ(z_t[c])` at each place (anchor or point),

    - `"classes"`: `Σ_places Σ_c |σ(ẑ) − σ(z_t)| · BCE(σ(z_t), ẑ) / Σ_places w`,
    - `"edges"`: `Σ_places w · mean_e KL(softmax(z_t[e]) ‖ softmax(ẑ[e])) / Σ_places w`,
      for edges given as distributions,
    - `"distances"`: `Σ_places w · (1 − GIoU) / Σ_places w`, for edges given as distances.

    Zero where the cross-head prediction is the teacher's own.

    Source: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection"
    (arXiv:2306.11369), equations 2 to 4; loss, scaling and w are those of the authors' code, where
    classes are divided by the number of boxes' places instead of Σ w. Weights there: 1 for
    classes, 3 for edges, 2 for distances, at each level; they tap the third of four convolutions.
    Costs the time of a part of the teacher's head. For detectors, and beside `PKD` on the features.

    Of classes that end in a sigmoid, and edges in a softmax, logits are recovered.

    Rows of weight 0 have no part in means and spread, and under `tf.distribute` each replica takes
    those of its own part of the batch.

    Args:
        head: A `keras.Model` from the teacher's features to its prediction, a part of the teacher:
            `keras.Model(teacher.get_layer("tower_3").output, teacher.get_layer("scores").output)`.
            It is copied, never trained, and saved with the `Distiller`. Unless it predicts
            distances, it may not move values after a sigmoid or softmax: reshape before.
        compares: `"classes"`, `"edges"` or `"distances"`.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation. Defaults to `keras.config.floatx()`.

    Call arguments:
        y_true: `(features, classes)` of the teacher, or `(features, boxes, classes)` unless
            classes are compared: features float, shape `(batch, ..., channels)`; logits of classes,
            each decided by itself, shape `(batch, places, classes)` or `(batch, ..., classes)`;
            boxes of as many places, `4 * bins` or 4 values each.
        y_pred: Features of the student, of the shape of the teacher's.

    Raises:
        TypeError: If `head` isn't a `keras.Model`.
        ValueError: If the shapes don't fit, or `head` hides its logits.

    Example:

    >>> teacher = keras.Sequential([
    ...     keras.Input((8, 8, 3)),
    ...     keras.layers.Conv2D(16, 3, activation="relu", name="tower"),
    ...     keras.layers.Conv2D(5, 1, name="scores"),
    ... ])
    >>> head = keras.Model(teacher.get_layer("tower").output, teacher.outputs[0])
    >>> match = keras_distill.Match(
    ...     keras_distill.losses.CrossKD(head), student="tower", teacher=("tower", "scores")
    ... )
    """

    same_shape = False
    between_samples = True

    def __init__(
        self,
        head: keras.Model,
        compares: str = "classes",
        name: str = "cross_kd",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.compares = one_of("compares", compares, ("classes", "edges", "distances"))
        if not isinstance(head, keras.Model):
            raise TypeError(
                "`head` must be a `keras.Model` from the teacher's features to its prediction. "
                f"Received: head={head!r}"
            )
        if self.compares != "distances":
            _check_end(head)
        self.state = FrozenHead(head, self.compares, name=name)

    def _compared(self, outputs: Any, temperature: Any = None) -> Any:
        """Features and distances as they are, logits of classes and edges."""
        if not isinstance(outputs, (tuple, list)):
            return super()._compared(outputs, temperature)
        features, *boxes, classes = outputs
        boxes = [box.logits_at() if self.compares == "edges" else box.values for box in boxes]
        return (features.values, *boxes, classes.logits_at())

    def call(self, y_true: tuple[Tensor, ...], y_pred: Tensor, present: Tensor) -> Tensor:
        features, *boxes, classes = y_true
        predicted = self.state(aligned(features, y_pred, counted_of(y_pred, present, None)))
        predicted = ops.cast(predicted, y_pred.dtype)
        classes = ops.reshape(classes, (ops.shape(classes)[0], -1, classes.shape[-1]))
        scores = ops.max(ops.sigmoid(classes), axis=-1)
        if self.compares == "classes":
            apart = quality_focal(classes, ops.reshape(predicted, ops.shape(classes)))
        else:
            edges = (*ops.shape(scores), 4, -1)
            theirs, ours = (ops.reshape(x, edges) for x in (*boxes, predicted))
            apart = scores * self._of_boxes(theirs, ours)
        return per_score(apart, scores)

    def _of_boxes(self, theirs, ours):
        if self.compares == "distances":
            return 1 - generalized_iou(ops.relu(theirs[..., 0]), ops.relu(ours[..., 0]))
        log_p, log_q = ops.log_softmax(theirs), ops.log_softmax(ours)
        return ops.mean(kl_divergence(log_p, log_q), axis=-1)

    def get_config(self) -> dict:
        head = keras.saving.serialize_keras_object(self.state.head)
        return {**super().get_config(), "head": head, "compares": self.compares}


class FrozenHead(keras.layers.Layer):
    """A copy of the end of the teacher's head, which isn't trained.

    Args:
        head: The model to copy.
        compares: As in `CrossKD`, for messages.
        name: Name of the layer.
    """

    def __init__(self, head: keras.Model, compares: str, name: str):
        super().__init__(name=name, dtype="float32")
        self.head = frozen_copy(head)
        self.compares = compares

    def build(self, y_true_shape: tuple, y_pred_shape: tuple) -> None:
        """Checks shapes, the teacher's as `(features, ..., classes)`."""
        parts = 2 if self.compares == "classes" else 3
        given = y_true_shape if isinstance(y_true_shape[0], (tuple, list)) else (y_true_shape,)
        if len(given) != parts:
            names = "features, classes" if parts == 2 else "features, boxes, classes"
            raise ValueError(
                f'`CrossKD` that compares "{self.compares}" takes `teacher=({names})`, the places '
                f"in the teacher. Received: {len(given)} place(s), of shape {given}"
            )
        if tuple(given[0][1:]) != tuple(y_pred_shape[1:]):
            raise ValueError(
                f"`CrossKD` runs the teacher's head, which takes features of shape "
                f"{tuple(given[0])}, on the student's, of shape {tuple(y_pred_shape)}. Give the "
                "`Match` an adapter, such as "
                f"`keras.layers.Conv2D({given[0][-1]}, 1)`, that makes them equal."
            )

    def call(self, features: Tensor) -> Tensor:
        with _keras.noting_logits():
            predicted = self.head(features, training=False)
            return predicted if self.compares == "distances" else Output.of(predicted).logits_at()


def _check_end(head: keras.Model) -> None:
    """Raises a `ValueError` where a head moves values after a sigmoid or softmax."""
    moves = (keras.layers.Reshape, keras.layers.Permute, keras.layers.Flatten)
    graph = _keras.graph_of(head)
    if graph is None:
        return
    last = ending = _keras.producer_of(graph.outputs[0])
    while isinstance(last, moves):
        last = _keras.producer_of(last.input)
    by_name = getattr(getattr(last, "activation", None), "__name__", None)
    ends = by_name in ("sigmoid", "softmax") or isinstance(last, keras.layers.Softmax)
    if ends and last is not ending:
        raise ValueError(
            f"`head` must give logits, or end in their sigmoid or softmax, but {ending.name!r} "
            f"follows the activation of {last.name!r}. Leave it out, or reshape before."
        )
