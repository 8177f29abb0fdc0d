"""Writes down what a teacher says, once, so that training need not run it."""

import json
import pathlib
import time

import numpy as np
import rich.progress
import rich.text
import tensorflow as tf

from keras_distill.checks import positive
from keras_distill.teachers.batches import Keyed, element_of, x_of
from keras_distill.teachers.coding import SIGNATURE, Layout
from keras_distill.teachers.records import (
    FORMAT,
    VERSION,
    Records,
    ShardWriter,
    check_shard,
    entry_path,
    manifest_path,
    read_json,
    read_manifest,
    shard_name,
    tidy_up,
    write_json,
)
from keras_distill.teachers.stored import Stored, describe
from keras_distill.teachers.views import examples_of, resemble, seed_of, signatures, with_view

# Bytes of a shard, about, and how many a data set is cut into if it is small.
_SHARD_BYTES = 64 * 2**20
_SHARDS = 16


def store(
    teacher,
    dataset,
    path,
    *,
    features=(),
    dtype="float16",
    top_k=None,
    temperature=1.0,
    views=1,
    augment=None,
    seed=0,
    batch_size=128,
    examples_per_shard=None,
    worker=None,
    verbose=1,
) -> Stored:
    """Writes what a teacher says of each example, or opens what was written before.

    Call it at the start of every run: it writes what is missing (all of it at first, the rest
    after an interruption), makes sure that the rest was written by this teacher from this data
    set, and opens it. What it writes doesn't depend on interruptions.

    Answers are kept as logits; what a teacher gives as probabilities is given back as such. With
    `top_k`, all other classes share what is left of the probability evenly: of a softmax, or of
    sigmoids, where the teacher has them or says `activation="sigmoid"`.

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
            `None`: about 64 MiB, or a sixteenth of the data set where that is smaller.
        worker: `(index, count)` of one of several workers, each of which writes shards of its
            own. Defaults to `None`: as the `tf.distribute` strategy in scope says. Each worker
            waits until all are done.
        verbose: 0 for silence, 1 for a progress bar. Defaults to `1`.

    Returns:
        The answers as a teacher, a `Stored`.

    Raises:
        ValueError: If an argument is wrong, the teacher's answers have no fixed size or aren't
            finite, or the folder holds answers of another teacher, of another data set, with
            other settings, or altered ones.

    Example:

    >>> stored = keras_distill.teachers.store(teacher, train, "answers")
    >>> distiller = keras_distill.Distiller(student, stored)
    >>> distiller.compile("adam", loss)
    >>> distiller.fit(stored.attach(train).shuffle(10_000).batch(64), epochs=100)
    """
    from keras_distill.teachers import as_teacher

    temperature = positive("temperature", temperature)
    _check_arguments(dtype, views, augment, batch_size, examples_per_shard, worker)
    teacher = as_teacher(teacher)
    examples = _examples(dataset)
    count = _count(examples)
    rows = _row_batches(examples, views, augment, seed, batch_size)
    ask = _Asking(teacher, rows.element_spec, features, dtype, top_k, temperature)
    row_bytes = ask.layout.record.itemsize
    shards = _Shards(
        pathlib.Path(path),
        {
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
            or _shard_size(count, views * row_bytes, batch_size),
            "layout": ask.layout.to_json(),
        },
        ask.layout.record,
    )
    first = _first_batch(rows)
    shards.begin()
    if 0 in shards.entries():
        shards.check_first(first, ask)
    index, workers = worker or _worker()
    todo = [number for number in shards.missing() if number % workers == index]
    if todo:
        ours = examples.filter(
            lambda x: tf.reduce_any(
                x.keys // shards.examples_per_shard == tf.constant(todo, "int64")
            )
        )
        _write(_row_batches(ours, views, augment, seed, batch_size), ask, shards, todo, verbose)
    shards.complete(is_chief=index == 0, verbose=verbose)
    return Stored(path, augment=augment)


def _examples(dataset):
    """The keyed examples of a data set, without their labels."""
    examples = examples_of(dataset).map(lambda *element: x_of(element_of(element)))
    if len(examples.element_spec.keys.shape) != 0:
        raise ValueError(
            "`store` takes single examples and batches them itself. Received a data set of "
            "batches: unbatch it first (`dataset.unbatch()`)."
        )
    return examples


