"""Mean average precision as COCO measures it, by pycocotools."""

import contextlib
import io
from typing import Any

import numpy as np

from keras_distill.detection.boxes import Detections, overlaps

#: Metrics, and their places among those of COCO.
METRICS = {
    "map": 0,
    "ap50": 1,
    "ap75": 2,
    "ap_small": 3,
    "ap_medium": 4,
    "ap_large": 5,
    "average_recall": 8,
}


def average_precision(
    boxes: np.ndarray,
    labels: np.ndarray,
    found: Detections,
    classes: int,
    ignored: np.ndarray | None = None,
) -> tuple[dict[str, float], np.ndarray]:
    """COCO's metrics of detections.

    Args:
        boxes: True boxes, left, top, right and bottom edge in pixels, shape `(images, most, 4)`.
        labels: Their classes, shape `(images, most)`; -1 for padding.
        found: The `Detections`, of the same images.
        classes: Number of classes.
        ignored: Boxes that are neither found nor missed (crowds), bool, shape `(images, most)`, or
            `None`.

    Returns:
        `(values, per_class)`: `"map"`, the mean average precision over overlaps of 0.5, 0.55, ...,
        0.95 and over the classes that occur; `"ap50"` and `"ap75"` at one overlap; `"ap_small"`,
        `"ap_medium"` and `"ap_large"` of boxes below 32², from 32² to 96² and above 96² pixels
        (NaN where there are none); `"average_recall"` of at most 100 detections an image. Then the
        average precision of each class, and that at an overlap of 0.5, shape `(2, classes)`.

    Raises:
        ImportError: If pycocotools is missing.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ModuleNotFoundError as error:
        raise ImportError(
            "The scores of detectors need pycocotools: `pip install keras-distill[detection]`."
        ) from error
    truth = COCO()
    truth.dataset = _truth(boxes, labels, classes, ignored)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = _results(found)
        results = truth.loadRes(results) if results else _nothing(COCO, truth.dataset)
        evaluated = COCOeval(truth, results, "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
        evaluated.summarize()
    values = {name: _or_nan(evaluated.stats[place]) for name, place in METRICS.items()}
    # Overlaps, recalls, classes, sizes (all of them first), most detections (100 last).
    precision = evaluated.eval["precision"][:, :, :, 0, -1]
    per_class = [[_mean(p[:, :, c]) for c in range(classes)] for p in (precision, precision[:1])]
    return values, np.array(per_class)


def _truth(boxes: np.ndarray, labels: np.ndarray, classes: int, ignored: Any) -> dict[str, Any]:
    annotations = []
    for image, place in np.argwhere(labels >= 0):
        left, top, right, bottom = map(float, boxes[image, place])
        skip = bool(ignored is not None and ignored[image, place])
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": int(image),
                "category_id": int(labels[image, place]),
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top),
                "iscrowd": int(skip),
            }
        )
    return {
        "info": {},
        "images": [{"id": i} for i in range(len(labels))],
        "categories": [{"id": c, "name": str(c)} for c in range(classes)],
        "annotations": annotations,
    }


def _results(found: Detections) -> list[dict[str, Any]]:
    results = []
    for image, place in np.argwhere(found.labels >= 0):
        left, top, right, bottom = map(float, found.boxes[image, place])
        results.append(
            {
                "image_id": int(image),
                "category_id": int(found.labels[image, place]),
                "bbox": [left, top, right - left, bottom - top],
                "score": float(found.scores[image, place]),
            }
        )
    return results


def _nothing(COCO: Any, dataset: dict[str, Any]) -> Any:
    results = COCO()
    results.dataset = {**dataset, "annotations": []}
    results.createIndex()
    return results


def _or_nan(value: float) -> float:
    return float("nan") if value == -1 else float(value)


def _mean(precision: np.ndarray) -> float:
    known = precision[precision > -1]
    return float(known.mean()) if known.size else float("nan")


def unshared(a: Detections, b: Detections) -> float:
    """The share of two sets of detections that has no counterpart in the other.

    Args:
        a: `Detections`.
        b: Likewise, of the same images.

    Returns:
        From 0 to 1: 1 less the share of detections of the same class that overlap by at least 0.5.
        Detections count by the square of their scores, pairs by twice the product.
    """
    total = float((a.scores**2).sum() + (b.scores**2).sum())
    shared = 0.0
    for i in range(len(a.labels)):
        pairs = _pairs(a.boxes[i], a.labels[i], b.boxes[i], b.labels[i])
        shared += sum(2.0 * a.scores[i, j] * b.scores[i, k] for j, k in pairs)
    return float(1 - shared / total) if total else 0.0


def disagreement(a: Detections, b: Detections, score: float = 0.3) -> np.ndarray:
    """How much of two sets of detections has no counterpart in the other, for each image.

    Args:
        a: `Detections`.
        b: Likewise, of the same images.
        score: Detections below it don't count.

    Returns:
        From 0 to 1, shape `(images,)`: 1 less the share of detections, of both, that have one of
        the same class in the other set with an overlap of at least 0.5.
    """
    values = np.zeros(len(a.labels))
    for i in range(len(values)):
        sets = [
            (s.boxes[i][keep], s.labels[i][keep])
            for s in (a, b)
            for keep in [(s.labels[i] >= 0) & (s.scores[i] >= score)]
        ]
        total = sum(len(labels) for _, labels in sets)
        if total:
            values[i] = 1 - 2 * len(_pairs(*sets[0], *sets[1])) / total
    return values


def _pairs(
    boxes: np.ndarray, labels: np.ndarray, others: np.ndarray, their_labels: np.ndarray
) -> list[tuple[int, int]]:
    """Which boxes of one set can be paired with which of the other, the best overlaps first."""
    alike = overlaps(boxes, others) * (labels[:, None] == their_labels[None])
    alike[labels < 0] = 0
    found: list[tuple[int, int]] = []
    while alike.size and alike.max() >= 0.5:
        row, column = np.unravel_index(alike.argmax(), alike.shape)
        alike[row], alike[:, column] = 0, 0
        found.append((int(row), int(column)))
    return found
