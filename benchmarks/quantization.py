"""What quantization costs: float, post-training int8, aware int8, aware int4 weights.

    python benchmarks/quantization.py --data=FOLDER --seeds=3

Trains two students on Fashion-MNIST, on labels alone and by distillation from a larger teacher:
a plain convolutional one, and a depthwise-separable one with residuals. Float students train for
`--epochs` epochs in all; the quantize-aware ones take over their weights `--aware` epochs before
the end and train on as the float ones do, so all have seen the same data. Ranges and statistics
are frozen for the last aware epoch. The last column folds BatchNormalization before the aware
epochs instead of after them. All figures are of files, run in LiteRT on the whole test set.
Writes `benchmarks/results/quantization.json` and `.md`, and the table of `docs/quantization.md`.
"""

import gzip
import json
import os
import pathlib
import platform
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app, flags
from keras_distill.tflite import runtimes

import keras_distill
from keras_distill import quantization, tflite

HERE = pathlib.Path(__file__).parent
FLAGS = flags.FLAGS
flags.DEFINE_string(
    "data", str(HERE.parents[1] / "shared/data/fashion_mnist"), "Folder of the four gz files."
)
flags.DEFINE_integer("seeds", 3, "Number of seeds.")
flags.DEFINE_integer("train", 20000, "Training samples.")
flags.DEFINE_integer("epochs", 8, "Epochs of a float student.")
flags.DEFINE_integer("aware", 3, "How many of them the quantize-aware student trains.")
flags.DEFINE_integer("teacher_epochs", 10, "Epochs of the teacher.")

CROSSENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COLUMNS = (
    "float",
    "post-training int8",
    "aware int8",
    "aware int4 weights",
    "aware int8, folded before",
)
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def load(folder, count):
    """Fashion-MNIST: images from 0 to 1, and labels."""

    def read(name, offset):
        with gzip.open(pathlib.Path(folder, name)) as file:
            return np.frombuffer(file.read(), "uint8", offset=offset)

    def images(name):
        return read(name, 16).reshape(-1, 28, 28, 1).astype("float32") / 255

    return (
        (
            images("train-images-idx3-ubyte.gz")[:count],
            read("train-labels-idx1-ubyte.gz", 8)[:count].astype("int32"),
        ),
        (
            images("t10k-images-idx3-ubyte.gz"),
            read("t10k-labels-idx1-ubyte.gz", 8).astype("int32"),
        ),
    )


def block(x, layer, activation):
    """A convolution, BatchNormalization, activation."""
    x = keras.layers.BatchNormalization(momentum=0.9)(layer(x))
    return x if activation is None else keras.layers.Activation(activation)(x)


def convolutional(widths=(16, 32, 48)):
    """Strided 3x3 convolutions."""
    conv = keras.layers.Conv2D
    x = image = keras.Input((28, 28, 1), name="image")
    for width in widths:
        x = block(x, conv(width, 3, strides=2, padding="same", use_bias=False), "relu")
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="convolutional")


def depthwise(width=16, expansion=4, activation="hard_swish"):
    """Inverted residuals (arXiv:1801.04381), their linear bottlenecks and depthwise kernels."""
    conv = keras.layers.Conv2D
    image = keras.Input((28, 28, 1), name="image")
    x = block(image, conv(width, 3, strides=2, padding="same", use_bias=False), activation)
    for stride, channels in ((1, width), (2, 2 * width), (1, 2 * width), (2, 2 * width)):
        y = block(x, conv(expansion * x.shape[-1], 1, use_bias=False), activation)
        depthwise_conv = keras.layers.DepthwiseConv2D(
            3, strides=stride, padding="same", use_bias=False
        )
        y = block(y, depthwise_conv, activation)
        y = block(y, conv(channels, 1, use_bias=False), None)
        x = keras.layers.Add()([x, y]) if y.shape == x.shape else y
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, keras.layers.Dense(10, name="logits")(x), name="depthwise")


