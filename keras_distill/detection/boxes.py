"""Boxes given by their left, top, right and bottom edge, in NumPy."""

from typing import NamedTuple

import numpy as np

from keras_distill.checks import fraction, whole_number


class Detections(NamedTuple):
    """What was found on images, the surest first.

    Attributes:
        boxes: Left, top, right and bottom edge in pixels, float32, shape `(images, most, 4)`.
        scores: From 0 to 1, float32, shape `(images, most)`.
        labels: Indices of classes, int32, shape `(images, most)`; -1 where an image has fewer.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of `a` with each of `b`.

    Args:
        a: Shape `(n, 4)`.
        b: Shape `(m, 4)`.

    Returns:
        Shape `(n, m)`; 0 where both have no area.
    """
    a, b = a.astype("float64")[:, None], b.astype("float64")[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    areas = (np.prod(np.maximum(x[..., 2:] - x[..., :2], 0), axis=-1) for x in (a, b))
    union = sum(areas) - shared
    return shared / np.where(union > 0, union, 1)


def non_maximum_suppression(
    boxes: np.ndarray, scores: np.ndarray, iou: float, most: int
) -> np.ndarray:
    """Indices of the boxes that remain when each drops those of lower score that overlap it.

    Args:
        boxes: Of one class, shape `(n, 4)`.
        scores: Shape `(n,)`.
        iou: Overlap above which the lower score is dropped.
        most: The largest number of boxes that remain.

    Returns:
        Indices, the surest first. Of equal scores the first counts as higher.
    """
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order) and len(kept) < most:
        first, order = order[0], order[1:]
        kept.append(int(first))
        order = order[overlaps(boxes[first][None], boxes[order])[0] <= iou]
    return np.asarray(kept, int)


def chosen(
    boxes: np.ndarray,
    scores: np.ndarray,
    score: float = 0.05,
    iou: float = 0.6,
    most: int = 100,
) -> Detections:
    """What remains of all boxes of a batch: scores high enough, duplicates of a class dropped.

    Boxes without area are dropped, too.

    Args:
        boxes: Float, shape `(images, places, 4)`.
        scores: From 0 to 1, shape `(images, places, classes)`.
        score: Scores below are dropped.
        iou: Of two boxes of a class that overlap more than this, the less sure one is dropped.
        most: The largest number of detections of an image.
    """
    fraction("score", score), fraction("iou", iou), whole_number("most", most, 1)
    count, classes = len(boxes), scores.shape[-1]
    found = Detections(
        np.zeros((count, most, 4), "float32"),
        np.zeros((count, most), "float32"),
        np.full((count, most), -1, "int32"),
    )
    has_area = (boxes[..., 2:] > boxes[..., :2]).all(axis=-1)
    for i in range(count):
        parts = []
        for label in range(classes):
            own = np.flatnonzero(has_area[i] & (scores[i, :, label] >= score))
            kept = own[non_maximum_suppression(boxes[i, own], scores[i, own, label], iou, most)]
            parts += [(float(scores[i, place, label]), int(place), label) for place in kept]
        parts = sorted(parts, key=lambda part: -part[0])[:most]
        for k, (value, place, label) in enumerate(parts):
            found.boxes[i, k] = boxes[i, place]
            found.scores[i, k], found.labels[i, k] = value, label
    return found
