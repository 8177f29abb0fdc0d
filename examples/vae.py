"""Draw clothes on a phone: the decoder of a variational autoencoder, large to small.

A small decoder trained with an encoder of its own learns to repeat real images from their codes.
Distilled, it learns from as many codes as one likes, drawn as an app will draw them, what the large
decoder makes of them; and the teacher's encoder says what it sees in both drawings.

    python examples/vae.py fashion_mnist models drawn.png
"""

import sys

import clothes
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import keras_distill
from keras_distill import generators

LATENTS, BATCH_SIZE = 16, 64
LARGE, SMALL = (64, 32, 16), (16, 12, 6)
SEEN = ["seen_16", "seen_32"]
LESS_IS_BETTER = True


def encoder():
    """Mean and log-variance of an image's code."""
    image = x = keras.Input(clothes.SHAPE)
    for width in (16, 32, 64):
        x = layers.Conv2D(width, 4, 2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU(name=f"seen_{width}")(x)
    return keras.Model(image, layers.Dense(2 * LATENTS)(layers.Flatten()(x)), name="encoder")


class Code(layers.Layer):
    """Draws a code, and adds its divergence from the standard normal to the loss."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, x):
        mean, log_variance = ops.split(x, 2, axis=-1)
        divergence = (ops.exp(log_variance) + ops.square(mean) - 1 - log_variance) / 2
        self.add_loss(self.weight * ops.mean(ops.sum(divergence, axis=-1)))
        return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean))


def squared_error(image, drawn):
    return ops.sum(ops.square(image - drawn), axis=(1, 2, 3))


def autoencode(widths, weight, images, steps):
    """An encoder and the decoder that was trained with it, as one model without the noise."""
    encodes, decodes = encoder(), clothes.drawing_network(LATENTS, *widths)
    model = keras.Model(encodes.input, decodes(Code(weight)(encodes.output)))
    rates = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    model.compile(keras.optimizers.Adam(rates), squared_error)
    data = tf.data.Dataset.from_tensor_slices((images, images)).shuffle(len(images)).repeat()
    model.fit(data.batch(BATCH_SIZE), steps_per_epoch=steps, verbose=2)
    image = keras.Input(clothes.SHAPE)
    return keras.Model(image, decodes(encodes(image)[:, :LATENTS]))


def main(folder, models, output=None, seed=0, steps=2000, rounds=5000):
    """Fréchet distance to real images, precision and recall by model, the file's bytes, errors."""
    keras.utils.set_random_seed(seed)
    images = clothes.images(folder)[0][:50_000]  # On the others, settings were chosen.
    large = clothes.kept(models, "vae", autoencode, LARGE, 1.0, images, rounds)
    small = autoencode(SMALL, 0.5, images, steps)
    encodes, decodes = large.get_layer("encoder"), large.layers[-1]
    student = clothes.drawing_network(LATENTS, *SMALL)
    losses = [keras_distill.Match(keras.losses.MeanAbsoluteError(), "image")]
    losses += [
        keras_distill.Match(keras_distill.losses.Hint(), place, weight=10.0) for place in SEEN
    ]
    both = (generators.judged(model, encodes, SEEN) for model in (student, decodes))
    clothes.distill(*both, losses, steps)

    # An app draws the codes from a seed, too.
    codes = np.random.default_rng(seed).normal(size=(5000, LATENTS)).astype("float32")
    artifact = keras_distill.tflite.convert(student, "android", "int8", calibration=codes[:500])
    draws = {"teacher": decodes, "student alone": small.layers[-1], "student distilled": student}
    found = clothes.results(folder, models, draws, artifact, codes, output)

    real = clothes.images(folder, "test")[0]
    image = keras.Input(clothes.SHAPE)
    distilled = keras.Model(image, student(encodes(image)[:, :LATENTS]))
    whole = {"teacher": large, "student alone": small, "student distilled": distilled}
    for name, model in whole.items():
        error = np.square(model.predict(real, verbose=0) - real).mean()
        found[f"{name}: squared error of repeated images"] = float(error)
    return found


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
