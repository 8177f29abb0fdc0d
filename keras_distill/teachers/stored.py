"""Answers that `store` wrote, as a teacher."""

import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill import _keras
from keras_distill.checks import integer
from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.batches import (
    Answered,
    Keyed,
    element_of,
    own_answers,
    replace_x,
    with_answers,
    x_of,
)
from keras_distill.teachers.coding import SIGNATURE, Layout
from keras_distill.teachers.records import Records, check_shard, read_manifest
from keras_distill.teachers.views import (
    count_of,
    examples_of,
    is_keyed,
    resemble,
    seed_of,
    signatures,
    with_view,
)

# Examples that are looked up at once where the dataset isn't batched yet.
_CHUNK = 256


class Stored(BaseTeacher):
    """Answers that `store` wrote, as a teacher.

    Training costs what the student alone costs. Answers come with the examples, by key:

    >>> distiller = keras_distill.Distiller(student, stored)
    >>> distiller.fit(stored.attach(train).shuffle(10_000).batch(64))

    `evaluate` and `predict` take plain batches as well.

    Args:
        path: The folder that `store` wrote.
        augment: The function with which it was written, if it was with one.
        verify: Whether to read all shards and compare their checksums, rather than their sizes
            alone. Defaults to `True`.

    Raises:
        ValueError: If there are no stored answers, they aren't complete, or a shard is missing,
            truncated or altered. Names it.
    """

    def __init__(self, path: Any, augment: Callable | None = None, verify: bool = True):
        self.path = pathlib.Path(path)
        self.manifest = manifest = read_manifest(self.path)
        if manifest["shards"] is None:
            raise ValueError(
                f"The answers at {self.path} aren't complete. Call `store` again to go on."
            )
        if bool(augment) != manifest["augmented"]:
            raise ValueError(
                f"The answers at {self.path} were written with"
                f"{'' if manifest['augmented'] else 'out'} `augment`: give "
                f"{'the same function' if manifest['augmented'] else 'none'} to "
                f"`teachers.Stored(path, augment=...)`. Received: augment={augment!r}"
            )
        self.layout = Layout.from_json(manifest["layout"])
        self.name = manifest["teacher"]["name"]
        self.output_names = manifest["output_names"]
        self.augment = augment
        for entry in manifest["shards"]:
            check_shard(self.path, entry, self.layout.record, checksum=verify)
        self._records = Records(
            [self.path / entry["file"] for entry in manifest["shards"]],
            self.layout.record,
            manifest["examples_per_shard"] * manifest["views"],
        )
        self.tag = f"{self.name} {self.fingerprint()[:12]}"

    def contents(self) -> Iterable:
        return [*super().contents(), self.manifest]

    @property
    def examples(self) -> int:
        """How many examples have answers."""
        return self.manifest["examples"]

    @property
    def views(self) -> int:
        """How many views of each example have answers."""
        return self.manifest["views"]

    @property
    def bytes_per_example(self) -> float:
        """Size on disk of the answers to all views of an example."""
        size = sum((self.path / entry["file"]).stat().st_size for entry in self.manifest["shards"])
        return size / self.examples

    def answer(self, inputs: Any, taps: Any = ()) -> tuple:
        outputs, features = self.layout.decode(own_answers(self, inputs))
        return outputs, [features[path] for path in taps]

    def answer_spec(self, inputs: Any, taps: Any = ()) -> tuple:
        def spec(shape):
            return keras.KerasTensor((None, *shape), "float32")

        outputs = self.layout.pack([spec(output.shape) for output in self.layout.outputs])
        return outputs, [spec(self.layout.features[path]) for path in taps]

    def tap_path(self, tap: Any) -> str:
        if tap in self.layout.features:
            return tap
        raise ValueError(
            f"The teacher {self.name!r} has no features of the layer {tap!r} stored. It has: "
            f"{', '.join(map(repr, self.layout.features)) or 'none'}. "
            "Store them with `store(..., features=[...])`."
        )

    def attach(self, dataset: Any, view: int | None = None, seed: Any = 0) -> tf.data.Dataset:
        """Brings each example together with its answers.

        The examples must be those that were stored, before any change to their inputs; what the
        student reads may be changed afterwards. They may come in any order and number if they
        were numbered before: see `keyed`. Otherwise they are numbered as they come. With several
        views per example, one is drawn anew in each epoch, and `augment` redraws it for the
        student from the seed that it was stored with.

        A new process draws the views of the first epoch again. A run that goes on after an
        interruption gets other views with another `seed`. It gets the views that were to come if
        each epoch has its own seed: a `flat_map` over the numbers of the epochs that attaches with
        `seed=epoch`.

        Args:
            dataset: A `tf.data.Dataset` of single examples, or of batches of `Keyed` examples
                (without `augment`), or an array of inputs, or a dict of them; or what another
                teacher's `attach` gave.
            view: Number of the view, from 0, or `None` to draw them. Defaults to `None`.
            seed: Seed by which views are drawn, an integer or an integer tensor. Defaults to `0`.

        Returns:
            The dataset with `Answered(x, answers, key)` in the place of `x`.

        Raises:
            ValueError: If the examples aren't those that were stored.
        """
        integer("seed", seed)
        if view is not None and not 0 <= integer("view", view) < self.views:
            raise ValueError(f"`view` must be from 0 to {self.views - 1}. Received: view={view!r}")
        dataset = self._examples(dataset)
        batched = len(x_of(dataset.element_spec).keys.shape) == 1
        if batched and self.augment is not None:
            raise ValueError(
                "Views are drawn example by example: attach the answers before batching."
            )
        if self.augment is not None:
            dataset = self._draw(dataset, view, seed)
        batches = dataset if batched else dataset.batch(_CHUNK)
        if tf.executing_eagerly():
            # Outside of the pipeline, where an error is shown as it is.
            for batch in (dataset if batched else dataset.batch(8)).take(1):
                self._read(*(part.numpy() for part in _question(x_of(batch))))
        batches = batches.map(self._look_up, num_parallel_calls=2)
        if batched:
            return batches.prefetch(2)
        answered, count = batches.unbatch(), count_of(dataset)
        if count == tf.data.UNKNOWN_CARDINALITY:
            return answered
        return _keras.of_known_size(answered, count)

    def answered(self, inputs: Any, keys: Any) -> Answered:
        """A batch of arrays with its answers, in a pipeline other than `tf.data`.

        Use it where a `keras.utils.PyDataset` or a Grain dataset makes its batches.

        Args:
            inputs: Inputs of examples as they were stored, an array of shape `(batch, ...)`, or a
                structure of them.
            keys: Numbers of these examples in the dataset that was stored, from 0; integers of
                shape `(batch,)`.

        Returns:
            `Answered` of NumPy arrays, for the place of `x` in the batch. What the student reads
            may be changed afterwards: `x._replace(inputs=...)`.

        Raises:
            ValueError: If the examples aren't those that were stored, or were stored with
                `augment`.

        Example:

        >>> numbers = grain.MapDataset.range(len(x)).shuffle(seed=1).batch(64)
        >>> train = numbers.map(lambda i: (stored.answered(x[i], i), y[i]))
        """
        if self.augment is not None:
            raise ValueError("Views are drawn by `attach`, in a `tf.data` pipeline: use it.")
        batch = Keyed(keras.tree.map_structure(tf.convert_to_tensor, inputs), np.asarray(keys))
        found = self._read(*(part.numpy() for part in _question(batch)))
        answers = dict(zip(self._fields, found, strict=True))
        return with_answers(Keyed(inputs, batch.keys), self.tag, answers)

    def _examples(self, data):
        """`data`, keyed, if its examples look like those that were stored."""
        dataset = examples_of(data)
        spec, stored = describe(dataset), self.manifest["inputs"]
        if not _alike(spec, stored):
            raise ValueError(
                f"The dataset isn't the one that was stored at {self.path}: its examples have "
                f"inputs {spec}, and the stored ones {stored}."
            )
        count = count_of(dataset)
        if not is_keyed(data) and count >= 0 and count != self.examples:
            raise ValueError(
                f"The dataset isn't the one that was stored at {self.path}: it has {count} "
                f"examples, and the stored one {self.examples}. If examples were left out or "
                "repeated, number them before: `keras_distill.teachers.keyed`."
            )
        return dataset

    def _draw(self, dataset, view, seed):
        """Examples with one of their views as inputs, keyed by pairs of key and view."""
        if view is not None:
            numbers = tf.data.Dataset.from_tensors(tf.constant(view, "int64")).repeat()
        else:
            # Drawn anew in each pass over the dataset.
            numbers = tf.data.Dataset.random(seed, rerandomize_each_iteration=True)
        return tf.data.Dataset.zip(dataset, numbers).map(
            self._drawn, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def _drawn(self, element, number):
        view = number % self.views

        def draw(x):
            assert self.augment is not None
            inputs = self.augment(x.inputs, seed_of(self.manifest["seed"], x.keys, view))
            return x._replace(inputs=inputs, keys=with_view(x.keys, view))

        return replace_x(element, draw)

    def _look_up(self, *element):
        """A batch with its answers."""

        def answered(x):
            question = _question(x)
            keys = question[0]
            fields = tf.numpy_function(
                self._read,
                question,
                [dtype.base.type for dtype in self._fields.values()],
                stateful=False,
            )
            answers = {}
            for (name, dtype), field in zip(self._fields.items(), fields, strict=True):
                field.set_shape((keys.shape[0], *dtype.shape))
                answers[name] = field
            return with_answers(x._replace(keys=keys[:, 0]), self.tag, answers)

        return replace_x(element_of(element), answered)

    @property
    def _fields(self) -> dict[str, np.dtype]:
        """The fields of a record that hold answers."""
        record = self.layout.record
        return {name: record[name] for name in record.names or () if name != SIGNATURE}

    def _read(self, keys, signature, tolerance):
        """The fields of the records of a batch, if its examples are those stored."""
        outside = keys[(keys[:, 0] < 0) | (keys[:, 0] >= self.examples), 0]
        if len(outside):
            raise ValueError(
                f"The key {outside[0]} has no answer: {self.path} has answers to {self.examples} "
                "examples, numbered from 0."
            )
        records = self._records.read(keys[:, 0] * self.views + keys[:, 1])
        alike = resemble(records[SIGNATURE], signature, tolerance)
        if not alike.all():
            key = keys[np.argmin(alike), 0]
            raise ValueError(
                f"The example with the key {key} isn't the one whose answer is stored at "
                f"{self.path}: another dataset, another order, or another augmentation. Attach "
                "to the dataset that was stored, before it is changed, and number its examples "
                "(`keras_distill.teachers.keyed`) before they are shuffled."
            )
        return [np.ascontiguousarray(records[name]) for name in self._fields]


def describe(dataset: tf.data.Dataset) -> list:
    """Type and shape of each tensor of an example's inputs, without a batch axis."""
    spec = x_of(dataset.element_spec)
    axes = len(spec.keys.shape)
    return [
        [leaf.dtype.name, leaf.shape[axes:].as_list()] for leaf in keras.tree.flatten(spec.inputs)
    ]


def _alike(spec, stored):
    """Whether two descriptions may be of the same inputs; sizes may be unknown."""
    return len(spec) == len(stored) and all(
        kind == stored_kind
        and len(shape) == len(stored_shape)
        and all(a == b or None in (a, b) for a, b in zip(shape, stored_shape, strict=True))
        for (kind, shape), (stored_kind, stored_shape) in zip(spec, stored, strict=True)
    )


def _question(x):
    """What `Stored._read` needs of a batch: keys and views, and signatures of its rows.

    Args:
        x: `Keyed`, with keys of shape `(batch,)`, or `(batch, 2)` with the number of a view.
    """
    keys = with_view(x.keys, 0) if len(x.keys.shape) == 1 else x.keys
    return [keys, *signatures(x.inputs)]
