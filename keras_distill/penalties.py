"""Regularizers and `add_loss` terms, which count once in the loss, whatever `alpha` is."""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf
from keras import ops


def add_penalties(values: dict[str, Any], penalties: Iterable) -> dict[str, Any]:
    """Adds regularizers and `add_loss` terms to the `"loss"` of a batch.

    Each replica of a `tf.distribute` strategy adds its share.

    Args:
        values: What `Objective.compute_losses` returned.
        penalties: The terms, tensors of any shape and dtype.
    """
    total = values["loss"]
    for penalty in penalties:
        total += ops.cast(_scalar(penalty) / replicas(), total.dtype)
    return {**values, "loss": total}


def total_of_penalties(penalties: Iterable) -> Any:
    """The sum of regularizers and `add_loss` terms, as far as this replica adds it."""
    return ops.sum([0.0, *map(_scalar, penalties)]) / replicas()


def replicas() -> int:
    """Number of replicas, whose losses add up to that of the whole batch."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def _scalar(penalty: Any) -> Any:
    """A term of any shape and dtype, as a scalar."""
    if not keras.backend.is_float_dtype(penalty.dtype):
        penalty = ops.cast(penalty, keras.backend.floatx())
    return ops.sum(penalty)
