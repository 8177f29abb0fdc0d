"""From single examples to batches for training, with the views that both models see."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_distill.checks import integer, whole_number
from keras_distill.data.augment import Augmentation, Mixer
from keras_distill.teachers import Views


def batches(
    dataset: tf.data.Dataset,
    batch_size: int,
    *,
    augment: Any = None,
    teacher_augment: Any = None,
    mix: Any = None,
    classes: int | None = None,
    shuffle: int = 10_000,
    seed: Any = 0,
) -> tf.data.Dataset:
    """Batches for training: shuffled, augmented and mixed, all repeatable by the seed.

    Teacher and student see the same view, as Beyer et al., "Knowledge distillation: A good
    teacher is patient and consistent" (arXiv:2106.05237) recommend, unless `teacher_augment` gives
    the teacher a different view.

    Args:
        dataset: Single examples `(x, y)`.
        batch_size: Number of examples in a batch.
        augment: Keras layers or an `Augmentation`, which draw a new view of each example in each
            epoch.
        teacher_augment: Likewise, for a separate view for the teacher (`[]`: the plain example).
            `x` is then a `keras_distill.teachers.Views`. Defaults to `None`: both models see the
            view that `augment` draws.
        mix: `keras.layers.MixUp` or `CutMix`, applied to whole batches; both models see the same
            mixture. Labels become shares of the classes, float32, shape `(batch, classes)`.
        classes: Number of classes. Needed to `mix` integer labels.
        shuffle: Size of the buffer from which the next example is drawn; `0` keeps the order.
        seed: Seed of the order, the views and the mixtures: an integer or an integer tensor. Each
            epoch draws different ones; a new process starts again with those of the first epoch.

    Returns:
        `tf.data.Dataset` of batches `(x, y)`.

    Raises:
        TypeError: If `dataset` isn't a `tf.data.Dataset`, or `seed` isn't an integer.
        ValueError: If a number is out of range, or `mix` is given for integer labels without
            `classes`.

    Example:

    >>> data = keras_distill.data.load("cifar10")
    >>> train = keras_distill.data.batches(
    ...     data.train,
    ...     128,
    ...     augment=[
    ...         keras.layers.ZeroPadding2D(4),
    ...         keras.layers.RandomCrop(32, 32),
    ...         keras.layers.RandomFlip("horizontal"),
    ...     ],
    ...     mix=keras.layers.MixUp(0.8),
    ...     classes=10,
    ... )
    """
    if not isinstance(dataset, tf.data.Dataset):
        raise TypeError(
            "`dataset` must be a tf.data.Dataset of single examples, such as "
            f"tf.data.Dataset.from_tensor_slices((x, y)). Received: {type(dataset)}"
        )
    whole_number("batch_size", batch_size, 1)
    whole_number("shuffle", shuffle, 0)
    integer("seed", seed)
    if classes is not None:
        whole_number("classes", classes, 1)
    if shuffle:
        dataset = dataset.shuffle(shuffle, seed=seed)
    if augment is not None or teacher_augment is not None:
        draw = _views(augment, teacher_augment)
        seeds = _seeds(seed, 4)
        dataset = tf.data.Dataset.zip(dataset, seeds).map(draw, tf.data.AUTOTUNE)
    dataset = dataset.batch(batch_size)
    if mix is not None:
        mixed = _mixtures(Mixer(mix), classes, dataset.element_spec[1])
        dataset = tf.data.Dataset.zip(dataset, _seeds(seed + 1, 2)).map(mixed, tf.data.AUTOTUNE)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _seeds(seed: Any, size: int) -> tf.data.Dataset:
    """An endless dataset of seeds, different in each epoch."""
    return tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(size)


def _views(augment: Any, teacher_augment: Any) -> Callable:
    student = _augmentation(augment)
    teacher = None if teacher_augment is None else _augmentation(teacher_augment)

    def draw(example: tuple, seeds: Any) -> tuple:
        x, *rest = example
        view = x if student is None else student(x, seeds[:2])
        if teacher is not None:
            view = Views(view, teacher(x, seeds[2:]))
        return (view, *rest)

    return draw


def _augmentation(augment: Any) -> Augmentation | None:
    if augment is None or isinstance(augment, Augmentation):
        return augment
    return Augmentation(augment)


def _mixtures(mixer: Mixer, classes: int | None, labels: Any) -> Callable:
    if labels.dtype.is_integer and classes is None:
        raise ValueError(
            "`mix` needs the number of `classes` for integer labels. Received: classes=None"
        )

    def mixed(batch: tuple, seed: Any) -> tuple:
        x, y, *rest = batch
        if labels.dtype.is_integer:
            y = tf.one_hot(y, classes)
        return (*mixer(x, y, seed), *rest)

    return mixed
