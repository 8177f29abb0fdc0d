"""Semantic segmentation: finding and naming every pixel of clothes in scenes.

The scenes are made from Fashion-MNIST: three clothes at random places, later ones in front. Which
pixel belongs to which is known, as it is in any dataset of images and masks.

    python examples/segmentation.py
"""

import keras
import numpy as np
from keras import layers

import keras_distill

SIZE, CLASSES = 48, 11


def scenes(images, labels, count, seed):
    """Images of shape (48, 48, 1) and masks of shape (48, 48): 0 is background."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 40, (count, SIZE, SIZE)).astype("uint8")
    y = np.zeros((count, SIZE, SIZE), "uint8")
    for i in range(count):
        for j in rng.integers(len(images), size=3):
            top, left = rng.integers(SIZE - 28, size=2, endpoint=True)
            place = np.s_[i, top : top + 28, left : left + 28]
            inside = images[j] > 40
            x[place] = np.where(inside, images[j], x[place])
            y[place] = np.where(inside, labels[j] + 1, y[place])
    return x[..., None], y


def encoder_decoder(widths, name):
    """A U-Net: down to an eighth of the resolution and back, with connections across."""
    pixels = keras.Input((SIZE, SIZE, 1))
    x, across = layers.Rescaling(1 / 255)(pixels), []

    def block(x, width, strides=1):
        x = layers.SeparableConv2D(width, 3, strides, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    for width in widths:
        x = block(block(x, width, 2), width)
        across.append(x)
    for width, left in zip(widths[-2::-1], across[-2::-1], strict=True):
        x = layers.Concatenate()([layers.UpSampling2D()(x), left])
        x = block(x, width)
    x = layers.UpSampling2D(interpolation="bilinear")(layers.Conv2D(CLASSES, 1)(x))
    return keras.Model(pixels, x, name=name)


def main(seed=0, epochs=8, examples=3000, data_dir=None):
    """Trains a teacher, a student on masks, and the same student distilled, pixel by pixel.

    Returns:
        Mean intersection over union on scenes of test clothes, by model.
    """
    keras.utils.set_random_seed(seed)
    data = keras_distill.data.load("fashion_mnist", data_dir=data_dir)
    parts = []
    for dataset, count in ((data.train, examples), (data.test, examples // 6)):
        x, y = next(iter(dataset.take(5 * count).batch(5 * count)))
        parts.append(scenes(x.numpy()[..., 0], y.numpy(), count, seed))
    (x, y), (x_test, y_test) = parts
    score = {}

    def fit(title, model, student):
        steps = epochs * -(-len(x) // 32)
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        model.fit(x, y, batch_size=32, epochs=epochs, verbose=2)
        metric = keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False)
        metric.update_state(y_test, student.predict(x_test, verbose=0))
        score[title] = float(metric.result())

    teacher = encoder_decoder((24, 48, 96), "teacher")
    fit("teacher", teacher, teacher)
    student = encoder_decoder((6, 8, 12), "student")
    initial = student.get_weights()
    fit("student on labels", student, student)
    student.set_weights(initial)
    # A soft target for each pixel, and the same places of the picture for each class.
    losses = [keras_distill.losses.SoftTargets(2.0), keras_distill.losses.ChannelWise(4.0)]
    fit("student distilled", keras_distill.Distiller(student, teacher, losses, 0.5), student)
    return score


if __name__ == "__main__":
    print(main())
