"""Memories: the teacher's features of samples that earlier batches showed."""

from keras import ops

from keras_distill._types import Tensor
from keras_distill.losses.numerics import scalar, very_negative


def log_shares(
    x: Tensor, rows: Tensor, temperature: float | Tensor, own: Tensor | None = None
) -> Tensor:
    """How similar features are to each row of a memory, as log-probabilities.

    Args:
        x: Features of unit length, float, shape `(..., channels)`.
        rows: Features of unit length, shape `(size, channels)`; rows of zeros are empty.
        temperature: Softening τ > 0 of the similarities.
        own: A row that each of `x` has for itself, of the shape of `x`, or `None`.

    Returns:
        Log-softmax of `rows · x / τ`, shape `(..., size)`, with `own` shape `(..., 1 + size)`.
        Empty rows have probability 0.
    """
    empty = ops.logical_not(ops.any(rows != 0, axis=-1))
    products = ops.matmul(x, ops.transpose(rows)) / scalar(temperature, x.dtype)
    logits = ops.where(empty, very_negative(x.dtype), products)
    if own is not None:
        first = ops.sum(x * own, axis=-1, keepdims=True) / scalar(temperature, x.dtype)
        logits = ops.concatenate([first, logits], axis=-1)
    return ops.log_softmax(logits, axis=-1)


def pushed(memory: Tensor, new: Tensor) -> Tensor:
    """A memory after new rows, which come first and push the oldest out.

    Args:
        memory: Shape `(classes, size, channels)`.
        new: Shape `(classes, rows, channels)`; rows of zeros are left out.

    Returns:
        Tensor of the shape of `memory`, empty rows last.
    """
    rows = ops.concatenate([new, memory], axis=1)
    empty = ops.logical_not(ops.any(rows != 0, axis=-1))
    count = ops.shape(rows)[1]
    order = ops.argsort(ops.cast(empty, "int32") * count + ops.arange(count), axis=1)
    return ops.take_along_axis(rows, order[:, : memory.shape[1], None], axis=1)
