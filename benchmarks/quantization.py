"""What quantization costs: float, post-training int8, aware int8, aware int4 weights.

    python benchmarks/quantization.py

Trains two students, on labels alone and by distillation from a larger teacher (T = 2, alpha = 0.5,
chosen on training windows of the second task): a convolutional one on Fashion-MNIST, and a narrow
depthwise-separable one (MobileNet's blocks in one dimension) on activity recognition from a phone's
sensors (UCI HAR). Float students train for `--epochs` epochs; the quantize-aware ones take over
their weights, and all train on for `--aware` epochs at a tenth of the rate, so that all have seen
the same data. Ranges and statistics are frozen for the last aware epoch. The last column folds
BatchNormalization before the aware epochs instead of after them. All figures are of files, run in
LiteRT on the whole test set.
Writes `benchmarks/results/quantization.json`, and the table of `docs/quantization.md`.
"""

import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from common import DATA, RESULTS, check_settings, gain, insert, machine, mnist, uci_har, write
from int8 import accuracy, freeze_last
from pictures import draw

import keras_distill
from keras_distill import _markdown, quantization, tflite

FLAGS = flags.FLAGS
flags.DEFINE_string("data", DATA, "Folder of both datasets.")
flags.DEFINE_multi_string("student", [], "A student to train anew; others keep their results.")
flags.DEFINE_integer("seeds", 4, "Number of seeds.")
flags.DEFINE_integer("epochs", 10, "Epochs of a float student, before all train on.")
flags.DEFINE_integer("aware", 4, "Epochs more, quantize-aware or not.")
flags.DEFINE_integer("teacher_epochs", 6, "Epochs of a teacher.")

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
RATE = 1e-2
SETTINGS = ("seeds", "epochs", "aware", "teacher_epochs")
COLUMNS = (
    "float",
    "post-training int8",
    "aware int8",
    "aware int4 weights",
    "aware int8, folded before",
)


def fashion(folder, count=10000):
    """Fashion-MNIST, of which the first training images."""
    (x, y), test = mnist("fashion_mnist", folder)
    return (x[:count], y[:count]), test


def activity(folder):
    """UCI HAR: windows of 128 steps of six sensor channels, and six activities."""
    x, y, _, is_test = uci_har(folder)
    order = np.random.default_rng(0).permutation(np.flatnonzero(~is_test))
    return (x[order], y[order]), (x[is_test], y[is_test])


def block(x, layer, activation="relu"):
    """A convolution, BatchNormalization, activation."""
    x = keras.layers.BatchNormalization(momentum=0.9)(layer(x))
    return keras.layers.Activation(activation)(x)


def convolutional(widths=(8, 16, 32)):
    """Strided 3x3 convolutions."""
    x = image = keras.Input((28, 28, 1), name="image")
    for width in widths:
        conv = keras.layers.Conv2D(width, 3, strides=2, padding="same", use_bias=False)
        x = block(x, conv)
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="convolutional")


def depthwise(width=8, depth=12):
    """MobileNet's blocks (arXiv:1704.04861) in one dimension, with EfficientNet's activation."""
    conv = keras.layers.Conv1D
    window = keras.Input((128, 6), name="window")
    x = block(window, conv(width, 5, strides=2, padding="same", use_bias=False), "silu")
    for i in range(depth):
        strides = 2 if i % 4 == 3 else 1
        kernel = keras.layers.DepthwiseConv1D(5, strides=strides, padding="same", use_bias=False)
        x = block(x, kernel, "silu")
        x = block(x, conv(width, 1, use_bias=False), "silu")
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(window, keras.layers.Dense(6, name="logits")(x), name="depthwise")


def recognizer(width=48):
    """Strided convolutions in one dimension, the depthwise student's teacher."""
    x = window = keras.Input((128, 6), name="window")
    for i in range(3):
        conv = keras.layers.Conv1D(width * (i + 1), 5, strides=2, padding="same", use_bias=False)
        x = block(x, conv)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(window, keras.layers.Dense(6, name="logits")(x), name="recognizer")


# Student: data, how it is built, how its teacher is built.
TASKS = {
    "convolutional, Fashion-MNIST": (fashion, convolutional, lambda: convolutional((32, 64, 128))),
    "depthwise, activity recognition": (activity, depthwise, recognizer),
}
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
KERNELS = (keras.layers.Conv1D, keras.layers.Conv2D, *DEPTHWISE)


