"""Answers that were computed elsewhere, as a teacher."""

import itertools
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill.teachers.base import contents_of
from keras_distill.teachers.batches import (
    Answered,
    Keyed,
    element_of,
    own_answers,
    replace_x,
    with_answers,
)
from keras_distill.teachers.live import LiveTeacher
from keras_distill.teachers.views import count_of, examples_of, is_keyed

# Tells the answers of several teachers apart, whatever their names.
_NUMBERS = itertools.count(1)


class Arrays(LiveTeacher):
    """Answers in memory, one row for each example, as a teacher.

    Args:
        answers: An array of shape `(examples, ...)`, or a list or dict of arrays, one for each
            of the student's outputs.
        name: Name for messages and reports.

    Raises:
        ValueError: If the arrays have different lengths.

    Example:

    >>> teacher = keras_distill.teachers.Arrays(np.load("logits.npy"))
    >>> distiller = keras_distill.Distiller(student, teacher)
    >>> distiller.fit(teacher.attach(x_train), y_train)
    """

    def __init__(self, answers: Any, name: str = "arrays"):
        self.name = name
        self.answers = keras.tree.map_structure(np.asarray, answers)
        sizes = {len(array) for array in keras.tree.flatten(self.answers)}
        if len(sizes) != 1:
            raise ValueError(
                "All arrays must have a row for each example. Received arrays with "
                f"{' and '.join(map(str, sorted(sizes)))} rows"
            )
        self.examples = sizes.pop()
        self.tag = f"{name} {next(_NUMBERS)}"

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        answers = own_answers(self, inputs)
        return keras.tree.map_structure(keras.ops.convert_to_tensor, answers), []

    def answer_spec(self, inputs: Any, taps: Any = ()) -> tuple:
        answers = keras.tree.map_structure(
            lambda array: keras.KerasTensor((None, *array.shape[1:]), array.dtype.name),
            self.answers,
        )
        return answers, []

    def own_contents(self) -> Iterable:
        return contents_of(keras.tree.flatten(self.answers))

    def attach(self, data: Any) -> Any:
        """Brings each example together with its answers.

        Args:
            data: The student's inputs as arrays, in the order of the answers; or a
                `tf.data.Dataset` in that order, or one of `Keyed` examples or batches of them; or
                what another teacher's `attach` gave.

        Returns:
            `Answered` arrays, which `fit` takes as `x`; or the dataset with `Answered` in the
            place of `x`.

        Raises:
            ValueError: If there aren't as many examples as answers, or their number isn't known
                and they aren't numbered.
        """
        if not isinstance(data, tf.data.Dataset):
            x = data if isinstance(data, Answered) else Keyed(data, np.arange(self.examples))
            self._check_count(len(keras.tree.flatten(x.inputs)[0]))
            return with_answers(x, self.tag, self.answers)
        if not is_keyed(data):
            self._check_count(count_of(data))
        answers = keras.tree.map_structure(tf.convert_to_tensor, self.answers)

        def answered(x):
            own = keras.tree.map_structure(lambda array: tf.gather(array, x.keys), answers)
            return with_answers(x, self.tag, own)

        return examples_of(data).map(
            lambda *element: replace_x(element_of(element), answered),
            num_parallel_calls=tf.data.AUTOTUNE,
        )

    def _check_count(self, count):
        if count != self.examples:
            raise ValueError(
                f"There are answers to {self.examples} examples. Received: "
                f"{count if count >= 0 else 'an unknown number of'} examples. If examples were "
                "left out or repeated, number them before: `keras_distill.teachers.keyed`."
            )