def folded(student):
    """The student with BatchNormalization folded into its kernels, as one folds before training."""

    def without_norm(layer):
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            return keras.layers.Identity(name=layer.name)
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            config["use_bias"] = True
        return type(layer).from_config(config)

    result = keras.models.clone_model(student, clone_function=without_norm)
    kernel, target = None, None
    for old, new in zip(student.layers, result.layers, strict=True):
        if isinstance(old, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = old.get_weights()
            scale = gamma / np.sqrt(variance + old.epsilon)
            is_depthwise = isinstance(target, keras.layers.DepthwiseConv2D)
            factor = scale.reshape(-1, 1) if is_depthwise else scale
            target.set_weights([kernel * factor, beta - mean * scale])
        elif isinstance(old, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            target, kernel = new, old.get_weights()[0]
        elif old.get_weights():
            new.set_weights(old.get_weights())
    return result


def trainer(student, teacher, rate):
    """The student itself, or its distiller, compiled."""
    model = student
    if teacher is not None:
        model = keras_distill.Distiller(
            student, teacher, keras_distill.losses.SoftTargets(temperature=4.0), alpha=0.1
        )
    model.compile(keras.optimizers.Adam(rate), CROSSENTROPY, jit_compile=False)
    return model


def fit(student, teacher, train, epochs, rate, freeze=False):
    """Trains along a cosine, from `rate` to a twentieth of it."""
    steps = epochs * -(-len(train[0]) // 128)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=0.05)

    def at_epoch(epoch, logs):
        if freeze and epoch == epochs - 1:
            quantization.freeze(student)

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=at_epoch)
    trainer(student, teacher, schedule).fit(
        *train, batch_size=128, epochs=epochs, verbose=0, callbacks=[callback]
    )


def accuracy(artifact, test):
    """Share of the test set that a file classifies rightly in LiteRT."""
    (outputs,) = runtimes.run_samples(runtimes.open_file(artifact.tflite), [test[0]])
    return float(np.mean(np.argmax(outputs, axis=-1) == test[1]))


def measure(build, teacher, train, test, seed):
    """Accuracy and bytes of the files of one student."""
    keras.utils.set_random_seed(seed)
    student, calibration = build(), train[0][:500]
    fit(student, teacher, train, FLAGS.epochs - FLAGS.aware, 5e-3)
    aware = {
        bits: quantization.quantize_aware(student, calibration, weight_bits=bits) for bits in (8, 4)
    }
    before = quantization.quantize_aware(folded(student), calibration)
    for model in (student, aware[8], aware[4], before):
        fit(model, teacher, train, FLAGS.aware, 2e-3, freeze=model is not student)
    files = (
        tflite.convert(student),
        tflite.convert(student, quantization="int8", io="int8", calibration=calibration),
        tflite.convert(aware[8], io="int8"),
        tflite.convert(aware[4], io="int8"),
        tflite.convert(before, io="int8"),
    )
    return {
        column: {"accuracy": accuracy(file, test), "bytes": len(file.tflite)}
        for column, file in zip(COLUMNS, files, strict=True)
    }


def table(results):
    """Mean and standard deviation over seeds, in percent; bytes below."""
    lines = [
        f"| student | trained | {' | '.join(COLUMNS)} |",
        "| --- | --- |" + " --- |" * len(COLUMNS),
    ]
    for name, by_objective in results["students"].items():
        for objective, runs in by_objective.items():
            cells = []
            for column in COLUMNS:
                values = [100 * run[column]["accuracy"] for run in runs]
                deviation = np.std(values, ddof=1) if len(values) > 1 else 0
                cells.append(f"{np.mean(values):.2f} ± {deviation:.2f}")
            lines.append(f"| {name} | {objective} | {' | '.join(cells)} |")
        sizes = [f"{runs[0][column]['bytes']:,} bytes" for column in COLUMNS]
        lines.append(f"| {name} | size of the file | {' | '.join(sizes)} |")
    return "\n".join(lines)


def write(results):
    """Writes JSON and Markdown, and puts the table into the guide."""
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    (folder / "quantization.json").write_text(json.dumps(results, indent=1) + "\n")
    text = (
        f"{table(results)}\n\nTest accuracy in percent, mean ± standard deviation over "
        f"{results['seeds']} seeds, of files in LiteRT on 10,000 images; {results['train']:,} "
        f"training images, {results['epochs']} epochs, of which {results['aware']} aware. "
        f"Teacher: {100 * results['teacher']['accuracy']:.2f}. "
        f"`python benchmarks/quantization.py --seeds={results['seeds']}`, "
        f"{results['cpu_seconds'] / 60:.0f} minutes of one CPU core.\n"
    )
    (folder / "quantization.md").write_text(f"# What quantization costs\n\n{text}")
    guide = HERE.parent / "docs" / "quantization.md"
    if guide.exists():
        before, rest = guide.read_text().split(BEGIN)
        guide.write_text(f"{before}{BEGIN}\n{text}{END}{rest.split(END)[1]}")


def main(_):
    begin = time.process_time()
    train, test = load(FLAGS.data, FLAGS.train)
    keras.utils.set_random_seed(0)
    teacher = convolutional((64, 128, 192))
    fit(teacher, None, train, FLAGS.teacher_epochs, 3e-3)
    teacher_accuracy = float(np.mean(np.argmax(teacher.predict(test[0], verbose=0), -1) == test[1]))
    students = {"convolutional": convolutional, "depthwise": depthwise}
    results = {
        "seeds": FLAGS.seeds,
        "train": FLAGS.train,
        "epochs": FLAGS.epochs,
        "aware": FLAGS.aware,
        "machine": platform.processor() or platform.machine(),
        "versions": {"keras": keras.__version__, "keras_distill": keras_distill.__version__},
        "teacher": {"accuracy": teacher_accuracy, "parameters": teacher.count_params()},
        "students": {name: {"labels": [], "distilled": []} for name in students},
    }
    for seed in range(FLAGS.seeds):
        for name, build in students.items():
            for objective in ("labels", "distilled"):
                guide = teacher if objective == "distilled" else None
                run = measure(build, guide, train, test, seed)
                results["students"][name][objective].append({"seed": seed, **run})
                shown = {column: round(100 * run[column]["accuracy"], 2) for column in COLUMNS}
                print(seed, name, objective, shown, flush=True)
    results["cpu_seconds"] = round(time.process_time() - begin)
    write(results)


if __name__ == "__main__":
    app.run(main)
