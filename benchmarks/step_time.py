"""Seconds of a training step against the peers' on this machine, as ratios in one run.

    python benchmarks/step_time.py

For three pairs of models (tiny: dense layers, where only overhead counts; small: ResNet-56 teaching
ResNet-8 on 32x32 images; wide: dense layers of 1,024 to 2,048 units), for outputs alone and for
outputs with two layers compared, with and without XLA, it times

- plain: the student alone, by `fit`;
- floor: a hand-written `tf.function` with teacher, student and the same losses, and nothing else;
- Distiller: `keras_distill.Distiller`, by `fit`;
- Distiller x4: the same, compiled with `steps_per_execution=4`;
- keras.distillation: Keras' own, with the same losses, by `fit`;
- keras.io: the distiller of Keras' example (outputs alone), by `fit`.

All run in turns on the same batches of noise; a ratio is the median over rounds of the ratios
within a round. Then, for the small pair: an epoch with its validation (a fifth as many images);
stored answers to four augmented views of each image against a floor that augments and asks the
teacher; the time of the import; the peak memory.

Writes `benchmarks/results/step_time.json`, and its tables into `docs/performance.md`.
"""

import os
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from common import RESULTS, in_turns, insert, measure, peak_memory, ratios, steady
from keras import layers
from pictures import draw

import keras_distill
from keras_distill import _markdown

FLAGS = flags.FLAGS
flags.DEFINE_multi_string("part", [], "A part to measure anew; the others keep their results.")
flags.DEFINE_integer("rounds", 9, "Rounds that count.")
flags.DEFINE_string("walk", "", "Train one way for a few steps and print the peak memory.")

TEMPERATURE, ALPHA = 4.0, 0.1
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Shape of a sample, batch size, steps in an epoch.
PAIRS = {
    "tiny": ((16,), 32, 1500),
    "small": ((32, 32, 3), 32, 12),
    "wide": ((256,), 64, 60),
}


# Models.


def dense(shape, widths, name):
    x = inputs = keras.Input(shape)
    for number, width in enumerate(widths[:-1], start=1):
        x = layers.Dense(width, activation="relu", name=f"hidden{number}")(x)
    # The two last hidden layers are those that are compared.
    first, second = f"hidden{len(widths) - 2}", f"hidden{len(widths) - 1}"
    return keras.Model(inputs, layers.Dense(widths[-1])(x), name=name), (first, second)


def resnet(shape, blocks, name):
    """ResNet of 6 `blocks` + 2 layers for small images (arXiv:1512.03385, section 4.2)."""
    x = inputs = keras.Input(shape)
    x = _normalized(layers.Conv2D(16, 3, padding="same", use_bias=False)(x))
    for stage, width in enumerate((16, 32, 64), start=1):
        for block in range(blocks):
            strides = 2 if stage > 1 and block == 0 else 1
            y = layers.Conv2D(width, 3, strides, "same", use_bias=False)(x)
            y = layers.Conv2D(width, 3, 1, "same", use_bias=False)(_normalized(y))
            y = layers.BatchNormalization()(y)
            if strides == 2:
                x = layers.Conv2D(width, 1, strides, use_bias=False)(x)
            last = block == blocks - 1
            x = layers.ReLU(name=f"stage{stage}" if last else None)(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name=name), ("stage2", "stage3")


