"""Answers written once, so that training need not run the teacher."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rich.progress
import rich.text
import tensorflow as tf

from keras_distill import backends
from keras_distill.checks import integer, one_of, positive, whole_number
from keras_distill.teachers.conversion import as_teacher
from keras_distill.teachers.records import FORMAT, VERSION, ShardWriter
from keras_distill.teachers.rows import (
    Asking,
    first_batch,
    number_of,
    row_batches,
    single_examples,
)
from keras_distill.teachers.shards import Shards
from keras_distill.teachers.stored import Stored, describe

# Bytes of a shard, about, and into how many a small dataset is cut.
_SHARD_BYTES = 64 * 2**20
_SHARDS = 16


def store(
    teacher: Any,
    dataset: Any,
    path: Any,
    *,
    features: Sequence = (),
    dtype: str = "float16",
    top_k: Any = None,
    temperature: float = 1.0,
    views: int = 1,
    augment: Callable | None = None,
    seed: int = 0,
    batch_size: int = 128,
    examples_per_shard: int | None = None,
    worker: tuple[int, int] | None = None,
    verbose: int = 1,
) -> Stored:
    """Writes a teacher's answers to all examples, or opens those that were written before.

    Call it at the start of every run: it writes what is missing (all of it at first, the rest
    after an interruption), makes sure that what is there was written by this teacher from this
    dataset, and opens it. What it writes doesn't depend on interruptions.

    Answers are kept as logits; a teacher's probabilities are given back as probabilities. With
    `top_k`, all other classes share what is left of the probability evenly: of a softmax, or of
    sigmoids, where the teacher ends in them or is a `Teacher(..., activation="sigmoid")`.

    Args:
        teacher: A teacher, a Keras model, or whatever else `Distiller` takes.
        dataset: A `tf.data.Dataset` of single examples, `x`, `(x, y)` or
            `(x, y, sample_weight)`, which come in the same order each time and may be `keyed`;
            or an array of inputs, or a dict of them.
        path: Folder to write to.
        features: Paths of layers of the teacher whose outputs are stored as well.
        dtype: `"float16"` or `"float32"`. Defaults to `"float16"`.
        top_k: How many of the largest logits to store of each example (or token, or pixel); a
            dict by output name where outputs differ. Defaults to `None`: all.
        temperature: Temperature of the loss that will read the answers. Only the tail of
            `top_k` answers and the mean of an `Ensemble` depend on it. Defaults to `1.0`.
        views: How many augmented views of each example to answer. Defaults to `1`.
        augment: Function `(x, seed) -> x` of a single example's inputs and a seed of two
            integers, which draws from `tf.random.stateless_*` and `tf.image.stateless_*` alone,
            so that the same seed gives the same view. Defaults to `None`.
        seed: Integer from which the seeds of all views follow. Defaults to `0`.
        batch_size: How many views the teacher answers at once. Defaults to `128`.
        examples_per_shard: How many examples to a file, a multiple of `batch_size`. Defaults to
            `None`: about 64 MiB, or a sixteenth of the dataset where that is smaller.
        worker: `(index, count)` of one of several workers, each of which writes shards of its
            own. Defaults to `None`: that of the `tf.distribute` strategy in scope. Each worker
            waits until all are done.
        verbose: 0 for silence, 1 for a progress bar. Defaults to `1`.

    Returns:
        The answers as a teacher, a `Stored`.

    Raises:
        ValueError: If an argument is wrong, the teacher's answers have no fixed size or aren't
            finite, or the folder holds answers of another teacher, of another dataset, with
            other settings, or altered ones.

    Example:

    >>> stored = keras_distill.teachers.store(teacher, train, "answers")
    >>> distiller = keras_distill.Distiller(student, stored)
    >>> distiller.compile("adam", loss)
    >>> distiller.fit(stored.attach(train).shuffle(10_000).batch(64), epochs=100)
    """
    backends.require("`teachers.store`", "tensorflow", "jax", "torch")
    temperature = positive("temperature", temperature)
    integer("seed", seed)
    _check_arguments(dtype, views, augment, batch_size, examples_per_shard, worker)
    teacher = as_teacher(teacher)
    examples = single_examples(dataset)

    def rows_of(some: tf.data.Dataset) -> tf.data.Dataset:
        return row_batches(some, views, augment, seed, batch_size)

    rows = rows_of(examples)
    ask = Asking(teacher, rows.element_spec, features, dtype, top_k, temperature)
    count, record = number_of(examples), ask.layout.record
    settings = {
        "format": FORMAT,
        "version": VERSION,
        "teacher": {"name": teacher.name, "fingerprint": teacher.fingerprint()},
        "output_names": teacher.output_names,
        "examples": count,
        "inputs": describe(examples),
        "views": views,
        "augmented": augment is not None,
        "seed": seed,
        "batch_size": batch_size,
        "examples_per_shard": examples_per_shard
        or _shard_size(count, views * record.itemsize, batch_size),
        "layout": ask.layout.to_json(),
    }
    shards = Shards(pathlib.Path(path), settings, record)
    first = first_batch(rows)
    shards.begin()
    if 0 in shards.entries():
        shards.check_first(first, ask)
    index, workers = worker or _worker()
    todo = [number for number in shards.missing() if number % workers == index]
    if todo:
        _write(rows_of(_in_shards(examples, todo, shards)), ask, shards, todo, verbose)
    shards.complete(index == 0, _announce if verbose else lambda _: None)
    return Stored(path, augment=augment)


def _in_shards(examples, numbers, shards):
    """The examples whose answers belong to some of the shards."""
    numbers = tf.constant(numbers, "int64")
    return examples.filter(lambda x: tf.reduce_any(x.keys // shards.examples_per_shard == numbers))


def _announce(missing):
    rich.print(f"Waiting for other workers to write {missing} shards.")


def _write(batches, ask, shards, todo, verbose):
    """Writes the shards `todo` from the batches of their rows."""
    views, total = shards.settings["views"], shards.total
    ranges = [shards.rows(number) for number in todo]
    batches = iter(batches)
    with _progress(verbose) as progress:
        done = total - sum(map(len, ranges))
        task = progress.add_task("Asking the teacher", total=total, completed=done)
        for number, rows_of_shard in zip(todo, ranges, strict=True):
            writer = ShardWriter(shards.path, number)
            try:
                while writer.records < len(rows_of_shard):
                    rows = next(batches, None)
                    if rows is None:
                        raise ValueError(
                            f"The dataset ended before all of its {shards.settings['examples']} "
                            "examples came."
                        )
                    keys = rows.keys.numpy()
                    _check_order(keys, rows_of_shard[writer.records :][: len(keys)], views)
                    writer.write(ask(rows))
                    progress.advance(task, len(keys))
            except BaseException:
                writer.discard()
                raise
            writer.finish()


def _check_order(keys, expected, views):
    """Raises if rows don't come in the order of their keys, from 0 and without a gap."""
    came = keys[:, 0] * views + keys[:, 1]
    if not np.array_equal(came, expected):
        raise ValueError(
            f"Examples must be stored in the order of their keys, from 0 and without a gap, but "
            f"after {expected[0] // views} examples came the key "
            f"{keys[np.argmax(came != expected[: len(came)]), 0]}. Store the dataset before it is "
            "shuffled, and number its examples after they are filtered."
        )


