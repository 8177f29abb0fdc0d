"""Layers that make a student's features comparable with a teacher's, built from the shapes."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_distill._types import PACKAGE

Shape = Sequence[int | None]


def fit(a: Shape, b: Shape) -> bool:
    """Whether two shapes agree apart from the batch, unknown sizes fitting anything."""
    return len(a) == len(b) and all(
        x == y or x is None or y is None for x, y in zip(a[1:], b[1:], strict=True)
    )


@keras.saving.register_keras_serializable(PACKAGE)
class MeanOfSteps(keras.layers.GlobalAveragePooling1D):
    """The mean over the steps that a mask leaves; over all where it leaves none.

    There Keras divides by 0, and every weight is NaN after the step.
    """

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is not None:
            none_left = ops.logical_not(ops.any(mask, axis=1, keepdims=True))
            mask = ops.logical_or(mask, none_left)
        return super().call(inputs, mask=mask)


def adapting_layers(student: Shape, teacher: Shape, dtype: Any) -> list | None:
    """Layers that turn features of shape `student` into shape `teacher`, or `None`."""
    ranks = len(student), len(teacher)
    channels = teacher[-1]
    pools = {
        (4, 2): keras.layers.GlobalAveragePooling2D,
        (3, 2): MeanOfSteps,
    }
    if ranks in pools:
        pool = [pools[ranks](dtype=dtype)]
        return pool if student[-1] == channels else [*pool, _dense(channels, dtype)]
    if ranks == (2, 2):
        return [_dense(channels, dtype)]
    if ranks not in ((3, 3), (4, 4)):
        return None
    resize = _resizing_layers(student[1:-1], teacher[1:-1], dtype)
    if resize is None:
        return None
    if student[-1] == channels:
        return resize
    project = (
        _dense(channels, dtype)
        if ranks == (3, 3)
        else keras.layers.Conv2D(channels, 1, dtype=dtype, name="project")
    )
    # Fewer positions are cheaper to project.
    shrinks = bool(resize) and (student[1] or 0) > (teacher[1] or 0)
    return [*resize, project] if shrinks else [project, *resize]


def _dense(units, dtype):
    return keras.layers.Dense(units, dtype=dtype, name="project")


def _resizing_layers(student, teacher, dtype):
    """Layers that bring the positions of a map or sequence to another size, or `None`."""
    if student == teacher:
        return []
    if None in student or None in teacher:
        return None
    rank = len(student)
    if all(s % t == 0 for s, t in zip(student, teacher, strict=True)):
        factors = tuple(s // t for s, t in zip(student, teacher, strict=True))
        pool = keras.layers.AveragePooling1D if rank == 1 else keras.layers.AveragePooling2D
        return [pool(factors[0] if rank == 1 else factors, dtype=dtype, name="pool")]
    if rank == 2:
        return [keras.layers.Resizing(*teacher, dtype=dtype, name="resize")]
    if teacher[0] % student[0] == 0:
        return [keras.layers.UpSampling1D(teacher[0] // student[0], dtype=dtype, name="repeat")]
    return None
