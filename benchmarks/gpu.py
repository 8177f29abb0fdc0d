"""Seconds of a training step on JAX against a hand-written one and `keras.distillation`.

    KERAS_BACKEND=jax python benchmarks/gpu.py

A ResNet-50 teaches a ResNet-18 on images of noise in bfloat16, on the first device of JAX. In
turns, on the same batches, it times

- floor: teacher, student, the same losses and the update in one function of JAX, in a plain loop;
- Distiller: `keras_distill.Distiller`, by `fit`;
- Distiller, stored: the same, with the teacher's answers computed before;
- keras.distillation: Keras' own, with the same losses, by `fit`.

Prints seconds a step, images a second, and the median over rounds of the ratios to the floor. On
a GPU it writes `benchmarks/results/gpu.json`; `--small` makes models that a CPU runs in a minute.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import json

import jax
import keras
import numpy as np
from absl import app, flags
from common import RESULTS, in_turns, median_ratio
from keras import layers

import keras_distill
from keras_distill import _markdown
from keras_distill._files import write_text

FLAGS = flags.FLAGS
flags.DEFINE_bool("small", False, "Small models, images and batches.")
flags.DEFINE_integer("rounds", 5, "Rounds that count.")
flags.DEFINE_integer("steps", 20, "Steps of a round.")
flags.DEFINE_integer("batch_size", 128, "Images of a batch.")

TEMPERATURE, ALPHA = 4.0, 0.1
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def resnet18(size, widths, classes):
    """arXiv:1512.03385, table 1."""
    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(widths[0], 7, 2, "same", use_bias=False)(x)
    x = layers.MaxPooling2D(3, 2, "same")(_normalized(x))
    for stage, width in enumerate(widths):
        for block in range(2):
            strides = 2 if stage and not block else 1
            y = layers.Conv2D(width, 3, strides, "same", use_bias=False)(x)
            y = layers.Conv2D(width, 3, 1, "same", use_bias=False)(_normalized(y))
            if strides == 2:
                x = layers.BatchNormalization()(layers.Conv2D(width, 1, strides, use_bias=False)(x))
            x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization()(y)]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(classes, dtype="float32")(x), name="student")


def _normalized(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


def models():
    """Student and teacher, and the shape of a sample."""
    keras.utils.set_random_seed(0)
    if FLAGS.small:
        return resnet18(16, (4,), 10), resnet18(16, (8,), 10), (16, 16, 3)
    teacher = keras.applications.ResNet50(weights=None, classifier_activation=None)
    return resnet18(224, (64, 128, 256, 512), 1000), teacher, (224, 224, 3)


# Ways to train. Each gives a function that runs the steps of a round.


def floor(x, y):
    """What a user of JAX would write by hand: nothing is reported, nothing is checked."""
    student, teacher, _ = models()
    optimizer = keras.optimizers.SGD(0.01, momentum=0.9)
    optimizer.build(student.trainable_variables)

    @jax.jit
    def step(state, fixed, x, y):
        trainable, changing, of_optimizer = state
        answer, _ = teacher.stateless_call(*fixed, x, training=False)
        log_p = jax.nn.log_softmax(answer.astype("float32") / TEMPERATURE)

        def loss_of(trainable):
            logits, after = student.stateless_call(trainable, changing, x, training=True)
            log_q = jax.nn.log_softmax(logits / TEMPERATURE)
            soft = TEMPERATURE**2 * (jax.numpy.exp(log_p) * (log_p - log_q)).sum(-1).mean()
            return ALPHA * CROSS_ENTROPY(y, logits) + (1 - ALPHA) * soft, after

        (_, changing), gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        trainable, of_optimizer = optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return trainable, changing, of_optimizer

    def values(variables):
        return [variable.value for variable in variables]

    fixed = values(teacher.trainable_variables), values(teacher.non_trainable_variables)
    state = [
        values(student.trainable_variables),
        values(student.non_trainable_variables),
        values(optimizer.variables),
    ]

    def run():
        for start in range(0, len(x), FLAGS.batch_size):
            rows = slice(start, start + FLAGS.batch_size)
            state[:] = step(tuple(state), fixed, x[rows], y[rows])
        jax.block_until_ready(state)

    return run


def by_fit(model, x, y):
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), CROSS_ENTROPY)
    options = {"batch_size": FLAGS.batch_size, "shuffle": False, "verbose": 0}
    return lambda: model.fit(x, y, **options)


def soft_targets():
    return keras_distill.losses.SoftTargets(TEMPERATURE)


def distiller(x, y):
    student, teacher, _ = models()
    return by_fit(keras_distill.Distiller(student, teacher, soft_targets(), ALPHA), x, y)


def stored(x, y):
    student, teacher, _ = models()
    answers = teacher.predict(x, batch_size=FLAGS.batch_size, verbose=0)
    arrays = keras_distill.teachers.Arrays(answers)
    return by_fit(
        keras_distill.Distiller(student, arrays, soft_targets(), ALPHA), arrays.attach(x), y
    )


def keras_distillation(x, y):
    student, teacher, _ = models()
    # As an instance: the string "kl_divergence" would compare raw logits.
    loss = keras.distillation.LogitsDistillation(TEMPERATURE, loss=keras.losses.KLDivergence())
    made = keras.distillation.Distiller(
        teacher=teacher, student=student, distillation_losses=loss, student_loss_weight=ALPHA
    )
    return by_fit(made, x, y)


WAYS = {
    "floor": floor,
    "Distiller": distiller,
    "Distiller, stored": stored,
    "keras.distillation": keras_distillation,
}


def main(_):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    if FLAGS.small:
        FLAGS.batch_size, FLAGS.steps = min(FLAGS.batch_size, 16), min(FLAGS.steps, 4)
    student, _, shape = models()
    rng = np.random.default_rng(0)
    count = FLAGS.batch_size * FLAGS.steps
    x = rng.standard_normal((count, *shape), "float32")
    y = rng.integers(0, student.output_shape[-1], count).astype("int32")
    times = in_turns({name: make(x, y) for name, make in WAYS.items()}, FLAGS.rounds)
    rows = [
        {
            "way": name,
            "seconds a step": float(np.median(seconds)) / FLAGS.steps,
            "images a second": count / float(np.median(seconds)),
            "over floor": median_ratio(seconds, times["floor"]),
        }
        for name, seconds in times.items()
    ]
    device = jax.devices()[0]
    print(f"{device.device_kind}, {FLAGS.batch_size} images a batch, bfloat16")
    cells = [[f"{x:.4g}" if isinstance(x, float) else x for x in row.values()] for row in rows]
    print(_markdown.table(list(rows[0]), cells))
    if device.platform == "gpu" and not FLAGS.small:
        found = {"device": device.device_kind, "batch_size": FLAGS.batch_size, "rows": rows}
        write_text(RESULTS / "gpu.json", json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
