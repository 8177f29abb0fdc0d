"""Features by position: means over a sample under a mask, maps brought to one size."""

import math

import numpy as np
from keras import ops

from keras_distill._types import Tensor


def flat(x: Tensor) -> Tensor:
    """`(batch, ...)` as `(batch, all)`."""
    return ops.reshape(x, (ops.shape(x)[0], -1))


def sample_means(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean over all axes but the first, of the positions where `mask` is true.

    Args:
        values: Float, shape `(batch, ...)`.
        mask: Bool, shape `(batch, ...)` with as many axes as `values` or fewer; `None` for all.

    Returns:
        Shape `(batch,)`; 0 for a sample whose positions are all masked.
    """
    axes = tuple(range(1, len(values.shape)))
    if mask is None:
        return ops.mean(values, axis=axes)
    mask = ops.reshape(mask, (*ops.shape(mask), *(1,) * (len(values.shape) - len(mask.shape))))
    mask = ops.broadcast_to(mask, ops.shape(values))
    total = ops.sum(ops.where(mask, values, ops.zeros_like(values)), axis=axes)
    return total / ops.maximum(ops.sum(ops.cast(mask, values.dtype), axis=axes), 1)


def check_positions(loss: str, features: Tensor) -> None:
    """Raises a `ValueError` if features have no axis of positions.

    Args:
        loss: Name of the loss, for the message.
        features: Should have shape `(batch, ..., channels)`.
    """
    if len(features.shape) < 3:
        raise ValueError(
            f"`{loss}` takes features with positions, shape `(batch, ..., channels)`. "
            f"Received: shape {tuple(features.shape)}"
        )


def to_common_size(
    loss: str, teacher: Tensor, student: Tensor, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Both features averaged down to the smaller of each of their sizes.

    Args:
        loss: Name of the loss, for messages.
        teacher: Features of the teacher, shape `(batch, ..., channels)`.
        student: Features of the student, likewise.
        mask: The student's mask, under which sizes must be equal, or `None`.

    Returns:
        `(teacher, student)`.

    Raises:
        ValueError: If they can't be brought to one size.
    """
    check_positions(loss, teacher)
    check_positions(loss, student)
    theirs, ours = teacher.shape[1:-1], student.shape[1:-1]
    if theirs == ours or None in (*theirs, *ours):
        return teacher, student
    if mask is None and len(theirs) != len(ours) and math.prod(theirs) == math.prod(ours):
        # Patches of a vision transformer beside a map: the same positions in the same order.
        return teacher, student
    if len(theirs) != len(ours) or mask is not None:
        raise ValueError(
            f"`{loss}` can't bring the teacher's positions {tuple(theirs)} and the "
            f"student's {tuple(ours)} to one size"
            + (" under a mask." if mask is not None else ".")
            + " Give the `Match` an adapter that does."
        )
    sizes = tuple(map(min, theirs, ours))
    return pool(teacher, sizes), pool(student, sizes)


def pool(features: Tensor, sizes: tuple[int, ...]) -> Tensor:
    """Features averaged over as many parts of each axis of positions as `sizes` gives."""
    for axis, size in enumerate(sizes, start=1):
        if features.shape[axis] != size:
            matrix = ops.cast(_averages(features.shape[axis], size), features.dtype)
            features = ops.moveaxis(ops.tensordot(matrix, features, axes=[[1], [axis]]), 0, axis)
    return features


def _averages(positions, parts):
    """Matrix `(parts, positions)` that averages over equal parts, which may share their ends."""
    matrix = np.zeros((parts, positions))
    for i in range(parts):
        part = slice(i * positions // parts, -(-(i + 1) * positions // parts))
        matrix[i, part] = 1 / len(range(*part.indices(positions)))
    return matrix