class _Rate(rich.progress.ProgressColumn):
    """How many views a second."""

    def render(self, task):
        return rich.text.Text(f"{task.speed or 0:,.0f}/s")


def _progress(verbose):
    return rich.progress.Progress(
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        _Rate(),
        rich.progress.TimeRemainingColumn(),
        disable=not verbose,
    )


def _shard_size(count, example_bytes, batch_size):
    """How many examples to a shard, a multiple of the batch size."""
    size = max(1, min(_SHARD_BYTES // example_bytes, -(-count // _SHARDS)))
    return -(-size // batch_size) * batch_size


def _worker():
    """Index and number of this worker under the `tf.distribute` strategy in scope."""
    resolver = getattr(tf.distribute.get_strategy(), "cluster_resolver", None)
    if resolver is None:
        return 0, 1
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = len(cluster.get("chief", ())), len(cluster.get("worker", ()))
    index = resolver.task_id or 0
    return (index if resolver.task_type == "chief" else chiefs + index), max(chiefs + workers, 1)


def _check_arguments(dtype, views, augment, batch_size, examples_per_shard, worker):
    one_of("dtype", dtype, ("float16", "float32"))
    whole_number("views", views, 1)
    whole_number("batch_size", batch_size, 1)
    if views > 1 and augment is None:
        raise ValueError(f"Several views need `augment`. Received: views={views}, augment=None")
    if examples_per_shard is not None and (
        whole_number("examples_per_shard", examples_per_shard, 1) % batch_size
    ):
        raise ValueError(
            "`examples_per_shard` must be a multiple of `batch_size`, so that the teacher sees "
            f"the same batches after an interruption. Received: {examples_per_shard} and "
            f"batch_size={batch_size}"
        )
    if worker is not None and not 0 <= worker[0] < worker[1]:
        raise ValueError(
            "`worker` must be `(index, count)`, the index from 0 to count - 1. "
            f"Received: worker={worker!r}"
        )
