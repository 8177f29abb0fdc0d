"""The rows that a teacher is asked about, views of examples, and the records of its answers."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_distill import backends
from keras_distill import taps as tapping
from keras_distill.outputs import as_outputs
from keras_distill.teachers.base import BaseTeacher
from keras_distill.teachers.batches import Keyed, element_of, x_of
from keras_distill.teachers.coding import SIGNATURE, Layout
from keras_distill.teachers.views import examples_of, resemble, seed_of, signatures, with_view


def single_examples(dataset: Any) -> tf.data.Dataset:
    """The keyed examples of a dataset, without their labels.

    Raises:
        ValueError: If it holds batches.
    """
    examples = examples_of(dataset).map(lambda *element: x_of(element_of(element)))
    if len(examples.element_spec.keys.shape) != 0:
        raise ValueError(
            "`store` takes single examples and batches them itself. Received a dataset of "
            "batches: unbatch it first (`dataset.unbatch()`)."
        )
    return examples


def number_of(examples: tf.data.Dataset) -> int:
    """How many examples there are.

    Raises:
        ValueError: If there are none, or no end of them.
    """
    count = int(examples.cardinality())
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = int(examples.reduce(np.int64(0), lambda total, _: total + 1))
    if count <= 0:
        raise ValueError(
            f"`dataset` must have an end and at least one example. Received: {examples!r} with "
            f"{'no end' if count < 0 else 'no examples'}"
        )
    return count


def row_batches(
    examples: tf.data.Dataset, views: int, augment: Callable | None, seed: int, batch_size: int
) -> tf.data.Dataset:
    """All views of keyed examples in batches for the teacher: `Keyed(inputs, (key, view))`."""
    if augment is None:
        return examples.batch(batch_size).map(lambda x: Keyed(x.inputs, with_view(x.keys, 0)))
    if views > 1:
        examples = examples.flat_map(lambda x: tf.data.Dataset.from_tensors(x).repeat(views))

    def row(x, view):
        inputs = augment(x.inputs, seed_of(seed, x.keys, view))
        return Keyed(inputs, with_view(x.keys, view))

    rows = tf.data.Dataset.zip(examples, tf.data.Dataset.range(views).repeat()).map(
        row, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
    )
    return rows.batch(batch_size).prefetch(2)


def first_batch(rows: tf.data.Dataset) -> Keyed:
    """The first batch, if it is the same each time.

    Raises:
        ValueError: If it isn't.
    """
    first, again = (next(iter(rows)) for _ in range(2))
    signature, tolerance = signatures(first.inputs)
    alike = resemble(signature.numpy(), signatures(again.inputs)[0].numpy(), tolerance.numpy())
    if not (np.array_equal(first.keys, again.keys) and alike.all()):
        raise ValueError(
            "`dataset` doesn't give the same examples in the same order each time. Store it "
            "before it is shuffled, and draw what is random in `augment`, from its seed."
        )
    return first


class Asking:
    """Runs the teacher on batches of rows, and makes records of its answers.

    Args:
        teacher: A `BaseTeacher`.
        spec: Type of the batches.
        features: As in `store`.
        dtype: As in `store`.
        top_k: As in `store`.
        temperature: As in `store`.
    """

    #: What the records hold.
    layout: Layout

    def __init__(
        self,
        teacher: BaseTeacher,
        spec: Any,
        features: Sequence,
        dtype: str,
        top_k: Any,
        temperature: float,
    ):
        taps = [teacher.tap_path(tap) for tap in features]
        wrong: list[Exception] = []

        def fields_of(inputs):
            outputs, found = teacher.answer(inputs, taps)
            outputs = as_outputs(teacher.combine(outputs))
            found = dict(zip(taps, found, strict=True))
            names = teacher.output_names
            try:
                self.layout = Layout.of(outputs, found, names, top_k, dtype, temperature)
            except (TypeError, ValueError) as error:
                wrong.append(error)
                raise
            return self.layout.encode(outputs, found)

        @tf.function
        def all_fields_of(rows):
            return {SIGNATURE: signatures(rows.inputs)[0], **fields_of(rows.inputs)}

        try:
            if keras.backend.backend() != "tensorflow":
                self._fields_of = _on_arrays(fields_of, teacher, spec.inputs)
            else:
                self._fields_of = all_fields_of.get_concrete_function(spec)
        except (TypeError, ValueError):
            if wrong:  # As it is, without what TensorFlow says about the function.
                raise wrong[0] from None
            raise

    def __call__(self, rows: Keyed) -> np.ndarray:
        """The records of a batch.

        Raises:
            ValueError: If an answer isn't finite.
        """
        records = np.empty(len(rows.keys), self.layout.record)
        for name, field in self._fields_of(rows).items():
            field = np.asarray(field)
            if name != SIGNATURE and field.dtype.kind == "f" and not np.isfinite(field).all():
                self._raise_not_finite(name, field, rows.keys.numpy())
            records[name] = field
        return records

    def _raise_not_finite(self, name, field, keys):
        row = np.flatnonzero(~np.isfinite(field.reshape(len(field), -1)).all(axis=1))[0]
        raise ValueError(
            f"The teacher's {name} for the example with the key {keys[row, 0]} isn't finite in "
            f"{self.layout.dtype}. Answers beyond float16's range of ±65504 need dtype='float32'."
        )


def _on_arrays(fields_of, teacher, spec):
    """A function of a batch on JAX or PyTorch, which is traced once to begin with."""
    variables = [x for x in teacher.variables if isinstance(x, keras.Variable)]
    compiled = backends.compiled(fields_of, variables)
    tapping.spec_of(
        fields_of,
        keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype.name), spec),
    )

    def fields(rows):
        inputs = keras.tree.map_structure(np.asarray, rows.inputs)
        return {SIGNATURE: signatures(rows.inputs)[0], **compiled(inputs)}

    return fields
