"""Batches that carry more than inputs: keys that name the examples, and stored answers."""

from typing import Any, NamedTuple

import tensorflow as tf


class Keyed(NamedTuple):
    """The `x` of a batch whose examples are named by keys.

    The student and live teachers read `inputs`; losses that remember examples get `keys`.
    `keyed` makes it from a `tf.data.Dataset`; for arrays write
    `distiller.fit(Keyed(x_train, np.arange(len(x_train))), y_train)`.

    Args:
        inputs: What the student reads, shape `(batch, ...)`, or a structure of tensors.
        keys: Integers, shape `(batch,)`, that name the examples in the whole data set.
    """

    inputs: Any
    keys: Any


class Answered(NamedTuple):
    """The `x` of a batch that brings the teacher's answers along.

    `teachers.Stored.attach` and `teachers.Arrays.attach` make it.

    Args:
        inputs: What the student reads, shape `(batch, ...)`, or a structure of tensors.
        answers: What the teacher said, in the form in which the teacher keeps it.
        keys: Integers, shape `(batch,)`, that name the examples in the whole data set.
    """

    inputs: Any
    answers: Any
    keys: Any


class Views(NamedTuple):
    """The `x` of a batch of which student and live teachers see views of their own.

    `keras_distill.data.batches(..., teacher_augment=...)` makes it.

    Args:
        inputs: What the student reads, shape `(batch, ...)`.
        teacher: What live teachers read, same shape (a teacher's `preprocess` may resize it).
    """

    inputs: Any
    teacher: Any


def keyed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Numbers the examples of a data set, so that no later step can confuse them.

    Number them before anything that changes their order or drops some: shuffling, filtering,
    repeating, interleaving, batching. The numbers mean the same from run to run if the data set
    gives its examples in the same order each time.

    Args:
        dataset: A `tf.data.Dataset` of single (unbatched) examples: `x`, `(x, y)` or
            `(x, y, sample_weight)`.

    Returns:
        The data set with `Keyed(x, key)` in the place of `x`, as a tuple.

    Example:

    >>> train = keras_distill.teachers.keyed(tf.data.Dataset.from_tensor_slices((x, y)))
    >>> train = train.shuffle(1024).batch(32)
    """
    return dataset.enumerate().map(
        lambda key, element: replace_x(element, lambda x: Keyed(x, key)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def element_of(arguments: tuple):
    """The element of a data set from the arguments with which it calls a function."""
    return arguments[0] if len(arguments) == 1 else arguments


def x_of(element):
    """The `x` of an element of a data set: the element itself, or the first of its parts."""
    return element[0] if _is_plain_tuple(element) else element


def replace_x(element, function) -> tuple:
    """An element of a data set, as a tuple, with `function(x)` in the place of its `x`."""
    if _is_plain_tuple(element):
        return (function(element[0]), *element[1:])
    return (function(element),)


def _is_plain_tuple(element):
    return isinstance(element, tuple) and not hasattr(element, "_fields")
