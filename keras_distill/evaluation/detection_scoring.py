"""Detectors run on the same images, and scored against the boxes on them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import scipy.sparse

from keras_distill import samples
from keras_distill.evaluation import metrics, scoring
from keras_distill.evaluation.candidates import of_each

#: Detections less sure than this aren't drawn, nor compared with the teacher's.
_SHOWN = 0.3


def score(
    runs: scoring.Runs,
    data: Any,
    *,
    teacher: str | None,
    class_names: Sequence | None,
    decode: Callable | Mapping[str, Callable] | None,
    batch_size: int,
) -> tuple[Any, scoring.Scored]:
    """Runs the candidates on images and scores what they find. Arguments are those of `compare`.

    Returns:
        `(x, scored)`: the images, and the scores. Labels are, of each image, a dict of its true
        `"boxes"` and their `"labels"`.
    """
    # Loaded here: those who compare classifiers don't need it.
    from keras_distill import detection

    x, truth = _images_and_boxes(data)
    decoders = of_each(
        "decode", decode, runs, lambda f: f is None or callable(f), "a function from outputs to "
        "`Detections`",
    )  # fmt: skip
    found = {
        name: [_found(candidate, name, x, batch_size, decoders[name]) for candidate in each]
        for name, each in runs.items()
    }
    classes = 1 + max(
        int(truth["labels"].max(initial=0)),
        *(int(f.labels.max(initial=0)) for each in found.values() for f in each),
    )
    if class_names is not None:
        if classes > len(class_names):
            raise ValueError(
                f"`class_names` names {len(class_names)} classes, but there are labels or "
                f"detections of class {classes - 1}."
            )
        classes = len(class_names)
    scored_boxes = (truth["labels"] >= 0) & ~truth["ignored"]
    counts = np.bincount(truth["labels"][scored_boxes], minlength=classes)
    reference = None if teacher is None else found[teacher][0]

    def scores_of(detections: detection.Detections) -> metrics.Scores:
        values, per_class = detection.average_precision(
            truth["boxes"], truth["labels"], detections, classes, truth["ignored"]
        )
        apart = None if reference is None else detection.disagreement(detections, reference)
        return metrics.Scores(
            values={name: value for name, value in values.items() if not np.isnan(value)},
            sums=scipy.sparse.csr_array((samples.count(x), 0)),
            from_sums=lambda totals: {},
            disagreement=apart,
            predicted=_drawn(detections),  # type: ignore[arg-type]
            per_class={"ap": per_class[0], "ap50": per_class[1], "labels": counts},
        )

    scored = {name: [scores_of(one) for one in each] for name, each in found.items()}
    notes = ["Average precision by pycocotools; sizes are in pixels of these images."]
    missing = map(int, np.flatnonzero(counts == 0))
    absent = [str(class_names[c] if class_names else c) for c in missing]
    if absent:
        notes.append(f"No test image has the class {', '.join(absent)}: means leave it out.")
    return x, scoring.Scored("detection", _labels(truth), scored, notes)


def _images_and_boxes(data: Any) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images, and their boxes padded to one number."""
    batches = [data] if isinstance(data, tuple) else list(data)
    try:
        images = [np.asarray(x) for x, _ in batches]
        boxes = [np.asarray(y["boxes"], "float32") for _, y in batches]
        labels = [np.asarray(y["labels"]).astype("int32") for _, y in batches]
        ignored = [
            np.asarray(y.get("ignored", np.zeros(part.shape)), bool)
            for (_, y), part in zip(batches, labels, strict=True)
        ]
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ValueError(
            'For task="detection", `data` must be `(images, {"boxes": ..., "labels": ...})`, or '
            f"batches of these: `keras_distill.detection.dataset(...).batch(...)`. {error!r}"
        ) from error
    if not any(map(len, images)):
        raise ValueError(f"`data` must hold images. Received: {len(batches)} batches without any.")
    most = max(part.shape[1] for part in labels)
    boxes = [np.pad(b, [(0, 0), (0, most - b.shape[1]), (0, 0)]) for b in boxes]
    labels = [np.pad(y, [(0, 0), (0, most - y.shape[1])], constant_values=-1) for y in labels]
    ignored = [np.pad(i, [(0, 0), (0, most - i.shape[1])]) for i in ignored]
    truth = {
        "boxes": np.concatenate(boxes),
        "labels": np.concatenate(labels),
        "ignored": np.concatenate(ignored),
    }
    x = np.concatenate(images)
    shapes = {name: part.shape for name, part in truth.items()}
    flat = (len(x), most)
    if shapes != {"boxes": (*flat, 4), "labels": flat, "ignored": flat}:
        raise ValueError(
            "Boxes must have the shape (images, most, 4), labels and `ignored` (images, most). "
            f"Received: {len(x)} images, {shapes}"
        )
    return x, truth


def _found(candidate: Any, name: str, x: Any, size: int, decode: Callable | None) -> Any:
    """The `Detections` of a candidate."""
    from keras_distill.detection import Detections

    try:
        outputs = candidate.outputs(x, size)
        found = decode(outputs) if decode else outputs
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name!r} can't be run on these images: {error}") from error
    if isinstance(found, dict):
        found = [found.get(key) for key in ("boxes", "scores", "labels")]
    parts = [] if found is None else [np.asarray(part) for part in keras.tree.flatten(found)]
    shapes = [part.shape for part in parts]
    if len(parts) != 3 or shapes[0] != (*shapes[1], 4) or shapes[1] != shapes[2]:
        raise ValueError(
            f"{name!r} must give detections: boxes of shape (images, most, 4), scores and labels "
            "of shape (images, most). Give `decode`, such as "
            f"`keras_distill.detection.Head(...).detections`. Received: shapes {shapes}"
        )
    boxes, scores, labels = parts
    if not np.isfinite(boxes).all() or not np.isfinite(scores).all():
        raise ValueError(f"{name!r} gives boxes or scores that are NaN or infinity.")
    return Detections(boxes, scores, labels.astype("int32"))


def _drawn(found: Any) -> list[dict[str, np.ndarray]]:
    """Of each image, what is sure enough to be drawn."""
    kept = (found.labels >= 0) & (found.scores >= _SHOWN)
    return [
        {"boxes": boxes[keep], "scores": scores[keep], "labels": labels[keep]}
        for boxes, scores, labels, keep in zip(*found, kept, strict=True)
    ]


def _labels(truth: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    kept = (truth["labels"] >= 0) & ~truth["ignored"]
    return [
        {"boxes": boxes[keep], "labels": labels[keep]}
        for boxes, labels, keep in zip(truth["boxes"], truth["labels"], kept, strict=True)
    ]
