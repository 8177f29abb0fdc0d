"""Ways to a smaller file: designed small, pruned, sparse, clustered, with and without a teacher.

    python benchmarks/smaller.py
    python benchmarks/smaller.py --task=cifar10 --seeds=1 --epochs=8
    python benchmarks/smaller.py --task=uci_har --seeds=5

On Fashion-MNIST, each seed trains a large convolutional student on labels for half of `--epochs`.
It then is the teacher (T = 2, alpha = 0.5) of small ones of the same form, which train for
`--epochs`, and it is what is pruned by first-order Taylor, to the bytes that a small one's file
has, so that each layer keeps half of the small one's share of its units; the rest trains on for
`--epochs`, with the large one as teacher, or on labels. Sparse
students have 3 of 4 weights 0, clustered ones 16 values a kernel: students of a small one's widths,
trained with the teacher for one half, and held to their form for the other. All rates fall along a
cosine. All files are int8, quantized after training, run in LiteRT on the whole test set; those of
a seed are timed in turns, one thread each. On CIFAR-10, the large one is ResNet-8, and the same is
done. On UCI HAR, activity recognition, an LSTM trains on labels for half of `--epochs`, and float
or quantize-aware for the other half. What is done is kept in `--runs`, so that a stopped benchmark
goes on. Writes `benchmarks/results/smaller.json` (for other tasks `smaller_cifar10.json` and
`smaller_uci_har.json`), its table in `docs/smaller.md`, and, of images, its picture.
"""

import itertools
import json
import os
import time
import zlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from common import (
    DATA,
    RESULTS,
    ROOT,
    cifar10,
    gain,
    insert,
    machine,
    mnist,
    once,
    runs_of,
    uci_har,
    write,
)
from int8 import accuracy, freeze_last
from pictures import draw

import keras_distill
from keras_distill import _markdown, pruning, quantization, tflite
from keras_distill.evaluation import latency
from keras_distill.evaluation.candidates import as_candidate
from keras_distill.evaluation.macs import multiply_accumulates

FLAGS = flags.FLAGS
flags.DEFINE_enum("task", "fashion_mnist", ["fashion_mnist", "cifar10", "uci_har"], "The dataset.")
flags.DEFINE_string("data", DATA, "Folder of the datasets.")
flags.DEFINE_string("runs", str(ROOT / "runs" / "smaller"), "Folder of what is done.")
flags.DEFINE_integer("seeds", 3, "Number of seeds.")
flags.DEFINE_integer("epochs", 12, "Epochs of each student, both halves together.")
flags.DEFINE_integer("images", 10000, "Training images, or windows, at most.")

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE = 1e-2
HOW = {"distilled": True, "on labels": False}
#: Shares of the large student's widths: those of students designed small, and of those held to a
#: form.
SMALL = {
    "fashion_mnist": {"1/2": 2, "1/4": 4, "1/8": 8},
    "cifar10": {"1/2": 2, "1/4": 4},
}
HELD = {"fashion_mnist": ("1/2", "1/4"), "cifar10": ("1/4",)}
ROUNDS = 300
NAMES = {
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "ResNet-8 on CIFAR-10",
    "uci_har": "UCI HAR",
}
RESULT = {
    "fashion_mnist": "smaller",
    "cifar10": "smaller_cifar10",
    "uci_har": "smaller_uci_har",
}


def normalized(x, width, size=3, strides=1):
    x = keras.layers.Conv2D(width, size, strides=strides, padding="same", use_bias=False)(x)
    return keras.layers.BatchNormalization(momentum=0.9)(x)


