"""Two detectors' heads compared, level by level and class by class."""

import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_distill._types import PACKAGE, Tensor
from keras_distill.checks import positive
from keras_distill.detection.assignment import as_distances, with_class_logits
from keras_distill.detection.heads import Head, checked_activation
from keras_distill.losses.base import DistillationLoss
from keras_distill.losses.cross_head import generalized_iou, per_score, quality_focal
from keras_distill.losses.dense import localization_distillation
from keras_distill.match import Match


def matches(
    student: Head, teacher: Head, *, class_weight: Any = 1.0, box_weight: Any = 1.0
) -> list[Match]:
    """Matches of a student's classes and boxes with a teacher's, wherever both look.

    Levels belong together whose grids have as many rows and columns, whatever the strides and
    sizes of images are. Classes are found by their names; the teacher may have more. Boxes as
    "edges" of equal bins are compared by localization distillation, otherwise by the overlap of the
    boxes; "deltas" of equal anchors by their absolute difference. The teacher's scores weight the
    places, so that background doesn't drown what is seen.

    Source: class distillation by the quality focal loss as in CrossKD (arXiv:2306.11369), boxes as
    in localization distillation (arXiv:2102.12252), with T = 10.

    Args:
        student: The student's `Head`.
        teacher: The teacher's `Head`.
        class_weight: Weight of the classes.
        box_weight: Weight of the boxes. For edges, the authors' is `0.25 / (4 * bins)`.

    Returns:
        A list of two `Match`es, `"classes"` and `"boxes"`, for a `Distiller`.

    Raises:
        ValueError: If a class of the student is none of the teacher's, no level has the same
            grid, or boxes can't be related. The message says which.

    Warns:
        UserWarning: If a level of the student has no counterpart, and so learns from labels alone.

    Example:

    ```python
    head = keras_distill.detection.Head((192, 256), (8, 16), class_names, "edges")
    matches = keras_distill.detection.matches(student=head, teacher=head)
    distiller = keras_distill.Distiller(student, teacher, matches, alpha=0.5)
    ```
    """
    unknown = [name for name in student.class_names if name not in teacher.class_names]
    if unknown:
        raise ValueError(
            f"The teacher doesn't know the student's classes {unknown}: it has "
            f"{list(teacher.class_names)}. Name the same classes alike in both heads."
        )
    classes = [teacher.class_names.index(name) for name in student.class_names]
    rows = _rows(student, teacher)
    _check_boxes(student, teacher, rows)
    return [
        Match(
            PlaceClasses(rows, classes, (teacher.activation, student.activation)),
            student=student.classes,
            teacher=teacher.classes,
            weight=class_weight,
            name="classes",
        ),
        Match(
            PlaceBoxes(rows, classes, student.boxes_as == "deltas", activation=teacher.activation),
            student=student.boxes,
            teacher=(teacher.boxes, teacher.classes),
            weight=box_weight,
            name="boxes",
        ),
    ]


def _rows(student: Head, teacher: Head) -> list[list[int]]:
    """For each level that both have: start and stop in the student, and in the teacher."""
    if student.per_cell != teacher.per_cell:
        raise ValueError(
            f"The student has {student.per_cell} place(s) in a cell and the teacher "
            f"{teacher.per_cell}: places of different anchors can't be compared. Compare features "
            "instead, for example by `keras_distill.losses.PKD`."
        )
    rows, alone = [], []
    for i, grid in enumerate(student.grids):
        same = [j for j, other in enumerate(teacher.grids) if other == grid]
        if not same:
            alone.append(student.strides[i])
            continue
        # Of several that have one cell each, the one whose stride is as much of an image.
        share = student.strides[i] / student.image_size[0]
        nearest = min(same, key=lambda j: abs(teacher.strides[j] / teacher.image_size[0] - share))
        ours, theirs = student.level(i), teacher.level(nearest)
        rows.append([ours.start, ours.stop, theirs.start, theirs.stop])
    if not rows:
        raise ValueError(
            f"No level of the student has the grid of one of the teacher's: {student.grids} "
            f"(strides {student.strides} on images of {student.image_size}) and {teacher.grids} "
            f"(strides {teacher.strides} on {teacher.image_size}). Give the teacher images of a "
            "size with which its grids are the student's, or compare features by "
            "`keras_distill.losses.PKD`."
        )
    if alone:
        warnings.warn(
            f"The student's levels of the strides {alone} have no counterpart in the teacher: they "
            "learn from labels alone.",
            stacklevel=3,
        )
    return rows


def _check_boxes(student: Head, teacher: Head, rows: list[list[int]]) -> None:
    if (student.boxes_as == "deltas") != (teacher.boxes_as == "deltas"):
        raise ValueError(
            f'The student gives boxes as "{student.boxes_as}", the teacher as '
            f'"{teacher.boxes_as}". A box relative to an anchor and one relative to a point '
            "can't be compared. Compare features instead, for example by "
            "`keras_distill.losses.PKD`."
        )
    if student.boxes_as != "deltas":
        return
    if student.variances != teacher.variances:
        raise ValueError(
            "The student's `variances` aren't the teacher's, so that equal deltas are different "
            f"boxes. Received: {student.variances} and {teacher.variances}"
        )
    for start, stop, other, end in rows:
        ours, theirs = (
            head.anchors[part] / np.tile(head.image_size[::-1], 2)
            for head, part in ((student, slice(start, stop)), (teacher, slice(other, end)))
        )
        if not np.allclose(ours, theirs, atol=1e-3):
            raise ValueError(
                "The student's anchors aren't the teacher's, so that equal deltas are different "
                f"boxes: of the first place, {student.anchors[start]} on images of "
                f"{student.image_size}, {teacher.anchors[other]} on {teacher.image_size}."
            )


