"""How cost grows with the data, the teacher, the classes and the workers.

    python benchmarks/scale.py

Each figure is of processes of their own, which train a small dense student of 64 inputs on made-up
data for an epoch: seconds for each example once training runs, and the peak memory. All cases are
run in turn, a few times: medians, with the least and the most of the seconds.

- data: 10 thousand, 100 thousand and 1 million examples from a stream;
- teacher: 1, 4 and 16 times as many parameters;
- classes: 10, 1,000 and 100,000, from the live teacher and from stored answers (top 10);
- workers: 1 and 2 processes of `MultiWorkerMirroredStrategy` on this machine, which share its
  cores.

Writes `benchmarks/results/scale.json`, and its table into `docs/performance.md`.
"""

import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from absl import app, flags
from common import RESULTS, insert, machine, peak_memory, write
from pictures import draw

import keras_distill
from keras_distill import _markdown

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 3, "Number of runs of each case.")
flags.DEFINE_string("walk", "", "One case as JSON: train it and print what it takes.")

BATCH = 500
CASE = {"examples": 10_000, "width": 256, "classes": 10, "stored": False, "workers": 1}
CASES = {
    "examples": [{"examples": count} for count in (10_000, 100_000, 1_000_000)],
    "teacher": [{"width": width, "examples": 50_000} for width in (512, 1024, 2048)],
    "classes": [{"classes": count} for count in (10, 1_000, 100_000)],
    "classes, stored": [{"classes": count, "stored": True} for count in (10, 1_000, 100_000)],
    "workers": [{"workers": count, "examples": 100_000} for count in (1, 2)],
}


def dense(width, depth, classes):
    hidden = [keras.layers.Dense(width, activation="relu") for _ in range(depth)]
    return keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(classes)])


def stream(examples, classes):
    """Examples that are made as they are read."""

    def example(i):
        seed = tf.stack([i, 0])
        label = tf.random.stateless_uniform((), seed, 0, classes, tf.int32)
        return tf.random.stateless_normal((64,), seed), label

    return tf.data.Dataset.range(examples).map(example, num_parallel_calls=2)


def walk(case):
    """Trains an epoch; prints seconds for each example, and the peak memory in MiB."""
    strategy = tf.distribute.get_strategy()
    if case["workers"] > 1:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope(), tempfile.TemporaryDirectory() as folder:
        teacher = dense(case["width"], 3, case["classes"])
        data = stream(case["examples"], case["classes"])
        if case["stored"]:
            teacher = keras_distill.teachers.store(
                teacher, data, folder, top_k=10, temperature=4.0, verbose=0
            )
            data = teacher.attach(data)
        model = keras_distill.Distiller(dense(32, 1, case["classes"]), teacher)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss, jit_compile=False)
        data = data.batch(BATCH, drop_remainder=True).prefetch(2)
        clock = Clock()
        model.fit(data, verbose=0, callbacks=[clock])
    megabytes = peak_memory()
    print(json.dumps({"seconds": clock.seconds / clock.steps / BATCH, "MiB": megabytes}))


class Clock(keras.callbacks.Callback):
    """Counts steps and seconds behind the first steps, in which TensorFlow warms up."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 4:
            self.start = time.perf_counter()
        self.steps = batch - 4
        self.seconds = time.perf_counter() - self.start if batch >= 4 else 0.0


def measure(case):
    """What one run of a case takes, by its first worker."""
    command = [sys.executable, __file__, f"--walk={json.dumps(case)}"]
    workers = [f"127.0.0.1:{port}" for port in _free_ports(case["workers"])]
    processes = []
    for index in range(case["workers"]):
        task = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        environment = dict(os.environ)
        if case["workers"] > 1:
            environment["TF_CONFIG"] = json.dumps(task)
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise RuntimeError(f"A process failed that trained {case}.")
    return json.loads(outputs[0].splitlines()[-1])


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def table(results):
    """The results as Markdown."""
    header = ["what grows", "to", "microseconds an example", "least to most"]
    header += ["peak MiB of a process"]
    rows = []
    for name, cases in results["cases"].items():
        key = {"teacher": "width", "classes, stored": "classes"}.get(name, name)
        for case in cases:
            times = {"width": f"{(case[key] / 512) ** 2:.0f} ×"}.get(key, f"{case[key]:,}")
            seconds = [1e6 * value for value in case["seconds"]]
            spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
            memory = f"{statistics.median(case['MiB']):,.0f}"
            rows.append((name, times, f"{statistics.median(seconds):.1f}", spread, memory))
    table = _markdown.table(header, rows)
    return f"{table}\n\nMedians of {len(case['seconds'])} runs of each case, in turn."


def main(_):
    if FLAGS.walk:
        walk(json.loads(FLAGS.walk))
        return
    found = {
        name: [{**CASE, **case, "seconds": [], "MiB": []} for case in cases]
        for name, cases in CASES.items()
    }
    for _ in range(FLAGS.rounds):
        for case in itertools.chain.from_iterable(found.values()):
            run = measure({key: case[key] for key in CASE})
            case["seconds"].append(run["seconds"])
            case["MiB"].append(run["MiB"])
            print(case, flush=True)
    results = {"cases": found, "batch": BATCH, "machine": machine()}
    write(RESULTS / "scale.json", json.dumps(results, indent=1) + "\n")
    insert(table(results), "docs/performance.md", "scale")
    draw("scale", results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
