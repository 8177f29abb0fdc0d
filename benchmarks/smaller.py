"""Ways to a smaller file: designed small, pruned, sparse, clustered, with and without a teacher.

    python benchmarks/smaller.py

On Fashion-MNIST, each seed trains a large convolutional student on labels for half of `--epochs`.
It then is the teacher (T = 2, alpha = 0.5) of small ones of the same form, which train for
`--epochs`, and it is what is pruned by first-order Taylor, to the bytes that a small one's file
has; the rest trains on for the other half, with the large one as teacher, or on labels. Sparse
students have 3 of 4 weights 0, clustered ones 16 values a kernel: both are of twice the smaller
student's widths, trained with the teacher for one half, and held to their form for the other. All
rates fall along a cosine. All files are int8, quantized after training, run in LiteRT on the whole
test set. What is done is kept in `--runs`, so that a stopped benchmark goes on.
Writes `benchmarks/results/smaller.json`, the table of `docs/smaller.md` and its picture.
"""

import json
import os
import time
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from common import DATA, RESULTS, ROOT, gain, insert, machine, mnist, once, runs_of, write
from int8 import accuracy
from pictures import draw

import keras_distill
from keras_distill import _markdown, pruning, tflite
from keras_distill.evaluation.macs import multiply_accumulates

FLAGS = flags.FLAGS
flags.DEFINE_string("data", DATA, "Folder of the dataset.")
flags.DEFINE_string("runs", str(ROOT / "runs" / "smaller"), "Folder of what is done.")
flags.DEFINE_integer("seeds", 3, "Number of seeds.")
flags.DEFINE_integer("epochs", 12, "Epochs of each student, both halves together.")
flags.DEFINE_integer("images", 10000, "Training images.")

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE = 1e-2
LARGE = (32, 64, 128)
SMALL = {"1/4": (8, 16, 32), "1/8": (4, 8, 16)}
HELD = (16, 32, 64)


def convolutional(widths):
    """Strided 3x3 convolutions."""
    x = image = keras.Input((28, 28, 1), name="image")
    for width in widths:
        x = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="student")