def convolutional(share):
    """Strided 3x3 convolutions."""
    x = image = keras.Input((28, 28, 1), name="image")
    for width in (32, 64, 128):
        x = keras.layers.ReLU()(normalized(x, width // share, strides=2))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="student")


def resnet8(share):
    """The ResNet-8 of MLPerf Tiny."""
    image = keras.Input((32, 32, 3), name="image")
    x = keras.layers.ReLU()(normalized(image, 16 // share))
    for strides, width in ((1, 16), (2, 32), (2, 64)):
        y = keras.layers.ReLU()(normalized(x, width // share, strides=strides))
        y = normalized(y, width // share)
        if strides == 2:
            x = normalized(x, width // share, 1, strides)
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="student")


def recurrent(_):
    """An LSTM that reads a window of 2.56 seconds in 64 steps."""
    window = keras.Input((64, 6), name="window")
    x = keras.layers.LSTM(24)(window)
    return keras.Model(window, keras.layers.Dense(6, name="logits")(x), name="student")


def activity():
    """Every other step of UCI HAR's windows, and activities, in a fixed random order."""
    x, y, _, is_test = uci_har(FLAGS.data)
    rows = np.random.default_rng(0).permutation(np.flatnonzero(~is_test))
    return (x[rows, ::2], y[rows]), (x[is_test, ::2], y[is_test])


def samples():
    """Images from 0 to 1 or windows, float32, and labels: to train on, and to test on."""
    if FLAGS.task == "uci_har":
        return activity()
    if FLAGS.task == "fashion_mnist":
        return mnist("fashion_mnist", FLAGS.data)
    return [((x / 255).astype("float32"), y) for x, y in cifar10(FLAGS.data)]


class Runs:
    """All students of one seed."""

    def __init__(self, seed, train, test):
        self.seed, self.train, self.test = seed, train, test
        self.export = {"quantization": "int8", "io": "int8", "calibration": train[0][:200]}
        self.half = FLAGS.epochs // 2
        self.files = {}
        self.large = self.fit(self.new(1), self.half)
        self.teacher = keras_distill.teachers.Arrays(
            self.large.predict(train[0], batch_size=500, verbose=0)
        )

    def new(self, share):
        keras.utils.set_random_seed(self.seed)
        students = {"fashion_mnist": convolutional, "cifar10": resnet8, "uci_har": recurrent}
        return students[FLAGS.task](share)

    def fit(self, student, epochs, is_taught=False, rate=RATE, callbacks=()):
        """Trains along a cosine, from `rate` to a twentieth of it."""
        (x, y), model = self.train, student
        if is_taught:
            soft = keras_distill.losses.SoftTargets(temperature=2.0)
            model = keras_distill.Distiller(student, self.teacher, soft, alpha=0.5)
            x = self.teacher.attach(x)
        steps = epochs * -(-len(y) // 128)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)
        model.compile(keras.optimizers.Adam(schedule), CROSSENTROPY, jit_compile=False)
        model.fit(x, y, batch_size=128, epochs=epochs, verbose=0, callbacks=callbacks)
        return student

    def measured(self, name, student, **export):
        """Accuracy and sizes of the file, int8 if not told otherwise, which is kept to be timed."""
        self.files[name] = tflite.convert(student, **(export or self.export))
        content = self.files[name].tflite
        return {
            "accuracy": accuracy(content, self.test),
            "bytes": len(content),
            "compressed": len(zlib.compress(content, 9)),
            "macs": multiply_accumulates(student),
        }

    def pruned(self, share, limit):
        """The large student, its least important channels removed until its file fits."""
        x, y = self.train
        batches = [(x[i : i + 128], y[i : i + 128]) for i in range(0, min(2560, len(x)), 128)]
        self.large.compile(loss=CROSSENTROPY)
        return pruning.prune(
            self.large, batches, flash=limit, export=self.export, least_share=0.5 / share
        )

    def results(self):
        """Figures of each student, by what was done."""
        found = {"large": self.measured("large", self.large)}
        for name, share in SMALL[FLAGS.task].items():
            for how, is_taught in HOW.items():
                title = f"designed {name}, {how}"
                student = self.fit(self.new(share), FLAGS.epochs, is_taught)
                found[title] = self.measured(title, student)
            rest = self.pruned(share, found[f"designed {name}, distilled"]["bytes"])
            for how, is_taught in HOW.items():
                title = f"pruned to {name}, {how}"
                student = self.fit(copied(rest), FLAGS.epochs, is_taught)
                found[title] = self.measured(title, student)
            if name in HELD[FLAGS.task]:
                found |= self.held(name, share)
        return self.timed(found)

    def held(self, name, share):
        """Figures of students that are held to a form."""
        whole = self.fit(self.new(share), self.half, True)
        steps = self.half * -(-len(self.train[0]) // 128)

        def sparsity():
            return pruning.Sparsity(0.75, end_step=steps // 2, frequency=20)

        callbacks = {
            "sparse": [sparsity()],
            "clustered": [pruning.WeightClustering(16)],
            "sparse and clustered": [
                sparsity(),
                pruning.WeightClustering(16, begin_step=2 * steps // 3),
            ],
        }
        found = {}
        for kind, held in callbacks.items():
            student = self.fit(copied(whole), self.half, True, RATE / 2, held)
            title = f"{kind} {name}, distilled"
            found[title] = self.measured(title, student)
        return found

    def timed(self, found):
        """The figures with the median milliseconds of an inference."""
        files = {name: as_candidate(file, name) for name, file in self.files.items()}
        sample = self.export["calibration"][:1]
        for name, times in latency.latencies(files, sample, ROUNDS).items():
            found[name]["milliseconds"] = round(float(np.median(times)), 4)
        return found


class Recurrent(Runs):
    """The LSTM of one seed: all files are of as many epochs of training."""

    def results(self):
        x = self.train[0]
        aware = quantization.quantize_aware(self.large, x[:500])
        self.fit(aware, self.half, False, RATE / 10, [freeze_last(aware, self.half)])
        student = self.fit(self.large, self.half, False, RATE / 10)
        found = {
            "float": self.measured("float", student, quantization="float32"),
            "int8 after training": self.measured("int8 after training", student),
        }
        name = "int8, quantize-aware"
        found[name] = self.measured(name, aware, io="int8")
        return self.timed(found)


def copied(model):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def table(runs):
    """Mean and standard deviation over seeds of each student."""
    rows = []
    for name in runs[0]:
        values = [100 * run[name]["accuracy"] for run in runs]
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        sizes = [
            np.mean([run[name][key] for run in runs]) for key in ("bytes", "compressed", "macs")
        ]
        milliseconds = np.mean([run[name]["milliseconds"] for run in runs])
        cells = [f"{np.mean(values):.2f}{spread}", *(f"{x:,.0f}" for x in sizes)]
        rows.append([name, *cells, f"{milliseconds:.3f}"])
    head = ["student", "accuracy (%)", "bytes", "compressed", "multiply-accumulates", "ms"]
    return _markdown.table(head, rows)


def gains(runs):
    """What pruning gains over a student designed for the same bytes, a line for each."""
    if len(runs) < 2:
        return "One seed shows no differences."
    lines = []
    for name, how in itertools.product(SMALL[FLAGS.task], HOW):
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


def losses(runs):
    """What an LSTM loses in integers, a line for each pair of files."""
    accuracy = {name: [run[name]["accuracy"] for run in runs] for name in runs[0]}
    lines = []
    for name, other in (reversed(pair) for pair in itertools.combinations(accuracy, 2)):
        points, half, shown = gain(accuracy[name], accuracy[other])
        lines.append(f"- {name} against {other}: {points:+.2f} ± {half:.2f} points, {shown}.")
    return "\n".join(lines)


def page(results):
    """The table and what it depends on."""
    runs, settings = results["runs"], results["settings"]
    is_recurrent = settings["task"] == "uci_har"
    files, read = ("files", "windows") if is_recurrent else ("int8 files", "images")
    widths = "" if is_recurrent else "Fractions are of the large student's widths. "
    seeds = "1 seed" if settings["seeds"] == 1 else f"{settings['seeds']} seeds"
    command = "python benchmarks/smaller.py " + " ".join(
        f"--{name}={settings[name]}" for name in ("task", "seeds", "epochs", "images")
    )
    return (
        f"{table(runs)}\n\n"
        f"{NAMES[settings['task']]}, {results['samples']:,} training {read}, "
        f"{settings['epochs']} epochs; test accuracy in percent, mean ± standard deviation over "
        f"{seeds}, of {files} in LiteRT on the whole test set. {widths}Times are medians of single "
        "inferences on one thread of a host that had other work, files in turns. Mean ± half the "
        "95 % interval of the paired differences:"
        f"\n\n{(losses if is_recurrent else gains)(runs)}\n\n"
        f"Reproduce it with `{command}`, {results['cpu_seconds'] / 60:.0f} minutes of one CPU core."
    )


def main(_):
    settings = {name: getattr(FLAGS, name) for name in ("task", "epochs", "images")}
    folder = runs_of(os.path.join(FLAGS.runs, FLAGS.task), settings)
    (x, y), test = samples()
    kind = Recurrent if FLAGS.task == "uci_har" else Runs
    train = x[: FLAGS.images], y[: FLAGS.images]

    def of_seed(seed):
        begin = time.process_time()
        return {
            "results": kind(seed, train, test).results(),
            "cpu_seconds": round(time.process_time() - begin),
        }

    path = folder / "seeds.json"
    done = [once(path, f"seed {i}", lambda i=i: of_seed(i)) for i in range(FLAGS.seeds)]
    results = {
        "settings": settings | {"seeds": FLAGS.seeds},
        "samples": len(train[0]),
        "runs": [seed["results"] for seed in done],
        "cpu_seconds": sum(seed["cpu_seconds"] for seed in done),
        "machine": machine(),
    }
    name = RESULT[FLAGS.task]
    write(RESULTS / f"{name}.json", json.dumps(results, indent=1) + "\n")
    insert(page(results), "docs/smaller.md", name)
    if kind is Runs:
        draw(name, results)
    print(page(results))


if __name__ == "__main__":
    app.run(main)
