"""Batches that carry more than inputs: keys that name the examples, and stored answers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf


class Keyed(NamedTuple):
    """The `x` of a batch whose examples are named by keys.

    The student and live teachers read `inputs`; losses that remember examples get `keys`.
    `keyed` makes it from a `tf.data.Dataset`; for arrays write
    `distiller.fit(Keyed(x_train, np.arange(len(x_train))), y_train)`.

    Args:
        inputs: What the student reads, shape `(batch, ...)`, or a structure of tensors.
        keys: Integers, shape `(batch,)`, that name the examples in the whole dataset.
    """

    inputs: Any
    keys: Any


class Answered(NamedTuple):
    """The `x` of a batch together with teachers' answers.

    `teachers.Stored.attach` and `teachers.Arrays.attach` make it.

    Args:
        inputs: What the student reads, shape `(batch, ...)`, or a structure of tensors.
        answers: Dict of the answers of each teacher, in the form in which it keeps them, by the
            tag of the teacher.
        keys: Integers, shape `(batch,)`, that name the examples in the whole dataset.
    """

    inputs: Any
    answers: Any
    keys: Any


class Views(NamedTuple):
    """The `x` of a batch of which the student and live teachers see different views.

    `keras_distill.data.batches(..., teacher_augment=...)` makes it.

    Args:
        inputs: What the student reads, shape `(batch, ...)`.
        teacher: What live teachers read, same shape (a teacher's `preprocess` may resize it).
    """

    inputs: Any
    teacher: Any


def keyed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Numbers the examples of a dataset, so that no later step can confuse them.

    Number them before anything that changes their order or drops some: shuffling, filtering,
    repeating, interleaving, batching. The numbers mean the same from run to run if the dataset
    gives its examples in the same order each time.

    Args:
        dataset: A `tf.data.Dataset` of single (unbatched) examples: `x`, `(x, y)` or
            `(x, y, sample_weight)`.

    Returns:
        The dataset with `Keyed(x, key)` in the place of `x`, as a tuple.

    Example:

    >>> train = keras_distill.teachers.keyed(tf.data.Dataset.from_tensor_slices((x, y)))
    >>> train = train.shuffle(1024).batch(32)
    """
    return dataset.enumerate().map(
        lambda key, element: replace_x(element, lambda x: Keyed(x, key)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def with_answers(x: Any, tag: str, answers: Any) -> Answered:
    """An `x`, `Keyed` or `Answered`, with a teacher's answers beside those that it has."""
    others = x.answers if isinstance(x, Answered) else {}
    return Answered(x.inputs, {**others, tag: answers}, x.keys)


def own_answers(teacher: Any, x: Any) -> Any:
    """The answers of `teacher`, which has a `tag`, that come with a batch's `x`.

    Raises:
        ValueError: If none do, or only those of other teachers.
    """
    if not isinstance(x, Answered):
        raise ValueError(
            f"The batch has no answers of the teacher {teacher.name!r}. "
            "Train on `teacher.attach(x)`."
        )
    if teacher.tag not in x.answers:
        raise ValueError(
            f"The batch has answers of {', '.join(map(repr, x.answers))}, not of "
            f"{teacher.tag!r}. Train on what this teacher's `attach` returns; for the answers of "
            "several teachers, `b.attach(a.attach(x))`."
        )
    return x.answers[teacher.tag]


def element_of(arguments: tuple) -> Any:
    """The element of a dataset from the arguments with which it calls a function."""
    return arguments[0] if len(arguments) == 1 else arguments


def x_of(element: Any) -> Any:
    """The `x` of an element of a dataset: the element itself, or the first of its parts."""
    return element[0] if _is_plain_tuple(element) else element


def replace_x(element: Any, function: Callable) -> tuple:
    """An element of a dataset, as a tuple, with `function(x)` in the place of its `x`."""
    if _is_plain_tuple(element):
        return (function(element[0]), *element[1:])
    return (function(element),)


def _is_plain_tuple(element):
    return isinstance(element, tuple) and not hasattr(element, "_fields")