def _count(examples):
    count = int(examples.cardinality())
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = int(examples.reduce(np.int64(0), lambda total, _: total + 1))
    if count <= 0:
        raise ValueError(
            f"`dataset` must have an end and at least one example. Received: {examples!r} with "
            f"{'no end' if count < 0 else 'no examples'}"
        )
    return count


def _row_batches(examples, views, augment, seed, batch_size):
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


def _first_batch(rows):
    """The first batch, if it is the same each time."""
    first, again = (next(iter(rows)) for _ in range(2))
    signature, tolerance = signatures(first.inputs)
    alike = resemble(signature.numpy(), signatures(again.inputs)[0].numpy(), tolerance.numpy())
    if not (np.array_equal(first.keys, again.keys) and alike.all()):
        raise ValueError(
            "`dataset` doesn't give the same examples in the same order each time. Store it "
            "before it is shuffled; draw what is random in `augment`, from its seed."
        )
    return first


class _Asking:
    """Asks the teacher about batches of rows, and gives records.

    Args:
        teacher: A `BaseTeacher`.
        spec: Type of the batches.
        features: As in `store`.
        dtype: As in `store`.
        top_k: As in `store`.
        temperature: As in `store`.
    """

    def __init__(self, teacher, spec, features, dtype, top_k, temperature):
        taps = [teacher.tap_path(tap) for tap in features]
        self.layout = None

        @tf.function
        def fields_of(rows):
            outputs, found = teacher.answer(rows.inputs, taps)
            outputs, found = teacher.combine(outputs), dict(zip(taps, found, strict=True))
            self.layout = Layout.of(outputs, found, teacher.output_names, top_k, dtype, temperature)
            return {SIGNATURE: signatures(rows.inputs)[0], **self.layout.encode(outputs, found)}

        self._fields_of = fields_of.get_concrete_function(spec)

    def __call__(self, rows) -> np.ndarray:
        """The records of a batch.

        Raises:
            ValueError: If an answer isn't finite.
        """
        records = np.empty(len(rows.keys), self.layout.record)
        for name, field in self._fields_of(rows).items():
            field = field.numpy()
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


