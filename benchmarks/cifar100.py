"""CIFAR-100's usual pairs of ResNets, by the recipe that papers share, on JAX.

    KERAS_BACKEND=jax python benchmarks/cifar100.py

ResNet-56 teaches ResNet-20, and ResNet-32x4 ResNet-8x4 (after arXiv:1910.10699, section 5): 240
epochs of SGD, 0.05, momentum 0.9, weight decay 5e-4, batches of 64, a tenth of the rate after 150,
180 and 210 epochs, crops with 4 pixels around the image, flips. Each student learns from labels
alone and with each method, three seeds. The test set is looked at once for each run, at its end.

Writes `benchmarks/results/cifar100.json` and prints the table. A run that is stopped goes on at the
epoch where it was; what is done is in `--runs`. `--small` runs all of it on 256 images of CIFAR-10,
with shallow networks, in minutes on a CPU; then nothing is written but `--runs`.
"""

import functools
import json
import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import DATA, RESULTS, ROOT, cifar10, machine, once, runs_of, write
from keras import layers

import keras_distill
from keras_distill import Match, _markdown, losses

FLAGS = flags.FLAGS
flags.DEFINE_string("data", DATA, "Folder that may hold cifar10/, for `--small`.")
flags.DEFINE_string("runs", str(ROOT / "runs" / "cifar100"), "Folder for all that is done.")
flags.DEFINE_integer("seeds", 3, "Number of students of each kind.")
flags.DEFINE_bool("small", False, "A slice of CIFAR-10, shallow networks and two epochs.")

SETTINGS = {"epochs": 240, "falls": [150, 180, 210], "batch_size": 64, "rate": 0.05, "decay": 5e-4}
SMALL = {"epochs": 2, "falls": [1], "batch_size": 32, "rate": 0.05, "decay": 5e-4}
# Depth and widths of teacher and student, and what papers report of them: teacher, labels, methods.
PAIRS = {
    "ResNet-56, ResNet-20": (
        (56, (16, 16, 32, 64)),
        (20, (16, 16, 32, 64)),
        {"teacher": 72.34, "labels": 69.06, "SoftTargets": 70.66, "DKD": 71.97, "DIST": 71.75},
    ),
    "ResNet-32x4, ResNet-8x4": (
        (32, (32, 64, 128, 256)),
        (8, (32, 64, 128, 256)),
        {"teacher": 79.42, "labels": 72.50, "SoftTargets": 73.33, "DKD": 76.32, "DIST": 76.31},
    ),
}
# Loss, temperature and all as published, then the weights of labels and loss.
METHODS = {
    "labels": (None, 1.0, 0.0),
    "SoftTargets": (lambda: losses.SoftTargets(4.0), 0.1, 0.9),
    "DKD": (lambda: losses.DKD(1.0, 8.0, 4.0), 1.0, 1.0),
    "DIST": (lambda: losses.DIST(2.0, 2.0, 4.0), 1.0, 1.0),
}
WARM_UP = 20  # Epochs in which the weight of DKD rises.
MEAN, SPREAD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)  # Of CIFAR-100's pixels.


def resnet(depth, widths, classes, decay=0.0):
    """ResNet for images of 32x32 (arXiv:1512.03385, section 4.2), as the papers' code has it."""
    l2 = keras.regularizers.L2(decay / 2) if decay else None

    def convolution(x, width, size=3, stride=1):
        padded = "same" if stride == 1 or size == 1 else "valid"
        x = layers.ZeroPadding2D(1)(x) if padded == "valid" else x
        made = {"use_bias": False, "kernel_initializer": "he_normal", "kernel_regularizer": l2}
        x = layers.Conv2D(width, size, stride, padded, **made)(x)
        return layers.BatchNormalization(
            momentum=0.9, epsilon=1e-5, beta_regularizer=l2, gamma_regularizer=l2
        )(x)

    inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=MEAN, variance=np.square(SPREAD))(inputs)
    x = layers.ReLU()(convolution(x, widths[0]))
    for stage, width in enumerate(widths[1:]):
        for block in range((depth - 2) // 6):
            stride = 2 if stage and not block else 1
            y = layers.ReLU()(convolution(x, width, stride=stride))
            y = convolution(y, width)
            if stride == 2 or x.shape[-1] != width:
                x = convolution(x, width, 1, stride)
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    outputs = layers.Dense(classes, kernel_regularizer=l2, bias_regularizer=l2)(x)
    return keras.Model(inputs, outputs)


def images():
    """Images from 0 to 1 and labels to train on, and to test on."""
    if FLAGS.small:
        parts = [(x[:256], y[:256]) for x, y in cifar10(FLAGS.data)]
    else:
        parts = keras.datasets.cifar100.load_data()
    return [(np.float32(x) / 255, np.int32(y).reshape(-1)) for x, y in parts]


def batches(x, y, size, seed):
    """Endless batches of crops and flips."""

    def view(image, label):
        image = tf.pad(image, [(4, 4), (4, 4), (0, 0)])
        return tf.image.random_flip_left_right(tf.image.random_crop(image, (32, 32, 3))), label

    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=seed).repeat()
    return data.map(view, tf.data.AUTOTUNE).batch(size, drop_remainder=True).prefetch(2)


