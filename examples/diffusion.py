"""Draw clothes by diffusion in 4 steps instead of 32 (progressive distillation, arXiv:2202.00512).

A denoiser draws well in many small steps, and badly in a few long ones. A copy of it learns to get
in one step where the original gets in two, and is the original of the next copy. What they denoise
meanwhile are real images with noise: nothing is drawn. In the end all 4 steps are one file.

    python examples/diffusion.py fashion_mnist models drawn.png
"""

import sys

import clothes
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import keras_distill
from keras_distill import generators

BATCH_SIZE = 64
LESS_IS_BETTER = True


def denoiser(fine=32, coarse=64):
    """A small U-Net of noisy images and times, which gives velocities."""
    mixed, times = keras.Input(clothes.SHAPE), keras.Input((1,))
    waves = ops.sin(times * np.float32([1.6, 1.6, 3.1, 3.1, 6.3, 6.3]) + np.float32([0, 1.6] * 3))
    clock = layers.Dense(64, activation="silu")(waves)

    def block(x, width, strides=1):
        x = layers.Conv2D(width, 3, strides, padding="same")(x)
        return layers.ReLU()(x + layers.Reshape((1, 1, width))(layers.Dense(width)(clock)))

    kept = block(layers.Conv2D(fine, 4, 2, padding="same")(mixed), fine)
    x = block(kept, coarse, strides=2)
    for _ in range(2):
        x = x + layers.Conv2D(coarse, 3, padding="same")(block(x, coarse))
    x = block(layers.Conv2DTranspose(fine, 2, 2)(x) + kept, fine)
    x = layers.Conv2DTranspose(1, 4, 2, padding="same")(x + block(x, fine))
    share = layers.Reshape((1, 1, 1))(layers.Dense(1)(clock))
    return keras.Model([mixed, times], x + share * mixed)


def batches(images, count):
    """Noisy images and times, spread evenly over so many of them, and the velocities."""

    def noisy(x):
        times = tf.random.uniform((BATCH_SIZE, 1), 1, count + 1, tf.int32) / count
        mixed, velocity = generators.noised(x, tf.random.normal(tf.shape(x)), times)
        return (mixed, times), velocity

    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images)).repeat()
    return data.batch(BATCH_SIZE, drop_remainder=True).map(noisy).prefetch(2)


def adam(rate, steps, momentum):
    rates = keras.optimizers.schedules.CosineDecay(rate, steps)
    return keras.optimizers.Adam(rates, use_ema=True, ema_momentum=momentum)


def train(images, steps):
    """A denoiser for any number of steps, trained without a teacher."""
    model = denoiser()
    model.compile(adam(2e-3, steps, 1 - 10 / steps), "mean_squared_error")
    model.fit(batches(images, 1000), epochs=10, steps_per_epoch=steps // 10, verbose=2)
    return model


def halve(teacher, images, count, steps):
    """A copy of a denoiser that draws in `count` steps what the denoiser draws in twice as many."""
    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    target, loss = generators.two_steps(teacher, count), keras.losses.MeanSquaredError()
    distiller = keras_distill.Distiller(student, target, loss, alpha=0.0)
    distiller.compile(adam(1e-3, steps, 1 - 4 / steps))
    data = batches(images, count).map(lambda inputs, _: (inputs,))  # No labels.
    distiller.fit(data, steps_per_epoch=steps, verbose=2)
    return student


def main(folder, models, output=None, seed=0, steps=400, rounds=10_000):
    """Fréchet distance to real images, precision and recall by model, and the file's bytes."""
    keras.utils.set_random_seed(seed)
    images = clothes.images(folder)[0][:50_000]  # On the others, settings were chosen.
    slow = student = clothes.kept(models, "denoiser", train, images, rounds)
    for count in (16, 8, 4):
        student = halve(student, images, count, steps)
    noise = np.random.default_rng(seed).normal(size=(2000, *clothes.SHAPE)).astype("float32")
    draws = {"teacher": (slow, 32), "student alone": (slow, 4), "student distilled": (student, 4)}
    draws = {name: generators.sampler(*which) for name, which in draws.items()}
    draw = draws["student distilled"]
    artifact = keras_distill.tflite.convert(draw, "android", "int8", calibration=noise[:200])
    return clothes.results(folder, models, draws, artifact, noise, output)


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
