"""What stored answers cost: time per epoch, writing, bytes and memory.

    python benchmarks/stored_teacher.py

Writes `benchmarks/results/stored_teacher.json` and the table in `docs/teachers.md`. One run
measures, in rounds in which all take turns, so that a busy machine slows all alike:

- seconds per epoch of the plain student, of the student distilled from the live teacher, and from
  its stored answers (goal: stored at most 1.1 times plain, live at least 2 times);
- the rate of writing answers against that of the teacher's own `predict` (goal: at least 0.95);
- bytes per example, dense and top-k;
- peak memory of a process that writes, attaches and reads answers to 10 thousand and to 1 million
  examples (goal: within 5 % of each other).

Images are noise of CIFAR-10's size: only the time is looked at.
"""

import os
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import RESULTS, in_turns, insert, measure, median_ratio, peak_memory, steady
from keras import layers
from pictures import draw

import keras_distill
from keras_distill import _markdown
from keras_distill.teachers import store

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("part", [], "A part to measure anew; the others keep their results.")
flags.DEFINE_integer("walk", 0, "Walk through so many examples and print the peak memory.")

EXAMPLES, BATCH, ROUNDS = 2048, 64, 9
# How often all are written: a rate, and not the time of tracing the teacher, is looked for.
COPIES, WRITING_ROUNDS = 3, 5
SMALL, LARGE = 10_000, 1_000_000


def network(width, depth, name):
    """A plain convolutional classifier of 32×32 images."""
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    for stage in range(3):
        for block in range(depth):
            strides = 2 if stage and not block else 1
            x = layers.Conv2D(width * 2**stage, 3, strides, "same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)), name=name)


def epochs(train, teacher, stored):
    """Seconds of each epoch, by method."""
    methods = {
        "plain student": (network(16, 2, "plain"), train),
        "live teacher": (keras_distill.Distiller(network(16, 2, "live"), teacher), train),
        "stored teacher": (
            keras_distill.Distiller(network(16, 2, "stored"), stored),
            stored.attach(train),
        ),
    }
    fits = {}
    for name, (model, data) in methods.items():
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        data = data.shuffle(EXAMPLES).batch(BATCH).prefetch(2)
        fits[name] = lambda model=model, data=data: model.fit(data, verbose=0)
    return in_turns(fits, ROUNDS)


def writing(train, teacher):
    """Seconds of writing all answers, and of the teacher's own `predict` on the same data.

    `predict` compiles by XLA unless told otherwise. Answers are stored without it, so that they
    are the same bit for bit after an interruption.
    """
    train = train.repeat(COPIES)
    batches = train.map(lambda x, y: x).batch(128).prefetch(2)
    uncompiled = keras.models.clone_model(teacher)
    uncompiled.compile(jit_compile=False)

    def write():
        with tempfile.TemporaryDirectory() as folder:
            store(teacher, train, folder, batch_size=128, verbose=0)

    return in_turns(
        {
            "predict": lambda: teacher.predict(batches, verbose=0),
            "predict without XLA": lambda: uncompiled.predict(batches, verbose=0),
            "store": write,
        },
        WRITING_ROUNDS,
    )


def bytes_per_example():
    sizes = {}
    x = np.random.default_rng(0).normal(size=(256, 8)).astype("float32")
    for classes in (10, 1000):
        teacher = keras.Sequential([keras.Input((8,)), layers.Dense(classes)])
        for form, options in (
            ("float32", {"dtype": "float32"}),
            ("float16", {}),
            ("top 5 in float16", {"top_k": 5}),
        ):
            with tempfile.TemporaryDirectory() as folder:
                stored = store(teacher, x, folder, verbose=0, **options)
                sizes[f"{classes} classes, {form}"] = stored.bytes_per_example
    return sizes


def walk(examples):
    """Writes, attaches and reads answers to so many examples; prints the peak memory in MiB."""
    teacher = keras.Sequential([keras.Input((16,)), layers.Dense(10)])
    data = tf.data.Dataset.range(examples).map(
        lambda i: tf.random.stateless_normal((16,), tf.stack([i, 0])),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    with tempfile.TemporaryDirectory() as folder:
        stored = store(teacher, data, folder, batch_size=1000, verbose=0)
        rows = sum(len(x.keys) for (x,) in stored.attach(data).shuffle(1000).batch(1000))
    assert rows == examples
    print(peak_memory())


def memory_of_walk(examples):
    """Peak memory in MiB of a process that walks through so many examples."""
    command = [sys.executable, __file__, f"--walk={examples}"]
    walked = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(walked.stdout.split()[-1])


def table(results):
    """The results as Markdown."""
    ratios, sizes, peaks = (results[part] for part in ("times", "bytes per example", "peak MiB"))
    settings = results["settings"]
    rows = [
        ("epoch with the live teacher / of the plain student", f"{ratios['live / plain']:.2f}"),
        ("epoch with stored answers / of the plain student", f"{ratios['stored / plain']:.2f}"),
        ("rate of writing / of the teacher's `predict`", f"{ratios['writing / predict']:.2f}"),
        (
            "rate of writing / of `predict` without XLA",
            f"{ratios['writing / predict without XLA']:.2f}",
        ),
        (
            "peak memory, 1 million examples / 10 thousand",
            f"{peaks[str(LARGE)] / peaks[str(SMALL)]:.2f}",
        ),
        *((f"bytes per example, {name}", f"{size:.0f}") for name, size in sizes.items()),
    ]
    return _markdown.table(["", ""], rows) + (
        f"\n\nMedians of {settings['rounds']} rounds ({settings['rounds of writing']} of writing), "
        f"taken in turns, of convolutional networks on {settings['examples']:,} images of 32×32 "
        f"({settings['examples written']:,} written) on {results['machine']['cores']} CPU cores. "
        "Reproduce it with `make bench-stored-teacher`."
    )


def times():
    """Seconds of epochs and of writing, and how they compare."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (EXAMPLES, 32, 32, 3)).astype("float32")
    train = steady(tf.data.Dataset.from_tensor_slices((x, rng.integers(0, 10, EXAMPLES))))
    teacher = network(48, 4, "teacher")
    with tempfile.TemporaryDirectory() as folder:
        stored = store(teacher, train, folder, verbose=0)
        seconds = epochs(train, teacher, stored)
    seconds |= writing(train, teacher)
    return {
        "live / plain": median_ratio(seconds["live teacher"], seconds["plain student"]),
        "stored / plain": median_ratio(seconds["stored teacher"], seconds["plain student"]),
        "writing / predict": median_ratio(seconds["predict"], seconds["store"]),
        "writing / predict without XLA": median_ratio(
            seconds["predict without XLA"], seconds["store"]
        ),
        "seconds by round": seconds,
    }


PARTS = {
    "times": times,
    "peak MiB": lambda: {str(size): memory_of_walk(size) for size in (SMALL, LARGE)},
    "bytes per example": bytes_per_example,
}
SETTINGS = {
    "examples": EXAMPLES,
    "examples written": COPIES * EXAMPLES,
    "rounds": ROUNDS,
    "rounds of writing": WRITING_ROUNDS,
}


def main(_):
    if FLAGS.walk:
        walk(FLAGS.walk)
        return
    results = measure(RESULTS / "stored_teacher.json", PARTS, SETTINGS, FLAGS.part)
    insert(table(results), "docs/teachers.md", "stored_teacher")
    draw("stored_teacher", results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