def warm_up(steps):
    """Weights from 0 to 1 over so many steps, then 1."""
    return keras.optimizers.schedules.PolynomialDecay(0.0, steps, 1.0)


def train(model, data, settings, folder, scale, seed):
    """Trains a model, or a distiller, whose loss is `scale` times the published one."""
    x, y = data
    steps = len(x) // settings["batch_size"]
    falls = [epoch * steps for epoch in settings["falls"]]
    rates = [settings["rate"] / scale / 10**n for n in range(len(falls) + 1)]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(falls, rates)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), loss)
    folder.mkdir(parents=True, exist_ok=True)
    model.fit(
        batches(x, y, settings["batch_size"], seed),
        epochs=settings["epochs"],
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        callbacks=[keras.callbacks.BackupAndRestore(str(folder))],
    )


def accuracy(model, x, y):
    return 100 * float((model.predict(x, batch_size=256, verbose=0).argmax(-1) == y).mean())


def taught(pair, parts, settings, folder):
    """The teacher of a pair, trained once and kept in `folder`."""
    path = folder / f"{pair}.keras"
    if path.exists():
        return keras.saving.load_model(path)
    keras.utils.set_random_seed(0)
    teacher = resnet(*shape(PAIRS[pair][0]), settings["classes"], settings["decay"])
    train(teacher, parts[0], settings, folder / f"{pair}, teacher", 1.0, 0)
    teacher.save(path)
    return teacher


def shape(published):
    """Depth and widths of a network, or of a small one in its place."""
    depth, widths = published
    return (14 if depth > 30 else 8, tuple(w // 4 for w in widths)) if FLAGS.small else published


def student(pair, method, seed, teacher, parts, settings, folder):
    """Test accuracy of a student of a pair, taught by a method of `METHODS`."""
    keras.utils.set_random_seed(seed)
    loss, labels, weight = METHODS[method]
    # The Distiller's weights add up to 1: the rate makes up for it, and the decay with it.
    scale = 1 / (labels + weight)
    model = small = resnet(*shape(PAIRS[pair][1]), settings["classes"], settings["decay"] * scale)
    if loss is not None:
        steps = len(parts[0][0]) // settings["batch_size"]
        match = Match(loss(), weight=warm_up(WARM_UP * steps) if method == "DKD" else 1.0)
        model = keras_distill.Distiller(small, teacher, [match], alpha=labels * scale)
    train(model, parts[0], settings, folder / f"{pair}, {method}, {seed}", scale, seed)
    return accuracy(small, *parts[1])


def run_all():
    """All that isn't done yet; returns the results."""
    parts = images()
    settings = {**(SMALL if FLAGS.small else SETTINGS), "classes": int(parts[0][1].max()) + 1}
    folder = pathlib.Path(runs_of(FLAGS.runs, settings))
    done, results = folder / "runs.json", {"settings": settings, "pairs": {}}
    for pair in PAIRS:
        teacher = taught(pair, parts, settings, folder)
        results["pairs"][pair] = found = {"teacher": [accuracy(teacher, *parts[1])]}
        for method in METHODS:
            found[method] = []
            for seed in range(FLAGS.seeds):
                run = functools.partial(
                    student, pair, method, seed, teacher, parts, settings, folder
                )
                found[method].append(once(done, f"{pair}, {method}, seed {seed}", run))
    return {**results, "machine": machine()}


def table(results):
    """Mean and standard deviation of each student, beside what papers report."""
    rows = []
    for pair, found in results["pairs"].items():
        for name, values in found.items():
            spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
            published = f"{PAIRS[pair][2][name]:.2f}"
            rows.append((pair, name, f"{np.mean(values):.2f}{spread}", published))
    return _markdown.table(["pair", "student", "test accuracy, %", "published"], rows)


def main(_):
    results = run_all()
    if not FLAGS.small:
        write(RESULTS / "cifar100.json", json.dumps(results, indent=1) + "\n")
    print(table(results))


if __name__ == "__main__":
    app.run(main)
