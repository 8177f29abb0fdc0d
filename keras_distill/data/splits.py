"""Labeled examples in three parts, and the parts that are held out where a source has none."""

import dataclasses
import pathlib

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Data:
    """Labeled examples in three parts that share none.

    Attributes:
        train: `tf.data.Dataset` of single examples `(x, y)`, to train on.
        validation: Likewise, to choose settings by.
        test: Likewise, to report on.
        class_names: Names of the classes, in the order of the labels; `None` where labels are
            values or rows of 0 and 1.
        several_labels: Whether a label is a row of 0 and 1, several classes at once.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset
    test: tf.data.Dataset
    class_names: tuple[str, ...] | None
    several_labels: bool = False


def hold_out(
    arrays: tuple[np.ndarray, ...], count: int, path: pathlib.Path
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """The first `count` rows of shuffled arrays, and the rest.

    Raises:
        ValueError: If there are too few rows. The message names `path`.
    """
    if not 0 < count < len(arrays[0]):
        raise ValueError(f"{path} has too few examples to hold some out: {len(arrays[0])}.")
    return tuple(a[:count] for a in arrays), tuple(a[count:] for a in arrays)