class _Shards:
    """The shards of a folder: which there are, and which are missing.

    Args:
        path: The folder.
        settings: What the manifest must say.
        record: The dtype of a record.
    """

    def __init__(self, path, settings, record):
        self.path = path
        # As it reads once it was written.
        self.settings = json.loads(json.dumps(settings))
        self.record = record
        self.examples_per_shard = settings["examples_per_shard"]
        self.count = -(-settings["examples"] // self.examples_per_shard)

    def begin(self):
        """Writes the manifest, or makes sure that the one there says the same."""
        self.path.mkdir(parents=True, exist_ok=True)
        if not manifest_path(self.path).exists():
            write_json(manifest_path(self.path), {**self.settings, "shards": None})
            return
        manifest = read_manifest(self.path)
        for name, value in self.settings.items():
            if name == "teacher":
                self._check_teacher(manifest[name], value)
            elif manifest[name] != value:
                what = (
                    "from another data set"
                    if name in ("examples", "inputs")
                    else "by a teacher of another form"
                    if name in ("layout", "output_names")
                    else "with other settings"
                )
                raise ValueError(
                    f"The answers at {self.path} were written {what}: {name}={manifest[name]!r}. "
                    f"Received: {name}={value!r}. Give them a folder of their own."
                )
        for entry in self.entries().values():
            check_shard(self.path, entry, self.record, checksum=False)

    def _check_teacher(self, stored, teacher):
        if stored["fingerprint"] != teacher["fingerprint"]:
            raise ValueError(
                f"The answers at {self.path} are of another teacher: of {stored['name']!r}, with "
                f"the fingerprint {stored['fingerprint'][:12]}. Received: {teacher['name']!r}, "
                f"{teacher['fingerprint'][:12]}. Give them a folder of their own."
            )

    def rows(self, number) -> range:
        """The rows (views of examples) of a shard."""
        size = self.examples_per_shard * self.settings["views"]
        total = self.settings["examples"] * self.settings["views"]
        return range(number * size, min((number + 1) * size, total))

    def entries(self) -> dict:
        """What is known of the shards that are there, by number."""
        files = [self.path / shard_name(number) for number in range(self.count)]
        entries = [self._entry(file) for file in files]
        # Read after them: what the chief removes is in the manifest before.
        known = read_manifest(self.path)["shards"] or [None] * self.count
        return {
            number: entry or known[number]
            for number, (file, entry) in enumerate(zip(files, entries, strict=True))
            if (entry or known[number]) and file.exists()
        }

    def _entry(self, file):
        try:
            return read_json(entry_path(file))
        except FileNotFoundError:
            return None

    def missing(self) -> list:
        """The numbers of the shards that are still to be written."""
        entries = self.entries()
        return [number for number in range(self.count) if number not in entries]

    def check_first(self, rows, ask):
        """Makes sure that the first shard holds what this teacher says of these rows.

        A teacher may differ in what no fingerprint shows, such as its `preprocess`.
        """
        records = ask(rows)
        per_shard = self.examples_per_shard * self.settings["views"]
        file = self.path / shard_name(0)
        stored = Records([file], self.record, per_shard).read(np.arange(len(records)))
        signature, tolerance = signatures(rows.inputs)
        alike = resemble(stored[SIGNATURE], signature.numpy(), tolerance.numpy())
        if not alike.all():
            raise ValueError(
                f"The answers at {self.path} were written from another data set, in another "
                "order, or with another augmentation: the example with the key "
                f"{int(rows.keys[np.argmin(alike), 0])} is another one. Give these a folder of "
                "their own."
            )
        for name in self.record.names:
            field, ours = (np.asarray(x[name], "float64") for x in (stored, records))
            difference = np.abs(field - ours).max()
            # Another machine may round otherwise, but not by so much.
            if not name.endswith("/classes") and difference > 0.02 * np.abs(ours).max():
                raise ValueError(
                    f"The answers at {self.path} are of another teacher, or its inputs are "
                    f"prepared in another way: its {name} differs by {difference:.3g}. Give this "
                    "one a folder of its own."
                )

    def complete(self, is_chief, verbose):
        """Writes the manifest of all shards; waits for those of other workers."""
        missing = self.missing()
        if missing and verbose:
            rich.print(f"Waiting for other workers to write {len(missing)} shards.")
        while self.missing():
            time.sleep(0.2)
        if is_chief:
            entries = self.entries()
            shards = [entries[number] for number in range(self.count)]
            write_json(manifest_path(self.path), {**self.settings, "shards": shards})
            tidy_up(self.path)
        while read_manifest(self.path)["shards"] is None:
            time.sleep(0.2)


def _write(batches, ask, shards, todo, verbose):
    """Writes the shards `todo` from the batches of their rows."""
    views, total = shards.settings["views"], shards.settings["examples"] * shards.settings["views"]
    ranges = [shards.rows(number) for number in todo]
    batches = iter(batches)
    with _progress(verbose) as progress:
        done = total - sum(map(len, ranges))
        task = progress.add_task("Asking the teacher", total=total, completed=done)
        for number, rows_of_shard in zip(todo, ranges, strict=True):
            writer = ShardWriter(shards.path, number)
            while writer.records < len(rows_of_shard):
                rows = next(batches, None)
                if rows is None:
                    raise ValueError(
                        f"The data set ended before all of its {shards.settings['examples']} "
                        "examples came by."
                    )
                keys = rows.keys.numpy()
                _check_order(keys, rows_of_shard[writer.records :][: len(keys)], views)
                writer.write(ask(rows))
                progress.advance(task, len(keys))
            writer.finish()


def _check_order(keys, expected, views):
    """Raises if rows don't come in the order of their keys, from 0 and without a gap."""
    came = keys[:, 0] * views + keys[:, 1]
    if not np.array_equal(came, expected):
        raise ValueError(
            f"Examples must be stored in the order of their keys, from 0 and without a gap, but "
            f"after {expected[0] // views} examples came the key "
            f"{keys[np.argmax(came != expected[: len(came)]), 0]}. Store the data set before it is "
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
    if dtype not in ("float16", "float32"):
        raise ValueError(f'`dtype` must be "float16" or "float32". Received: dtype={dtype!r}')
    for name, value in (("views", views), ("batch_size", batch_size)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be an integer above 0. Received: {name}={value!r}")
    if views > 1 and augment is None:
        raise ValueError(f"Several views need `augment`. Received: views={views}, augment=None")
    if examples_per_shard is not None and (
        examples_per_shard < 1 or examples_per_shard % batch_size
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