class Runs:
    """All students of one seed."""

    def __init__(self, seed, train, test):
        self.seed, self.train, self.test = seed, train, test
        self.export = {"quantization": "int8", "io": "int8", "calibration": train[0][:200]}
        self.half = FLAGS.epochs // 2
        self.large = self.fit(self.new(LARGE), self.half)

    def new(self, widths):
        keras.utils.set_random_seed(self.seed)
        return convolutional(widths)

    def trainer(self, student, teacher=None, rate=RATE):
        model = student
        if teacher is not None:
            soft = keras_distill.losses.SoftTargets(temperature=2.0)
            model = keras_distill.Distiller(student, teacher, soft, alpha=0.5)
        model.compile(keras.optimizers.Adam(rate), CROSSENTROPY, jit_compile=False)
        return model

    def fit(self, student, epochs, teacher=None, rate=RATE, callbacks=()):
        """Trains along a cosine, from `rate` to a twentieth of it."""
        steps = epochs * -(-len(self.train[0]) // 128)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)
        trainer = self.trainer(student, teacher, schedule)
        trainer.fit(*self.train, batch_size=128, epochs=epochs, verbose=0, callbacks=callbacks)
        return student

    def measured(self, student):
        """Accuracy and sizes of the int8 file."""
        content = tflite.convert(student, **self.export).tflite
        return {
            "accuracy": accuracy(content, self.test),
            "bytes": len(content),
            "compressed": len(zlib.compress(content, 9)),
            "macs": multiply_accumulates(student),
        }

    def pruned(self, limit):
        """The large student, its least important channels removed until its file fits."""
        x, y = self.train
        batches = [(x[i : i + 128], y[i : i + 128]) for i in range(0, 2560, 128)]
        trainer = self.trainer(self.large)
        return pruning.prune(trainer, batches, flash=limit, export=self.export)

    def results(self):
        """Figures of each student, by what was done."""
        found = {"large": self.measured(self.large)}
        for name, widths in SMALL.items():
            for how, teacher in (("distilled", self.large), ("on labels", None)):
                small = self.fit(self.new(widths), FLAGS.epochs, teacher)
                found[f"designed {name}, {how}"] = self.measured(small)
            rest = self.pruned(found[f"designed {name}, distilled"]["bytes"])
            for how, teacher in (("distilled", self.large), ("on labels", None)):
                student = keras.models.clone_model(rest)
                student.set_weights(rest.get_weights())
                self.fit(student, self.half, teacher, RATE / 2)
                found[f"pruned to {name}, {how}"] = self.measured(student)
        return found | self.held()

    def held(self):
        """Figures of students that are held to a form."""
        whole = self.fit(self.new(HELD), self.half, self.large)
        steps = self.half * -(-len(self.train[0]) // 128)
        callbacks = {
            "dense": [],
            "sparse": [pruning.Sparsity(0.75, end_step=steps // 2, frequency=20)],
            "clustered": [pruning.WeightClustering(16)],
            "sparse and clustered": [
                pruning.Sparsity(0.75, end_step=steps // 2, frequency=20),
                pruning.WeightClustering(16, begin_step=2 * steps // 3),
            ],
        }
        found = {}
        for name, held in callbacks.items():
            student = keras.models.clone_model(whole)
            student.set_weights(whole.get_weights())
            self.fit(student, self.half, self.large, RATE / 2, held)
            found[f"{name} 1/2, distilled"] = self.measured(student)
        return found


def table(runs):
    """Mean and standard deviation over seeds of each student."""
    rows = []
    for name in runs[0]:
        values = [100 * run[name]["accuracy"] for run in runs]
        deviation = np.std(values, ddof=1) if len(values) > 1 else 0
        sizes = [np.mean([run[name][key] for run in runs]) for key in ("bytes", "compressed")]
        macs = np.mean([run[name]["macs"] for run in runs])
        cells = [f"{np.mean(values):.2f} ± {deviation:.2f}", *(f"{x:,.0f}" for x in sizes)]
        rows.append([name, *cells, f"{macs:,.0f}"])
    head = ["student", "accuracy (%)", "bytes", "compressed", "multiply-accumulates"]
    return _markdown.table(head, rows)


def gains(runs):
    """What pruning gains over a student designed for the same bytes, a line for each."""
    lines = []
    for name in SMALL:
        for how in ("distilled", "on labels"):
            pruned, designed = (
                [run[f"{route} {name}, {how}"]["accuracy"] for run in runs]
                for route in ("pruned to", "designed")
            )
            points, half, shown = gain(pruned, designed)
            lines.append(
                f"- Pruned to {name} against designed {name}, both {how}: {points:+.2f} ± "
                f"{half:.2f} points, {shown}."
            )
    return "\n".join(lines)


def page(results):
    """The table and what it depends on."""
    runs, settings = results["runs"], results["settings"]
    return (
        f"{table(runs)}\n\n"
        f"Fashion-MNIST, {settings['images']:,} training images, {settings['epochs']} epochs; "
        "test accuracy in percent, mean ± standard deviation over "
        f"{settings['seeds']} seeds, of int8 files in LiteRT on the whole test set. Fractions are "
        "of the large student's widths. Mean ± half the 95 % interval of the paired differences:"
        f"\n\n{gains(runs)}\n\n"
        f"Reproduce it with `make bench-smaller`, {results['cpu_seconds'] / 60:.0f} minutes of one "
        "CPU core."
    )


def main(_):
    settings = {name: getattr(FLAGS, name) for name in ("epochs", "images")}
    folder = runs_of(FLAGS.runs, settings)
    (x, y), test = mnist("fashion_mnist", FLAGS.data)
    train = x[: FLAGS.images], y[: FLAGS.images]

    def of_seed(seed):
        begin = time.process_time()
        return {
            "results": Runs(seed, train, test).results(),
            "cpu_seconds": round(time.process_time() - begin),
        }

    path = folder / "fashion_mnist.json"
    done = [once(path, f"seed {i}", lambda i=i: of_seed(i)) for i in range(FLAGS.seeds)]
    results = {
        "settings": settings | {"seeds": FLAGS.seeds},
        "runs": [seed["results"] for seed in done],
        "cpu_seconds": sum(seed["cpu_seconds"] for seed in done),
        "machine": machine(),
    }
    write(RESULTS / "smaller.json", json.dumps(results, indent=1) + "\n")
    insert(page(results), "docs/smaller.md", "smaller")
    draw("smaller", results)
    print(page(results))


if __name__ == "__main__":
    app.run(main)