def _normalized(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


def models(pair):
    """Student, teacher, and the names of two layers of each that have one shape."""
    keras.utils.set_random_seed(0)
    shape = PAIRS[pair][0]
    if pair == "small":
        (student, taps), (teacher, teacher_taps) = (
            resnet(shape, blocks, name) for blocks, name in ((1, "student"), (9, "teacher"))
        )
    else:
        student_widths, teacher_widths = {
            "tiny": ((16, 16, 10), (64, 16, 16, 10)),
            "wide": ((1024, 1024, 10), (2048, 2048, 1024, 1024, 10)),
        }[pair]
        student, taps = dense(shape, student_widths, "student")
        teacher, teacher_taps = dense(shape, teacher_widths, "teacher")
    return student, teacher, list(zip(taps, teacher_taps, strict=True))


# Ways to train. Each gives a function that trains on a dataset once.


def by_fit(model, jit, at_once=1, **options):
    model.compile("adam", CROSS_ENTROPY, jit_compile=jit, steps_per_execution=at_once)
    return lambda data: model.fit(data, verbose=0, **options)


def plain(pair, has_taps, jit):
    return by_fit(models(pair)[0], jit)


def distiller(pair, has_taps, jit, **options):
    student, teacher, taps = models(pair)
    losses = [keras_distill.losses.SoftTargets(TEMPERATURE)]
    for ours, theirs in taps if has_taps else ():
        mse = keras.losses.MeanSquaredError()
        losses.append(keras_distill.Match(mse, student=ours, teacher=theirs))
    return by_fit(keras_distill.Distiller(student, teacher, losses, ALPHA), jit, **options)


def four_at_once(pair, has_taps, jit):
    return distiller(pair, has_taps, jit, at_once=4)


def keras_distillation(pair, has_taps, jit, **options):
    student, teacher, taps = models(pair)
    # As an instance: the string "kl_divergence" would compare raw logits.
    divergence = keras.losses.KLDivergence()
    losses = [keras.distillation.LogitsDistillation(TEMPERATURE, loss=divergence)]
    for ours, theirs in taps if has_taps else ():
        losses.append(
            keras.distillation.FeatureDistillation(
                keras.losses.MeanSquaredError(),
                teacher_layer_name=theirs,
                student_layer_name=ours,
            )
        )
    model = keras.distillation.Distiller(
        teacher, student, losses, student_loss_weight=ALPHA
    )  # fmt: skip
    return by_fit(model, jit, **options)


class Example(keras.Model):
    """A distiller after the example "Knowledge Distillation" on keras.io: its `compute_loss`."""

    def __init__(self, student, teacher):
        super().__init__()
        self.student, self.teacher = student, teacher
        self.divergence = keras.losses.KLDivergence()

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        said = self.teacher(x, training=False)
        soft = self.divergence(
            keras.ops.softmax(said / TEMPERATURE, axis=1),
            keras.ops.softmax(y_pred / TEMPERATURE, axis=1),
        )
        return ALPHA * CROSS_ENTROPY(y, y_pred) + (1 - ALPHA) * soft * TEMPERATURE**2

    def call(self, x):
        return self.student(x)


def keras_io(pair, has_taps, jit, **options):
    student, teacher, _ = models(pair)
    teacher.trainable = False
    return by_fit(Example(student, teacher), jit, **options)


def hand_written(pair, has_taps, jit):
    """The floor: one `tf.function`, no logs, no callbacks."""
    student, teacher, taps = models(pair)
    taps = taps if has_taps else []
    student, teacher = (
        keras.Model(
            model.inputs,
            [model.output, *(model.get_layer(names[side]).output for names in taps)],
        )
        for side, model in enumerate((student, teacher))
    )
    optimizer = keras.optimizers.Adam()
    optimizer.build(student.trainable_variables)

    @tf.function(jit_compile=jit, reduce_retracing=True)
    def step(x, y):
        said, *features = keras.tree.flatten(teacher(x, training=False))
        with tf.GradientTape() as tape:
            logits, *own = keras.tree.flatten(student(x, training=True))
            labels = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
            log_p = tf.nn.log_softmax(said / TEMPERATURE)
            log_q = tf.nn.log_softmax(logits / TEMPERATURE)
            soft = tf.reduce_sum(tf.exp(log_p) * (log_p - log_q), axis=-1)
            rest = TEMPERATURE**2 * tf.reduce_mean(soft)
            for theirs, ours in zip(features, own, strict=True):
                rest += tf.reduce_mean(tf.square(theirs - ours))
            loss = ALPHA * tf.reduce_mean(labels) + (1 - ALPHA) * rest
        variables = student.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def train(data):
        for x, y in data:
            step(x, y)

    return train


WAYS = {
    "plain": plain,
    "floor": hand_written,
    "Distiller": distiller,
    "Distiller x4": four_at_once,
    "keras.distillation": keras_distillation,
    "keras.io": keras_io,
}


# Timing.


def summary(times, base):
    """Median seconds, and how each compares with `base`: the median of ratios and their spread."""
    return {
        name: {
            "seconds": statistics.median(seconds),
            f"over {base}": statistics.median(ratios(seconds, times[base])),
            "quartiles": statistics.quantiles(ratios(seconds, times[base]), n=4)[::2],
        }
        for name, seconds in times.items()
    }


def noise(pair, samples):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((samples, *PAIRS[pair][0])).astype("float32")
    return x, generator.integers(0, 10, samples).astype("int32")


def repeated(pair, steps):
    """One batch, again and again: reading data takes no time."""
    batch = noise(pair, PAIRS[pair][1])
    return steady(tf.data.Dataset.from_tensors(batch).repeat(steps))


def steps(pair, has_taps, jit):
    """Seconds of an epoch of steps."""
    data = repeated(pair, PAIRS[pair][2])
    names = [name for name in WAYS if not (has_taps and name == "keras.io")]
    ways = {name: WAYS[name](pair, has_taps, jit) for name in names}
    functions = {name: lambda way=way: way(data) for name, way in ways.items()}
    result = summary(in_turns(functions, FLAGS.rounds), "floor")
    for row in result.values():
        row["seconds"] /= PAIRS[pair][2]
    return result


def with_validation(has_taps):
    """Seconds of an epoch and its validation, over that of the `Distiller`."""
    data, validation = repeated("small", 10), repeated("small", 2)
    names = ["Distiller", "keras.distillation", *([] if has_taps else ["keras.io"])]
    functions = {}
    for name in names:
        way = WAYS[name]("small", has_taps, False, validation_data=validation)
        functions[name] = lambda way=way: way(data)
    return summary(in_turns(functions, FLAGS.rounds), "Distiller")


def augment(x, seed):
    """A random crop and flip."""
    x = tf.image.pad_to_bounding_box(x, 4, 4, 40, 40)
    x = tf.image.stateless_random_crop(x, (32, 32, 3), seed)
    return tf.image.stateless_random_flip_left_right(x, seed)


def stored(views=4, samples=1536):
    """A floor that augments and asks the teacher, against answers to augmented views on disk.

    Epochs are longer than elsewhere: TensorFlow prepares a pipeline's functions anew for each.
    """
    _, teacher, _ = models("small")
    x, y = noise("small", samples)
    examples = steady(tf.data.Dataset.from_tensor_slices((x, y)))
    batch = PAIRS["small"][1]
    seeds = tf.data.Dataset.random(seed=1).batch(2)

    def view(example, seed):
        return augment(example[0], seed), example[1]

    live = tf.data.Dataset.zip(examples.shuffle(samples), seeds).map(view)
    live = live.batch(batch).prefetch(2)
    floor = hand_written("small", False, False)
    with tempfile.TemporaryDirectory() as folder:
        answers = keras_distill.teachers.store(
            teacher, examples, folder, views=views, augment=augment, verbose=0
        )
        model = keras_distill.Distiller(
            models("small")[0], answers, keras_distill.losses.SoftTargets(TEMPERATURE), ALPHA
        )
        train = by_fit(model, False)
        data = answers.attach(examples).shuffle(samples).batch(batch).prefetch(2)
        functions = {
            "floor, augmenting": lambda: floor(live),
            f"Distiller, {views} stored views": lambda: train(data),
        }
        rows = summary(in_turns(functions, FLAGS.rounds), "floor, augmenting")
        return {**rows, "steps in an epoch": samples // batch}


def import_times():
    """Seconds that new processes take to import Keras on TensorFlow, and us behind it."""
    code = (
        "import time; start = time.perf_counter(); import keras; middle = time.perf_counter(); "
        "import keras_distill; print(middle - start, time.perf_counter() - middle)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    times = []
    for _ in range(FLAGS.rounds):
        command = [sys.executable, "-c", code]
        said = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE).stdout
        times.append([float(seconds) for seconds in said.split()])
    before, behind = (statistics.median(seconds) for seconds in zip(*times, strict=True))
    return {"keras": before, "keras_distill behind it": behind}


def memory_by_way():
    """MiB that a process needs that trains the small pair, by way; medians of five."""

    def walk(way):
        command = [sys.executable, __file__, f"--walk={way}"]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)

    return {way: statistics.median(walk(way) for _ in range(5)) for way in ("floor", "Distiller")}


# What is reported.


def table(results):
    """The results as Markdown."""
    rounds = results["settings"]["rounds"]
    rows = []
    for case in results["steps"]:
        ways = {name: f"{row['over floor']:.2f}" for name, row in case["ways"].items()}
        ways["floor"] = f"1 ({1000 * case['ways']['floor']['seconds']:.3g} ms)"
        cells = [ways.get(name, "") for name in WAYS]
        title = case["pair"] + ", two layers" * case["has_taps"] + ", XLA" * case["jit"]
        rows.append([title, *cells])
    ratios = []
    for losses, ways in results["epoch and validation"].items():
        for name in list(ways)[1:]:
            title = f"epoch and validation, {losses}: {name} over Distiller"
            ratios.append((title, f"{ways[name]['over Distiller']:.2f}"))
    stored_answers = results["stored answers"]
    name, row = list(stored_answers.items())[1]
    title = (
        f"floor that augments, over {name}, epochs of {stored_answers['steps in an epoch']} steps"
    )
    ratios.append((title, f"{1 / row['over floor, augmenting']:.2f}"))
    memory = results["peak memory, MiB"]
    ratio = memory["Distiller"] / memory["floor"]
    ratios.append(("peak memory of the process, Distiller over floor", f"{ratio:.3f}"))
    imports = results["import, seconds"]
    lines = [
        f"Seconds of a step, divided by those of the floor (medians of {rounds} rounds):",
        "",
        _markdown.table(["models", *WAYS], rows),
        "",
        "ResNet-56 teaching ResNet-8:",
        "",
        _markdown.table(["", "ratio"], ratios),
        "",
        f"`import keras_distill` takes {imports['keras_distill behind it']:.2f} s longer than "
        f"`import keras` ({imports['keras']:.1f} s).",
    ]
    return "\n".join(lines)


def all_steps():
    """Seconds of a step of every pair, with and without layers and XLA."""
    cases = []
    for pair in PAIRS:
        for has_taps in (False, True):
            for jit in (False, True):
                ways = steps(pair, has_taps, jit)
                cases.append({"pair": pair, "has_taps": has_taps, "jit": jit, "ways": ways})
                ratios = {name: round(row["over floor"], 3) for name, row in ways.items()}
                print(pair, "taps" * has_taps, "jit" * jit, ratios, flush=True)
                keras.backend.clear_session()
    return cases


PARTS = {
    "steps": all_steps,
    "epoch and validation": lambda: {
        "outputs": with_validation(False),
        "outputs, two layers": with_validation(True),
    },
    "stored answers": stored,
    "import, seconds": import_times,
    "peak memory, MiB": memory_by_way,
}


def main(_):
    if FLAGS.walk:
        WAYS[FLAGS.walk]("small", True, False)(repeated("small", 4))
        print(peak_memory())
        return
    settings = {"pairs": PAIRS, "rounds": FLAGS.rounds, "optimizer": "adam"}
    results = measure(RESULTS / "step_time.json", PARTS, settings, FLAGS.part)
    insert(table(results), "docs/performance.md", "step_time")
    draw("step_time", results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
