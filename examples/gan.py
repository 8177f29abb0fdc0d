"""Draw clothes on a phone: the generator of a GAN, large to small.

A small generator trained against a discriminator plays a long game. Distilled, it has no opponent:
it knows for each vector what the large generator drew (arXiv:1902.00159), and copies that.

    python examples/gan.py fashion_mnist models drawn.png
"""

import sys

import clothes
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import keras_distill

LATENTS, BATCH_SIZE = 32, 64
LARGE, SMALL = (64, 32, 16), (16, 12, 6)
LESS_IS_BETTER = True


def discriminator():
    """A logit: how likely an image is real and not drawn."""
    image = x = keras.Input(clothes.SHAPE)
    for width in (16, 32, 64):
        x = layers.Conv2D(width, 4, 2, padding="same")(x)
        x = layers.LeakyReLU(0.2)(x)
    return keras.Model(image, layers.Dense(1)(layers.Dropout(0.3)(layers.Flatten()(x))))


class Game(keras.Model):
    """A generator against a discriminator, with the loss that doesn't saturate."""

    def __init__(self, generator, discriminator, steps):
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        rates = keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.1)
        average = {"use_ema": True, "ema_momentum": 1 - 15 / steps}
        self.draws = keras.optimizers.Adam(rates, beta_1=0.5, **average)
        self.tells = keras.optimizers.Adam(rates, beta_1=0.5)

    def train_step(self, real):
        with tf.GradientTape() as tape:
            missed = ops.mean(ops.softplus(-self.discriminator(real, training=True)))
            loss = missed + ops.mean(ops.softplus(self.judged_drawings()))
        weights = self.discriminator.trainable_variables
        self.tells.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            fooled = ops.mean(ops.softplus(-self.judged_drawings()))
        weights = self.generator.trainable_variables
        self.draws.apply(tape.gradient(fooled, weights), weights)
        return {"discriminator": loss, "generator": fooled}

    def judged_drawings(self):
        drawn = self.generator(tf.random.normal((BATCH_SIZE, LATENTS)), training=True)
        return self.discriminator(drawn, training=True)


def play(widths, images, steps):
    """A generator and the discriminator that it was trained against, as one model."""
    generator, judge = clothes.drawing_network(LATENTS, *widths), discriminator()
    game = Game(generator, judge, steps)
    game.compile()
    data = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images)).repeat()
    game.fit(data.batch(BATCH_SIZE), steps_per_epoch=steps, verbose=2)
    game.draws.finalize_variable_values(generator.trainable_variables)
    return keras.Model(generator.input, judge(generator.output))


def main(folder, models, output=None, seed=0, steps=600, rounds=3000):
    """Fréchet distance to real images, precision and recall by model, and the file's bytes."""
    keras.utils.set_random_seed(seed)
    images = clothes.images(folder)[0][:50_000]  # On the others, settings were chosen.
    game = clothes.kept(models, "gan", play, LARGE, images, rounds)
    alone = play(SMALL, images, steps)
    teacher, alone = (keras.Model(x.input, x.layers[-2].output) for x in (game, alone))
    student = clothes.drawing_network(LATENTS, *SMALL)
    # Without an opponent, a step takes two thirds of the time.
    clothes.distill(student, teacher, keras.losses.MeanAbsoluteError(), 3 * steps // 2)

    # An app draws them from a seed, too.
    vectors = np.random.default_rng(seed).normal(size=(5000, LATENTS)).astype("float32")
    artifact = keras_distill.tflite.convert(student, "android", "int8", calibration=vectors[:500])
    networks = {"teacher": teacher, "student alone": alone, "student distilled": student}
    return clothes.results(folder, models, networks, artifact, vectors, output)


if __name__ == "__main__":
    print(main(*sys.argv[1:4]))