class _Places(DistillationLoss):
    """What both losses share: the rows and classes to compare."""

    same_shape = False

    def __init__(self, rows: list, classes: list, **arguments: Any):
        super().__init__(**arguments)
        self.rows = [list(map(int, row)) for row in rows]
        self.classes = list(map(int, classes))

    def _ours(self, x: Tensor) -> Tensor:
        return ops.concatenate([x[:, start:stop] for start, stop, _, _ in self.rows], axis=1)

    def _theirs(self, x: Tensor) -> Tensor:
        return ops.concatenate([x[:, start:stop] for _, _, start, stop in self.rows], axis=1)

    def _logits(self, classes: Tensor) -> Tensor:
        """The teacher's logits of the student's classes."""
        return ops.take(self._theirs(classes), np.array(self.classes), axis=-1)

    def get_config(self) -> dict:
        return {**super().get_config(), "rows": self.rows, "classes": self.classes}


@keras.saving.register_keras_serializable(PACKAGE)
class PlaceClasses(_Places):
    """Quality focal loss of classes, divided by the sum of the teacher's scores; see `matches`.

    Args:
        rows: For each level, start and stop of its places in the student, then in the teacher.
        classes: For each class of the student, its index in the teacher.
        activations: Of teacher and student, `"sigmoid"` or `None`, as of a `Head`.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation.

    Call arguments:
        y_true: Logits of the teacher or their sigmoid, shape `(batch, places, classes)`.
        y_pred: Those of the student, likewise.
    """

    takes_logits = True

    def __init__(
        self,
        rows: list,
        classes: list,
        activations: Sequence[str | None] = (None, None),
        name: str = "place_classes",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(rows, classes, name=name, reduction=reduction, dtype=dtype)
        theirs, ours = activations
        self.activations = [checked_activation(theirs), checked_activation(ours)]

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        theirs, ours = map(with_class_logits, (y_true, y_pred), self.activations)
        return super().__call__(theirs, ours, sample_weight)

    def get_config(self) -> dict:
        return {**super().get_config(), "activations": self.activations}

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        teacher = self._logits(y_true)
        scores = ops.max(ops.sigmoid(teacher), axis=-1)
        return per_score(quality_focal(teacher, self._ours(y_pred)), scores)


@keras.saving.register_keras_serializable(PACKAGE)
class PlaceBoxes(_Places):
    """Boxes compared where the teacher's scores are high; see `matches`.

    Args:
        rows: As in `PlaceClasses`.
        classes: As in `PlaceClasses`.
        deltas: Whether boxes are relative to anchors.
        temperature: Softening T > 0 of edges.
        activation: Of the teacher's classes, `"sigmoid"` or `None`, as of a `Head`.
        name: Name of the loss, under which `fit` reports it.
        reduction: As in `keras.losses.Loss`.
        dtype: Dtype or policy of the computation.

    Call arguments:
        y_true: `(boxes, classes)` of the teacher, shapes `(batch, places, 4)` or `(batch, places,
            4, bins)` and `(batch, places, classes)`.
        y_pred: Boxes of the student.
    """

    def __init__(
        self,
        rows: list,
        classes: list,
        deltas: bool = False,
        temperature: float = 10.0,
        activation: str | None = None,
        name: str = "place_boxes",
        reduction: str | None = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(rows, classes, name=name, reduction=reduction, dtype=dtype)
        self.deltas = deltas
        self.temperature_of_edges = positive("temperature", temperature)
        self.activation = checked_activation(activation)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Tensor:
        boxes, classes = y_true
        classes = with_class_logits(classes, self.activation)
        return super().__call__((boxes, classes), y_pred, sample_weight)

    def call(self, y_true: tuple[Tensor, Tensor], y_pred: Tensor) -> Tensor:
        theirs, classes = y_true
        theirs, ours = self._theirs(theirs), self._ours(y_pred)
        scores = ops.max(ops.sigmoid(self._logits(classes)), axis=-1)
        if len(ours.shape) == 4 and ours.shape == theirs.shape:
            return localization_distillation(theirs, ours, scores, self.temperature_of_edges)
        if self.deltas:
            apart = ops.mean(ops.abs(ours - theirs), axis=-1)
        else:
            apart = 1 - generalized_iou(as_distances(theirs), as_distances(ours))
        return per_score(apart * scores, scores)

    def _compared(self, outputs: Any, temperature: Any = None) -> Any:
        """Boxes as they are, and the logits of classes that end in a sigmoid."""
        if not isinstance(outputs, (tuple, list)):
            return super()._compared(outputs, temperature)
        boxes, classes = outputs
        return boxes.values, classes.logits_at()

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "deltas": self.deltas,
            "temperature": self.temperature_of_edges,
            "activation": self.activation,
        }
