"""The examples of a dataset as a teacher and its student both see them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers.batches import Answered, Keyed, keyed, x_of


def examples_of(data: Any) -> tf.data.Dataset:
    """`data` as a dataset of single, keyed examples; `Answered` ones are keyed as well.

    Args:
        data: A `tf.data.Dataset` of examples, or an array of inputs, or a dict of them.
    """
    if not isinstance(data, tf.data.Dataset):
        data = tf.data.Dataset.from_tensor_slices(data)
    return data if is_keyed(data) else keyed(data)


def is_keyed(data: Any) -> bool:
    """Whether examples or batches of them are numbered."""
    return isinstance(data, tf.data.Dataset) and isinstance(
        x_of(data.element_spec), (Keyed, Answered)
    )


def count_of(dataset: tf.data.Dataset) -> int:
    """The cardinality of a dataset, unknown inside the function of another one's `flat_map`."""
    return int(dataset.cardinality()) if tf.executing_eagerly() else tf.data.UNKNOWN_CARDINALITY


def seed_of(seed: int, key: tf.Tensor, view: tf.Tensor) -> tf.Tensor:
    """The seed of a view of an example, for `tf.random.stateless_*` and `tf.image.stateless_*`.

    Args:
        seed: The seed of the whole store, an int.
        key: Key of the example, an int64 scalar.
        view: Number of the view, an int64 scalar.

    Returns:
        Two int64, which depend on all three.
    """
    start = tf.constant([0, seed], "int32")
    return tf.random.fold_in(tf.random.fold_in(start, key), view)


def with_view(keys: Any, view: Any) -> tf.Tensor:
    """Pairs of a key and the number of a view: int64, shape `(..., 2)`."""
    keys = tf.cast(keys, "int64")
    return tf.stack([keys, tf.broadcast_to(tf.cast(view, "int64"), tf.shape(keys))], axis=-1)


def signatures(inputs: Any) -> tuple[tf.Tensor, tf.Tensor]:
    """A number for each row of a batch by which its content is recognized, and its tolerance.

    Sums with fixed weights change with everything that is done to an example, and tolerate the
    last bits, in which two machines may differ.

    Args:
        inputs: A tensor, or a structure of them, of shape `(batch, ...)`.

    Returns:
        Two float32 tensors of shape `(batch,)`.
    """
    total, size = 0.0, 0.0
    for number, leaf in enumerate(keras.tree.flatten(inputs)):
        rows = tf.reshape(leaf, (tf.shape(leaf)[0], -1))
        if rows.dtype == tf.string:
            rows = tf.strings.to_hash_bucket_fast(rows, 2**20)
        rows = tf.cast(rows, "float32")
        count = tf.cast(tf.shape(rows)[1], "float32")
        weights = tf.cos(tf.range(count) + np.float32(number))
        total += tf.linalg.matvec(rows, weights) / tf.sqrt(count)
        size += tf.sqrt(tf.reduce_mean(tf.square(rows), axis=1))
    return total, 1e-3 * size


def resemble(stored: np.ndarray, signature: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Whether the signatures of rows are those that were stored, up to rounding."""
    difference = np.abs(stored - signature)
    return (difference <= tolerance) | (np.isnan(stored) & np.isnan(signature))
