"""Decoding, and what is found, as layers of a model: inside of the file that it becomes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill import backends
from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import fraction, whole_number
from keras_distill.detection.boxes import Detections
from keras_distill.detection.heads import Head
from keras_distill.detection.scores import unshared
from keras_distill.quantization import is_quantize_aware
from keras_distill.quantization.layers import ToFloat

#: The surest pairs of place and class that are looked at on each image.
CANDIDATES = 1000


def detector(
    student: keras.Model,
    head: Head,
    *,
    suppress: bool = True,
    score: float = 0.05,
    iou: float = 0.6,
    most: int = 100,
) -> keras.Model:
    """A student that gives boxes in pixels in place of a head's raw outputs.

    A file that `keras_distill.tflite.convert` makes of it holds the decoding, and non-maximum
    suppression by LiteRT's own operator (`NON_MAX_SUPPRESSION_V4`), which phones run and
    microcontrollers lack. These compute in float: for 8-bit files, give
    `precision={"found": "float32"}`, or `"decoded"` where `suppress` is off.

    Args:
        student: A built Keras model with the outputs that `head` describes.
        head: What they mean.
        suppress: Whether duplicates are dropped. If not, the model gives boxes and scores at every
            place.
        score: Scores of this and below are dropped.
        iou: Of two boxes of a class that overlap more than this, the less sure one is dropped.
        most: The largest number of detections of an image.

    Returns:
        A Keras model that gives a dict: `"boxes"`, left, top, right and bottom edge in pixels,
        `"scores"` from 0 to 1 and `"labels"`, -1 where an image has fewer, as `Head.detections`
        gives them, of the 1,000 surest pairs of place and class; or, without suppression,
        `"boxes"` and `"scores"` as `Head.decode` does, boxes cut at the edges of the image.

    Raises:
        ValueError: If an argument is out of its range, or the student's outputs aren't the head's.

    Example:

    >>> whole = keras_distill.detection.detector(student, head)
    >>> artifact = keras_distill.tflite.convert(
    ...     whole, quantization="int8", calibration=images, precision={"found": "float32"})
    """
    if not isinstance(student, keras.Model) or not getattr(student, "inputs", None):
        raise ValueError(
            "`student` must be a functional or a built `Sequential` Keras model. "
            f"Received: {student!r}"
        )
    shape = tuple(getattr(student.input, "shape", ()))
    if len(shape) == 4 and None not in shape[1:] and head.image_size not in (shape[1:3], shape[2:]):
        raise ValueError(
            f"`head` is for images of {head.image_size}, but the student takes {shape[1:]}."
        )
    outputs = student.output
    if is_quantize_aware(student):
        # What decodes stays float.
        outputs = keras.tree.map_structure(lambda x: ToFloat()(x), outputs)
    layer = (
        Found(head, score, iou, most, name="found") if suppress else Decoded(head, name="decoded")
    )
    return keras.Model(student.input, layer(outputs), name=student.name)


@keras.saving.register_keras_serializable(PACKAGE)
class Decoded(keras.layers.Layer):
    """Boxes in pixels and scores from 0 to 1 from the raw outputs of a head.

    Args:
        head: A `Head`.
        **options: As in `keras.layers.Layer`.

    Call arguments:
        outputs: The model's outputs, a dict, a list or a tuple.

    Returns:
        A dict of `"boxes"`, shape `(batch, places, 4)`, cut at the edges of the image, and
        `"scores"`, shape `(batch, places, classes)`.
    """

    def __init__(self, head: Head, **options: Any):
        super().__init__(**options)
        self.head = head if isinstance(head, Head) else Head(**head)
        self._points = self.head.points()

    def get_config(self) -> dict:
        values = {f.name: getattr(self.head, f.name) for f in dataclasses.fields(self.head)}
        if values["anchors"] is not None:
            values["anchors"] = values["anchors"].tolist()
        return {**super().get_config(), "head": values}

    def call(self, outputs: Any) -> dict[str, Tensor]:
        classes, boxes = self.head.picked(outputs)
        scores = ops.sigmoid(classes) if self.head.activation is None else classes
        height, width = self.head.image_size
        edge = np.array([width, height, width, height], "float32")
        boxes = ops.minimum(ops.maximum(self._boxes(boxes), 0.0), edge)
        return {"boxes": boxes, "scores": scores}

    def _boxes(self, given: Tensor) -> Tensor:
        if self.head.boxes_as == "deltas":
            anchors = self.head.anchors
            size = anchors[:, 2:] - anchors[:, :2]
            deltas = given * np.array(self.head.variances, "float32")
            center = (anchors[:, :2] + size / 2) + deltas[..., :2] * size
            half = ops.exp(ops.minimum(deltas[..., 2:], 10.0)) * (size / 2)
            return ops.concatenate([center - half, center + half], axis=-1)
        if self.head.boxes_as == "edges":
            bins = np.arange(given.shape[-1], dtype="float32")
            given = ops.sum(ops.softmax(given, axis=-1) * bins, axis=-1)
        sides = ops.maximum(given, 0.0) * self._points[:, 2:]
        middle = self._points[:, :2]
        return ops.concatenate([middle - sides[..., :2], middle + sides[..., 2:]], axis=-1)


@keras.saving.register_keras_serializable(PACKAGE)
class Found(Decoded):
    """What is found on each image: scores high enough, duplicates of a class dropped.

    Args:
        head: A `Head`.
        score: Scores of this and below are dropped.
        iou: Of two boxes of a class that overlap more than this, the less sure one is dropped.
        most: The largest number of detections of an image.
        **options: As in `keras.layers.Layer`.

    Call arguments:
        outputs: The model's outputs, a dict, a list or a tuple.

    Returns:
        A dict of `"boxes"`, shape `(batch, most, 4)`, `"scores"` and `"labels"`, shape
        `(batch, most)`.
    """

    def __init__(
        self,
        head: Head,
        score: float = 0.05,
        iou: float = 0.6,
        most: int = 100,
        **options: Any,
    ):
        backends.require("`keras_distill.detection.Found`", "tensorflow")
        super().__init__(head, **options)
        self.score = fraction("score", score)
        self.iou = fraction("iou", iou)
        self.most = whole_number("most", most, 1)

    def get_config(self) -> dict:
        return {**super().get_config(), "score": self.score, "iou": self.iou, "most": self.most}

    def compute_output_spec(self, outputs: Any) -> dict[str, Any]:
        count = self.head.picked(outputs)[0].shape[0]
        return {
            "boxes": keras.KerasTensor((count, self.most, 4), "float32"),
            "scores": keras.KerasTensor((count, self.most), "float32"),
            "labels": keras.KerasTensor((count, self.most), "int32"),
        }

    def errors(
        self, expected: Mapping[str, np.ndarray], got: Mapping[str, np.ndarray]
    ) -> dict[str, float]:
        """By what a file is judged: the share of detections without a counterpart (`unshared`).

        Rows are in the order of scores, in which two change places where these are nearly equal.
        """
        if any(not np.isfinite(x).all() for x in got.values()):
            return {"detections": float("inf")}
        return {"detections": unshared(Detections(**expected), Detections(**got))}

    def call(self, outputs: Any) -> dict[str, Tensor]:
        import tensorflow as tf

        decoded = super().call(outputs)
        boxes, scores = decoded["boxes"], decoded["scores"]
        if boxes.shape[0] is None:
            kinds = {"boxes": "float32", "scores": "float32", "labels": "int32"}
            return tf.map_fn(
                lambda x: self._of_image(*x), (boxes, scores), fn_output_signature=kinds
            )
        # A file's batch is known: no loop.
        each = [self._of_image(boxes[i], scores[i]) for i in range(boxes.shape[0])]
        return {name: ops.stack([one[name] for one in each]) for name in each[0]}

    def _of_image(self, boxes: Any, scores: Any) -> dict[str, Any]:
        import tensorflow as tf

        places, classes = scores.shape
        scores, pairs = tf.math.top_k(tf.reshape(scores, [-1]), min(CANDIDATES, places * classes))
        place, label = pairs // classes, pairs % classes
        boxes = tf.gather(boxes, place)
        # Boxes of different classes are put where they can't overlap.
        shifts = 2.0 * max(self.head.image_size) * np.arange(classes, dtype="float32")
        apart = tf.gather(tf.constant(shifts[:, None]), label)
        apart = boxes + apart
        # LiteRT's operator repeats the first box without area in place of all that follow.
        has_area = tf.reduce_all(apart[:, 2:] > apart[:, :2], axis=-1)
        kept, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=apart,
            scores=tf.where(has_area, scores, -1.0),
            max_output_size=self.most,
            iou_threshold=self.iou,
            score_threshold=self.score,
            pad_to_max_output_size=True,
        )
        kept = tf.ensure_shape(kept, [self.most])
        real = tf.range(self.most) < count
        return {
            "boxes": tf.where(real[:, None], tf.gather(boxes, kept), 0.0),
            "scores": tf.where(real, tf.gather(scores, kept), 0.0),
            "labels": tf.where(real, tf.gather(label, kept), -1),
        }