def folded(student):
    """The student with BatchNormalization folded into its kernels, as one folds before training."""

    def without_norm(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, KERNELS):
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer, *args, **kwargs):
        return layer(*args)  # without the mask that BatchNormalization takes

    result = keras.models.clone_model(student, clone_function=without_norm, call_function=call)
    kernel, target = None, None
    for old, new in zip(student.layers, result.layers, strict=True):
        if isinstance(old, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = old.get_weights()
            scale = gamma / np.sqrt(variance + old.epsilon)
            is_depthwise = isinstance(target, DEPTHWISE)
            factor = scale.reshape(-1, 1) if is_depthwise else scale
            target.set_weights([kernel * factor, beta - mean * scale])
        elif isinstance(old, KERNELS):
            target, kernel = new, old.get_weights()[0]
        elif old.get_weights():
            new.set_weights(old.get_weights())
    return result


def trainer(student, teacher, rate):
    """The student itself, or its distiller, compiled."""
    model = student
    if teacher is not None:
        model = keras_distill.Distiller(
            student, teacher, keras_distill.losses.SoftTargets(temperature=2.0), alpha=0.5
        )
    model.compile(keras.optimizers.Adam(rate), CROSSENTROPY, jit_compile=False)
    return model


def fit(student, teacher, train, epochs, rate, freeze=False):
    """Trains along a cosine, from `rate` to a twentieth of it."""
    steps = epochs * -(-len(train[0]) // 128)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)
    callbacks = [freeze_last(student, epochs)] if freeze else []
    trainer(student, teacher, schedule).fit(
        *train, batch_size=128, epochs=epochs, verbose=0, callbacks=callbacks
    )


def measure(build, teacher, train, test, seed):
    """Accuracy and bytes of the files of one student."""
    keras.utils.set_random_seed(seed)
    student, calibration = build(), train[0][:500]
    fit(student, teacher, train, FLAGS.epochs, RATE)
    aware = {
        bits: quantization.quantize_aware(student, calibration, weight_bits=bits) for bits in (8, 4)
    }
    before = quantization.quantize_aware(folded(student), calibration)
    for model in (student, aware[8], aware[4], before):
        fit(model, teacher, train, FLAGS.aware, RATE / 10, freeze=model is not student)
    files = (
        tflite.convert(student),
        tflite.convert(student, quantization="int8", io="int8", calibration=calibration),
        tflite.convert(aware[8], io="int8"),
        tflite.convert(aware[4], io="int8"),
        tflite.convert(before, io="int8"),
    )
    return {
        column: {"accuracy": accuracy(file.tflite, test), "bytes": len(file.tflite)}
        for column, file in zip(COLUMNS, files, strict=True)
    }


def table(results):
    """Mean and standard deviation over seeds, in percent; bytes below."""
    rows = []
    for name, task in results["students"].items():
        for objective, runs in task["runs"].items():
            cells = []
            for column in COLUMNS:
                values = [100 * run[column]["accuracy"] for run in runs]
                deviation = np.std(values, ddof=1) if len(values) > 1 else 0
                cells.append(f"{np.mean(values):.2f} ± {deviation:.2f}")
            rows.append([name, objective, *cells])
        every = [run for runs in task["runs"].values() for run in runs]
        sizes = [f"{max(run[column]['bytes'] for run in every):,} bytes" for column in COLUMNS]
        rows.append([name, "size of the file", *sizes])
    return _markdown.table(["student", "trained", *COLUMNS], rows)


def losses(results):
    """What each kind of file gains over the float one of the same seed, in points."""
    rows = []
    for name, task in results["students"].items():
        for objective, runs in task["runs"].items():
            accuracy = {column: [run[column]["accuracy"] for run in runs] for column in COLUMNS}
            gains = (gain(accuracy[column], accuracy["float"])[:2] for column in COLUMNS[1:])
            cells = (f"{points:+.2f} ± {half:.2f}" for points, half in gains)
            rows.append([name, objective, *cells])
    return _markdown.table(["points above the float file", "trained", *COLUMNS[1:]], rows)


def page(results):
    """The table and what it depends on."""
    teachers = ", ".join(
        f"{100 * task['teacher']['accuracy']:.2f} ({name})"
        for name, task in results["students"].items()
    )
    settings = results["settings"]
    minutes = sum(task["cpu_seconds"] for task in results["students"].values()) / 60
    return (
        f"{table(results)}\n\n{losses(results)}\n\n"
        "Above: test accuracy in percent, mean ± standard deviation over "
        f"{settings['seeds']} seeds, of files in LiteRT on the whole test set; "
        f"{settings['epochs']} epochs, then {settings['aware']} more at a tenth of the rate, float "
        f"or aware; sizes are those of the largest files. Below: mean ± half the 95 % interval of "
        f"the paired differences. Teachers: {teachers}. Reproduce it with "
        f"`make bench-quantization`, {minutes:.0f} minutes of one CPU core."
    )


def measure_task(load, build, build_teacher):
    """All runs of one student."""
    begin = time.process_time()
    train, test = load(FLAGS.data)
    keras.utils.set_random_seed(0)
    teacher = build_teacher()
    fit(teacher, None, train, FLAGS.teacher_epochs, 5e-3)
    found = np.argmax(teacher.predict(test[0], verbose=0), axis=-1)
    runs = {"labels": [], "distilled": []}
    for seed in range(FLAGS.seeds):
        for objective in runs:
            guide = teacher if objective == "distilled" else None
            run = {"seed": seed, **measure(build, guide, train, test, seed)}
            runs[objective].append(run)
            shown = {column: round(100 * run[column]["accuracy"], 2) for column in COLUMNS}
            print(seed, objective, shown, flush=True)
    return {
        "teacher": {
            "accuracy": float(np.mean(found == test[1])),
            "parameters": teacher.count_params(),
        },
        "parameters": build().count_params(),
        "runs": runs,
        "cpu_seconds": round(time.process_time() - begin),
    }


def main(_):
    path = RESULTS / "quantization.json"
    settings = {name: getattr(FLAGS, name) for name in SETTINGS}
    students = {}
    if FLAGS.student:
        before = json.loads(path.read_text())
        check_settings(path, before["settings"], settings)
        students = before["students"]
    unknown = set(FLAGS.student) - set(TASKS)
    if unknown:
        raise ValueError(f"--student must be one of {list(TASKS)}. Received: {sorted(unknown)}")
    for name, task in TASKS.items():
        if not FLAGS.student or name in FLAGS.student:
            students[name] = measure_task(*task)
    results = {"settings": settings, "students": students, "machine": machine()}
    write(path, json.dumps(results, indent=1) + "\n")
    insert(page(results), "docs/quantization.md", "quantization")
    draw("quantization", results)
    print(page(results))


if __name__ == "__main__":
    app.run(main)
