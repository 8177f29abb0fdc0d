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
    """Two numbers for each row of a batch by which its content is recognized, and tolerances.

    Sums with fixed weights change with everything that is done to an example. The first is of
    floats, pixels and samples of sound, and tolerates the last bits, in which two machines may
    differ. The second, of tokens and strings, is exact.

    Args:
        inputs: A tensor, or a structure of them, of shape `(batch, ...)`.

    Returns:
        Two float32 tensors of shape `(batch, 2)`.
    """
    leaves = keras.tree.flatten(inputs)
    batch = tf.shape(leaves[0])[:1]
    total, size, exact = tf.zeros(batch), tf.zeros(batch), tf.zeros(batch, "int64")
    for number, leaf in enumerate(leaves):
        rows = tf.reshape(leaf, (tf.shape(leaf)[0], -1))
        if rows.dtype == tf.string:
            rows = tf.strings.to_hash_bucket_fast(rows, 2**62)
        # Decoders of images and sound give 8 or 16 bits, and may round otherwise elsewhere.
        if rows.dtype.is_integer and rows.dtype.size >= 4:
            weights = _mixed(tf.range(tf.shape(rows, "int64")[1]) + (number << 32))
            exact += tf.reduce_sum(tf.cast(rows, "int64") * weights, axis=1)
            continue
        rows = tf.cast(rows, "float32")
        count = tf.cast(tf.shape(rows)[1], "float32")
        weights = tf.cos(tf.range(count) + np.float32(number))
        total += tf.linalg.matvec(rows, weights) / tf.sqrt(count)
        size += tf.sqrt(tf.reduce_mean(tf.square(rows), axis=1))
    # So many bits a float32 can hold.
    exact = tf.bitwise.bitwise_and(tf.bitwise.right_shift(exact, 39), 2**24 - 1)
    numbers = tf.stack([total, tf.cast(exact, "float32")], axis=1)
    return numbers, tf.stack([1e-3 * size, tf.zeros(batch)], axis=1)


def _mixed(numbers: tf.Tensor) -> tf.Tensor:
    """Weights of 64 bits for the numbers of places, odd and without a pattern (SplitMix64)."""
    numbers = (numbers + 1) * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        numbers = tf.bitwise.bitwise_xor(numbers, tf.bitwise.right_shift(numbers, shift)) * factor
    return tf.bitwise.bitwise_or(numbers, 1)


def resemble(stored: np.ndarray, signature: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Whether the signatures of rows are those that were stored, up to rounding."""
    alike = np.abs(stored - signature) <= tolerance
    return (alike | (np.isnan(stored) & np.isnan(signature))).all(-1)
